/** Candles as the published predictor prepares them (model-spec C.6): missing columns filled, each column standardised in float32, clipped, and back. */
import { averageRows } from "../average.js";
import { candleColumns } from "./config.js";

/** Columns by name, [L] each; volume and amount may be missing. */
export type CandleColumns = Readonly<Record<"open" | "high" | "low" | "close", ArrayLike<number>>> & {
  readonly volume?: ArrayLike<number> | undefined;
  readonly amount?: ArrayLike<number> | undefined;
};

/** [6][L] float32. Without volume, volume and amount are 0; without amount, it is volume times the mean of the four prices. */
export function fillCandles(columns: CandleColumns): Float32Array[] {
  const { open, high, low, close, volume, amount } = columns;
  const { length } = close;
  const value = (values: ArrayLike<number>, row: number): number => values[row] as number;
  const price = (row: number): number => (value(open, row) + value(high, row) + value(low, row) + value(close, row)) / 4;
  const filled = (make: (row: number) => number): Float32Array => Float32Array.from({ length }, (_, row) => make(row));
  const money = (row: number): number => {
    if (volume === undefined) return 0;
    return amount === undefined ? value(volume, row) * price(row) : value(amount, row);
  };
  return [
    ...[open, high, low, close].map((values) => filled((row) => value(values, row))),
    filled((row) => (volume === undefined ? 0 : value(volume, row))),
    filled(money),
  ];
}

export interface CandleScale {
  /** [6] mean and population standard deviation of each column, float32. */
  readonly mean: Float32Array;
  readonly deviation: Float32Array;
}

const epsilon = Math.fround(1e-5);
const widened = (deviation: number): number => Math.fround(deviation + epsilon);

/** Sums run in f64 and are rounded once; columns [6][L] float32, result row-major [L * 6] within +-clip. */
export function normaliseCandles(columns: readonly Float32Array[], clip: number): { scale: CandleScale; candles: Float32Array } {
  const length = columns[0]?.length ?? 0;
  const scale = { mean: new Float32Array(candleColumns), deviation: new Float32Array(candleColumns) };
  const candles = new Float32Array(length * candleColumns);
  columns.forEach((values, column) => {
    const mean = values.reduce((sum, value) => sum + value, 0) / length;
    const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / length);
    scale.mean[column] = mean;
    scale.deviation[column] = deviation;
    const divisor = widened(scale.deviation[column] as number);
    for (let row = 0; row < length; row++) {
      const standard = Math.fround(Math.fround((values[row] as number) - (scale.mean[column] as number)) / divisor);
      candles[row * candleColumns + column] = Math.min(Math.max(standard, -clip), clip);
    }
  });
  return { scale, candles };
}

/** A normalised value of a column in its own units, float32. */
export function denormalise(value: number, column: number, { mean, deviation }: CandleScale): number {
  return Math.fround(Math.fround(value * widened(deviation[column] as number)) + (mean[column] as number));
}

/** Mean over paths of normalised candles [paths][count], float32. */
export function averagePaths(values: Float32Array, paths: number, count: number): Float32Array {
  return paths === 1 ? values.slice(0, count) : averageRows(values, paths, count);
}
