/** `tempograph evaluate`: scores against values worked out by hand, baselines, groups, the corpus format, outputs. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { evaluate, meanRatio, type EvaluationSeries } from "../src/forecast/evaluation.js";
import { groupOfCorpusSeries, groupOfFrequency } from "../src/forecast/evaluation-groups.js";
import { ets, theta } from "../src/forecast/exponential-smoothing.js";
import type { ScorableForecast } from "../src/forecast/metrics.js";
import { evaluationSchema } from "../src/forecast/schema.js";
import { readCorpus } from "../src/io/corpus.js";
import { readNpy } from "../src/io/npy.js";
import { exampleCsv, runCli, temporaryFolder } from "./cli-harness.js";

const flat = (value: number, horizon: number): ScorableForecast => {
  const values = new Array<number>(horizon).fill(value);
  return { mean: values, quantile: () => values };
};

const series = (values: readonly number[], changes: Partial<EvaluationSeries> = {}): EvaluationSeries => ({
  id: "a",
  group: "hourly",
  horizon: 2,
  period: 1,
  values,
  ...changes,
});

function npy(values: readonly number[], descr = "<f4"): Buffer {
  const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${values.length},), }`;
  const padded = `${header}${" ".repeat(63 - ((10 + header.length) % 64))}\n`;
  const start = Buffer.from(`\u0093NUMPY\u0001\u0000\u0000\u0000${padded}`, "latin1");
  start.writeUInt16LE(padded.length, 8);
  return Buffer.concat([start, Buffer.from(Float32Array.from(values).buffer)]);
}

describe("scores", () => {
  test("one series, by hand", async () => {
    // Past 1 2 3 4, then 5 6; forecast 4 4 at every level. Errors 1 and 2 over a mean step of 1; quantile losses 2 p (1 + 2), mean over levels 3, over 11.
    const result = await evaluate([series([1, 2, 3, 4, 5, 6])], (windows, horizon) => Promise.resolve(windows.map(() => flat(4, horizon))));
    const [group] = result.groups;
    expect(group).toMatchObject({ name: "hourly", series: 1, windows: 1 });
    expect(group?.model.mase).toBeCloseTo(1.5, 12);
    expect(group?.model.wql).toBeCloseTo(3 / 11, 12);
    expect(group?.model.smape).toBeCloseTo((2 / 9 + 4 / 10) / 2, 12);
    expect(group?.model.coverage80).toBe(0);
    expect(group?.model.msis).toBeCloseTo(15, 12); // 10 times the distance 1 and 2, mean 15, over 1
    expect(group?.model.rmsse).toBeCloseTo(Math.sqrt(2.5), 12);
    // The line through the past is right; naive repeats 4, as seasonal naive does with period 1.
    expect(group?.baselines.drift.mase).toBeCloseTo(0, 12);
    expect(group?.baselines.naive.mase).toBeCloseTo(1.5, 12);
    expect(group?.baselines.seasonalNaive).toEqual(group?.baselines.naive);
    expect(result.geometricMean.mase).toBeCloseTo(1, 12);
  });

  test("WQL of a group is a ratio of sums, MASE a mean over series", async () => {
    const big = series([10, 20, 30, 40, 50, 60], { id: "b" });
    const result = await evaluate([series([1, 2, 3, 4, 5, 6]), big], (windows) =>
      Promise.resolve(windows.map(({ past }) => flat(past.at(-1) ?? 0, 2))),
    );
    expect(result.groups[0]?.model.mase).toBeCloseTo(1.5, 12);
    expect(result.groups[0]?.model.wql).toBeCloseTo((3 + 30) / (11 + 110), 12);
    const unlike = await evaluate([series([1, 2, 3, 4, 5, 6]), big], (windows) => Promise.resolve(windows.map(() => flat(4, 2))));
    expect(unlike.groups[0]?.model.mase).toBeCloseTo((1.5 + 51 / 10) / 2, 12);
    expect(unlike.groups[0]?.model.wql).toBeCloseTo((3 + 102) / (11 + 110), 12);
  });

  test("the geometric mean is over groups, and leaves out undefined ratios", () => {
    const scores = { mase: 1, wql: 1, smape: 0, coverage80: 0, msis: 0, rmsse: 0 };
    const group = (model: number, naive: number) => ({
      name: "x",
      series: 1,
      windows: 1,
      model: { ...scores, wql: model },
      baselines: { seasonalNaive: { ...scores, wql: naive }, naive: scores, drift: scores, ets: scores, theta: scores },
    });
    expect(meanRatio([group(1, 2), group(4, 2)], "wql")).toBeCloseTo(1, 12);
    expect(meanRatio([group(1, 4), group(1, 0), group(Number.NaN, 1)], "wql")).toBeCloseTo(0.25, 12);
    expect(meanRatio([], "wql")).toBeNaN();
  });

  test("windows: at the end, one horizon apart, cut to the context; unmeasurable ones are counted", async () => {
    const seen: (readonly number[])[] = [];
    const values = Array.from({ length: 12 }, (_, step) => step);
    const gone = Array.from({ length: 6 }, (_, step) => (step < 4 ? Number.NaN : 1));
    const endless = Array.from({ length: 6 }, (_, step) => (step < 4 ? step : Number.NaN));
    const result = await evaluate(
      [series(values), series([1, 2, 3, 4, 5], { id: "s" }), series(gone, { id: "g" }), series(endless, { id: "e" })],
      (windows) => {
        for (const { past, actual } of windows) seen.push([past[0] ?? -1, past.length, actual[0] ?? -1]);
        return Promise.resolve(windows.map(() => flat(1, 2)));
      },
      { windows: 2, context: 5, batch: 1 },
    );
    expect(seen).toEqual([
      [3, 5, 8],
      [5, 5, 10],
    ]);
    expect(result.skipped).toEqual({ tooShort: 4, pastUnobserved: 1, futureUnobserved: 1 });
  });
});

describe("exponential smoothing and theta", () => {
  const wave = (length: number): Float64Array =>
    Float64Array.from({ length }, (_, step) => 50 + 0.2 * step + 8 * Math.sin((step / 12) * 2 * Math.PI));

  test.each([
    ["ets", ets],
    ["theta", theta],
  ])("%s follows level, slope and season, and its bands widen", (_, baseline) => {
    const past = wave(120);
    const truth = wave(132).slice(120);
    const forecast = baseline(past, 12, 12);
    const error = truth.reduce((sum, value, step) => sum + Math.abs(value - (forecast.mean[step] ?? 0)), 0) / 12;
    expect(error).toBeLessThan(2);
    const noisy = baseline(
      past.map((value, step) => value + (((step * 7919) % 13) - 6) / 6),
      12,
      12,
    );
    const width = (step: number): number => (noisy.quantile(0.9)[step] ?? 0) - (noisy.quantile(0.1)[step] ?? 0);
    expect(width(0)).toBeGreaterThan(0);
    expect(width(11)).toBeGreaterThanOrEqual(width(0));
  });

  test("constant, short, gappy and empty pasts", () => {
    for (const baseline of [ets, theta]) {
      expect(Array.from(baseline([5, 5, 5, 5, 5, 5], 2, 1).mean)).toEqual([5, 5]);
      expect(Array.from(baseline([5], 2, 24).mean)).toEqual([5, 5]);
      expect(Array.from(baseline([Number.NaN, 5, Number.NaN], 1, 1).mean)).toEqual([5]);
      expect(baseline([Number.NaN], 1, 1).mean[0]).toBeNaN();
    }
  });

  test("finite for anything finite", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -1e6, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 60 }),
        fc.integer({ min: 1, max: 13 }),
        (past, period) => {
          for (const baseline of [ets, theta]) {
            const forecast = baseline(past, 5, period);
            expect(Array.from(forecast.quantile(0.9)).every(Number.isFinite)).toBe(true);
          }
        },
      ),
      { numRuns: 100 },
    );
  });
});

test("groups by frequency; the visible split by source", () => {
  const horizons = ["1s", "5min", "10min", "600s", "30min-daytime", "H", "D", "W", "M", "Q"].map((text) => groupOfFrequency(text)?.horizon);
  expect(horizons).toEqual([64, 64, 48, 48, 48, 48, 14, 13, 12, 8]);
  for (const text of ["Y", "other", "irregular"]) expect(groupOfFrequency(text)).toBeUndefined();
  expect(groupOfCorpusSeries("nab_train", "600s", 200)?.name).toBe("hourly");
  expect(groupOfCorpusSeries("nn_gefcom", "M", 200)).toBeUndefined();
  expect(groupOfCorpusSeries("azure", "5s", 500)).toBeUndefined();
  expect(groupOfCorpusSeries("m4_hourly", "H", 144)?.name).toBe("hourly");
  expect(groupOfCorpusSeries("m4_hourly", "H", 143)).toBeUndefined();
});

describe("the corpus format", () => {
  const write = (folder: string, entries: readonly object[], values: readonly number[], descr?: string): void => {
    writeFileSync(join(folder, "plant.json"), JSON.stringify({ source: "x", series: entries }));
    writeFileSync(join(folder, "plant.npy"), npy(values, descr));
  };
  const values = Array.from({ length: 400 }, (_, step) => 10 + Math.sin(step / 3));

  test("series are ranges of one array", () => {
    const folder = temporaryFolder();
    write(folder, [{ id: "a", offset: 1, length: 2, freq: "H", period: 24, extra: 1 }], [1, 2, Number.NaN]);
    expect(readCorpus(folder)).toEqual([{ source: "plant", id: "a", frequency: "H", period: 24, values: Float32Array.of(2, Number.NaN) }]);
  });

  test("mistakes are named", () => {
    const folder = temporaryFolder();
    write(folder, [{ id: "a", offset: 1, length: 3, freq: "H", period: 24 }], [1, 2, 3]);
    expect(() => readCorpus(folder)).toThrow(/series "a" ends at value 4, plant.npy holds 3/);
    write(folder, [{ id: "a", offset: -1, length: 3, freq: "H", period: 24 }], [1, 2, 3]);
    expect(() => readCorpus(folder)).toThrow(/series\.0\.offset/);
    write(folder, [], [1, 2, 3], "<c8");
    expect(() => readNpy(join(folder, "plant.npy"))).toThrow(/<c8/);
    writeFileSync(join(folder, "plant.npy"), npy([1, 2, 3]).subarray(0, -1));
    expect(() => readNpy(join(folder, "plant.npy"))).toThrow(/12 bytes, there are 11/);
    writeFileSync(join(folder, "plant.npy"), "no");
    expect(() => readNpy(join(folder, "plant.npy"))).toThrow(/NUMPY/);
    expect(() => readCorpus(temporaryFolder())).toThrow(/holds no corpus/);
  });

  test("a folder is evaluated by group: JSON that fits its schema, and a picture", async () => {
    const folder = temporaryFolder();
    const hourly = { id: "a", offset: 0, length: 200, freq: "H", period: 24 };
    write(folder, [hourly, { ...hourly, id: "b", offset: 200, freq: "D", period: 7 }, { ...hourly, id: "c", freq: "Y" }], values);
    const picture = join(folder, "out.svg");
    const run = await runCli(["evaluate", folder, "--json", "--picture", picture, "--model", "bundled:toto1-formula"]);
    expect(run).toMatchObject({ code: 0, error: "" });
    const answer = evaluationSchema.parse(JSON.parse(run.out));
    expect(answer.groups.map(({ name, series: count }) => [name, count])).toEqual([
      ["hourly", 1],
      ["daily", 1],
    ]);
    expect(run.models[0]?.requests.map(({ horizon, series: list }) => [horizon, list[0]?.values[0]?.length])).toEqual([
      [48, 152],
      [14, 186],
    ]);
    const drawing = readFileSync(picture, "utf8");
    expect(drawing).toMatch(/^<svg [^]*<\/svg>\n$/);
    expect(drawing.match(/hourly: plant\/a/g)?.length).toBe(1);
    expect(run.models[0]?.disposed).toBe(1);
  });
});

test("a CSV file: table with baselines, several windows, a chosen period", async () => {
  const file = exampleCsv(temporaryFolder(), 240);
  const run = await runCli(["evaluate", file, "--target", "load", "--horizon", "24", "--windows", "3"]);
  expect(run).toMatchObject({ code: 0, error: "" });
  expect(run.out).toMatch(/^hourly: 1 series, 3 windows\n/);
  expect(run.out).toMatch(/seasonal naive +- +0\.0000/);
  expect(run.out).toContain("exponential smoothing");
  const odd = await runCli(["evaluate", file, "--target", "load", "--horizon", "24", "--period", "7"]);
  expect(odd.out).not.toMatch(/seasonal naive +- +0\.0000/);
});

test("what can not be measured exits with 2 and says why", async () => {
  const folder = temporaryFolder();
  const short = await runCli(["evaluate", exampleCsv(folder, 50)]);
  expect(short).toMatchObject({ code: 2, out: "" });
  expect(short.error).toContain("2 with too few steps");
  expect(await runCli(["evaluate", join(folder, "none.csv")])).toMatchObject({ code: 2, out: "" });
  expect((await runCli(["evaluate", folder])).error).toContain("folder");
  expect((await runCli(["evaluate", exampleCsv(folder), "--every", "0"])).error).toContain("--every");
});
