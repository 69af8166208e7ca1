/** The Student-t mixture of Toto 1.0 as numbers (model-spec A.7): densities for tests and quantile work, in f64. Must not know of tensors. */

export interface MixtureParameters {
  readonly df: ArrayLike<number>;
  readonly location: ArrayLike<number>;
  readonly scale: ArrayLike<number>;
  readonly weights: ArrayLike<number>;
}

const lanczos = [
  676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905, -0.13857109526572012,
  9.9843695780195716e-6, 1.5056327351493116e-7,
];

/** log Gamma(x) for x > 0 (Lanczos approximation, g = 7). */
export function logGamma(x: number): number {
  if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x);
  const shifted = x - 1;
  const t = shifted + 7.5;
  const series = lanczos.reduce((sum, coefficient, index) => sum + coefficient / (shifted + index + 1), 0.99999999999980993);
  return 0.5 * Math.log(2 * Math.PI) + (shifted + 0.5) * Math.log(t) - t + Math.log(series);
}

export function studentTLogDensity(x: number, df: number, location: number, scale: number): number {
  const y = (x - location) / scale;
  return (
    -0.5 * (df + 1) * Math.log1p((y * y) / df) -
    (Math.log(scale) + 0.5 * Math.log(df) + 0.5 * Math.log(Math.PI) + logGamma(df / 2) - logGamma((df + 1) / 2))
  );
}

/** Smallest and largest weight after the reference library's clamp, which then renormalises; mean and sampling do not use it. */
const weightFloor = 2 ** -23;

/** Log density at x in normalised units. With one component and no clamp this is the Student-t itself. */
export function mixtureLogDensity(x: number, parameters: MixtureParameters): number {
  const count = parameters.df.length;
  const clamped = Array.from({ length: count }, (_, k) =>
    Math.min(Math.max(parameters.weights[k] as number, weightFloor), 1 - weightFloor),
  );
  const total = clamped.reduce((sum, weight) => sum + weight, 0);
  const terms = clamped.map(
    (weight, k) =>
      Math.log(weight / total) +
      studentTLogDensity(x, parameters.df[k] as number, parameters.location[k] as number, parameters.scale[k] as number),
  );
  const largest = Math.max(...terms);
  return largest + Math.log(terms.reduce((sum, term) => sum + Math.exp(term - largest), 0));
}

/** Log density of loc + scale times the mixture, at y in real units. */
export const realLogDensity = (y: number, parameters: MixtureParameters, loc: number, scale: number): number =>
  mixtureLogDensity((y - loc) / scale, parameters) - Math.log(scale);
