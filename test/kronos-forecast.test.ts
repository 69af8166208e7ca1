/** Candles through the forecaster: answers per column, fill rules, consistency, mistakes, abort, dispose, loading. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Forecaster, percentChanges, type PredictOptions, type SeriesInput } from "../src/index.js";
import { formulaCheckpoint } from "../src/models/formula/checkpoint.js";
import { KronosModel } from "../src/models/kronos/model.js";
import { openDevice } from "../src/trace/entry.js";
import { randomNumbers } from "./kronos-harness.js";

let forecaster: Forecaster;
beforeAll(async () => {
  forecaster = await Forecaster.load("bundled:kronos-formula");
});
afterAll(() => forecaster.dispose());

const stamps = (count: number, from = Date.UTC(2024, 0, 1)): string[] =>
  Array.from({ length: count }, (_, hour) => new Date(from + hour * 3_600_000).toISOString());

function candles(length: number, seed = 1, id = "BTC"): SeriesInput & { columns: Record<string, number[]> } {
  const random = randomNumbers(seed);
  const columns: Record<string, number[]> = { Open: [], HIGH: [], low: [], Close: [], Volume: [] };
  let price = 100;
  for (let row = 0; row < length; row++) {
    const open = price;
    price += random() * 2 - 1;
    columns["Open"]?.push(open);
    columns["HIGH"]?.push(Math.max(open, price) + random());
    columns["low"]?.push(Math.min(open, price) - random());
    columns["Close"]?.push(price);
    columns["Volume"]?.push(1000 * random());
  }
  return { id, columns, timestamps: stamps(length) };
}

test("one entry per candle column, in the units of the series", async () => {
  const forecast = await forecaster.predict(candles(60), { horizon: 5, samples: 8, quantiles: [0.1, 0.9], paths: true });
  expect(forecast.series.map(({ variate }) => variate)).toEqual(["open", "high", "low", "close", "volume", "amount"]);
  const json = forecast.toJSON();
  expect(json.series[3]?.timestamps).toEqual(
    stamps(65)
      .slice(60)
      .map((text) => text.replace(".000Z", "Z")),
  );
  expect(json.series[3]?.paths?.length).toBe(8);
  expect(Object.keys(json.series[3]?.quantiles ?? {})).toEqual(["0.1", "0.9"]);
  for (const entry of forecast) {
    const middle = Array.from(
      entry.mean,
      (value, step) => value >= (entry.quantile(0.01)[step] as number) - 1e-3 && value <= (entry.quantile(0.99)[step] as number) + 1e-3,
    );
    expect(middle.every(Boolean), entry.variate).toBe(true);
  }
  const close = forecast.series[3]?.mean as Float32Array;
  expect(close.every((value) => value > 50 && value < 150)).toBe(true);
  expect(forecast.report.meanKind).toBe("sample mean");
});

test("an amount that equals volume times the mean price changes nothing; columns by any usual name", async () => {
  const given = candles(40);
  const [open, high, low, close, volume] = ["Open", "HIGH", "low", "Close", "Volume"].map((name) => given.columns[name] as number[]) as [
    number[],
    number[],
    number[],
    number[],
    number[],
  ];
  const amount = volume.map(
    (value, row) => value * (((open[row] as number) + (high[row] as number) + (low[row] as number) + (close[row] as number)) / 4),
  );
  const renamed = {
    id: "BTC",
    timestamps: given.timestamps as string[],
    columns: { o: open, "High Price": high, LOW: low, "close.": close, vol: volume, turnover: amount },
  };
  const options: PredictOptions = { horizon: 4, samples: 3, report: false, paths: true };
  expect((await forecaster.predict(renamed, options)).toJSON()).toEqual((await forecaster.predict(given, options)).toJSON());
});

test("negative prices, zero volume and constant columns work", async () => {
  const given = candles(30);
  const shifted = Object.fromEntries(
    Object.entries(given.columns).map(([name, values]) => [name, values.map((value) => (name === "Volume" ? 0 : value - 500))]),
  );
  const forecast = await forecaster.predict({ ...given, columns: shifted }, { horizon: 3, samples: 2 });
  expect(forecast.series[3]?.mean.every((value) => value < 0 && Number.isFinite(value))).toBe(true);
  expect(forecast.series[4]?.mean.every((value) => Math.abs(value) < 1e-3)).toBe(true);
});

test("consistent candles hold open and close, and the change is reported", async () => {
  const plain = await forecaster.predict(candles(60), { horizon: 8, samples: 4 });
  const fixed = await forecaster.predict(candles(60), { horizon: 8, samples: 4, consistent: true });
  const [open, high, low, close, volume] = fixed.series.map(({ mean }) => mean) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  for (let step = 0; step < 8; step++) {
    expect(high[step]).toBeGreaterThanOrEqual(Math.max(open[step] as number, close[step] as number, low[step] as number));
    expect(low[step]).toBeLessThanOrEqual(Math.min(open[step] as number, close[step] as number));
    expect(volume[step]).toBeGreaterThanOrEqual(0);
  }
  expect(plain.warnings).toEqual([]);
  expect(fixed.warnings.map(({ code }) => code)).toEqual(["consistent"]);
  expect(open).toEqual(plain.series[0]?.mean);
  expect(close).toEqual(plain.series[3]?.mean);
});

test("series of unequal length in one call equal each alone", async () => {
  const options: PredictOptions = { horizon: 4, samples: 3, report: false, paths: true, maxContext: 48 };
  const inputs = [candles(20, 1, "A"), candles(44, 2, "B"), candles(48, 3, "C"), candles(70, 4, "D")];
  const together = (await forecaster.predict(inputs, options)).toJSON().series;
  for (const [index, input] of inputs.entries())
    expect((await forecaster.predict(input, options)).toJSON().series).toEqual(together.slice(6 * index, 6 * index + 6));
});

test("a window that will slide is said, with the context that avoids it", async () => {
  const forecast = await forecaster.predict(candles(60), { horizon: 8, samples: 1, maxContext: 64 });
  expect(forecast.warnings.map(({ code }) => code)).toEqual(["sliding-window"]);
  expect(forecast.warnings[0]?.message).toContain("context 57 or less");
  const short = await forecaster.predict(candles(60), { horizon: 8, samples: 1, maxContext: 64, context: 57 });
  expect(short.warnings).toEqual([]);
});

test("progress counts each candle once where some windows slide and others do not", async () => {
  const seen: number[] = [];
  const inputs = [candles(20, 1, "A"), candles(60, 2, "B")];
  const onProgress = ({ done, total }: { done: number; total: number }): void => void seen.push(done, total);
  await forecaster.predict(inputs, { horizon: 5, samples: 2, maxContext: 48, onProgress });
  expect(seen).toEqual([1, 2, 3, 4, 5].flatMap((done) => [done, 5]));
});

test("percent changes start from the last known value", () => {
  expect(Array.from(percentChanges([110, 99], 100))).toEqual([10, -10]);
});

describe("mistakes: one sentence that says what, where and what to do", () => {
  const base = candles(20);
  const without = (name: string): SeriesInput => ({
    ...base,
    columns: Object.fromEntries(Object.entries(base.columns).filter(([key]) => key !== name)),
  });
  const changed = (name: string, row: number, value: number | null): SeriesInput => ({
    ...base,
    columns: { ...base.columns, [name]: (base.columns[name] as number[]).map((old, index) => (index === row ? (value as number) : old)) },
  });
  const restamped = (row: number, text: string): SeriesInput => ({
    ...base,
    timestamps: (base.timestamps as string[]).map((old, index) => (index === row ? text : old)),
  });
  const cases: readonly (readonly [string, SeriesInput, PredictOptions, RegExp])[] = [
    ["no high and low", { ...base, columns: { open: [1, 2], close: [1, 2] } }, {}, /no column "high", "low".*found open, close/],
    ["no close", without("Close"), {}, /no column "close"/],
    [
      "two closes",
      { ...base, columns: { ...base.columns, last: base.columns["Close"] as number[] } },
      {},
      /"Close" and "last" both mean close/,
    ],
    ["values", { values: [1, 2, 3], timestamps: stamps(3) }, {}, /takes candles/],
    ["NaN row", changed("Close", 7, NaN), {}, /candle 7 \(2024-01-01T07.*"close" is missing/],
    ["null row", changed("Volume", 3, null), {}, /candle 3.*"volume" is missing/],
    ["infinite", changed("Open", 3, 1e39), {}, /"open" is 1e\+39/],
    ["uneven columns", { ...base, columns: { ...base.columns, Volume: [1] } }, {}, /"volume" has 1 values, "close" has 20/],
    ["no stamps", { id: "x", columns: base.columns }, {}, /no timestamps/],
    ["too few stamps", { ...base, timestamps: stamps(19) }, {}, /20 candles and 19 timestamps/],
    ["unsorted", restamped(5, "2024-01-01T01:30:00Z"), {}, /candle 5.*comes before.*sort/],
    ["twice", restamped(5, "2024-01-01T04:00:00Z"), {}, /candle 5.*occurs twice/],
    ["no stamp", restamped(5, "noon"), {}, /candle 5: "noon" is no timestamp/],
    [
      "mixed bar sizes",
      {
        ...base,
        timestamps: stamps(20).map((text, row) =>
          row < 10 ? text : new Date(Date.UTC(2024, 0, 1, 9) + (row - 9) * 300_000).toISOString(),
        ),
      },
      {},
      /several lengths.*60 min|several lengths.*5 min/,
    ],
    [
      "one candle",
      { ...base, columns: { open: [1], high: [1], low: [1], close: [1] }, timestamps: stamps(1) },
      {},
      /1 candle; two or more/,
    ],
    ["temperature 0", base, { temperature: 0 }, /temperature must be a number above 0.*got 0/],
    ["temperature -1", base, { temperature: -1 }, /temperature must be.*got -1/],
    ["topP 0", base, { topP: 0 }, /topP must be a share above 0 and at most 1; got 0/],
    ["topP 1.1", base, { topP: 1.1 }, /topP.*got 1.1/],
    ["topK 1.5", base, { topK: 1.5 }, /topK must be a whole number/],
    ["clip 0", base, { clip: 0 }, /clip must be/],
    ["horizon beyond the window", base, { horizon: 30, maxContext: 20 }, /horizon 30 is more than.*at most 20/],
    ["unknown zone", base, { timeZone: "Mars/Base" }, /"Mars\/Base" is no time zone/],
    ["calendar", base, { calendar: "weekly" as never }, /calendar must be "auto"/],
    ["future stamps", { ...base, futureTimestamps: stamps(2) }, { horizon: 3 }, /2 future timestamps for a horizon of 3/],
    ["future in the past", { ...base, futureTimestamps: stamps(3) }, { horizon: 3 }, /future.*comes before/],
    ["unknown field", { ...base, mask: [1] } as SeriesInput, {}, /field "mask"/],
  ];
  for (const [name, input, options, message] of cases) {
    test(name, async () => {
      await expect(forecaster.predict(input, { horizon: 2, samples: 1, ...options })).rejects.toThrow(message);
    });
  }

  test("options of candle models are refused by others", async () => {
    const other = await Forecaster.load("bundled:toto1-formula");
    await expect(other.predict({ values: [1, 2, 3] }, { topP: 0.5 })).rejects.toThrow(/topP belongs to Kronos/);
    other.dispose();
  });
});

describe("loading", () => {
  const device = (): ReturnType<typeof openDevice> => openDevice("native");
  const load = (model: string, tokenizer: string, names: readonly [string, string] = [model, tokenizer], set = {}): KronosModel =>
    KronosModel.load(
      { name: names[0], checkpoint: formulaCheckpoint(model, { seed: 1, set }) },
      { name: names[1], checkpoint: formulaCheckpoint(tokenizer, { seed: 1 }) },
      device(),
      { mode: "reduce-overhead", kvCache: "static" },
    );
  test("pairs that do not fit are refused", () => {
    expect(() => load("kronos-mini", "kronos-tokenizer-tiny")).toThrow(/10 \+ 10 bits.*6 \+ 6/);
    expect(() => load("kronos-tiny", "kronos-tokenizer-tiny", ["Kronos-mini", "Kronos-Tokenizer-base"])).toThrow(
      /trained with Kronos-Tokenizer-2k/,
    );
    expect(() => load("kronos-tiny", "kronos-tiny")).toThrow(/no Kronos tokenizer/);
  });
  test("files without stored frequencies and with fixed time tables load", async () => {
    const model = load("kronos-tiny", "kronos-tokenizer-tiny", ["a", "b"], { buffers: false, learn_te: false });
    expect(model.maximumContext).toBe(512);
    model.dispose();
  });
  test("missing tensors are named", () => {
    const checkpoint = formulaCheckpoint("kronos-tiny", { seed: 1 });
    const tokenizer = formulaCheckpoint("kronos-tokenizer-tiny", { seed: 1 });
    const before = device().device.allocatedBytes;
    const broken = { ...checkpoint, config: { ...checkpoint.config, n_layers: 4 } };
    expect(() =>
      KronosModel.load({ name: "a", checkpoint: broken }, { name: "b", checkpoint: tokenizer }, device(), {
        mode: "default",
        kvCache: "static",
      }),
    ).toThrow(/missing transformer.3/);
    expect(device().device.allocatedBytes).toBe(before);
  });
  test("a folder without tokenizer says what to do; a tokenizer is no model", async () => {
    const folder = mkdtempSync(join(tmpdir(), "kronos-"));
    try {
      writeFileSync(join(folder, "config.json"), JSON.stringify(formulaCheckpoint("kronos-tiny").config));
      const header = Buffer.from("{}      ");
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(header.length));
      writeFileSync(join(folder, "model.safetensors"), Buffer.concat([length, header]));
      await expect(Forecaster.load(folder)).rejects.toThrow(/needs its tokenizer.*--tokenizer/);
    } finally {
      rmSync(folder, { recursive: true });
    }
    await expect(Forecaster.load("bundled:kronos-tokenizer-formula")).rejects.toThrow(/is a Kronos tokenizer/);
  });
});

describe("abort and dispose", () => {
  test("an abort ends the run, the next one is right", async () => {
    const own = await Forecaster.load("bundled:kronos-formula");
    const options: PredictOptions = { horizon: 24, samples: 4, report: false, paths: true };
    const wanted = (await own.predict(candles(60), options)).toJSON();
    const controller = new AbortController();
    const steps: number[] = [];
    const run = own.predict(candles(60), {
      ...options,
      signal: controller.signal,
      onProgress: ({ done }) => {
        steps.push(done);
        if (done === 5) controller.abort(new Error("enough"));
      },
    });
    await expect(run).rejects.toThrow("enough");
    expect(steps.length).toBeLessThan(24);
    expect((await own.predict(candles(60), options)).toJSON()).toEqual(wanted);
    own.dispose();
    own.dispose();
    await expect(own.predict(candles(60), options)).rejects.toThrow(/disposed/);
  });

  test("dispose during a run ends it and frees everything", async () => {
    const { device } = openDevice("native");
    const model = KronosModel.load(
      { name: "a", checkpoint: formulaCheckpoint("kronos-tiny", { seed: 1 }) },
      { name: "b", checkpoint: formulaCheckpoint("kronos-tokenizer-tiny", { seed: 1 }) },
      { device },
      { mode: "reduce-overhead", kvCache: "static" },
    );
    const before = device.allocatedBytes;
    expect(before).toBeGreaterThan(0);
    const own = Forecaster.fromModel(model);
    const run = own.predict(candles(60), { horizon: 40, samples: 4, onProgress: ({ done }) => done === 3 && own.dispose() });
    await expect(run).rejects.toThrow(/disposed/);
    expect(device.allocatedBytes).toBeLessThan(before);
  });
});
