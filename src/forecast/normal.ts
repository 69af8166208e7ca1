/**
 * The standard normal distribution's quantile function, for baselines. Not used by models, which have bit-exact arithmetic of their own.
 */

const CENTRE_TOP = [
  -3.969683028665376e1, 2.209460984245205e2, -2.759285104469687e2, 1.38357751867269e2, -3.066479806614716e1, 2.506628277459239,
];
const CENTRE_BOTTOM = [-5.447609879822406e1, 1.615858368580409e2, -1.556989798598866e2, 6.680131188771972e1, -1.328068155288572e1, 1];
const TAIL_TOP = [
  -7.784894002430293e-3, -3.223964580411365e-1, -2.400758277161838, -2.549732539343734, 4.374664141464968, 2.938163982698783,
];
const TAIL_BOTTOM = [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416, 1];
/** Where the rational approximation of the tails takes over. */
const TAIL = 0.02425;

/** Acklam's rational approximation, relative error below 1.2e-9. `level` strictly between 0 and 1. */
export function normalQuantile(level: number): number {
  if (!(level > 0 && level < 1)) return Number.NaN;
  if (level > 1 - TAIL) return -normalQuantile(1 - level);
  if (level < TAIL) {
    const root = Math.sqrt(-2 * Math.log(level));
    return polynomial(TAIL_TOP, root) / polynomial(TAIL_BOTTOM, root);
  }
  const distance = level - 0.5;
  const square = distance * distance;
  return (polynomial(CENTRE_TOP, square) * distance) / polynomial(CENTRE_BOTTOM, square);
}

/** Coefficients from the highest power down. */
function polynomial(coefficients: readonly number[], at: number): number {
  return coefficients.reduce((sum, coefficient) => sum * at + coefficient, 0);
}
