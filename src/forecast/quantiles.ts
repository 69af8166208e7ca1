/**
 * Quantiles from sample paths and from native quantile knots. Pure arithmetic in f64.
 */
import { InputError } from "./errors.js";

/**
 * Sample quantile by linear interpolation between order statistics (type 7), per step.
 * `paths` is [samples * horizon], path-major. Returns [horizon]. A step with a NaN draw gives NaN.
 */
export function quantileOfPaths(paths: Float32Array, horizon: number, level: number): Float64Array {
  const samples = paths.length / horizon;
  const column = new Float32Array(samples);
  const result = new Float64Array(horizon);
  const position = (samples - 1) * level;
  const lower = Math.floor(position);
  const upper = Math.min(lower + 1, samples - 1);
  const weight = position - lower;
  for (let step = 0; step < horizon; step += 1) {
    for (let sample = 0; sample < samples; sample += 1) column[sample] = paths[sample * horizon + step] ?? Number.NaN;
    column.sort(); // typed arrays sort numerically, NaN last
    if (Number.isNaN(column[samples - 1] ?? Number.NaN)) result[step] = Number.NaN;
    else {
      const low = column[lower] ?? Number.NaN;
      const high = column[upper] ?? Number.NaN;
      result[step] = weight === 0 ? low : low + (high - low) * weight;
    }
  }
  return result;
}

/**
 * Quantile between native knots, linear in the level. `values` is [levels * horizon], level-major, `levels` ascending.
 * Throws InputError for a level outside the knots: the model says nothing about its tails.
 */
export function quantileOfKnots(levels: readonly number[], values: Float32Array, horizon: number, level: number): Float64Array {
  const first = levels[0] ?? Number.NaN;
  const last = levels[levels.length - 1] ?? Number.NaN;
  if (!(level >= first && level <= last)) {
    throw new InputError(
      "quantile-outside-knots",
      `quantile ${level} lies outside what this model states (${first} to ${last}): ask for a level in that range`,
    );
  }
  const upper = levels.findIndex((knot) => knot >= level);
  const lower = levels[upper] === level ? upper : upper - 1;
  const lowLevel = levels[lower] ?? first;
  const highLevel = levels[upper] ?? last;
  const weight = upper === lower ? 0 : (level - lowLevel) / (highLevel - lowLevel);
  const result = new Float64Array(horizon);
  for (let step = 0; step < horizon; step += 1) {
    const low = values[lower * horizon + step] ?? Number.NaN;
    const high = values[upper * horizon + step] ?? Number.NaN;
    result[step] = weight === 0 ? low : low + (high - low) * weight;
  }
  return result;
}
