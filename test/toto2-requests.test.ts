/** Requests of Toto 2.0: what is refused and how it is said, presets, corrected behaviour, covariates, groups, and sample paths. */
import { describe, expect, test } from "vitest";
import { formulaCheckpoint } from "../src/models/formula/checkpoint.js";
import type { ModelRequest } from "../src/models/model.js";
import { Forecaster, type QuantileDecoding } from "../src/index.js";
import { checkDecoding } from "../src/models/toto2/decoding.js";
import { impute } from "../src/models/toto2/imputation.js";
import { parseToto2Config } from "../src/models/toto2/config.js";
import { RoundLayout } from "../src/models/toto2/layout.js";
import { SampleStore } from "../src/models/toto2/samples.js";
import { wrapperPast } from "../src/models/toto2/wrapper.js";
import { FakeModel } from "./forecast-fake-model.js";
import { firstDifference, makeSeries } from "./toto1-harness.js";
import { everyNumber, loadToto2, predictOnce, quantilesOf, requestOf } from "./toto2-harness.js";

const seed = 88;
const horizon = 40;
const one = makeSeries({ length: 60, seed });
const pair = makeSeries({ length: 60, variates: 2, seed });

describe("refused requests name what does not fit", () => {
  const refused: Readonly<Record<string, readonly [ModelRequest, RegExp]>> = {
    "a block that is no multiple of the patch": [
      requestOf([one], horizon, { decodeBlockSize: 12 }),
      /decodeBlockSize is 12.*multiple.*patch of 8/,
    ],
    "a negative block": [requestOf([one], horizon, { decodeBlockSize: -8 }), /decodeBlockSize is -8/],
    "a negative cap": [requestOf([one], horizon, { quantileRealCapK: -1 }), /quantileRealCapK is -1/],
    "half an observation": [requestOf([one], horizon, { scalerFallbackMinObs: 1.5 }), /scalerFallbackMinObs is 1.5/],
    "an unknown imputation": [requestOf([one], horizon, { imputation: "mean" as "none" }), /imputation is "mean".*none, ffill, linear/],
    "an unknown option": [
      requestOf([one], horizon, { blockSize: 8 } as never),
      /unknown decoding option "blockSize": known options are preset/,
    ],
    "a correction in words": [requestOf([one], horizon, { stableCentre: "yes" as never }), /stableCentre is "yes", expected true or false/],
    "an unknown preset": [requestOf([one], horizon, { preset: "best" as "wrapper" }), /preset is "best".*wrapper, forecast/],
    "more patches than positions": [requestOf([one], 8 * 8190), /8198 patches of 8 samples.*8192.*shorten/],
    "covariates of the wrong length": [
      requestOf([{ ...pair, knownFuture: [new Float32Array(horizon - 1)] }], horizon),
      /covariate 0 has 39 values, expected 40/,
    ],
    "only covariates": [requestOf([{ ...one, knownFuture: [new Float32Array(horizon)] }], horizon), /at least one variate to forecast/],
    "a mask of the wrong shape": [
      requestOf([{ ...one, mask: [new Uint8Array(59)] }], horizon),
      /mask of variate 0 has 59 entries, expected 60/,
    ],
    "a mask of too many rows": [
      requestOf([{ ...one, mask: [new Uint8Array(60), new Uint8Array(60)] }], horizon),
      /mask has 2 rows, expected 1/,
    ],
    "too many ids": [requestOf([{ ...one, groups: Int32Array.of(1, 2) }], horizon), /2 series ids, expected 1/],
    "no values": [requestOf([{ values: [new Float32Array(0)], stream: 0 }], horizon), /no values/],
    "values that float32 arithmetic cannot carry": [
      requestOf([{ values: [Float32Array.of(1, 3e38)], stream: 0 }], horizon),
      /value 1 of variate 0 is 3.*scale the series down/,
    ],
  };
  test.each(Object.entries(refused))("%s", async (_, [request, message]) => {
    const model = loadToto2({ device: "reference" });
    await expect(model.predict(request)).rejects.toMatchObject({ name: "InputError", message: expect.stringMatching(message) as string });
    expect(model.report().steps).toBe(0);
    model.dispose();
    await expect(model.predict(request)).rejects.toMatchObject({ code: "disposed" });
  });
});

describe("refused checkpoints", () => {
  const { config } = formulaCheckpoint("toto2-tiny", {});
  test.each([
    ["two output patches", { num_output_patches: 2 }, /"num_output_patches" is 2.*that is 1/],
    ["no width", { d_model: undefined }, /"d_model" is missing/],
    ["a width in words", { d_model: "wide" }, /"d_model" is "wide"/],
    ["heads that groups do not divide", { num_groups: 3, num_heads: 4 }, /no multiple of "num_groups" 3/],
    ["an odd head width", { qk_dim: 14 }, /"qk_dim" is 14.*multiple of 4/],
    ["too many variate layers", { num_variate_layers_per_group: 9 }, /"num_variate_layers_per_group" is 9/],
    ["a flag that is a number", { use_xpos: 1 }, /"use_xpos" is 1, expected true or false/],
  ] as const)("%s", (_, fields, message) => {
    expect(() => parseToto2Config({ ...config, ...fields })).toThrow(message);
  });

  test("tensors that do not fit the configuration are all named", () => {
    const { source } = formulaCheckpoint("toto2-tiny", {});
    expect(() => loadToto2({ checkpoint: { config: { ...config, d_ff: 96 }, source } })).toThrow(
      /ffn\.fc1\.weight has shape \[176, 32\], expected \[192, 32\]/,
    );
    expect(() => loadToto2({ checkpoint: { config: { ...config, d_model: 64 }, source } })).toThrow(/patch_proj|transformer/);
    expect(() => loadToto2({ checkpoint: { config: { ...config, num_layers: 3 }, source } })).toThrow(/unknown transformer\.layers\.3/);
    expect(() => loadToto2({ checkpoint: { config: { ...config, num_layers: 5 }, source } })).toThrow(/missing transformer\.layers\.4/);
  });
});

test("presets are the published defaults, and single options override them", () => {
  expect(checkDecoding({}, 32)).toMatchObject({
    blockPatches: 0,
    fallbackMinimum: 8,
    capScales: 1e4,
    imputation: "ffill",
    hasMissingValues: true,
  });
  expect(checkDecoding({ preset: "forecast" }, 32)).toMatchObject({
    blockPatches: 0,
    fallbackMinimum: 0,
    capScales: 0,
    imputation: "none",
  });
  expect(checkDecoding({ preset: "forecast", decodeBlockSize: 768 }, 32)).toMatchObject({ blockPatches: 24, capScales: 0 });
  expect(checkDecoding({ decodeBlockSize: null }, 32).blockPatches).toBe(0);
  expect([wrapperPast(64, 20, 8), wrapperPast(64, 52, 8), wrapperPast(4, 52, 8), wrapperPast(4096, 96, 32)]).toEqual([48, 16, 8, 4032]);
});

test("imputation: forward fill, lines, zeros; leading gaps are 0", () => {
  const values = Float32Array.of(9, 2, 9, 9, 5, 9);
  const mask = Uint8Array.of(0, 1, 0, 0, 1, 0);
  expect([...impute(values, mask, "none")]).toEqual([0, 2, 0, 0, 5, 0]);
  expect([...impute(values, mask, "ffill")]).toEqual([0, 2, 2, 2, 5, 5]);
  expect([...impute(values, mask, "linear")]).toEqual([0, 2, 3, 4, 5, 5]);
});

test("the forecaster takes the options as `decoding`, and a model without them refuses", async () => {
  const series = { values: [...one.values[0]!] };
  const forecaster = Forecaster.fromModel(loadToto2());
  const ask = async (decoding?: QuantileDecoding): Promise<readonly number[]> => {
    const forecast = await forecaster.predict(series, { horizon, ...(decoding ? { decoding } : {}) });
    return [...forecast.quantile(0.5)];
  };
  const [single, block, corrected] = [
    await ask(),
    await ask({ decodeBlockSize: 16 }),
    await ask({ decodeBlockSize: 16, stableCentre: true }),
  ];
  expect(block.slice(0, 16)).not.toEqual(single.slice(16, 32));
  expect(block.slice(16)).not.toEqual(single.slice(16));
  expect(corrected).not.toEqual(block);
  expect(forecaster.report().recompiles).toBe(0);
  await expect(ask({ decodeBlockSize: 12 })).rejects.toThrow(/decodeBlockSize is 12.*multiple of the model's patch of 8/);
  await expect(forecaster.predict(series, { decoding: 16 as never })).rejects.toThrow(/decoding must be an object.*got 16/);
  forecaster.dispose();
  const other = Forecaster.fromModel(new FakeModel());
  await expect(other.predict(series, { decoding: {} })).rejects.toThrow(/decoding belongs to Toto 2/);
});

describe("options change what they should", () => {
  const answer = async (decoding: ModelRequest["decoding"], series = one): Promise<Float32Array> =>
    everyNumber(await predictOnce({}, requestOf([series], horizon, decoding)));

  test("the published stale centre and misplaced group ids matter in block decoding only", async () => {
    // One variate has two wholly unobserved patches at its start, whose ids later rounds look up.
    const late = { ...pair, mask: [new Uint8Array(60).fill(1), Uint8Array.from({ length: 60 }, (_, t) => (t < 20 ? 0 : 1))] };
    for (const correction of [{ stableCentre: true }, { placedGroups: true }]) {
      expect(
        firstDifference(await answer({ decodeBlockSize: 16 }, late), await answer({ decodeBlockSize: 16, ...correction }, late)),
      ).toBeDefined();
    }
    expect(firstDifference(await answer({}, late), await answer({ placedGroups: true }, late))).toBeUndefined();
    expect(
      firstDifference(await answer({ decodeBlockSize: 16 }, one), await answer({ decodeBlockSize: 16, placedGroups: true }, one)),
    ).toBeUndefined();
  });

  test("a block as long as the horizon is a single pass", async () => {
    expect(firstDifference(await answer({ decodeBlockSize: horizon }), await answer({}))).toBeUndefined();
  });

  test("series of different groups do not see each other", async () => {
    const apart = quantilesOf(await predictOnce({}, requestOf([{ ...pair, groups: Int32Array.of(-1, 7) }], horizon)));
    for (const v of [0, 1]) {
      const [alone] = quantilesOf(await predictOnce({}, requestOf([{ values: [pair.values[v]!], stream: 0 }], horizon)));
      const distance = alone!.reduce((far, value, i) => Math.max(far, Math.abs(value - (apart[v]![i] as number))), 0);
      expect(distance).toBeLessThan(1e-4);
    }
    const joint = quantilesOf(await predictOnce({}, requestOf([pair], horizon)));
    expect(firstDifference(joint[0]!, apart[0]!)).toBeDefined();
  });

  test("known futures reach the forecast, and come back as they are", async () => {
    const flat = { ...pair, knownFuture: [new Float32Array(horizon)] };
    const raised = { ...pair, knownFuture: [new Float32Array(horizon).fill(30)] };
    const [a, b] = (await predictOnce({}, requestOf([flat, raised], horizon))) as [{ mean: Float32Array[] }, { mean: Float32Array[] }];
    expect(firstDifference(a.mean[0]!, b.mean[0]!)).toBeDefined();
    expect([...b.mean[1]!]).toEqual([...raised.knownFuture[0]!]);
  });

  test("NaN, infinities and mask 0 are the same missing value", async () => {
    const gaps = [3, 4, 5, 30, 58];
    const withGap = (value: number): Float32Array => one.values[0]!.map((x, t) => (gaps.includes(t) ? value : x));
    const masked = { ...one, mask: [Uint8Array.from({ length: 60 }, (_, t) => (gaps.includes(t) ? 0 : 1))] };
    const base = await answer({}, masked);
    for (const value of [NaN, Infinity, -Infinity])
      expect(firstDifference(await answer({}, { values: [withGap(value)], stream: 0 }), base)).toBeUndefined();
  });
});

test("without missing values the first round sees wholly unobserved patches, and later rounds do not", () => {
  const entry = {
    values: [new Float32Array(24).fill(1)],
    mask: [Uint8Array.from({ length: 24 }, (_, t) => (t < 8 ? 0 : 1))],
    patches: 3,
    groups: Int32Array.of(0),
    future: [],
    futureMask: [],
  };
  const options = {
    patch: 8,
    variates: 1,
    covariates: 0,
    futurePatches: 2,
    hasMissingValues: false,
    corrections: { stableCentre: false, placedGroups: false },
    firstBlock: 1,
    reach: 10,
    everyToken: false,
  };
  const groupsOf = (round: { done: number; again: number }, hasMissingValues: boolean): number[] => {
    const given = { ...options, hasMissingValues };
    const layout = new RoundLayout(new SampleStore([entry], given), given, { block: 1, ...round });
    return Array.from(layout.keyGroups().data().slice(0, 4));
  };
  expect(groupsOf({ done: 0, again: 0 }, false)).toEqual([1, 1, 1, 1]);
  expect(groupsOf({ done: 0, again: 0 }, true)).toEqual([0, 1, 1, 1]);
  expect(groupsOf({ done: 1, again: 1 }, false)).toEqual([0, 1, 1, 1]);
});

describe("sample paths", () => {
  const request = (samples: number, stream = 3): ModelRequest => ({ ...requestOf([{ ...one, stream }], horizon), samples, seed: 11 });

  test("lie within the outer quantiles, keep their bits whatever else is asked, and have the quantiles they are drawn from", async () => {
    const model = loadToto2();
    const [all] = await model.predict(request(4000));
    const [paths, knots] = [all!.paths![0]!, all!.quantiles!.values[0]!];
    const [few] = await model.predict(request(5));
    expect(firstDifference(few!.paths![0]!, paths.slice(0, 5 * horizon))).toBeUndefined();
    const [other] = await model.predict(request(5, 4));
    expect(firstDifference(other!.paths![0]!, few!.paths![0]!)).toBeDefined();
    for (let t = 0; t < horizon; t++) {
      const drawn = Float32Array.from({ length: 4000 }, (_, path) => paths[path * horizon + t]!).sort();
      expect(drawn[0]).toBeGreaterThanOrEqual(knots[t]!);
      expect(drawn[3999]).toBeLessThanOrEqual(knots[8 * horizon + t]!);
      // The share of draws below the median: 4000 draws, five standard deviations.
      const below = drawn.filter((value) => value < knots[4 * horizon + t]!).length / 4000;
      expect(Math.abs(below - 0.5)).toBeLessThan(5 * Math.sqrt(0.25 / 4000));
    }
    model.dispose();
  });
});

test("an aborted request rejects with the signal's reason and leaves the model usable", async () => {
  const model = loadToto2();
  const reason = new Error("enough");
  const long = { ...requestOf([one], 2000, { decodeBlockSize: 8 }), signal: AbortSignal.abort(reason) };
  await expect(model.predict(long)).rejects.toBeDefined();
  expect(quantilesOf(await model.predict(requestOf([one], horizon))).length).toBe(1);
  model.dispose();
  model.dispose();
});
