/** Forecaster: what reaches the model, what comes back, and how it ends. */
import { expect, test } from "vitest";
import { Forecaster, InputError, type PredictOptions, type SeriesInput } from "../src/index.js";
import { FakeModel, type FakeModelOptions } from "./forecast-fake-model.js";

function fake(options: FakeModelOptions = {}): { model: FakeModel; forecaster: Forecaster } {
  const model = new FakeModel(options);
  return { model, forecaster: Forecaster.fromModel(model, 7) };
}

async function failure(promise: Promise<unknown>): Promise<InputError> {
  const error: unknown = await promise.then(
    () => "no error",
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(InputError);
  return error as InputError;
}

test("one series: values, mean, paths, quantiles and integer stamps", async () => {
  const { model, forecaster } = fake();
  const forecast = await forecaster.predict({ values: [1, 2, 3], id: "a" }, { horizon: 4, samples: 8, seed: 5 });
  expect(Array.from(model.requests[0]?.series[0]?.values[0] ?? [])).toEqual([1, 2, 3]);
  expect(model.requests[0]).toMatchObject({ horizon: 4, samples: 8, seed: 5 });
  expect(Array.from(forecast.mean)).toEqual([3, 3, 3, 3]);
  expect(forecast.paths?.length).toBe(8);
  expect(forecast.paths?.every((path) => path.length === 4)).toBe(true);
  expect(forecast.timestamps).toEqual([3, 4, 5, 6]);
  expect(forecast.quantile(0.5).length).toBe(4);
});

test("defaults: the model's samples, seed 0, three quantiles, a horizon of 24 without a frequency", async () => {
  const { model, forecaster } = fake({ defaultSamples: 11 });
  const forecast = await forecaster.predict({ values: [1, 2, 3] });
  expect(model.requests[0]).toMatchObject({ horizon: 24, samples: 11, seed: 0 });
  expect(Object.keys(forecast.toJSON().series[0]?.quantiles ?? {})).toEqual(["0.1", "0.5", "0.9"]);
});

test.each([[{ prediction_length: 3, num_samples: 5 }], [{ pred_len: 3, sample_count: 5 }], [{ predictionLength: 3, sampleCount: 5 }]])(
  "the originals' spellings mean the same: %o",
  async (options) => {
    const { model, forecaster } = fake();
    await forecaster.predict({ values: [1] }, options as PredictOptions);
    expect(model.requests[0]).toMatchObject({ horizon: 3, samples: 5 });
  },
);

test("an alias that contradicts its option is refused", async () => {
  const { forecaster } = fake();
  const error = await failure(forecaster.predict({ values: [1] }, { horizon: 3, pred_len: 4 } as PredictOptions));
  expect(error.message).toContain("horizon and pred_len");
});

test.each<[PredictOptions, string]>([
  [{ horizon: 0 }, "horizon must be a whole number of steps, 1 or more; got 0"],
  [{ horizon: -3 }, "got -3"],
  [{ horizon: 1.5 }, "got 1.5"],
  [{ horizon: "7" as unknown as number }, 'got "7"'],
  [{ horizon: Number.NaN }, "got NaN"],
  [{ samples: -1 }, "samples must be a whole number"],
  [{ quantiles: [] }, "empty list"],
  [{ quantiles: [0.5, 1] }, "strictly between 0 and 1; got 1"],
  [{ quantiles: [0.5, 0.5] }, "twice"],
  [{ seed: 1.5 }, "seed"],
  [{ context: 0 }, "context"],
  [{ temperature: 1 }, "Kronos"],
  [{ horizn: 3 } as unknown as PredictOptions, 'unknown option "horizn"'],
  [{ horizon: 5000 }, "at most 4096"],
])("options %o are refused before any work", async (options, part) => {
  const { model, forecaster } = fake();
  const error = await failure(forecaster.predict({ values: [1, 2] }, options));
  expect(error.message).toContain(part);
  expect(model.requests).toEqual([]);
});

test.each<[string, unknown, string]>([
  ["no values", {}, "neither"],
  ["both forms", { values: [1], columns: { a: [1] } }, "both"],
  ["an array", [[1, 2, 3]], "not an object"],
  ["empty", { values: [] }, "empty"],
  ["text", { values: "123" }, "list of numbers"],
  ["text inside", { values: [1, "x"] }, 'value 1 is "x"'],
  ["infinity", { values: [1, Infinity] }, "value 1 is Infinity"],
  ["beyond float32", { values: [1e39] }, "float32"],
  ["all missing", { values: [Number.NaN, null] }, "missing"],
  ["all masked", { values: [1, 2], mask: [0, 0] }, "missing"],
  ["ragged variates", { values: [[1, 2], [1]] }, "equal length"],
  ["short mask", { values: [1, 2], mask: [1] }, "mask has 1 entries for 2 values"],
  ["ids", { values: [[1], [2]], ids: [0] }, "ids has 1 entries"],
  ["fractional ids", { values: [[1], [2]], ids: [0, 0.5] }, "whole numbers"],
  ["unknown field", { values: [1], valeus: [2] }, '"valeus"'],
  ["past covariate", { values: [1, 2], pastCovariates: [[1]] }, "expected 2"],
  ["known covariate", { values: [1, 2], knownCovariates: [[1, 2]] }, "expected 6"],
  ["known future missing", { values: [1], knownCovariates: [[1, 2, Number.NaN, 4, 5]] }, "future step 1"],
  ["timestamps", { values: [1, 2], timestamps: ["2024-01-01T00:00:00Z"] }, "one timestamp per value"],
])("a series with %s is refused by name", async (_, series, part) => {
  const { model, forecaster } = fake();
  const error = await failure(forecaster.predict(series as SeriesInput, { horizon: 4 }));
  expect(error.message).toContain(part);
  expect(model.requests).toEqual([]);
});

test("ragged batch: every entry keeps its order, its id and its length", async () => {
  const { model, forecaster } = fake();
  const forecast = await forecaster.predict(
    [{ values: [1], id: "a" }, { columns: { x: [1, 2], y: [3, 4] }, id: "b" }, { values: Float32Array.of(5, 6, 7) }],
    { horizon: 2 },
  );
  expect(forecast.series.map((entry) => [entry.id, entry.variate, entry.mean[0], entry.timestamps[0]])).toEqual([
    ["a", "value", 1, 1],
    ["b", "x", 2, 2],
    ["b", "y", 4, 2],
    ["2", "value", 7, 3],
  ]);
  expect(model.requests.length).toBe(1);
  expect(() => forecast.mean).toThrow(/forecast\.series\[i\]\.mean/);
  expect([...forecast].length).toBe(4);
});

test("a series draws the same paths alone and in a batch; another id or seed draws others", async () => {
  const { forecaster } = fake();
  const options = { horizon: 5, samples: 4 };
  const alone = await forecaster.predict({ values: [1, 2], id: "a" }, options);
  const batch = await forecaster.predict(
    [
      { values: [9], id: "z" },
      { values: [1, 2], id: "a" },
    ],
    options,
  );
  expect(batch.series[1]?.paths).toEqual(alone.paths);
  expect((await forecaster.predict({ values: [1, 2], id: "b" }, options)).paths).not.toEqual(alone.paths);
  expect((await forecaster.predict({ values: [1, 2], id: "a" }, { ...options, seed: 1 })).paths).not.toEqual(alone.paths);
});

test("streams: FNV-1a of the id, 0 without one", async () => {
  const { model, forecaster } = fake();
  await forecaster.predict([{ values: [1], id: "foobar" }, { values: [1], id: "" }, { values: [1] }], { horizon: 1 });
  // Published test vectors of 32-bit FNV-1a.
  expect(model.requests[0]?.series.map((series) => series.stream)).toEqual([0xbf9cf968, 0x811c9dc5, 0]);
});

test("context, masks and missing values reach the model as they should", async () => {
  const { model, forecaster } = fake({ maximumContext: 4 });
  await forecaster.predict({ values: [1, 2, 3, 4, null, 6], mask: [1, 1, 1, 0, 1, 1] }, { horizon: 1 });
  await forecaster.predict({ values: [1, 2, 3, 4, 5, 6] }, { horizon: 1, context: 6 });
  const [cut, whole] = model.requests.map((request) => request.series[0]);
  expect(Array.from(cut?.values[0] ?? [])).toEqual([3, 4, Number.NaN, 6]);
  expect(Array.from(cut?.mask?.[0] ?? [])).toEqual([1, 0, 0, 1]);
  expect(whole?.values[0]?.length).toBe(6);
  expect(whole?.mask).toBeUndefined();
});

test("covariates become the last variates, their futures in order; only targets are answered", async () => {
  const { model, forecaster } = fake();
  const forecast = await forecaster.predict(
    { values: [1, 2], pastCovariates: [[3, 4]], knownCovariates: { price: [5, 6, 7, 8] }, ids: [9] },
    { horizon: 2 },
  );
  const series = model.requests[0]?.series[0];
  expect(series?.values.map((row) => Array.from(row))).toEqual([
    [1, 2],
    [3, 4],
    [5, 6],
  ]);
  expect(series?.knownFuture?.map((row) => Array.from(row))).toEqual([[7, 8]]);
  expect(Array.from(series?.groups ?? [])).toEqual([9, 9, 9]);
  expect(forecast.series.length).toBe(1);
});

test("the report covers one call, Forecaster.report() the life", async () => {
  const { forecaster } = fake();
  const first = await forecaster.predict({ values: [1] }, { horizon: 3 });
  const second = await forecaster.predict({ values: [1] }, { horizon: 5 });
  expect(first.report).toMatchObject({ compiles: 2, steps: 3, waits: 1, meanKind: "last value" });
  expect(second.report).toMatchObject({ compiles: 0, steps: 5, waits: 1 });
  expect(forecaster.report()).toMatchObject({ compiles: 2, steps: 8, waits: 2, milliseconds: { load: 7, compile: 1.5 } });
  expect(Object.keys(second.report)).toEqual([
    "device",
    "mode",
    "kvCache",
    "weights",
    "threads",
    "compiles",
    "recompiles",
    "graphBreaks",
    "fallbacks",
    "capturedSteps",
    "steps",
    "foreignCallsPerStep",
    "waits",
    "milliseconds",
    "peakBytes",
    "meanKind",
  ]);
  expect(Object.keys(second.report.milliseconds)).toEqual(["load", "compile", "first", "total"]);
});

test("JSON: key order is fixed, paths and report on request, equal inputs give equal bytes", async () => {
  const { forecaster } = fake();
  const series = { values: [1, 2], id: "a" };
  const text = async (options: PredictOptions): Promise<string> =>
    JSON.stringify(await forecaster.predict(series, { horizon: 2, samples: 3, ...options }));
  expect(await text({ report: false })).toBe(await text({ report: false }));
  const bare = JSON.parse(await text({ report: false })) as { series: object[] };
  expect(Object.keys(bare)).toEqual(["series"]);
  expect(Object.keys(bare.series[0] ?? {})).toEqual(["id", "variate", "timestamps", "mean", "quantiles"]);
  const full = JSON.parse(await text({ paths: true, quantiles: [0.9, 0.2] })) as { series: { paths: number[][]; quantiles: object }[] };
  expect(Object.keys(full)).toEqual(["series", "report"]);
  expect(full.series[0]?.paths.map((path) => path.length)).toEqual([2, 2, 2]);
  expect(Object.keys(full.series[0]?.quantiles ?? {})).toEqual(["0.9", "0.2"]);
});

test("mean decode: no quantiles by default, an error when they are asked for", async () => {
  const { forecaster } = fake();
  const forecast = await forecaster.predict({ values: [1] }, { horizon: 2, samples: 0 });
  expect(forecast.toJSON().series[0]?.quantiles).toEqual({});
  expect(() => forecast.quantile(0.5)).toThrow(/samples/);
  expect((await failure(forecaster.predict({ values: [1] }, { horizon: 2, samples: 0, quantiles: [0.5] }))).code).toBe("no-quantiles");
});

test("native quantiles: linear between knots, refused outside", async () => {
  const { forecaster, model } = fake({ knots: [0.1, 0.5, 0.9], defaultSamples: 0 });
  const forecast = await forecaster.predict({ values: [1] }, { horizon: 1, quantiles: [0.1, 0.3, 0.9] });
  expect(forecast.quantile(0.3)[0]).toBeCloseTo(4, 5);
  const before = model.requests.length;
  expect((await failure(forecaster.predict({ values: [1] }, { horizon: 1, quantiles: [0.05] }))).message).toContain("0.1 to 0.9");
  expect(model.requests.length).toBe(before);
});

test("abort: the promise rejects with the signal's reason and the forecaster stays usable", async () => {
  const { forecaster } = fake({ stepDelay: 2 });
  const controller = new AbortController();
  const running = forecaster.predict(
    { values: [1] },
    { horizon: 500, signal: controller.signal, onProgress: () => controller.abort("enough") },
  );
  await expect(running).rejects.toBe("enough");
  await expect(forecaster.predict({ values: [1] }, { signal: AbortSignal.abort("no") })).rejects.toBe("no");
  expect((await forecaster.predict({ values: [1] }, { horizon: 1 })).series.length).toBe(1);
});

test("progress rises to its total, also over several chunks", async () => {
  const { model, forecaster } = fake();
  const seen: [number, number][] = [];
  const many = Array.from({ length: 5 }, (_, index) => ({ values: [index] }));
  const forecast = await forecaster.predict(many, { horizon: 2, samples: 2000, onProgress: ({ done, total }) => seen.push([done, total]) });
  expect(model.requests.map((request) => request.series.length)).toEqual([2, 2, 1]);
  expect(forecast.series.map((entry) => entry.mean[0])).toEqual([0, 1, 2, 3, 4]);
  expect(seen.map(([done]) => done)).toEqual([1, 2, 3, 4, 5, 6]);
  expect(seen.every(([, total]) => total === 6)).toBe(true);
});

test("calls on one forecaster take turns; a failed one does not block the next", async () => {
  const { model, forecaster } = fake();
  const calls = [forecaster.predict({ values: [1] }, { horizon: 3 }), forecaster.predict({ values: [2] }, { horizon: 3 })];
  const bad = forecaster.predict({ values: [] });
  await expect(bad).rejects.toThrow();
  expect((await Promise.all(calls)).map((forecast) => forecast.mean[0])).toEqual([1, 2]);
  expect(model.mostRunning).toBe(1);
});

test("dispose: twice is once, later calls say so, what was returned stays readable", async () => {
  const { model, forecaster } = fake();
  const forecast = await forecaster.predict({ values: [1] }, { horizon: 2 });
  forecaster.dispose();
  forecaster[Symbol.dispose]();
  await forecaster[Symbol.asyncDispose]();
  expect(model.disposed).toBe(1);
  expect((await failure(forecaster.predict({ values: [1] }))).code).toBe("disposed");
  expect(Array.from(forecast.mean)).toEqual([1, 1]);
  expect(forecaster.report().steps).toBe(2);
});

test("dispose in mid-run ends the run with a clear error", async () => {
  const { forecaster } = fake({ stepDelay: 2 });
  const running = failure(forecaster.predict({ values: [1] }, { horizon: 500, onProgress: () => forecaster.dispose() }));
  expect((await running).code).toBe("disposed");
});

test("one value and a constant series work, one value with a warning", async () => {
  const { forecaster } = fake();
  expect((await forecaster.predict({ values: [4] }, { horizon: 1 })).warnings.length).toBe(1);
  expect((await forecaster.predict({ values: [4, 4, 4] }, { horizon: 1 })).warnings).toEqual([]);
  expect((await forecaster.predict({ values: [1e30, 1e-30] }, { horizon: 1 })).warnings).toEqual([]);
});

test("a call aborted while it waits for its turn rejects at once, and the calls around it go on", async () => {
  const { model, forecaster } = fake({ stepDelay: 1 });
  const controller = new AbortController();
  const first = forecaster.predict({ values: [1] }, { horizon: 30 });
  const second = forecaster.predict({ values: [2] }, { horizon: 30, signal: controller.signal });
  const third = forecaster.predict({ values: [3] }, { horizon: 1 });
  controller.abort("changed my mind");
  const order: string[] = [];
  await Promise.all([
    first.then(() => order.push("first")),
    second.catch((reason: unknown) => order.push(String(reason))),
    third.then(() => order.push("third")),
  ]);
  expect(order).toEqual(["changed my mind", "first", "third"]);
  expect(model.requests.length).toBe(2);
});

const hour = (step: number): string => new Date(Date.UTC(2024, 0, 1, step)).toISOString().replace(".000Z", "Z");

test("timestamps: the future goes on, the horizon defaults to one season", async () => {
  const { forecaster } = fake();
  const hourly = await forecaster.predict({ values: [1, 2, 3], timestamps: [hour(0), hour(1), hour(2)] });
  expect(hourly.timestamps.length).toBe(24);
  expect(hourly.timestamps.slice(0, 2)).toEqual([hour(3), hour(4)]);
  const offset = await forecaster.predict(
    { values: [1, 2], timestamps: ["2024-01-01T00:00:00+08:00", "2024-01-01T00:05:00+08:00"] },
    { horizon: 1 },
  );
  expect(offset.timestamps).toEqual(["2024-01-01T00:10:00+08:00"]);
  const monthly = { values: [1, 2], timestamps: ["2024-01-31", "2024-02-29"] };
  expect((await forecaster.predict(monthly)).timestamps.length).toBe(12);
  const error = await failure(forecaster.predict([monthly, { values: [1, 2], timestamps: [hour(0), hour(1)] }]));
  expect(error.message).toContain("give a horizon");
});

test("gaps: rows are steps with a warning; with a frequency they become missing values", async () => {
  const { model, forecaster } = fake();
  const timestamps = [0, 1, 2, 3, 4, 7, 8, 9, 10, 11].map(hour);
  const series = { values: [0, 1, 2, 3, 4, 7, 8, 9, 10, 11], timestamps, pastCovariates: [[0, 1, 2, 3, 4, 7, 8, 9, 10, 11]] };
  const rows = await forecaster.predict(series, { horizon: 1 });
  expect(rows.warnings).toMatchObject([
    { code: "gaps", message: expect.stringMatching(/1 gap .*2 missing steps of 1h.*steps are rows/) as string },
  ]);
  const gaps = await forecaster.predict({ ...series, frequency: "1h" }, { horizon: 1 });
  expect(gaps.timestamps).toEqual([hour(12)]);
  const [first, second] = model.requests.map((request) => request.series[0]);
  expect(first?.values[0]?.length).toBe(10);
  expect(Array.from(second?.values[0] ?? [])).toEqual([0, 1, 2, 3, 4, Number.NaN, Number.NaN, 7, 8, 9, 10, 11]);
  expect(second?.values[1]).toEqual(second?.values[0]);
  expect(Array.from(second?.mask?.[0] ?? [])).toEqual([1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1]);
});
