// Measures what weights stored as bf16 change against f32 and writes docs/precision.md and bench/results/precision.json. Run after a build:
//   node scripts/write-precision.mjs            accuracy; keeps the times that were measured before
//   node scripts/write-precision.mjs --speed    times and bytes of one decode; keeps the accuracy
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { Forecaster } from "../dist/index.js";
import { scoreWindow } from "../dist/forecast/metrics.js";
import { formulaCheckpoint } from "../dist/models/formula/checkpoint.js";
import { KronosModel } from "../dist/models/kronos/model.js";
import { Toto1Model } from "../dist/models/toto1/model.js";
import { Toto2Model } from "../dist/models/toto2/model.js";
import { openDevice } from "../dist/trace/entry.js";

const here = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const resultFile = here("bench/results/precision.json");
const storages = ["f32", "bf16"];

function readCsv(name) {
  const [head, ...lines] = readFileSync(here(`examples/data/${name}`), "utf8").trim().split("\n");
  const titles = head.split(",");
  const columns = Object.fromEntries(titles.map((title, index) => [title, lines.map((line) => line.split(",")[index])]));
  const { timestamp, ...values } = columns;
  return { timestamps: timestamp, columns: Object.fromEntries(Object.entries(values).map(([title, cells]) => [title, cells.map(Number)])) };
}

const slice = ({ timestamps, columns }, from, to) => ({
  timestamps: timestamps.slice(from, to),
  columns: Object.fromEntries(Object.entries(columns).map(([title, cells]) => [title, cells.slice(from, to)])),
});

/** The last windows of a table: the past as a series, and what came next by column. */
function windowsOf(name, { context, horizon, windows }) {
  const table = readCsv(name);
  const length = table.timestamps.length;
  return Array.from({ length: windows }, (_, index) => {
    const origin = length - horizon * (windows - index);
    return { series: { ...slice(table, origin - context, origin), id: `${name} ${index}` }, actual: slice(table, origin, origin + horizon).columns };
  });
}

const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function deviation(values) {
  const center = average(values);
  return Math.sqrt(average(values.map((value) => (value - center) ** 2)));
}

/** Continuous ranked probability score of sample paths, mean over steps; in units of the series. */
function crps(paths, actual) {
  return average(
    actual.map((value, step) => {
      const drawn = paths.map((path) => path[step]).sort((a, b) => a - b);
      const n = drawn.length;
      const spread = drawn.reduce((sum, x, i) => sum + x * (2 * i - n + 1), 0) / (n * n);
      return average(drawn.map((x) => Math.abs(x - value))) - spread;
    }),
  );
}

async function predictAll(load, { windows, horizon, samples }) {
  const answers = {};
  for (const weights of storages) {
    const forecaster = await load(weights);
    answers[weights] = [];
    for (const { series } of windows) {
      const { series: entries } = await forecaster.predict(series, { horizon, seed: 1, ...(samples === undefined ? {} : { samples }) });
      answers[weights].push(entries);
    }
    forecaster.dispose();
  }
  return answers;
}

/** Differences of the forecasts in units of each past's standard deviation, and scores against what came next. */
async function accuracy({ name, load, files, context, horizon, windows: count, samples, period, scored }) {
  const windows = files.flatMap((file) => windowsOf(file, { context, horizon, windows: count }));
  const answers = await predictAll(load, { windows, horizon, samples });
  const differences = [];
  const scores = { f32: [], bf16: [] };
  windows.forEach(({ series, actual }, index) => {
    answers.f32[index].forEach((entry, column) => {
      const past = series.columns[entry.variate];
      // Candle models also forecast columns that a file does not have.
      if (past === undefined) return;
      const scale = deviation(past) || 1;
      entry.mean.forEach((value, step) => differences.push(Math.abs(value - answers.bf16[index][column].mean[step]) / scale));
      if (!scored) return;
      for (const weights of storages) {
        const forecast = answers[weights][index][column];
        const { mase, quantileLoss, absoluteSum } = scoreWindow(forecast, actual[entry.variate], past, period);
        const spread = forecast.paths ? crps(forecast.paths, actual[entry.variate]) / scale : undefined;
        scores[weights].push({ mase, loss: quantileLoss, size: absoluteSum, crps: spread });
      }
    });
  });
  const total = (weights, pick) => scores[weights].reduce((sum, score) => sum + pick(score), 0);
  const pair = (of) => Object.fromEntries(storages.map((weights) => [weights, of(weights)]));
  const drawn = scored && scores.f32.every((score) => score.crps !== undefined);
  return {
    name,
    forecasts: windows.length,
    horizon,
    samples: samples ?? 0,
    maxDifference: Math.max(...differences),
    meanDifference: average(differences),
    ...(scored
      ? {
          mase: pair((weights) => average(scores[weights].map((score) => score.mase))),
          wql: pair((weights) => total(weights, (score) => score.loss) / total(weights, (score) => score.size)),
        }
      : {}),
    ...(drawn ? { crps: pair((weights) => average(scores[weights].map((score) => score.crps))) } : {}),
  };
}

const bundled = (name) => (weights) => Forecaster.load(name, { weights });
const formula = (Model, preset) => (weights) =>
  Forecaster.fromModel(
    Model.load(preset, formulaCheckpoint(preset, { seed: 1 }), openDevice("native"), { mode: "reduce-overhead", kvCache: "static", weights }),
  );
const formulaKronos = (preset, tokenizer) => (weights) =>
  Forecaster.fromModel(
    KronosModel.load(
      { name: preset, checkpoint: formulaCheckpoint(preset, { seed: 1 }) },
      { name: tokenizer, checkpoint: formulaCheckpoint(tokenizer, { seed: 1 }) },
      openDevice("native"),
      { mode: "reduce-overhead", kvCache: "static", weights },
    ),
  );

const candles = ["600977-5min.csv", "AAPL-1d.csv", "GOOGL-1d.csv"];
const hourly = { files: ["hourly.csv"], context: 1024, horizon: 48, windows: 8, period: 24 };
const cases = [
  { name: "bundled:toto1-nano, 64 paths", load: bundled("bundled:toto1-nano"), ...hourly, samples: 64, scored: true },
  { name: "bundled:toto1-nano, mean decode", load: bundled("bundled:toto1-nano"), ...hourly, samples: 0, scored: false },
  { name: "bundled:toto2-nano", load: bundled("bundled:toto2-nano"), ...hourly, scored: true },
  { name: "bundled:kronos-nano, 16 paths", load: bundled("bundled:kronos-nano"), files: candles, context: 256, horizon: 12, windows: 4, samples: 16, period: 1, scored: true },
  { name: "toto1-base of the formula, mean decode", load: formula(Toto1Model, "toto1-base"), ...hourly, windows: 2, samples: 0, scored: false },
  { name: "toto2-22m of the formula", load: formula(Toto2Model, "toto2-22m"), ...hourly, windows: 2, scored: false },
  { name: "kronos-small of the formula, 1 path", load: formulaKronos("kronos-small", "kronos-tokenizer-base"), files: candles, context: 256, horizon: 4, windows: 1, samples: 1, period: 1, scored: false },
];

/** Mean decode of one series, toto1-base of the formula: time of each step after the first patch, storages in turn. */
async function speed() {
  const values = Float32Array.from({ length: 512 }, (_, i) => 50 + 10 * Math.sin(i / 24) + (i % 7));
  const request = { series: [{ values: [values], stream: 1 }], horizon: 256, samples: 0, seed: 1 };
  const result = { machine: cpus()[0]?.model ?? "unknown", rows: [] };
  for (const threads of [1, openDevice("native").device.capabilities.threads].filter((n, i, all) => all.indexOf(n) === i)) {
    const models = {};
    for (const weights of storages)
      models[weights] = Toto1Model.load("toto1-base", formulaCheckpoint("toto1-base", { seed: 1 }), openDevice("native", { threads }), {
        mode: "reduce-overhead",
        kvCache: "static",
        weights,
      });
    const milliseconds = { f32: [], bf16: [] };
    for (const weights of storages) await models[weights].predict(request);
    for (let round = 0; round < 5; round++)
      for (const weights of round % 2 === 0 ? storages : [...storages].reverse()) {
        const ticks = [];
        await models[weights].predict({ ...request, onProgress: () => ticks.push(performance.now()) });
        milliseconds[weights].push((ticks.at(-1) - ticks[0]) / (ticks.length - 1));
      }
    for (const weights of storages) {
      const decode = models[weights].inspect(false).programs.find(({ name }) => name === "toto1.decode");
      const matrices = decode.specializations[0].states
        .filter(({ layout }) => layout === "panels")
        .reduce((sum, state) => sum + state.bytes, 0);
      const sorted = [...milliseconds[weights]].sort((a, b) => a - b);
      result.rows.push({ threads, weights, stepMs: sorted[Math.floor(sorted.length / 2)], rawMs: milliseconds[weights], weightBytes: matrices });
      models[weights].dispose();
    }
  }
  return result;
}

const shown = (value) => (value === 0 ? "0" : value.toExponential(1));
const change = (pair) => {
  const percent = (100 * (pair.bf16 - pair.f32)) / pair.f32;
  return `${pair.f32.toFixed(4)} → ${pair.bf16.toFixed(4)} (${percent >= 0 ? "+" : ""}${percent.toFixed(2)}%)`;
};
const table = (titles, rows) => [titles, titles.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");

function page({ accuracy: rows = [], speed: times }) {
  const rounded = rows.map((row) => [
    row.name,
    String(row.forecasts),
    shown(row.maxDifference),
    shown(row.meanDifference),
    ...["mase", "wql", "crps"].map((score) => (row[score] ? change(row[score]) : "")),
  ]);
  const timed = (times?.rows ?? []).map((row) => {
    const whole = times.rows.find((other) => other.threads === row.threads && other.weights === "f32");
    const rate = row.weightBytes / row.stepMs / 1e6;
    return [String(row.threads), row.weights, `${(row.weightBytes / 1e6).toFixed(0)} MB`, `${row.stepMs.toFixed(1)} ms (${Math.min(...row.rawMs).toFixed(1)} to ${Math.max(...row.rawMs).toFixed(1)})`, `${rate.toFixed(1)} GB/s`, `${(whole.stepMs / row.stepMs).toFixed(2)}x`];
  });
  return `# Precision: weights stored as bf16

Weight matrices are stored as f32. With \`--weights bf16\` (option \`weights: "bf16"\`, variable \`TEMPOGRAPH_WEIGHTS=bf16\`) they are rounded to bf16, to nearest with ties to
even, when a model is loaded: half the memory, half the bytes that a decode of one series has to read, and other numbers. Norms, biases, embeddings, caches, the tokenizer of Kronos
(a token is made of signs, which rounded weights change: with a rounded tokenizer the level of whole forecasts moves) and all arithmetic stay
f32: the kernels widen each weight as they load it, which is exact, and the order of every sum stays as it is. So a model with bf16 weights gives the same bits in every
mode, with any number of threads and on every instruction set, like one with f32 weights; it is the bits of f32 kernels on the rounded weights. No mode switches it on.
\`report.weights\` says which it was, \`tempograph inspect --json\` lists what each State is stored as.

A bundle made by \`tempograph compile --weights bf16\` serves models that are loaded with \`--weights bf16\`.

## What it changes

Largest and mean difference between the forecast means with bf16 and f32 weights, in standard deviations of each series' past; scores against what came next, f32 → bf16, on the
series of \`examples/data\` (few windows: they show the size of the change, not a ranking). Where tokens or components are drawn, a weight's last bits can change a draw and with it the
rest of a path, so single differences are as large as the spread of the paths. Models "of the formula" have the published shapes and weights that know nothing.

${table(["model", "forecasts", "largest", "mean", "MASE", "WQL", "CRPS"], rounded)}

## What it saves

Mean decode of one series, toto1-base (151 M parameters), each step reading every weight once; median of five runs, storages in turn (in brackets the fastest and slowest), on ${times?.machine ?? "a machine that was not measured"}.

${timed.length > 0 ? table(["threads", "weights", "matrices", "per step", "read", "speed"], timed) : "Not measured yet: `node scripts/write-precision.mjs --speed`."}

Larger batches compute more than they read: there bf16 saves memory and no time. This page is written by \`node scripts/write-precision.mjs\`, its numbers are in \`bench/results/precision.json\`.
`;
}

// Read after measuring: the two halves may be measured at the same time.
const measured = process.argv.includes("--speed") ? { speed: await speed() } : { accuracy: [] };
if (measured.accuracy) for (const one of cases) measured.accuracy.push(await accuracy(one));
const results = { ...(existsSync(resultFile) ? JSON.parse(readFileSync(resultFile, "utf8")) : {}), ...measured };
mkdirSync(here("bench/results"), { recursive: true });
writeFileSync(resultFile, `${JSON.stringify(results, null, 1)}\n`);
writeFileSync(here("docs/precision.md"), page(results));
