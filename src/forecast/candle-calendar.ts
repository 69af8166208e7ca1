/**
 * When the next candles are due: around the clock, in sessions learnt from the timestamps or named, without weekends and holidays.
 * Knows stamps and rules; nothing of prices, models or files.
 */
import { readCalendar } from "../io/calendar.js";
import { parseFrequency } from "../io/frequency.js";
import { formatStamp, instantOf, millisecondsPerDay, parseStamp, type Stamp } from "../io/timestamps.js";
import { checkTimeZone, instantInZone, wallClock } from "./candle-time.js";
import { InputError } from "./errors.js";

/** Days on which no candle is due: dates such as "2025-12-25", or a rule over such dates. */
export type Holidays = readonly string[] | ((date: string) => boolean);

/** A market's hours on the wall clock. */
export interface MarketCalendar {
  /** Days with candles, 1 = Monday ... 7 = Sunday. Default: those that the timestamps show. */
  readonly weekdays?: readonly number[];
  /** Sessions such as "09:30-16:00". Default: those that the timestamps show. Only for candles shorter than a day. */
  readonly sessions?: readonly string[];
  /** Whether a candle carries the time it starts or ends; for named sessions. Default "start". */
  readonly label?: "start" | "end";
  readonly holidays?: Holidays;
}

/** "auto": what the timestamps show. "24/7": one candle after the other. */
export type CandleCalendar = "auto" | "24/7" | MarketCalendar;

/** How candles follow each other, where the timestamps alone do not say. */
export interface CandleCalendarOptions {
  readonly calendar?: CandleCalendar | undefined;
  /** IANA zone that the wall clock is read in; default: the offset each stamp is written with. */
  readonly timeZone?: string | undefined;
  /** Length of a candle such as "5min", "1h", "1d"; default: the usual step of the timestamps. */
  readonly frequency?: string | undefined;
}

/** The candles of a series on their calendar, and when the next ones are due. */
export interface CandlePlan {
  /** Length of a candle in milliseconds. */
  readonly barMilliseconds: number;
  /** [L] wall-clock milliseconds of the given stamps. */
  readonly locals: readonly number[];
  /** [L] ISO 8601 text of the given stamps. */
  readonly timestamps: readonly string[];
  /** Missing candles are gaps in the stamps that the calendar does not explain: how many steps are longer than a candle. */
  readonly longSteps: number;
  /** [horizon] the next candles' stamps, ISO 8601, and their wall-clock milliseconds. */
  future(horizon: number): { timestamps: string[]; locals: number[] };
}

/** Share of steps that must have the candle's length. */
const usualShare = 0.4;
/** Share of another length, and how many of it in a row, that show candles of two lengths. */
const otherShare = 0.2;
const otherRun = 5;
/** Share of the whole days seen on which a time of day must occur to count as part of the session. */
const slotShare = 0.4;
/** Days looked at before a calendar without a single open day is refused. */
const longestClosure = 800;

/** Checks ascending stamps and plans what comes after them. Throws InputError; `label` begins every message. */
export function planCandles(input: readonly (string | Date)[], options: CandleCalendarOptions, label: string): CandlePlan {
  checkTimeZone(options.timeZone);
  checkCalendar(options.calendar);
  const stamps = input.map((value, index) => toStamp(value, index, label));
  const times = stamps.map(instantOf);
  checkAscending(times, input, label);
  const locals = stamps.map((stamp) => wallClock(stamp, options.timeZone));
  const bar = barLength(times, locals, options.frequency, label);
  const longSteps = times.filter((time, index) => index > 0 && time - (times[index - 1] as number) > 1.5 * bar).length;
  const last = stamps[stamps.length - 1] as Stamp;
  const write = makeWriter(last, options.timeZone);
  const next =
    bar >= millisecondsPerDay - 2 * 3_600_000
      ? dailyFuture(input, locals, options, label)
      : intradayFuture(times, locals, bar, options, label);
  return {
    barMilliseconds: bar,
    locals,
    timestamps: stamps.map(formatStamp),
    longSteps,
    future: (horizon) => {
      const due = next(horizon);
      return { timestamps: due.map(write), locals: due.map(({ local }) => local) };
    },
  };
}

/** A market's hours as a caller gave them, who may have misspelt them. Throws InputError. */
function checkCalendar(calendar: unknown): void {
  if (typeof calendar !== "object" || calendar === null) return;
  const market = calendar as Readonly<Record<string, unknown>>;
  const { weekdays, sessions, label, holidays } = market;
  const unknown = Object.keys(market).find((key) => !["weekdays", "sessions", "label", "holidays"].includes(key));
  const isList = (value: unknown, fits: (item: unknown) => boolean): boolean => Array.isArray(value) && value.every(fits);
  const isDay = (item: unknown): boolean => [1, 2, 3, 4, 5, 6, 7].includes(item as number);
  const isDate = (item: unknown): boolean => typeof item === "string" && /^\d{4}-\d{2}-\d{2}$/.test(item);
  const wrong = (field: string, expected: string): InputError =>
    new InputError("calendar", `calendar.${field} must be ${expected}; got ${JSON.stringify(market[field])}`);
  if (unknown !== undefined)
    throw new InputError("calendar", `calendar has a field "${unknown}": known are weekdays, sessions, label and holidays`);
  if (weekdays !== undefined && !isList(weekdays, isDay)) throw wrong("weekdays", "a list of days from 1 (Monday) to 7 (Sunday)");
  if (sessions !== undefined && !isList(sessions, (session) => typeof session === "string"))
    throw wrong("sessions", 'a list such as ["09:30-16:00"]');
  if (label !== undefined && label !== "start" && label !== "end") throw wrong("label", '"start" or "end", the time a candle carries');
  if (holidays !== undefined && typeof holidays !== "function" && !isList(holidays, isDate))
    throw wrong("holidays", 'a list of dates such as ["2025-12-25"] or a rule (date) => boolean');
}

function toStamp(value: string | Date, index: number, label: string): Stamp {
  const stamp =
    value instanceof Date
      ? Number.isNaN(value.getTime())
        ? undefined
        : { local: value.getTime(), offset: 0, precision: "time" as const }
      : parseStamp(value);
  if (stamp) return stamp;
  const found = typeof value === "string" ? JSON.stringify(value) : "an invalid Date";
  throw new InputError("timestamp", `${label}, candle ${index}: ${found} is no timestamp; expected ISO 8601 such as 2024-01-31T10:15:00Z`);
}

function checkAscending(times: readonly number[], input: readonly (string | Date)[], label: string): void {
  for (let index = 1; index < times.length; index++) {
    const [before, now] = [times[index - 1] as number, times[index] as number];
    if (now > before) continue;
    const text = String(input[index]);
    throw new InputError(
      "timestamp",
      now === before
        ? `${label}, candle ${index}: timestamp ${text} occurs twice; every candle needs its own (across the end of summer time, write the offset)`
        : `${label}, candle ${index}: timestamp ${text} comes before the one above it; sort the candles oldest first`,
    );
  }
}

/** The named length, else the most common step; candles of several lengths are refused. */
function barLength(times: readonly number[], locals: readonly number[], named: string | undefined, label: string): number {
  if (named !== undefined) return parseFrequency(named).milliseconds;
  const counts = new Map<number, number>();
  const runs = new Map<number, number>();
  let [before, run] = [0, 0];
  for (let index = 1; index < times.length; index++) {
    const step = (times[index] as number) - (times[index - 1] as number);
    // A day of 23 or 25 hours is a day; the hour that a clock shows twice is none.
    const wall = (locals[index] as number) - (locals[index - 1] as number);
    const length = wall > 0 && wall % millisecondsPerDay === 0 ? wall : step;
    counts.set(length, (counts.get(length) ?? 0) + 1);
    [before, run] = [length, length === before ? run + 1 : 1];
    runs.set(length, Math.max(runs.get(length) ?? 0, run));
  }
  const ranked = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  const [bar, count] = ranked[0] ?? [millisecondsPerDay, 1];
  const monthly = ranked.every(([length]) => length >= 28 * millisecondsPerDay);
  const steps = Math.max(1, times.length - 1);
  const shorter = ranked.some(([length]) => length < bar);
  // A session's breaks and weekends stand alone; a row of equal longer steps is another kind of candle.
  const other = ranked.some(([length, found]) => length !== bar && found / steps >= otherShare && (runs.get(length) ?? 0) >= otherRun);
  if (!monthly && (count / steps < usualShare || shorter || other)) {
    const found = ranked
      .slice(0, 3)
      .map(([length, times_]) => `${length / 60_000} min (${times_} times)`)
      .join(", ");
    throw new InputError(
      "mixed-bars",
      `${label}: the steps between candles have several lengths: ${found}. Give candles of one length, or name it with frequency such as "5min"`,
    );
  }
  return bar;
}

/** A candle to come: its wall-clock time, and its instant where the zone's clock shows that time twice. */
interface Due {
  readonly local: number;
  readonly instant?: number;
}

/** Text of a future wall-clock time: at the last stamp's offset, or at the zone's own offset of that time. */
function makeWriter(last: Stamp, timeZone: string | undefined): (due: Due) => string {
  if (timeZone === undefined || last.offset === undefined) {
    return ({ local }) => formatStamp({ ...last, precision: local % millisecondsPerDay === 0 ? last.precision : "time", local });
  }
  return ({ local, instant = instantInZone(local, timeZone) }) => {
    return formatStamp({ local, offset: Math.round((local - instant) / 60_000), precision: "time" });
  };
}

const dateOf = (local: number): string => new Date(local).toISOString().slice(0, 10);
const dayOf = (local: number): number => Math.floor(local / millisecondsPerDay);
/** 1 = Monday ... 7 = Sunday. */
const weekdayOf = (day: number): number => ((day + 3) % 7) + 1;
const timeOfDay = (local: number): number => local - dayOf(local) * millisecondsPerDay;

function holidayTest(calendar: CandleCalendar | undefined): (local: number) => boolean {
  const holidays = typeof calendar === "object" ? calendar.holidays : undefined;
  if (holidays === undefined) return () => false;
  if (typeof holidays === "function") return (local) => holidays(dateOf(local));
  const dates = new Set(holidays);
  return (local) => dates.has(dateOf(local));
}

/** Candles of a day and more: the calendar of series files, holidays left out. */
function dailyFuture(
  input: readonly (string | Date)[],
  locals: readonly number[],
  { calendar, frequency }: CandleCalendarOptions,
  label: string,
): (horizon: number) => Due[] {
  const market = typeof calendar === "object" ? calendar : undefined;
  const isHoliday = holidayTest(calendar);
  const last = locals[locals.length - 1] as number;
  if (market?.weekdays || calendar === "24/7") {
    const open = market?.weekdays ?? [1, 2, 3, 4, 5, 6, 7];
    return (horizon) =>
      collect(horizon, label, (step) =>
        [last + (step + 1) * millisecondsPerDay].filter((local) => open.includes(weekdayOf(dayOf(local))) && !isHoliday(local)),
      );
  }
  const known = readCalendar(
    input.map(String).some((text) => text.includes("GMT")) ? locals.map((local) => new Date(local)) : input,
    frequency,
    label,
  );
  return (horizon) => {
    for (let extra = 0; ; extra = 2 * extra + 16) {
      const stamps = known.future(horizon + extra) ?? [];
      const due = stamps.map((text) => ({ local: (parseStamp(text) as Stamp).local })).filter(({ local }) => !isHoliday(local));
      if (due.length >= horizon) return due.slice(0, horizon);
      if (extra > 20 * horizon + longestClosure) throw closed(label);
    }
  };
}

function closed(label: string): InputError {
  return new InputError(
    "calendar",
    `${label}: the calendar has no open day for ${longestClosure} days: check weekdays, sessions and holidays`,
  );
}

/** The first `horizon` times that days offer, day after day. */
function collect(horizon: number, label: string, ofDay: (step: number) => readonly number[]): Due[] {
  const due: Due[] = [];
  for (let step = 0, empty = 0; due.length < horizon; step++) {
    const found = ofDay(step);
    empty = found.length > 0 ? 0 : empty + 1;
    if (empty > longestClosure) throw closed(label);
    due.push(...found.map((local) => ({ local })));
  }
  return due.slice(0, horizon);
}

/** Candles within a day: one after the other, or the slots of each open day. */
function intradayFuture(
  times: readonly number[],
  locals: readonly number[],
  bar: number,
  { calendar, timeZone, frequency }: CandleCalendarOptions,
  label: string,
): (horizon: number) => Due[] {
  const last = locals[locals.length - 1] as number;
  const isHoliday = holidayTest(calendar);
  const market = typeof calendar === "object" ? calendar : undefined;
  // A named length may differ from the steps there are; even steps are a market without breaks all the same.
  const usual = frequency === undefined ? bar : (times[1] ?? 0) - (times[0] ?? 0);
  const continuous = times.every((time, index) => index === 0 || time - (times[index - 1] as number) === usual);
  const aroundTheClock = calendar === "24/7" || (continuous && market?.sessions === undefined && market?.weekdays === undefined);
  if (aroundTheClock && !market?.holidays) {
    const instant = times[times.length - 1] as number;
    return (horizon) =>
      Array.from({ length: horizon }, (_, step) => {
        const due = instant + (step + 1) * bar;
        if (timeZone === undefined) return { local: last + (step + 1) * bar };
        return { local: wallClock({ local: due, offset: 0, precision: "time" }, timeZone), instant: due };
      });
  }
  const slots = market?.sessions
    ? sessionSlots(market.sessions, bar, market.label ?? "start", label)
    : continuous
      ? allSlots(last, bar)
      : seenSlots(locals);
  const weekdays = market?.weekdays ?? seenWeekdays(locals);
  const firstDay = dayOf(last);
  return (horizon) =>
    collect(horizon, label, (step) => {
      const day = firstDay + step;
      if (!weekdays.includes(weekdayOf(day)) || isHoliday(day * millisecondsPerDay)) return [];
      const due = slots.map((slot) => day * millisecondsPerDay + slot).filter((local) => local > last);
      return frequency === undefined ? due : spaced(due, step === 0 ? last : -Infinity, bar);
    });
}

/** Those of ascending times that lie a candle's length after the one before, the first after `from`. */
function spaced(times: readonly number[], from: number, bar: number): number[] {
  let before = from;
  return times.filter((time) => {
    if (time - before < bar) return false;
    before = time;
    return true;
  });
}

function sessionSlots(sessions: readonly string[], bar: number, position: "start" | "end", label: string): number[] {
  return sessions
    .flatMap((session) => {
      const match = /^(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})$/.exec(session);
      const [from, to] = match ? [Number(match[1]) * 60 + Number(match[2]), Number(match[3]) * 60 + Number(match[4])] : [0, 0];
      if (to <= from || to > 24 * 60)
        throw new InputError("calendar", `${label}: "${session}" is no session; write opening and closing time such as "09:30-16:00"`);
      const count = Math.ceil(((to - from) * 60_000) / bar);
      return Array.from({ length: count }, (_, step) => Math.min(from * 60_000 + (step + (position === "end" ? 1 : 0)) * bar, to * 60_000));
    })
    .sort((a, b) => a - b);
}

const allSlots = (last: number, bar: number): number[] =>
  Array.from({ length: Math.floor(millisecondsPerDay / bar) }, (_, step) => ((last % bar) + step * bar) % millisecondsPerDay).sort(
    (a, b) => a - b,
  );

/** Times of day that most whole days have; with fewer than three days, all that occur. */
function seenSlots(locals: readonly number[]): number[] {
  const days = [...new Set(locals.map(dayOf))].sort((a, b) => a - b);
  const whole = days.length > 2 ? new Set(days.slice(1, -1)) : new Set(days);
  const counts = new Map<number, number>();
  for (const local of locals) if (whole.has(dayOf(local))) counts.set(timeOfDay(local), (counts.get(timeOfDay(local)) ?? 0) + 1);
  const needed = days.length > 2 ? slotShare * whole.size : 1;
  return [...counts]
    .filter(([, count]) => count >= needed)
    .map(([slot]) => slot)
    .sort((a, b) => a - b);
}

/** Monday to Friday, and of the weekend the days that have candles; a market seen on fewer than five days keeps Monday to Friday. */
const seenWeekdays = (locals: readonly number[]): number[] => [
  ...new Set([1, 2, 3, 4, 5, ...locals.map((local) => weekdayOf(dayOf(local)))]),
];
