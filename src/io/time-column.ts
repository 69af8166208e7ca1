/**
 * The cells of a time column: time stamps as text, numbers since 1970, or plain step counters.
 * Knows nothing of tables; the stamps themselves are checked by calendar.ts.
 */

import { formatStamp, parseStamp } from "./timestamps.js";

/** Days and times of day from two columns as stamps; undefined unless every cell is a date without time, or a time of day. */
export function joinClock(days: readonly string[], times: readonly string[]): readonly string[] | undefined {
  const joined = days.map((day, index) => {
    const [, hour, minute, second = "00"] = /^(\d{1,2}):?(\d{2})(?::?(\d{2}))?$/.exec((times[index] ?? "").trim()) ?? [];
    const date = parseStamp(day);
    if (hour === undefined || minute === undefined || date?.precision !== "day") return undefined;
    return `${formatStamp(date).slice(0, 10)}T${hour.padStart(2, "0")}:${minute}:${second}`;
  });
  return joined.every((text) => text !== undefined) ? joined : undefined;
}

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
