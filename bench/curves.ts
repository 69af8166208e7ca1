/** How cost grows: the same forecast over contexts, samples, batches and threads, and each candle of a Kronos forecast. */
import type { ForecastModel } from "../src/models/model.js";
import { candles, openForecast, wave, type ForecastTask } from "./forecasts.js";
import { median, timed } from "./measure.js";

export interface Line {
  readonly name: string;
  /** [x, milliseconds] */
  readonly points: readonly (readonly [number, number])[];
}

export interface Curve {
  readonly name: string;
  readonly title: string;
  readonly xLabel: string;
  readonly logarithmic: boolean;
  readonly lines: readonly Line[];
}

interface Sweep {
  readonly name: string;
  readonly title: string;
  readonly xLabel: string;
  readonly values: readonly number[];
  readonly lines: readonly { readonly name: string; readonly task: (value: number) => Omit<ForecastTask, "name"> }[];
}

const toto1 = (context: number, horizon: number, samples: number): Omit<ForecastTask, "name"> => ({
  preset: "toto1-base",
  series: [wave(1, context)],
  horizon,
  samples,
});

const toto2 = (preset: string, batch: number, context: number): Omit<ForecastTask, "name"> => ({
  preset,
  series: Array.from({ length: batch }, () => wave(1, context)),
  horizon: 96,
  samples: 0,
});

const sweeps: readonly Sweep[] = [
  {
    name: "context",
    title: "Cost against context",
    xLabel: "context, samples",
    values: [256, 512, 1024, 2048, 4096],
    lines: [
      { name: "Toto 1 base, mean, horizon 256", task: (context) => toto1(context, 256, 0) },
      { name: "Toto 2 22m, horizon 96", task: (context) => toto2("toto2-22m", 1, context) },
      { name: "Toto 2 4m, horizon 96", task: (context) => toto2("toto2-4m", 1, context) },
    ],
  },
  {
    name: "samples",
    title: "Cost against sample paths",
    xLabel: "sample paths",
    values: [1, 4, 16, 64, 256],
    lines: [
      { name: "Toto 1 base, context 512, horizon 64", task: (samples) => toto1(512, 64, samples) },
      { name: "Toto 1 base, context 512, horizon 128", task: (samples) => toto1(512, 128, samples) },
    ],
  },
  {
    name: "batch",
    title: "Cost against batch",
    xLabel: "series in one call",
    values: [1, 2, 4, 8, 16, 32],
    lines: [
      { name: "Toto 2 22m, context 1024", task: (batch) => toto2("toto2-22m", batch, 1024) },
      { name: "Toto 2 4m, context 1024", task: (batch) => toto2("toto2-4m", batch, 1024) },
    ],
  },
];

async function cost(task: Omit<ForecastTask, "name">, threads: number, repeat: number): Promise<number> {
  const session = openForecast({ name: "curve", ...task }, "reduce-overhead", threads);
  await session.run();
  const times: number[] = [];
  for (let round = 0; round < repeat; round++) times.push(await timed(() => session.run()));
  return median(times);
}

async function sweepCurve({ name, title, xLabel, values, lines }: Sweep, threads: number, repeat: number): Promise<Curve> {
  const measured: Line[] = [];
  for (const line of lines) {
    const points: [number, number][] = [];
    for (const value of values) points.push([value, await cost(line.task(value), threads, repeat)]);
    measured.push({ name: line.name, points });
  }
  return { name, title, xLabel, logarithmic: true, lines: measured };
}

async function threadCurve(most: number, repeat: number): Promise<Curve> {
  const tasks: readonly [string, Omit<ForecastTask, "name">][] = [
    ["Toto 1 base, mean, context 512, horizon 256", toto1(512, 256, 0)],
    ["Toto 2 22m, batch 8, context 1024", toto2("toto2-22m", 8, 1024)],
    ["Toto 2 4m, batch 8, context 1024", toto2("toto2-4m", 8, 1024)],
  ];
  const lines: Line[] = [];
  for (const [name, task] of tasks) {
    const points: [number, number][] = [];
    for (let threads = 1; threads <= most; threads *= 2) points.push([threads, await cost(task, threads, repeat)]);
    lines.push({ name, points });
  }
  return { name: "threads", title: "Cost against threads", xLabel: "threads", logarithmic: true, lines };
}

/** Time between two candles of one forecast; the first is the prefill and is left out. */
async function candleTimes(model: ForecastModel, lookback: number, horizon: number, repeat: number): Promise<[number, number][]> {
  const runs: number[][] = [];
  const series = [candles(lookback, horizon)];
  for (let round = 0; round <= repeat; round++) {
    const stamps: number[] = [];
    await model.predict({ series, horizon, samples: 1, seed: 1, onProgress: () => stamps.push(performance.now()) });
    runs.push(stamps.slice(1).map((stamp, index) => stamp - (stamps[index] as number)));
  }
  // The first run compiles.
  const timedRuns = runs.slice(1);
  return Array.from({ length: horizon - 1 }, (_, step) => [step + 2, median(timedRuns.map((run) => run[step] as number))]);
}

async function candleCurve(threads: number, repeat: number): Promise<Curve> {
  const task = { name: "curve", preset: "kronos-mini", series: [], horizon: 1, samples: 1 };
  const lines: Line[] = [];
  for (const [name, kvCache] of [
    ["Kronos mini, lookback 400, cached", "static"],
    ["the same, every candle recomputes its window", "none"],
  ] as const) {
    const { model } = openForecast({ ...task, kvCache }, "reduce-overhead", threads);
    lines.push({ name, points: await candleTimes(model, 400, 96, kvCache === "none" ? 1 : repeat) });
  }
  return { name: "candles", title: "Cost of each generated candle", xLabel: "candle", logarithmic: false, lines };
}

export async function measureCurves(threads: number, repeat: number): Promise<readonly Curve[]> {
  const curves: Curve[] = [];
  for (const sweep of sweeps) curves.push(await sweepCurve(sweep, threads, repeat));
  curves.push(await threadCurve(threads, repeat), await candleCurve(threads, repeat));
  return curves;
}
