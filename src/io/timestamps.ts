/**
 * Time stamps as text: parsing the forms that series files use, and writing ISO 8601 with the input's offset.
 * Knows nothing of frequencies or files. Wall-clock fields are what the text says at its own offset; no time-zone data base is involved.
 */

export interface Stamp {
  /** Wall-clock time as milliseconds since 1970-01-01T00:00 of the same wall clock. */
  readonly local: number;
  /** Minutes ahead of UTC; undefined when the text names no offset. */
  readonly offset: number | undefined;
  /** Finest field that was written. */
  readonly precision: "year" | "month" | "day" | "time";
}

export const millisecondsPerDay = 86_400_000;

/** Milliseconds since 1970 in UTC; a stamp without offset counts as UTC. */
export function instantOf(stamp: Stamp): number {
  return stamp.local - (stamp.offset ?? 0) * 60_000;
}

const pattern =
  /^(\d{4})(?:([-/.])(\d{1,2})(?:\2(\d{1,2})(?:(?:T|\s+)(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?\s*(Z|UTC|[+-]\d{2}(?::?\d{2})?)?)?)?)?$/i;
const quarterPattern = /^(\d{4})[- ]?Q([1-4])$/i;
const compactPattern = /^(\d{4})(\d{2})(\d{2})(?:T?(\d{2})(\d{2})(\d{2})?)?(Z)?$/;

/**
 * Parses `2024-01-31`, `2024-01-31T10:15`, `2024/1/31 10:15:00.5+08:00`, `2024-01`, `2024`, `2024Q1`, `20240131`, `20240131T101500Z`.
 * Undefined for anything else, for impossible dates, and for day-first or month-first forms, which cannot be told apart.
 */
export function parseStamp(text: string): Stamp | undefined {
  const trimmed = text.trim();
  const quarter = quarterPattern.exec(trimmed);
  if (quarter) return fromFields(Number(quarter[1]), Number(quarter[2]) * 3 - 2, 1, 0, undefined, "month");
  const compact = compactPattern.exec(trimmed);
  if (compact) {
    const [, year, month, day, hour, minute, second, zone] = compact;
    const time = clock(hour, minute, second, undefined);
    if (time === undefined) return undefined;
    return fromFields(Number(year), Number(month), Number(day), time, zone ? 0 : undefined, hour === undefined ? "day" : "time");
  }
  const match = pattern.exec(trimmed);
  if (!match) return undefined;
  const [, year, , month, day, hour, minute, second, fraction, zone] = match;
  const time = clock(hour, minute, second, fraction);
  const offset = zone === undefined ? undefined : offsetMinutes(zone);
  if (time === undefined || (offset !== undefined && Math.abs(offset) > 18 * 60)) return undefined;
  const precision = hour !== undefined ? "time" : day !== undefined ? "day" : month !== undefined ? "month" : "year";
  return fromFields(Number(year), Number(month ?? 1), Number(day ?? 1), time, offset, precision);
}

/** Milliseconds since midnight; 24:00 is midnight at the end of the day. Undefined when out of range. */
function clock(hour = "0", minute = "0", second = "0", fraction = ""): number | undefined {
  const [h, m, s] = [Number(hour), Number(minute), Number(second)];
  if (h > 24 || m > 59 || s > 59 || (h === 24 && (m > 0 || s > 0))) return undefined;
  return ((h * 60 + m) * 60 + s) * 1000 + Math.floor(Number(`0.${fraction || "0"}`) * 1000);
}

function offsetMinutes(zone: string): number {
  if (!/^[+-]/.test(zone)) return 0;
  const minutes = Number(zone.slice(1, 3)) * 60 + Number(zone.slice(3).replace(":", "") || 0);
  return zone.startsWith("-") ? -minutes : minutes;
}

function fromFields(
  year: number,
  month: number,
  day: number,
  time: number,
  offset: number | undefined,
  precision: Stamp["precision"],
): Stamp | undefined {
  if (month < 1 || month > 12 || day < 1 || day > daysInMonth(year, month - 1)) return undefined;
  return { local: dayStart(year, month - 1, day) + time, offset, precision };
}

/** Milliseconds of midnight; Date.UTC alone would read years below 100 as 1900 and later. */
function dayStart(year: number, monthIndex: number, day: number): number {
  return new Date(0).setUTCFullYear(year, monthIndex, day);
}

/** Days in a month; `monthIndex` counts from 0. */
export function daysInMonth(year: number, monthIndex: number): number {
  return new Date(dayStart(year, monthIndex + 1, 0)).getUTCDate();
}

/** Calendar fields of a wall-clock time; month from 0, weekday from 0 = Sunday. */
export function fieldsOf(local: number): { year: number; monthIndex: number; day: number; weekday: number; timeOfDay: number } {
  const date = new Date(local);
  return {
    year: date.getUTCFullYear(),
    monthIndex: date.getUTCMonth(),
    day: date.getUTCDate(),
    weekday: date.getUTCDay(),
    timeOfDay: ((local % millisecondsPerDay) + millisecondsPerDay) % millisecondsPerDay,
  };
}

/** The wall-clock time `months` later at day `day` of the month, or its last day where the month is shorter. */
export function addMonths(local: number, months: number, day: number): number {
  const { year, monthIndex, timeOfDay } = fieldsOf(local);
  const count = year * 12 + monthIndex + months;
  const [newYear, newMonth] = [Math.floor(count / 12), ((count % 12) + 12) % 12];
  return dayStart(newYear, newMonth, Math.min(day, daysInMonth(newYear, newMonth))) + timeOfDay;
}

/**
 * ISO 8601: a date alone where the stamp was written without time, else date and time to the second (milliseconds where they are not zero),
 * with the offset the stamp was written with, if any.
 */
export function formatStamp({ local, offset, precision }: Stamp): string {
  const iso = new Date(local).toISOString();
  if (precision !== "time" && fieldsOf(local).timeOfDay === 0) return iso.slice(0, iso.indexOf("T"));
  const text = iso.replace(/(\.000)?Z$/, "");
  if (offset === undefined) return text;
  if (offset === 0) return `${text}Z`;
  const minutes = Math.abs(offset);
  const two = (value: number): string => String(value).padStart(2, "0");
  return `${text}${offset < 0 ? "-" : "+"}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`;
}
