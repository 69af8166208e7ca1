/**
 * Numbers as text for people: enough digits to tell neighbours apart, the same number of decimals down a column.
 */

/** A formatter that fits all of `values`: five significant digits of the largest, plain notation between 1e-4 and 1e9. */
export function numberFormat(values: Iterable<number>): (value: number) => string {
  let largest = 0;
  for (const value of values) if (Number.isFinite(value)) largest = Math.max(largest, Math.abs(value));
  if (largest !== 0 && (largest >= 1e9 || largest < 1e-4))
    return (value) => (Number.isFinite(value) ? value.toExponential(3) : missing(value));
  // Digits before the point; zero or less below 1, where zeros after the point are not significant.
  const digits = largest === 0 ? 5 : Math.floor(Math.log10(largest)) + 1;
  const decimals = Math.max(0, 5 - digits);
  return (value) => (Number.isFinite(value) ? value.toFixed(decimals) : missing(value));
}

function missing(value: number): string {
  return Number.isNaN(value) ? "-" : String(value);
}

/** "812 ms", "3.2 s" */
export function duration(milliseconds: number): string {
  if (milliseconds < 10) return `${milliseconds.toFixed(1)} ms`;
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

/** "512 B", "3.4 MB" */
export function bytes(count: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(1)} ${units[unit]}`;
}
