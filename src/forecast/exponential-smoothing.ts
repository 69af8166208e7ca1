/**
 * Two statistical forecasts that need no model: exponential smoothing with additive errors (level, damped trend, season; form and weights chosen by AICc)
 * and the Theta method. Pure arithmetic in f64. Small on purpose: weights come from a grid, not from an optimiser.
 */
import type { Baseline } from "./baselines.js";
import type { ScorableForecast } from "./metrics.js";
import { normalQuantile } from "./normal.js";

const LEVEL_WEIGHTS = [0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 0.98];
/** Trend weight as a share of the level weight. */
const TREND_SHARES = [0.02, 0.1, 0.3];
const SEASON_WEIGHTS = [0.02, 0.1, 0.3];
const DAMPING = 0.97;

interface Form {
  readonly level: number;
  /** 0 with `damping` 0: no trend. */
  readonly trend: number;
  readonly damping: number;
  /** 0 with `period` 1: no season. */
  readonly season: number;
  readonly period: number;
  /** Parameters that were chosen or started from data. */
  readonly parameters: number;
}

interface Fit {
  readonly form: Form;
  readonly squaredError: number;
  readonly level: number;
  readonly trend: number;
  /** [period] of the next steps. */
  readonly seasons: Float64Array;
}

/** Exponential smoothing ETS(A, N or Ad, N or A). A past with gaps is filled with the last observed value; without one, NaN. */
export const ets: Baseline = (past, horizon, seasonality) => {
  const values = filled(past);
  const count = values.length;
  if (count === 0) return normal(new Float64Array(horizon).fill(Number.NaN), () => 0);
  let best: Fit | undefined;
  let bestScore = Infinity;
  for (const form of forms(count, seasonality)) {
    const fit = smooth(values, form);
    const free = count - form.parameters - 1;
    if (free <= 0 && best !== undefined) continue;
    const penalty = 2 * form.parameters + (free > 0 ? (2 * form.parameters * (form.parameters + 1)) / free : 0);
    const score = count * Math.log(Math.max(fit.squaredError / count, 1e-300)) + penalty;
    if (score < bestScore) [best, bestScore] = [fit, score];
  }
  const { form, squaredError, level, trend, seasons } = best as Fit;
  const mean = new Float64Array(horizon);
  const spread = new Float64Array(horizon);
  const sigma = Math.sqrt(squaredError / Math.max(1, count - form.parameters));
  let growth = 0;
  let damped = 1;
  let variance = 1;
  for (let step = 1; step <= horizon; step += 1) {
    damped *= form.damping;
    growth += damped * trend;
    mean[step - 1] = level + growth + (seasons[(step - 1) % form.period] ?? 0);
    spread[step - 1] = sigma * Math.sqrt(variance);
    // Weight of this step's error in what comes `step` later.
    const carried = form.level + form.trend * sumOfPowers(form.damping, step) + (step % form.period === 0 ? form.season : 0);
    variance += carried ** 2;
  }
  return normal(mean, (step) => spread[step] ?? 0);
};

/**
 * The Theta method: the seasonally adjusted past continued by simple exponential smoothing plus half the slope of its straight line, then given its season back.
 * The season is the mean deviation from a centred moving average, used where the autocorrelation at the seasonal lag is clear.
 */
export const theta: Baseline = (past, horizon, seasonality) => {
  const values = filled(past);
  const count = values.length;
  if (count === 0) return normal(new Float64Array(horizon).fill(Number.NaN), () => 0);
  const period = isSeasonal(values, seasonality) ? seasonality : 1;
  const season = period > 1 ? seasonOf(values, period) : new Float64Array(1);
  const adjusted = values.map((value, step) => value - (season[step % period] ?? 0));
  const slope = slopeOf(adjusted);
  let best: { squaredError: number; level: number; weight: number } | undefined;
  for (const weight of LEVEL_WEIGHTS) {
    const fit = smooth(adjusted, { level: weight, trend: 0, damping: 0, season: 0, period: 1, parameters: 2 });
    if (best === undefined || fit.squaredError < best.squaredError) best = { squaredError: fit.squaredError, level: fit.level, weight };
  }
  const { squaredError, level, weight } = best ?? { squaredError: 0, level: Number.NaN, weight: 1 };
  const sigma = Math.sqrt(squaredError / Math.max(1, count - 2));
  const lag = (1 - (1 - weight) ** count) / weight;
  const mean = Float64Array.from(
    { length: horizon },
    (_, step) => level + (slope / 2) * (step + lag) + (season[(count + step) % period] ?? 0),
  );
  return normal(mean, (step) => sigma * Math.sqrt(1 + step * weight ** 2));
};

function* forms(count: number, seasonality: number): Generator<Form> {
  const seasonal = seasonality > 1 && count >= 2 * seasonality + 3;
  const periods = seasonal ? [1, seasonality] : [1];
  for (const level of LEVEL_WEIGHTS) {
    for (const period of periods) {
      for (const season of period > 1 ? SEASON_WEIGHTS.map((weight) => weight * (1 - level)) : [0]) {
        // Start values of the season come from the data in one block: counted as one parameter, or long periods could never win.
        const common = { level, season, period, parameters: 2 + (period > 1 ? 2 : 0) };
        yield { ...common, trend: 0, damping: 0 };
        if (count >= 5) {
          for (const share of TREND_SHARES) yield { ...common, trend: share * level, damping: DAMPING, parameters: common.parameters + 2 };
        }
      }
    }
  }
}

function smooth(values: Float64Array, form: Form): Fit {
  const { period, damping } = form;
  const seasons = new Float64Array(period);
  let level = values[0] ?? 0;
  let trend = 0;
  if (period > 1) {
    let sum = 0;
    for (let step = 0; step < period; step += 1) sum += values[step] ?? 0;
    level = sum / period;
    for (let step = 0; step < period; step += 1) seasons[step] = (values[step] ?? 0) - level;
  }
  let squaredError = 0;
  for (let step = 0; step < values.length; step += 1) {
    const phase = step % period;
    const before = level + damping * trend;
    const error = (values[step] ?? 0) - before - (seasons[phase] ?? 0);
    squaredError += error * error;
    level = before + form.level * error;
    trend = damping * trend + form.trend * error;
    seasons[phase] = (seasons[phase] ?? 0) + form.season * error;
  }
  const turned = seasons.map((_, ahead) => seasons[(values.length + ahead) % period] ?? 0);
  return { form, squaredError, level, trend, seasons: turned };
}

function sumOfPowers(base: number, count: number): number {
  let sum = 0;
  let power = 1;
  for (let index = 0; index < count; index += 1) {
    sum += power;
    power *= base;
  }
  return sum;
}

/** Observed values with gaps filled by the last one before; leading gaps dropped. */
function filled(past: ArrayLike<number>): Float64Array {
  const result: number[] = [];
  for (let step = 0; step < past.length; step += 1) {
    const value = past[step] ?? Number.NaN;
    const last = result[result.length - 1];
    if (!Number.isNaN(value)) result.push(value);
    else if (last !== undefined) result.push(last);
  }
  return Float64Array.from(result);
}

/** Autocorrelation at the seasonal lag beyond 1.645 standard errors (Bartlett), as the Theta method's authors test it. */
function isSeasonal(values: Float64Array, period: number): boolean {
  if (period <= 1 || values.length < 3 * period) return false;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const covariance = (lag: number): number => {
    let sum = 0;
    for (let step = lag; step < values.length; step += 1) sum += ((values[step] ?? 0) - mean) * ((values[step - lag] ?? 0) - mean);
    return sum;
  };
  const variance = covariance(0);
  if (variance === 0) return false;
  let squares = 0;
  for (let lag = 1; lag < period; lag += 1) squares += (covariance(lag) / variance) ** 2;
  return Math.abs(covariance(period) / variance) > 1.645 * Math.sqrt((1 + 2 * squares) / values.length);
}

/** [period] mean deviations from a centred moving average over one period, summing to 0. */
function seasonOf(values: Float64Array, period: number): Float64Array {
  const sums = new Float64Array(period);
  const counts = new Float64Array(period);
  const half = Math.floor(period / 2);
  for (let step = half; step + half < values.length; step += 1) {
    let average = 0;
    for (let offset = -half; offset <= half; offset += 1) {
      const edge = period % 2 === 0 && Math.abs(offset) === half ? 0.5 : 1;
      average += (edge * (values[step + offset] ?? 0)) / period;
    }
    sums[step % period] = (sums[step % period] ?? 0) + (values[step] ?? 0) - average;
    counts[step % period] = (counts[step % period] ?? 0) + 1;
  }
  const season = sums.map((sum, phase) => sum / Math.max(1, counts[phase] ?? 1));
  const mean = season.reduce((sum, value) => sum + value, 0) / period;
  return season.map((value) => value - mean);
}

/** Least-squares slope per step. */
function slopeOf(values: Float64Array): number {
  const middle = (values.length - 1) / 2;
  let [product, square] = [0, 0];
  values.forEach((value, step) => {
    product += (step - middle) * value;
    square += (step - middle) ** 2;
  });
  return square === 0 ? 0 : product / square;
}

/** `spread` of the step counted from 0. */
function normal(mean: Float64Array, spread: (step: number) => number): ScorableForecast {
  return { mean, quantile: (level) => mean.map((value, step) => value + normalQuantile(level) * spread(step)) };
}
