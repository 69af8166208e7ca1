/** Tiny Kronos models of the formula and made-up candles for the Kronos tests. */
import { formulaCheckpoint } from "../src/models/formula/checkpoint.js";
import { KronosModel } from "../src/models/kronos/model.js";
import type { ModelRequest, ModelSeries, ModelSeriesAnswer, TokenSampling } from "../src/models/model.js";
import type { KvCacheStrategy } from "../src/models/options.js";
import { openDevice, type Mode } from "../src/trace/entry.js";

export interface KronosChoice {
  readonly device?: string;
  readonly threads?: number;
  readonly mode?: Mode;
  readonly weights?: "f32" | "bf16";
  readonly kvCache?: KvCacheStrategy;
  readonly sharePrefix?: boolean;
}

/** The tiny model and its tokenizer. */
export function loadTiny(choice: KronosChoice = {}): KronosModel {
  const { device = "native", threads, mode = "reduce-overhead", kvCache = "static", sharePrefix = true } = choice;
  const model = formulaCheckpoint("kronos-tiny", { seed: 303 });
  const tokenizer = formulaCheckpoint("kronos-tokenizer-tiny", { seed: 303 });
  try {
    return KronosModel.load(
      { name: "tiny", checkpoint: model },
      { name: "tiny tokenizer", checkpoint: tokenizer },
      openDevice(device, threads === undefined ? {} : { threads }),
      { mode, kvCache, sharePrefix, weights: choice.weights },
    );
  } finally {
    model.source.close();
    tokenizer.source.close();
  }
}

/** Numbers in [0, 1) that only depend on the seed. */
export function randomNumbers(seed: number): () => number {
  let state = (seed * 2654435761 + 1) >>> 0;
  return () => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state / 2 ** 32;
  };
}

const features = (from: number, count: number): Int32Array => {
  const result = new Int32Array(count * 5);
  for (let i = 0; i < count; i++) {
    const hour = from + i;
    result.set([0, hour % 24, Math.floor(hour / 24) % 7, 1 + (Math.floor(hour / 24) % 28), 1 + (Math.floor(hour / 672) % 12)], i * 5);
  }
  return result;
};

/** Hourly candles of a random walk, raw columns and time features. */
export function makeCandles(seed: number, length: number, horizon: number, stream = 0): ModelSeries {
  const random = randomNumbers(seed);
  const columns = Array.from({ length: 6 }, () => new Float32Array(length));
  let price = 50 + 100 * random();
  for (let row = 0; row < length; row++) {
    const open = price;
    price += (random() - 0.5) * 4;
    const volume = 1000 * random();
    const values = [open, Math.max(open, price) + random(), Math.min(open, price) - random(), price, volume, volume * price];
    values.forEach((value, column) => ((columns[column] as Float32Array)[row] = value));
  }
  return { values: columns, stream, stamps: { context: features(seed, length), future: features(seed + length, horizon) } };
}

export function request(series: readonly ModelSeries[], horizon: number, samples: number, sampling: TokenSampling = {}): ModelRequest {
  return { series, horizon, samples, seed: 7, sampling: { maxContext: 64, ...sampling } };
}

export async function predictOnce(choice: KronosChoice, asked: ModelRequest): Promise<readonly ModelSeriesAnswer[]> {
  const model = loadTiny(choice);
  try {
    return await model.predict(asked);
  } finally {
    model.dispose();
  }
}

/** Every number of an answer as bits. */
export const bitsOf = (answer: ModelSeriesAnswer): Int32Array =>
  Int32Array.from([...answer.mean, ...(answer.paths ?? [])].flatMap((values) => Array.from(new Int32Array(values.slice().buffer))));
