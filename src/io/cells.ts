/**
 * Cells of a table as text: numbers, missing values, and rows with their place in the file.
 * Knows nothing of series.
 */

/** A table before anything is known about its columns. */
export interface RawTable {
  /** What the table is called in messages. */
  readonly name: string;
  readonly header: readonly string[];
  readonly rows: readonly RawRow[];
}

export interface RawRow {
  /** One cell per header entry. */
  readonly cells: readonly string[];
  /** For messages: "row 7". */
  readonly place: string;
}

const numberPattern = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const missingPattern = /^(nan|na|n\/a|null|none|-)?$/i;

/** An empty cell, NaN, NA, N/A, null, None or a dash. */
export function isMissing(cell: string): boolean {
  return missingPattern.test(cell.trim());
}

const infinitePattern = /^[+-]?inf(inity)?$/i;

/** The number a cell holds, NaN for a missing value, undefined for anything else (infinities, numbers beyond float32 and digit grouping included). */
export function parseNumber(cell: string): number | undefined {
  const text = cell.trim();
  if (numberPattern.test(text)) {
    const value = Number(text);
    return Number.isFinite(Math.fround(value)) ? value : undefined;
  }
  return missingPattern.test(text) ? NaN : undefined;
}

/** Whether a cell was meant as a number: one that can be read, or one that is infinite or too large. */
export function isMeantAsNumber(cell: string): boolean {
  const text = cell.trim();
  return numberPattern.test(text) || infinitePattern.test(text);
}

/** Why `parseNumber` has no answer for a cell, as the end of a sentence that began with the cell. */
export function numberProblem(cell: string): string {
  const text = cell.trim();
  if (infinitePattern.test(text)) return "is infinite; expected a finite number, or an empty cell for a missing value";
  if (numberPattern.test(text)) return "is beyond the range of float32, 3.4e38; rescale the column, or leave a missing value empty";
  return "is not a number; leave a missing value empty, write decimals with a point (or give --decimal-comma)";
}

/** Whether a cell reads as a number whose decimals follow a comma. */
export function hasDecimalComma(cell: string): boolean {
  return /^[+-]?\d*,\d+$/.test(cell.trim());
}
