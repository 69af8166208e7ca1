/** Shared by the Toto 1.0 tests: models made of formula weights, made-up series, and bitwise comparison. */
import { formulaCheckpoint } from "../src/models/formula/checkpoint.js";
import type { ModelRequest, ModelSeries, ModelSeriesAnswer } from "../src/models/model.js";
import type { KvCacheStrategy } from "../src/models/options.js";
import type { Checkpoint } from "../src/models/tensor-source.js";
import { Toto1Model } from "../src/models/toto1/model.js";
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
  readonly kvCache?: KvCacheStrategy;
  readonly sharePrefix?: boolean;
  /** Replaces the formula checkpoint, for planted faults. */
  readonly checkpoint?: Checkpoint;
}

/** A tiny model unless told otherwise; whoever calls disposes it. */
export function loadToto1(choice: ModelChoice = {}): Toto1Model {
  const { preset = "toto1-tiny", seed = 7, set = {}, device = "native", deviceOptions = {}, mode = "reduce-overhead" } = choice;
  const checkpoint = choice.checkpoint ?? formulaCheckpoint(preset, { seed, set });
  return Toto1Model.load(preset, checkpoint, openDevice(device, deviceOptions), {
    mode,
    kvCache: choice.kvCache ?? "static",
    weights: choice.weights,
    ...(choice.sharePrefix === undefined ? {} : { sharePrefix: choice.sharePrefix }),
  });
}

/** Loads, predicts and disposes. */
export async function predictOnce(choice: ModelChoice, request: ModelRequest): Promise<readonly ModelSeriesAnswer[]> {
  const model = loadToto1(choice);
  try {
    return await model.predict(request);
  } finally {
    model.dispose();
  }
}

/** Numbers in [0, 1), equal for equal seeds (a linear congruential generator, high bits). */
export function makeRandom(seed: number): () => number {
  let state = (Math.imul(seed, 2654435761) + 12345) >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const high = state >>> 8;
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (high + (state >>> 8) / 2 ** 24) / 2 ** 24;
  };
}

export interface SeriesChoice {
  readonly length: number;
  readonly variates?: number;
  readonly seed: number;
  /** Share of samples that are not observed. */
  readonly missing?: number;
  readonly stream?: number;
  readonly groups?: readonly number[];
  /** Known futures of the last E variates over this horizon. */
  readonly known?: { readonly variates: number; readonly horizon: number };
}

/** A wave with a drift and noise, a different one per variate. */
export function makeSeries({ length, variates = 1, seed, missing = 0, stream = 0, groups, known }: SeriesChoice): ModelSeries {
  const random = makeRandom(seed);
  const values = Array.from({ length: variates }, () => {
    const [level, size, period] = [20 * random() - 10, 1 + 5 * random(), 6 + 40 * random()];
    let drift = level;
    return Float32Array.from({ length }, (_, t) => {
      drift += 0.3 * (random() - 0.5);
      return drift + size * Math.sin((2 * Math.PI * t) / period) + 0.2 * (random() - 0.5);
    });
  });
  const mask = values.map(() => Uint8Array.from({ length }, () => (random() < missing ? 0 : 1)));
  return {
    values,
    mask,
    stream,
    ...(groups ? { groups: Int32Array.from(groups) } : {}),
    ...(known
      ? {
          knownFuture: Array.from({ length: known.variates }, () => Float32Array.from({ length: known.horizon }, () => 10 * random() - 5)),
        }
      : {}),
  };
}

/** Every number of an answer in one array: means, then paths. */
export function numbersOf(answers: readonly ModelSeriesAnswer[]): Float32Array {
  const parts = answers.flatMap(({ mean, paths }) => [...mean, ...(paths ?? [])]);
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
  return all;
}

/** Position and values of the first bitwise difference, or undefined when there is none. Arrays of unequal length differ. */
export function firstDifference(a: Float32Array, b: Float32Array): string | undefined {
  if (a.length !== b.length) return `${a.length} numbers against ${b.length}`;
  const [left, right] = [a, b].map((values) => new Int32Array(values.slice().buffer)) as [Int32Array, Int32Array];
  const index = left.findIndex((bits, i) => bits !== right[i]);
  return index < 0 ? undefined : `number ${index} of ${a.length}: ${a[index]} against ${b[index]}`;
}

/** Largest distance of two forecasts, relative to the size of the second. */
export function relativeDistance(a: Float32Array, b: Float32Array): number {
  const size = Math.sqrt(b.reduce((sum, value) => sum + value * value, 0) / b.length);
  let worst = a.length === b.length ? 0 : NaN;
  for (let i = 0; i < a.length; i++) worst = Math.max(worst, Math.abs((a[i] as number) - (b[i] as number)) / size);
  return worst;
}

/** Neither NaN nor all equal: a comparison of such numbers says something. */
export const isAlive = (values: Float32Array): boolean => values.every(Number.isFinite) && new Set(values).size > values.length / 8;
