/**
 * `npm run bench -- [--workload A,B] [--mode M,...] [--threads N,...] [--repeat R] [--json FILE] [--start] [--curves]`: each workload beside the machine's limits of the same run. With --start also what
 * compiling costs in a fresh process and a step of a small loop outside its kernels, with --curves how cost grows. `--workload none` leaves the workloads out. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { cpus, totalmem } from "node:os";
import { parseArgs } from "node:util";
import { modes } from "../src/trace/entry.js";
import { measureCurves, type Curve } from "./curves.js";
import { unloadModel } from "./forecasts.js";
import { LimitMeter, type Limits } from "./limits.js";
import { measure, type Result } from "./measure.js";
import { installHint, peerPackages } from "./peers/installed.js";
import { peersOf, peerVersions, releasePeers } from "./peers/onnxruntime.js";
import { measureStart, type Start } from "./startup.js";
import { measureSteps, type StepCost } from "./steps.js";
import { workloads } from "./workloads.js";

const { values: options } = parseArgs({
  options: {
    workload: { type: "string" },
    mode: { type: "string" },
    threads: { type: "string" },
    repeat: { type: "string" },
    json: { type: "string" },
    start: { type: "boolean", default: false },
    curves: { type: "boolean", default: false },
  },
});

function chosen<T>(text: string | undefined, known: readonly T[], nameOf: (item: T) => string): readonly T[] {
  if (text === undefined) return known;
  if (text === "none") return [];
  return text.split(",").map((name) => {
    const found = known.find((item) => nameOf(item) === name);
    if (found === undefined) throw new Error(`unknown name "${name}"; there are: ${known.map(nameOf).join(", ")}`);
    return found;
  });
}

function printResult({
  workload,
  mode,
  threads,
  medianMs,
  rawMs,
  limitMs,
  bestLimitMs,
  shareOfLimit,
  firstMs,
  profile,
  peers,
}: Result): void {
  const columns = [
    workload.padEnd(19),
    mode.padEnd(15),
    `${threads} thr`,
    `median ${medianMs.toFixed(2)} ms`,
    `best ${Math.min(...rawMs).toFixed(2)}`,
    `first ${firstMs.toFixed(0)}`,
    `limit ${limitMs.toFixed(2)}`,
    `share ${(100 * shareOfLimit).toFixed(0)}%, best ${((100 * bestLimitMs) / Math.min(...rawMs)).toFixed(0)}%`,
    `outside kernels ${profile.outsideKernelsMicrosecondsPerProgramRun.toFixed(0)} us x ${profile.programRuns}, outside programs ${profile.outsideProgramsMs.toFixed(2)} ms`,
    ...Object.entries(peers).map(
      ([name, peer]) =>
        `${name} ${peer.medianMs.toFixed(2)} ms, ${(peer.medianMs / medianMs).toFixed(2)}x ours, difference ${peer.relativeDifference.toExponential(1)}`,
    ),
  ];
  console.log(columns.join("  "));
}

const meter = new LimitMeter();
const repeat = Number(options.repeat ?? 7);
const threadCounts = (options.threads ?? String(cpus().length)).split(",").map(Number);
for (const threads of threadCounts) {
  const { fmaGflops, streamGBs } = meter.measure(threads, 21);
  console.log(`limits, ${threads} threads: ${fmaGflops.toFixed(0)} GFLOP/s, ${streamGBs.toFixed(1)} GB/s`);
}
if (!peerPackages()) console.log(installHint);
const results: Result[] = [];

interface Extras {
  readonly start?: ReturnType<typeof measureStart>;
  readonly steps?: readonly StepCost[];
  readonly curves?: readonly Curve[];
}

/** Written after every result: what was measured is not lost when a long run ends early. */
function writeReport(file: string, extras: Extras): void {
  const report = {
    machine: { cpu: cpus()[0]?.model ?? "unknown", cores: cpus().length, memoryGiB: Math.round(totalmem() / 2 ** 30), isa: meter.machine },
    versions: { node: process.version, ...peerVersions() },
    limits: { threads: Object.fromEntries(threadCounts.map((threads): [string, Limits] => [String(threads), meter.best(threads)])) },
    results,
    ...extras,
  };
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, JSON.stringify(report, null, 2) + "\n");
}
for (const workload of chosen(options.workload, workloads, ({ name }) => name)) {
  for (const threads of threadCounts) {
    const peers = await peersOf(workload.name, threads);
    const measured = await measure(
      workload,
      chosen(options.mode ?? "reduce-overhead", modes, (name) => name),
      threads,
      repeat,
      meter,
      peers,
    );
    for (const peer of peers) await peer.dispose();
    results.push(...measured);
    if (options.json) writeReport(options.json, {});
    measured.forEach(printResult);
  }
}
await releasePeers();
unloadModel();
const curves = options.curves ? await measureCurves(threadCounts[0] as number, repeat) : undefined;
unloadModel();
const start = options.start ? measureStart() : undefined;
const steps: StepCost[] = [];
if (options.start) for (const threads of threadCounts) steps.push(await measureSteps(threads));
const printStart = (name: string, { deviceMs, compileMs, firstForecastExtraMs, kernelsCompiled, cacheHits }: Start): void =>
  console.log(
    `${name} start: device ${deviceMs.toFixed(0)} ms, compile ${compileMs.toFixed(0)} ms, first forecast ${firstForecastExtraMs.toFixed(0)} ms longer, ${kernelsCompiled} kernels compiled, ${cacheHits} from the cache`,
  );
if (start) for (const [name, one] of Object.entries(start)) printStart(name, one);
for (const { threads, launches, kernelsUs, blockingUs, offLoopUs } of steps)
  console.log(
    `a step of ${launches} launches, ${threads} threads: ${kernelsUs.toFixed(0)} us in kernels, outside ${blockingUs.toFixed(1)} us blocking, ${offLoopUs.toFixed(1)} us off the event loop`,
  );
if (options.json) writeReport(options.json, { ...(start ? { start, steps } : {}), ...(curves ? { curves } : {}) });
