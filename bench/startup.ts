/**
 * What compiling costs at the start: both Toto 1.0 programs at full size, in a process with an empty artifact cache and in one that finds it filled. As a program,
 * `node startup.js`, it is that process and prints one line of JSON.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openDevice } from "../src/trace/entry.js";
import { openForecast, unloadModel, wave } from "./forecasts.js";
import { timed } from "./measure.js";

export interface Start {
  /** Opening the device: the runtime library built or found. */
  readonly deviceMs: number;
  /** Tracing, lowering and building or finding the kernels of both programs. */
  readonly compileMs: number;
  /** First forecast minus a later one: what the first caller waits longer, weights not counted. */
  readonly firstForecastExtraMs: number;
  readonly kernelsCompiled: number;
  readonly cacheHits: number;
}

async function start(): Promise<Start> {
  let device = undefined as ReturnType<typeof openDevice>["device"] | undefined;
  const deviceMs = await timed(() => void ({ device } = openDevice("native", { threads: 2 })));
  const task = { name: "start", preset: "toto1-base", series: [wave(1, 512)], horizon: 128, samples: 0 };
  const session = openForecast(task, "reduce-overhead", 2);
  const firstMs = await timed(() => session.run());
  const laterMs = Math.min(await timed(() => session.run()), await timed(() => session.run()));
  const compileMs = session.compileMs?.() ?? 0;
  const { compiled, cacheHits } = (device as NonNullable<typeof device>).builds;
  unloadModel();
  return { deviceMs, compileMs, firstForecastExtraMs: firstMs - laterMs, kernelsCompiled: compiled, cacheHits };
}

const ownPath = fileURLToPath(import.meta.url);

/** Runs the two processes one after the other; the cache is a temporary folder. */
export function measureStart(): { readonly cold: Start; readonly warm: Start } {
  const folder = mkdtempSync(join(tmpdir(), "tempograph-bench-"));
  try {
    const environment = { ...process.env, TEMPOGRAPH_CACHE_DIR: join(folder, "cache") };
    const run = (): Start => JSON.parse(execFileSync(process.execPath, [ownPath], { env: environment, encoding: "utf8" })) as Start;
    return { cold: run(), warm: run() };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv[1] === ownPath) console.log(JSON.stringify(await start()));
