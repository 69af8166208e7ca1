/**
 * The cells of a time column: time stamps as text, numbers since 1970, or plain step counters.
 * Knows nothing of tables; the stamps themselves are checked by calendar.ts.
 */

import { formatStamp, parseStamp } from "./timestamps.js";

/**
 * Stamps as text, "steps" for a counter (timestamps are then 0-based integers), or undefined when the first cell is none of these.
 * Ten-digit whole numbers are seconds since 1970, thirteen-digit ones milliseconds; four-digit ones are years, eight-digit ones dates.
 */
export function timeTexts(cells: readonly string[]): readonly string[] | "steps" | undefined {
  if (!cells.every((cell) => /^\d+$/.test(cell))) return parseStamp(cells[0] ?? "") ? cells : undefined;
  const unit = cells.every((cell) => cell.length === 13) ? 1 : cells.every((cell) => cell.length === 10) ? 1000 : undefined;
  if (unit !== undefined) return cells.map((cell) => formatStamp({ local: Number(cell) * unit, offset: 0, precision: "time" }));
  return cells.every((cell) => parseStamp(cell)) ? cells : "steps";
}
