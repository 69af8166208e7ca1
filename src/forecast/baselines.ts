/**
 * Forecasts anyone can make without a model: naive, seasonal naive, drift. What a model must beat.
 * Quantiles are normal around the point forecast, with the spread of the method's own residuals on the past, growing with the horizon
 * as the textbook says. Pure arithmetic.
 */
import { normalQuantile } from "./normal.js";
import type { ScorableForecast } from "./metrics.js";

export type BaselineName = "seasonalNaive" | "naive" | "drift";

export type Baseline = (past: ArrayLike<number>, horizon: number, seasonality: number) => ScorableForecast;

/** The last observed value; spread of one-step differences times sqrt(step). */
export const naive: Baseline = (past, horizon) => {
  const observed = observedOf(past);
  const spread = differenceSpread(past, 1, 0);
  return normalForecast(
    horizon,
    () => observed.last,
    (step) => spread * Math.sqrt(step),
  );
};

/** The value one season ago (the last observed one at that phase); spread of seasonal differences times sqrt(seasons ahead). */
export const seasonalNaive: Baseline = (past, horizon, seasonality) => {
  if (seasonality <= 1 || past.length <= seasonality) return naive(past, horizon, seasonality);
  const fallback = observedOf(past).last;
  const season = Array.from({ length: seasonality }, (_, phase) => {
    for (let step = past.length - seasonality + phase; step >= 0; step -= seasonality) {
      const value = past[step] ?? Number.NaN;
      if (!Number.isNaN(value)) return value;
    }
    return fallback;
  });
  const spread = differenceSpread(past, seasonality, 0);
  return normalForecast(
    horizon,
    (step) => season[(step - 1) % seasonality] ?? Number.NaN,
    (step) => spread * Math.sqrt(Math.floor((step - 1) / seasonality) + 1),
  );
};

/** The line through the first and last observed value; spread of one-step differences around its slope. */
export const drift: Baseline = (past, horizon) => {
  const observed = observedOf(past);
  const steps = observed.lastStep - observed.firstStep;
  const slope = steps === 0 ? 0 : (observed.last - observed.first) / steps;
  const spread = differenceSpread(past, 1, slope);
  const behind = past.length - 1 - observed.lastStep;
  return normalForecast(
    horizon,
    (step) => observed.last + slope * (step + behind),
    (step) => spread * Math.sqrt(step * (1 + step / Math.max(1, steps))),
  );
};

export const BASELINES: Readonly<Record<BaselineName, Baseline>> = { seasonalNaive, naive, drift };

/** Steps are counted from 1. */
function normalForecast(horizon: number, point: (step: number) => number, spread: (step: number) => number): ScorableForecast {
  const mean = Float64Array.from({ length: horizon }, (_, index) => point(index + 1));
  const deviation = Float64Array.from({ length: horizon }, (_, index) => spread(index + 1));
  return {
    mean,
    quantile: (level) => {
      const distance = normalQuantile(level);
      return mean.map((value, index) => value + distance * (deviation[index] ?? 0));
    },
  };
}

function observedOf(past: ArrayLike<number>): { first: number; firstStep: number; last: number; lastStep: number } {
  const result = { first: Number.NaN, firstStep: 0, last: Number.NaN, lastStep: 0 };
  for (let step = 0; step < past.length; step += 1) {
    const value = past[step] ?? Number.NaN;
    if (Number.isNaN(value)) continue;
    if (Number.isNaN(result.first)) Object.assign(result, { first: value, firstStep: step });
    Object.assign(result, { last: value, lastStep: step });
  }
  return result;
}

/** Root mean square of the differences at `lag` minus `slope`; 0 where there is no pair to learn a spread from. */
function differenceSpread(past: ArrayLike<number>, lag: number, slope: number): number {
  let count = 0;
  let sum = 0;
  for (let step = lag; step < past.length; step += 1) {
    const difference = (past[step] ?? Number.NaN) - (past[step - lag] ?? Number.NaN);
    if (Number.isNaN(difference)) continue;
    count += 1;
    sum += (difference - slope) ** 2;
  }
  return count === 0 ? 0 : Math.sqrt(sum / count);
}
