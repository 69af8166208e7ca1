/**
 * Sample paths of a quantile forecast: each step drawn from its own quantile function, linear between the levels and flat beyond them. The steps of a path are
 * independent given the quantiles: paths show each step's spread and not how steps go together.
 */
import { philox, uniform } from "../../tensor/index.js";
import { quantileLevels } from "./weights.js";

/** Place of this draw in the random counter; the other models' draws have 0 to 2. */
const drawSite = 3;

export interface PathKeys {
  readonly stream: number;
  readonly variate: number;
  readonly seed: number;
}

/** Value at probability u of sorted knots q_j at the quantile levels; the outer ones beyond them. */
function quantileAt(u: number, knot: (level: number) => number): number {
  const last = quantileLevels.length - 1;
  const upper = quantileLevels.findIndex((level) => level >= u);
  if (upper === 0) return knot(0);
  if (upper < 0) return knot(last);
  const [low, high] = [quantileLevels[upper - 1] as number, quantileLevels[upper] as number];
  const weight = (u - low) / (high - low);
  return knot(upper - 1) * (1 - weight) + knot(upper) * weight;
}

/** [samples * horizon] f32, path-major, of quantiles [levels * horizon], level-major. The same keys give the same bits, whatever else is asked. */
export function drawPaths(quantiles: Float32Array, horizon: number, samples: number, { stream, variate, seed }: PathKeys): Float32Array {
  const paths = new Float32Array(samples * horizon);
  const key = [seed, Math.floor(seed / 2 ** 32)] as const;
  for (let path = 0; path < samples; path++) {
    for (let t = 0; t < horizon; t++) {
      const [word] = philox([stream, path, t, (variate << 4) | drawSite], key);
      paths[path * horizon + t] = quantileAt(uniform(word), (level) => quantiles[level * horizon + t] as number);
    }
  }
  return paths;
}
