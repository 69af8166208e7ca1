/**
 * Scores of one forecast window, by GluonTS's definitions. Pure arithmetic in f64; knows nothing of models.
 * A score that is not defined (zero denominator, nothing observed) is NaN, and `meanDefined` leaves it out and counts it.
 */

export const WQL_LEVELS: readonly number[] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/** Half-open tails of the interval that coverage80 and MSIS look at. */
const INTERVAL = { low: 0.1, high: 0.9, alpha: 0.2 } as const;

/** Anything that states a mean and quantiles per step, [horizon] each. */
export interface ScorableForecast {
  readonly mean: ArrayLike<number>;
  quantile(level: number): ArrayLike<number>;
}

export interface WindowScores {
  /** Mean absolute error of the median over the mean absolute seasonal difference of the past. NaN: constant or too short a past. */
  readonly mase: number;
  /** Weighted quantile loss, mean over nine levels. NaN: the actual values are all zero. */
  readonly wql: number;
  /** Symmetric relative error of the median, 0 to 2. A step where both are zero counts 0. */
  readonly smape: number;
  /** Share of actual values within the 0.1 and 0.9 quantiles, ends included. */
  readonly coverage80: number;
  /** Mean scaled interval score of that 80% interval (alpha 0.2, so that it needs no tails beyond the nine levels). NaN like MASE. */
  readonly msis: number;
  /** Root mean squared error of the mean over the root mean squared seasonal difference of the past. NaN like MASE. */
  readonly rmsse: number;
  /** Sum of quantile losses, mean over levels, and of absolute actual values: WQL over many windows is a ratio of sums. */
  readonly quantileLoss: number;
  readonly absoluteSum: number;
}

/**
 * Scores one window. `past` is [L], `actual` [horizon]; NaN in either is left out. `seasonality` in steps; a past not longer than one
 * season is scaled by its one-step differences, as GluonTS does.
 */
export function scoreWindow(
  forecast: ScorableForecast,
  actual: ArrayLike<number>,
  past: ArrayLike<number>,
  seasonality: number,
): WindowScores {
  const median = forecast.quantile(0.5);
  const low = forecast.quantile(INTERVAL.low);
  const high = forecast.quantile(INTERVAL.high);
  const scale = seasonalScale(past, seasonality);
  const { absoluteSum, quantileLoss } = quantileLosses(forecast, actual);
  let count = 0;
  let absoluteError = 0;
  let squaredError = 0;
  let relativeError = 0;
  let covered = 0;
  let intervalScore = 0;
  for (let step = 0; step < actual.length; step += 1) {
    const value = actual[step] ?? Number.NaN;
    if (Number.isNaN(value)) continue;
    count += 1;
    const middle = median[step] ?? Number.NaN;
    const bottom = low[step] ?? Number.NaN;
    const top = high[step] ?? Number.NaN;
    absoluteError += Math.abs(value - middle);
    squaredError += (value - (forecast.mean[step] ?? Number.NaN)) ** 2;
    const size = Math.abs(value) + Math.abs(middle);
    relativeError += size === 0 ? 0 : (2 * Math.abs(value - middle)) / size;
    if (value >= bottom && value <= top) covered += 1;
    intervalScore += top - bottom + (2 / INTERVAL.alpha) * (Math.max(0, bottom - value) + Math.max(0, value - top));
  }
  return {
    mase: ratio(absoluteError / count, scale.absolute),
    wql: ratio(quantileLoss, absoluteSum),
    smape: relativeError / count,
    coverage80: covered / count,
    msis: ratio(intervalScore / count, scale.absolute),
    rmsse: Math.sqrt(ratio(squaredError / count, scale.squared)),
    quantileLoss,
    absoluteSum,
  };
}

/** Mean over the defined scores, and how many were not. NaN when none is defined. */
export function meanDefined(values: readonly number[]): { mean: number; undefinedCount: number } {
  const defined = values.filter((value) => !Number.isNaN(value));
  return { mean: defined.reduce((sum, value) => sum + value, 0) / defined.length, undefinedCount: values.length - defined.length };
}

function quantileLosses(forecast: ScorableForecast, actual: ArrayLike<number>): { absoluteSum: number; quantileLoss: number } {
  let absoluteSum = 0;
  for (let step = 0; step < actual.length; step += 1) {
    const value = actual[step] ?? Number.NaN;
    if (!Number.isNaN(value)) absoluteSum += Math.abs(value);
  }
  let loss = 0;
  for (const level of WQL_LEVELS) {
    const quantile = forecast.quantile(level);
    for (let step = 0; step < actual.length; step += 1) {
      const value = actual[step] ?? Number.NaN;
      const guess = quantile[step] ?? Number.NaN;
      if (!Number.isNaN(value)) loss += 2 * Math.abs((value - guess) * ((value <= guess ? 1 : 0) - level));
    }
  }
  return { absoluteSum, quantileLoss: loss / WQL_LEVELS.length };
}

/** Mean absolute and mean squared difference at the seasonal lag over the pairs that are both observed; NaN without any. */
export function seasonalScale(past: ArrayLike<number>, seasonality: number): { absolute: number; squared: number } {
  const lag = seasonality < past.length ? seasonality : 1;
  let count = 0;
  let absolute = 0;
  let squared = 0;
  for (let step = lag; step < past.length; step += 1) {
    const difference = (past[step] ?? Number.NaN) - (past[step - lag] ?? Number.NaN);
    if (Number.isNaN(difference)) continue;
    count += 1;
    absolute += Math.abs(difference);
    squared += difference ** 2;
  }
  return { absolute: absolute / count, squared: squared / count };
}

function ratio(numerator: number, denominator: number): number {
  return denominator === 0 ? Number.NaN : numerator / denominator;
}
