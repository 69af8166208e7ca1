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

/** The number a cell holds, NaN for a missing value, undefined for anything else (infinities and digit grouping included). */
export function parseNumber(cell: string): number | undefined {
  const text = cell.trim();
  if (numberPattern.test(text)) {
    const value = Number(text);
    return Number.isFinite(value) ? value : undefined;
  }
  return missingPattern.test(text) ? NaN : undefined;
}
