/** Shared by the Toto 2.0 tests: models made of formula weights, and answers as plain numbers. */
import { formulaCheckpoint } from "../src/models/formula/checkpoint.js";
import type { ModelRequest, ModelSeries, ModelSeriesAnswer } from "../src/models/model.js";
import type { Checkpoint } from "../src/models/tensor-source.js";
import { Toto2Model } from "../src/models/toto2/model.js";
import type { DeviceOptions } from "../src/runtime/device.js";
import { openDevice, type Mode } from "../src/trace/entry.js";

export interface ModelChoice {
  readonly preset?: string;
  readonly seed?: number;
  readonly set?: Readonly<Record<string, unknown>>;
  readonly device?: "native" | "reference";
  readonly deviceOptions?: DeviceOptions;
  readonly mode?: Mode;
  readonly weights?: "f32" | "bf16";
  /** Replaces the formula checkpoint, for planted faults. */
  readonly checkpoint?: Checkpoint;
}

/** A tiny model unless told otherwise; whoever calls disposes it. */
export function loadToto2(choice: ModelChoice = {}): Toto2Model {
  const { preset = "toto2-tiny", seed = 7, set = {}, device = "native", deviceOptions = {}, mode = "reduce-overhead" } = choice;
  const checkpoint = choice.checkpoint ?? formulaCheckpoint(preset, { seed, set });
  return Toto2Model.load(preset, checkpoint, openDevice(device, deviceOptions), { mode, kvCache: "static", weights: choice.weights });
}

/** Loads, predicts and disposes. */
export async function predictOnce(choice: ModelChoice, request: ModelRequest): Promise<readonly ModelSeriesAnswer[]> {
  const model = loadToto2(choice);
  try {
    return await model.predict(request);
  } finally {
    model.dispose();
  }
}

/** A request without paths. */
export const requestOf = (series: readonly ModelSeries[], horizon: number, decoding: ModelRequest["decoding"] = {}): ModelRequest => ({
  series,
  horizon,
  samples: 0,
  seed: 0,
  decoding,
});

/** All quantiles of all answers, one after the other; each [levels * horizon]. */
export const quantilesOf = (answers: readonly ModelSeriesAnswer[]): readonly Float32Array[] =>
  answers.flatMap(({ quantiles }) => quantiles?.values ?? []);

/** Every number of an answer in one array: means, quantiles, then paths. */
export function everyNumber(answers: readonly ModelSeriesAnswer[]): Float32Array {
  const parts = answers.flatMap(({ mean, quantiles, paths }) => [...mean, ...(quantiles?.values ?? []), ...(paths ?? [])]);
  return Float32Array.from(parts.flatMap((part) => [...part]));
}

/** Why quantiles [levels * horizon] are no forecast: a value that is not finite, or levels out of order. */
export function faultOf(values: Float32Array, horizon: number): string | undefined {
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    if (!Number.isFinite(value)) return `value ${i} is ${value}`;
    if (i >= horizon && value < (values[i - horizon] as number)) return `value ${i} is below that of the level before`;
  }
  return undefined;
}
