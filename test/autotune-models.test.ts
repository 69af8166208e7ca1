/**
 * Toto 1.0, Toto 2.0 and Kronos under schedules that a search chose: the bits of reduce-overhead in a searching model, in the next one, and from a bundle.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Forecaster } from "../src/index.js";
import type { ForecastModel, ModelRequest, ModelSeriesAnswer } from "../src/models/model.js";
import type { ModelInspection } from "../src/models/inspection.js";
import { findCompiler } from "../src/runtime/native/compiler.js";
import type { Mode } from "../src/trace/entry.js";
import { runCli, temporaryFolder } from "./cli-harness.js";
import { bitsOf } from "./graph-harness.js";
import { loadTiny, makeCandles, request as candleRequest } from "./kronos-harness.js";
import { loadToto1, makeSeries } from "./toto1-harness.js";
import { loadToto2, requestOf } from "./toto2-harness.js";

const compiler = findCompiler(process.env);
if (!compiler) console.log("skipped: no C compiler on this machine");

type Tuned = ForecastModel & { inspect?(profile: boolean): ModelInspection };
type Schedules = ModelInspection["programs"][number]["specializations"][number]["schedules"];

const series = [makeSeries({ length: 200, seed: 1 }), makeSeries({ length: 70, seed: 2, stream: 1 })];
const models: Readonly<Record<string, { load: (mode: Mode) => Tuned; request: ModelRequest }>> = {
  "Toto 1.0": { load: (mode) => loadToto1({ mode }), request: { series, horizon: 40, samples: 9, seed: 3 } },
  "Toto 2.0": { load: (mode) => loadToto2({ mode }), request: requestOf(series, 70, { decodeBlockSize: 32 }) },
  Kronos: { load: (mode) => loadTiny({ mode }), request: candleRequest([makeCandles(1, 40, 3)], 3, 2) },
};

async function predict(
  load: (mode: Mode) => Tuned,
  mode: Mode,
  request: ModelRequest,
): Promise<{ answers: Uint32Array; schedules: Schedules }> {
  const model = load(mode);
  try {
    const answers = await model.predict(request);
    const every = answers.flatMap(({ mean, quantiles, paths }: ModelSeriesAnswer) => [
      ...mean,
      ...(quantiles?.values ?? []),
      ...(paths ?? []),
    ]);
    const bits = bitsOf(Float32Array.from(every.flatMap((values) => [...values]))) as Uint32Array;
    const programs = model.inspect?.(false)?.programs ?? [];
    return { answers: bits, schedules: programs.flatMap((program) => program.specializations.flatMap((one) => one.schedules)) };
  } finally {
    model.dispose();
  }
}

describe.skipIf(!compiler)("models in mode max-autotune", () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "tempograph-autotune-models-"));
    // A cache of its own: one that others fill may drop the libraries of the bundle while it is made.
    vi.stubEnv("TEMPOGRAPH_CACHE_DIR", join(folder, "cache"));
    // Long enough for the heaviest kernels of a tiny model; what is not reached keeps its usual schedule.
    vi.stubEnv("TEMPOGRAPH_AUTOTUNE_SECONDS", "2");
  });
  afterAll(() => {
    vi.unstubAllEnvs();
    rmSync(folder, { recursive: true, force: true });
  });

  test.each(Object.entries(models))("%s: the bits of reduce-overhead, searched and found again", async (_name, { load, request }) => {
    const want = await predict(load, "reduce-overhead", request);
    expect(want.answers.length).toBeGreaterThan(15);
    expect(want.schedules).toEqual([]);
    const first = await predict(load, "max-autotune", request);
    expect(first.answers).toEqual(want.answers);
    const searched = first.schedules.filter(({ source }) => source === "search" || source === "cache");
    expect(searched.length).toBeGreaterThan(0);
    const second = await predict(load, "max-autotune", request);
    expect(second.answers).toEqual(want.answers);
    const found = (shape: string): unknown => second.schedules.filter((one) => one.shape === shape).map(({ source }) => source);
    for (const { shape, candidates, source } of searched) if (candidates > 0 || source === "cache") expect(found(shape)).toContain("cache");
  });

  test("a bundle carries the chosen schedules, for the sizes it was made with and no others", async () => {
    const bundle = join(temporaryFolder(), "bundle");
    const load = (reference: string, options: Parameters<typeof Forecaster.load>[1]): Promise<Forecaster> =>
      Forecaster.load(reference, options);
    const model = "bundled:toto1-formula";
    const words = ["--mode", "max-autotune", "--context", "64", "--horizon", "40", "--samples", "4"];
    const made = await runCli(["compile", model, "--out", bundle, ...words], { load });
    expect(made.error).toMatch(/programs for \w+/);
    const inspected = await runCli(["inspect", bundle, "--json", ...words], { load });
    expect(inspected.error).toBe("");
    const { programs } = JSON.parse(inspected.out) as { programs: ModelInspection["programs"] };
    const sources = programs.flatMap((program) =>
      program.specializations.flatMap(({ schedules }) => schedules.map(({ source }) => source)),
    );
    // Prefill and decode; a class whose search kept the usual schedules is in the bundle as well.
    expect(sources).toEqual(["bundle", "bundle"]);
    expect(programs.every(({ milliseconds }) => milliseconds.search < 1000)).toBe(true);

    const text = await runCli(["inspect", bundle, "--mode", "max-autotune", "--context", "2048", "--horizon", "40", "--samples", "4"], {
      load,
    });
    expect(text.out).toContain("usual, because the bundle has no schedules for these sizes");
  });
});
