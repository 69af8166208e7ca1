/**
 * Time features of candles: minute, hour, weekday (Monday 0), day and month of the wall clock, at the offset a stamp is written with or in a named time zone.
 * Knows stamps and zones; nothing of calendars, models or files.
 */
import { fieldsOf, instantOf, type Stamp } from "../io/timestamps.js";
import { InputError } from "./errors.js";

/** Columns of the time features. */
export const stampColumns = 5;

const formatters = new Map<string, Intl.DateTimeFormat>();

function zoneFormatter(timeZone: string): Intl.DateTimeFormat {
  const known = formatters.get(timeZone);
  if (known) return known;
  try {
    const made = new Intl.DateTimeFormat("en-CA", {
      timeZone,
      hourCycle: "h23",
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
    });
    formatters.set(timeZone, made);
    return made;
  } catch (error) {
    throw new InputError("time-zone", `"${timeZone}" is no time zone: give an IANA name such as "America/New_York" or "UTC"`, {
      cause: error,
    });
  }
}

/** Throws InputError for an unknown zone. */
export function checkTimeZone(timeZone: string | undefined): void {
  if (timeZone !== undefined) zoneFormatter(timeZone);
}

/**
 * Wall-clock milliseconds of a stamp: what it says at its own offset, or, with a zone, what clocks there show at that instant. A stamp without offset is
 * wall-clock time already, so a zone does not move it.
 */
export function wallClock(stamp: Stamp, timeZone?: string): number {
  if (timeZone === undefined || stamp.offset === undefined) return stamp.local;
  const instant = instantOf(stamp);
  const parts = Object.fromEntries(
    zoneFormatter(timeZone)
      .formatToParts(instant)
      .map(({ type, value }) => [type, Number(value)]),
  );
  const part = (name: string): number => parts[name] ?? 0;
  const seconds = Math.floor(instant / 1000) * 1000;
  return Date.UTC(part("year"), part("month") - 1, part("day"), part("hour"), part("minute"), part("second")) + (instant - seconds);
}

/** The instant at which clocks in `timeZone` show `local`; of two such instants the first, and where the clock skips it, the instant right after. */
export function instantInZone(local: number, timeZone: string): number {
  const offsetAt = (instant: number): number => wallClock({ local: instant, offset: 0, precision: "time" }, timeZone) - instant;
  const candidates = [local - offsetAt(local - 86_400_000), local - offsetAt(local + 86_400_000)].sort((a, b) => a - b);
  const exact = candidates.find((instant) => instant + offsetAt(instant) === local);
  return exact ?? (candidates[1] as number);
}

/** [5] i32: minute, hour, weekday, day, month of a wall-clock time. */
export function timeFeatures(local: number): [number, number, number, number, number] {
  const { monthIndex, day, weekday, timeOfDay } = fieldsOf(local);
  const minutes = Math.floor(timeOfDay / 60_000);
  return [minutes % 60, Math.floor(minutes / 60), (weekday + 6) % 7, day, monthIndex + 1];
}

/** i32 [count * 5] features of wall-clock times. */
export function featuresOf(locals: readonly number[]): Int32Array {
  const result = new Int32Array(locals.length * stampColumns);
  locals.forEach((local, index) => result.set(timeFeatures(local), index * stampColumns));
  return result;
}
