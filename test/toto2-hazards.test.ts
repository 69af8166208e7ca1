/** Series on which the arithmetic of Toto 2.0 goes wrong when it goes wrong: every forecast is finite and its quantiles are in order. */
import { describe, expect, test } from "vitest";
import { formulaCheckpoint } from "../src/models/formula/checkpoint.js";
import type { ModelSeries } from "../src/models/model.js";
import type { Checkpoint, TensorSource } from "../src/models/tensor-source.js";
import { makeRandom } from "./toto1-harness.js";
import { faultOf, loadToto2, quantilesOf, requestOf } from "./toto2-harness.js";

const seed = 4096;
const horizon = 40;

function seriesOf(length: number, value: (t: number, random: () => number) => number): ModelSeries {
  const random = makeRandom(seed);
  return { values: [Float32Array.from({ length }, (_, t) => value(t, random))], stream: 0 };
}

const wave = (t: number): number => 3 * Math.sin(t / 5);

const hazards: Readonly<Record<string, ModelSeries>> = {
  "near-constant with noise of 1e-9": seriesOf(96, (_, random) => 5 + 1e-9 * random()),
  "constant zero": seriesOf(96, () => 0),
  "a huge offset": seriesOf(96, (t) => 1e8 + wave(t)),
  "a huge scale": seriesOf(96, (t) => 1e30 * wave(t)),
  "the largest values": seriesOf(96, (t) => (t % 2 === 0 ? 1e33 : -1e33)),
  "subnormal numbers": seriesOf(96, (t) => 1e-41 * wave(t)),
  "one value": seriesOf(1, () => 42),
  "one observation among missing ones": seriesOf(96, (t) => (t === 17 ? 42 : NaN)),
  "one observation at the end": seriesOf(96, (t) => (t === 95 ? -3 : NaN)),
  "a gap of patches at the end": seriesOf(96, (t) => (t < 40 ? wave(t) : NaN)),
  "a leading gap of patches": seriesOf(96, (t) => (t < 50 ? NaN : wave(t))),
  "alternate missing values": seriesOf(96, (t) => (t % 2 ? NaN : wave(t))),
  "all missing": seriesOf(96, () => NaN),
  infinities: seriesOf(96, (t) => (t % 7 === 0 ? Infinity : t % 11 === 0 ? -Infinity : wave(t))),
  "one spike of 1e20": seriesOf(96, (t) => (t === 50 ? 1e20 : wave(t))),
  "a step after a constant": seriesOf(96, (t) => (t < 90 ? 1 : 1e6)),
};

describe("hazards", () => {
  for (const [kind, decoding] of [
    ["single pass", {}],
    ["block decoding", { decodeBlockSize: 8 }],
    ["linear imputation", { imputation: "linear" }],
    ["without missing values", { hasMissingValues: false, decodeBlockSize: 16 }],
  ] as const) {
    test(`${kind}: finite, quantiles in order`, async () => {
      const model = loadToto2();
      const answers = await model.predict(requestOf(Object.values(hazards), horizon, decoding));
      const faults = quantilesOf(answers).map((values, index) => [Object.keys(hazards)[index], faultOf(values, horizon)]);
      expect(faults.filter(([, fault]) => fault !== undefined)).toEqual([]);
      for (const { mean } of answers) expect(mean[0]!.every(Number.isFinite)).toBe(true);
      model.dispose();
    });
  }

  test("where sinh overflows: weights a thousand times too large still give a bounded forecast", async () => {
    const model = loadToto2({ checkpoint: loud() });
    const series = seriesOf(96, wave);
    const values = quantilesOf(await model.predict(requestOf([series], horizon)))[0]!;
    expect(faultOf(values, horizon)).toBeUndefined();
    const wild = quantilesOf(await model.predict(requestOf([series], horizon, { preset: "forecast" })))[0]!;
    expect(faultOf(wild, horizon)).toBeDefined();
    model.dispose();
  });

  test("a constant series forecasts the constant", async () => {
    const model = loadToto2();
    for (const constant of [0, 0.001, -17.25, 1e6, 1e-30]) {
      const values = quantilesOf(await model.predict(requestOf([seriesOf(96, () => constant)], horizon)))[0]!;
      // The scale's floor is 1e-6: that is as near as quantiles around a constant come.
      const furthest = values.reduce((far, value) => Math.max(far, Math.abs(value - Math.fround(constant))), 0);
      expect(furthest).toBeLessThanOrEqual(1e-4);
    }
    model.dispose();
  });
});

/** A tiny model whose head is far too loud. */
function loud(): Checkpoint {
  const { config, source } = formulaCheckpoint("toto2-tiny", { seed: 7 });
  const read = (name: string): Float32Array =>
    source.read(name).map((value) => (name.startsWith("output_head") && name.endsWith("weight") ? 1000 * value : value));
  return {
    config,
    source: { ...source, label: source.label, names: () => source.names(), info: (name) => source.info(name), read } as TensorSource,
  };
}
