/**
 * Writes docs/comparison.md from a run on this machine: every key-value cache strategy and every mode beside each other, the log of a growing cache beside that of a
 * fixed one, and what one forecast records and replays. Needs dist/ and a C compiler. `node scripts/write-comparison.mjs [FILE]`
 */
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { formulaCheckpoint } from "../dist/models/formula/checkpoint.js";
import { Toto1Model } from "../dist/models/toto1/model.js";
import { onEvent, openDevice, printEvent } from "../dist/trace/entry.js";

const strategies = ["static", "paged", "dynamic", "functional", "host", "growing", "none"];
const modes = ["eager", "default", "reduce-overhead", "max-autotune"];
const samples = 32;
const steps = 16;
const rounds = 5;
const patch = 32;
const context = 1024;
const series = Float32Array.from({ length: context }, (_, t) => 20 + 5 * Math.sin(t / 7) + Math.sin(t / 50));
const request = { series: [{ values: [series], stream: 1 }], horizon: steps * patch, samples, seed: 3 };
const { device } = openDevice("native");

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
const table = (head, rows) =>
  [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");

/** One model's first forecast and `rounds` more, with its events, counts and memory. */
async function measure(options) {
  const events = [];
  const stop = onEvent((event) => events.push(event));
  const before = device.allocatedBytes;
  const model = Toto1Model.load("toto1-formula", formulaCheckpoint("toto1-formula", { seed: 1 }), openDevice("native"), options);
  try {
    const weights = device.allocatedBytes - before;
    const timed = async () => {
      const start = performance.now();
      const [answer] = await model.predict(request);
      return { milliseconds: performance.now() - start, answer };
    };
    const first = await timed();
    const firstReport = model.report();
    const firstEvents = events.slice();
    const later = [];
    for (let round = 0; round < rounds; round++) later.push((await timed()).milliseconds);
    return {
      answer: first.answer.paths[0],
      firstMs: first.milliseconds,
      laterMs: median(later),
      report: firstReport,
      lifeReport: model.report(),
      events: firstEvents,
      memory: device.allocatedBytes - before - weights,
      copied: model.cache.cacheCounters.copiedBytes / (rounds + 1),
    };
  } finally {
    stop();
    model.dispose();
  }
}

const sameBits = (a, b) => Buffer.from(a.buffer).equals(Buffer.from(b.buffer));

/** Runs that a mode or strategy of this version has; a refusal is a row of its own. */
async function measureAll(names, optionsOf) {
  const results = new Map();
  for (const name of names) {
    try {
      await measure(optionsOf(name)); // kernels into the artifact cache
      results.set(name, await measure(optionsOf(name)));
    } catch (error) {
      console.error(`${name}: left out (${error instanceof Error ? error.message : error})`);
    }
  }
  return results;
}

const byStrategy = await measureAll(strategies, (kvCache) => ({ mode: "reduce-overhead", kvCache }));
const byMode = await measureAll(modes, (mode) => ({ mode, kvCache: "static" }));
const fixed = byStrategy.get("static");

const strategyRows = [...byStrategy].map(([name, run]) => [
  `\`${name}\``,
  sameBits(run.answer, fixed.answer) ? "yes" : "no: another rotary centre",
  run.report.compiles,
  run.report.recompiles,
  run.report.graphBreaks,
  run.report.fallbacks,
  run.firstMs.toFixed(0),
  run.laterMs.toFixed(0),
  megabytes(run.memory),
  megabytes(run.copied),
]);
const modeRows = [...byMode].map(([name, run]) => [
  `\`${name}\``,
  sameBits(run.answer, fixed.answer) ? "yes" : "NO",
  run.report.compiles,
  run.lifeReport.recompiles,
  run.report.milliseconds.compile.toFixed(0),
  run.firstMs.toFixed(0),
  run.laterMs.toFixed(0),
  run.report.foreignCallsPerStep.toFixed(1),
  `${run.report.capturedSteps}/${run.report.steps}`,
  megabytes(run.memory),
]);
const quoted = (run, streams) => {
  const lines = run.events.filter(({ stream }) => streams.includes(stream)).map(printEvent);
  const shown = lines.length > 6 ? [...lines.slice(0, 3), `... ${lines.length - 5} more ...`, ...lines.slice(-2)] : lines;
  return ["```", ...(shown.length > 0 ? shown : ["(nothing)"]), "```"].join("\n");
};
const trouble = ["recompiles", "recompile_limit", "graph_breaks", "fallback"];
const compiled = fixed.events.filter(({ stream }) => stream === "compiles");
const life = fixed.lifeReport;
const [eager, replayed] = [byMode.get("eager"), byMode.get("reduce-overhead")];

const text = `# Strategies and modes beside each other

Written by \`node scripts/write-comparison.mjs\` from a run; do not edit. \`bundled:toto1-formula\` (${device.description}; ${cpus()[0]?.model ?? "unknown CPU"}), one
series of ${context} values, ${samples} sample paths, ${steps} patches = ${steps} steps, the first of them the prefill. Kernels were in the artifact cache. Times are milliseconds: the first
forecast, and the median of ${rounds} later ones. They show orders of magnitude on a shared machine; counts and bits are exact, and tests hold them (\`test/kv-cache.test.ts\`).

## Key-value cache strategies

${table(["strategy", "bits of static", "compiles", "recompiles", "breaks", "fallbacks", "first ms", "later ms", "caches and arena MB", "copied MB per forecast"], strategyRows)}

Counts are those of the first forecast. What each strategy is for: [kv-caches.md](kv-caches.md).

## Modes

${table(["mode", "bits of reduce-overhead", "compiles", "recompiles over all forecasts", "compile ms", "first ms", "later ms", "foreign calls per step", "steps captured", "caches and arena MB"], modeRows)}

## Before and after: what the log says

Before, with \`kvCache: "growing"\` (the position is a number in compiled code):

${quoted(byStrategy.get("growing"), trouble)}

After, with \`kvCache: "static"\` (the position is data):

${quoted(fixed, trouble)}

## Record once, replay n times

Recorded on the first forecast:

${["```", ...compiled.map((event) => printEvent(event).slice(0, 160)), "```"].join("\n")}

${rounds + 1} forecasts then made ${life.steps} steps: ${life.capturedSteps} replayed as one foreign call each, ${life.compiles} compiles and ${life.recompiles} recompiles in all. A step takes
${((1000 * replayed.laterMs) / steps).toFixed(0)} microseconds replayed in one call and ${((1000 * eager.laterMs) / steps).toFixed(0)} op by op with ${eager.report.foreignCallsPerStep.toFixed(0)} calls: the difference is what running op by op costs.
`;

const target = process.argv[2] ?? new URL("../docs/comparison.md", import.meta.url);
writeFileSync(target, text);
console.log(`${strategyRows.length} strategies, ${modeRows.length} modes -> ${target}`);
