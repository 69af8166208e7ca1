/** `npm run bench -- [--workload A,B] [--mode M,...] [--threads N,...] [--repeat R] [--json FILE]`: each workload beside the machine's limits of the same run. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { cpus, totalmem } from "node:os";
import { parseArgs } from "node:util";
import { modes, type Mode } from "../src/trace/entry.js";
import { LimitMeter, type Limits } from "./limits.js";
import { workloads, type Workload } from "./workloads.js";

interface Result {
  readonly workload: string;
  readonly mode: Mode;
  readonly threads: number;
  readonly medianMs: number;
  readonly rawMs: readonly number[];
  readonly firstMs: number;
  readonly limitMs: number;
  readonly shareOfLimit: number;
  readonly recompiles: number;
  readonly peers: Record<string, never>;
}

const { values: options } = parseArgs({
  options: {
    workload: { type: "string" },
    mode: { type: "string" },
    threads: { type: "string" },
    repeat: { type: "string" },
    json: { type: "string" },
  },
});

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] as number;

function chosen<T>(text: string | undefined, known: readonly T[], nameOf: (item: T) => string): readonly T[] {
  if (text === undefined) return known;
  return text.split(",").map((name) => {
    const found = known.find((item) => nameOf(item) === name);
    if (found === undefined) throw new Error(`unknown name "${name}"; there are: ${known.map(nameOf).join(", ")}`);
    return found;
  });
}

const limitMsOf = ({ gflop, weightBytes }: Workload, { fmaGflops, streamGBs }: Limits): number =>
  Math.max((gflop / fmaGflops) * 1000, weightBytes / streamGBs / 1e6);

async function measure(workload: Workload, mode: Mode, threads: number, repeat: number, meter: LimitMeter): Promise<Result> {
  const session = workload.open(mode, threads);
  const started = performance.now();
  await session.run();
  const firstMs = performance.now() - started;
  const rawMs: number[] = [];
  const limits: Limits[] = [];
  // The limits are measured between the runs, so that both see the same state of a shared machine.
  for (let round = 0; round < repeat; round++) {
    limits.push(meter.measure(threads, 2));
    const start = performance.now();
    await session.run();
    rawMs.push(performance.now() - start);
  }
  const limitMs = median(limits.map((limit) => limitMsOf(workload, limit)));
  const recompiles = session.recompiles();
  session.dispose();
  const medianMs = median(rawMs);
  return {
    workload: workload.name,
    mode,
    threads,
    medianMs,
    rawMs,
    firstMs,
    limitMs,
    shareOfLimit: limitMs / medianMs,
    recompiles,
    peers: {},
  };
}

const meter = new LimitMeter();
const repeat = Number(options.repeat ?? 7);
const threadCounts = (options.threads ?? String(cpus().length)).split(",").map(Number);
const limits: Record<string, Limits> = Object.fromEntries(threadCounts.map((threads) => [String(threads), meter.measure(threads, 10)]));
for (const [threads, limit] of Object.entries(limits))
  console.log(`limits, ${threads} threads: ${limit.fmaGflops.toFixed(0)} GFLOP/s, ${limit.streamGBs.toFixed(1)} GB/s`);
const results: Result[] = [];
for (const workload of chosen(options.workload, workloads, ({ name }) => name)) {
  for (const threads of threadCounts) {
    for (const mode of chosen(options.mode ?? "reduce-overhead", modes, (name) => name)) {
      const result = await measure(workload, mode, threads, repeat, meter);
      results.push(result);
      const { medianMs, rawMs, limitMs, shareOfLimit, firstMs } = result;
      console.log(
        `${workload.name.padEnd(14)} ${mode.padEnd(16)} ${threads} thr  median ${medianMs.toFixed(2)} ms  best ${Math.min(...rawMs).toFixed(2)}  first ${firstMs.toFixed(0)}  limit ${limitMs.toFixed(2)}  share ${(100 * shareOfLimit).toFixed(0)}%`,
      );
    }
  }
}
const report = {
  machine: { cpu: cpus()[0]?.model ?? "unknown", cores: cpus().length, memoryGiB: Math.round(totalmem() / 2 ** 30), isa: meter.machine },
  versions: { node: process.version },
  limits: { threads: limits },
  results,
};
if (options.json) {
  mkdirSync(dirname(options.json), { recursive: true });
  writeFileSync(options.json, JSON.stringify(report, null, 2) + "\n");
}
