/**
 * Frequencies: what a step of a series is, from text or from its stamps, and how time goes on from a stamp.
 * Pure; works on wall-clock milliseconds (fixed steps do not care which clock).
 */

import { InputError } from "./errors.js";
import { addMonths, daysInMonth, fieldsOf, millisecondsPerDay } from "./timestamps.js";

export interface Frequency {
  /** fixed: always equally long; businessDay: Monday to Friday; month: whole calendar months. */
  readonly kind: "fixed" | "businessDay" | "month";
  /** Length of a step: exact for fixed, nominal for the others (a month counts 30 days, a business day 1). */
  readonly milliseconds: number;
  /** Months in a step; 0 for the other kinds. */
  readonly months: number;
  /** Day of the month that steps land on, 31 = month end; only for months, and only when the stamps told it. */
  readonly anchorDay?: number;
  /** Short text that `parseFrequency` reads: 5min, 1h, 1d, 1b, 1w, 1mo, 1q, 1y. */
  readonly label: string;
}

const fixedUnits: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  min: 60_000,
  h: 3_600_000,
  d: millisecondsPerDay,
  w: 7 * millisecondsPerDay,
};
const monthUnits: Readonly<Record<string, number>> = { mo: 1, q: 3, y: 12 };

/** Spellings by unit: data frame aliases, exchange notation, words. Case tells M (month) from m (minute) and MS from ms. First match wins. */
const spellings: readonly (readonly [unit: string, forms: RegExp])[] = [
  ["mo", /^(M|MS|ME|BM|BMS|BME)$/],
  ["mo", /^(mo|mon|month|months|monthly)$/i],
  ["min", /^(m|t|min|mins|minute|minutes|minutely)$/i],
  ["ms", /^(l|ms|millisecond|milliseconds)$/i],
  ["s", /^(s|sec|secs|second|seconds|secondly)$/i],
  ["h", /^(h|hr|hour|hours|hourly)$/i],
  ["d", /^(d|day|days|daily)$/i],
  ["b", /^(b|bd|business ?days?)$/i],
  ["w", /^(w|week|weeks|weekly|w-(mon|tue|wed|thu|fri|sat|sun))$/i],
  ["q", /^(q|qs|qe|bq|bqs|bqe|quarter|quarters|quarterly|qs?e?-[a-z]{3})$/i],
  ["y", /^(y|ys|ye|a|as|ae|by|year|years|yearly|annual|annually|[ay][se]?-[a-z]{3})$/i],
];

/** Parses "5min", "1h", "H", "15T", "D", "B", "W-SUN", "MS", "1mo", "QS", "Y", "hourly" ... Throws `InputError` for anything else. */
export function parseFrequency(text: string): Frequency {
  const match = /^\s*(\d*)\s*([a-z].*?)\s*$/i.exec(text);
  const count = match?.[1] === "" ? 1 : Number(match?.[1] ?? 0);
  const unit = match && unitOf(match[2] ?? "");
  if (unit === undefined || unit === null || !Number.isSafeInteger(count) || count < 1) {
    throw new InputError(
      "frequency",
      `unknown frequency "${text}": use a step such as 30s, 15min, 1h, 1d, 1b (business day), 1w, 1mo, 1q, 1y`,
    );
  }
  if (unit === "b") {
    if (count !== 1) throw new InputError("frequency", `frequency "${text}": only single business days are possible, use 1b`);
    return businessDay;
  }
  const months = monthUnits[unit];
  return months === undefined ? fixedFrequency((fixedUnits[unit] ?? 0) * count) : monthFrequency(months * count);
}

function unitOf(text: string): string | undefined {
  return spellings.find(([, forms]) => forms.test(text))?.[0];
}

export const businessDay: Frequency = { kind: "businessDay", milliseconds: millisecondsPerDay, months: 0, label: "1b" };

/** A step of equal length; the label uses the largest unit that divides it. */
export function fixedFrequency(milliseconds: number): Frequency {
  const [unit, size] = Object.entries(fixedUnits)
    .reverse()
    .find(([, length]) => milliseconds % length === 0) ?? ["ms", 1];
  return { kind: "fixed", milliseconds, months: 0, label: `${milliseconds / size}${unit}` };
}

export function monthFrequency(months: number, anchorDay?: number): Frequency {
  const [unit, size] = months % 12 === 0 ? ["y", 12] : months % 3 === 0 ? ["q", 3] : ["mo", 1];
  const base = { kind: "month", milliseconds: months * 30 * millisecondsPerDay, months, label: `${months / size}${unit}` } as const;
  return anchorDay === undefined ? base : { ...base, anchorDay };
}

/** The wall-clock time `steps` (>= 0) after `local`. */
export function advance(local: number, frequency: Frequency, steps: number): number {
  if (frequency.kind === "fixed") return local + steps * frequency.milliseconds;
  if (frequency.kind === "businessDay") {
    const weekday = fieldsOf(local).weekday;
    // From a weekend day counting starts at the Friday before it.
    const start = weekday === 6 ? local - millisecondsPerDay : weekday === 0 ? local - 2 * millisecondsPerDay : local;
    const fromMonday = Math.min((weekday + 6) % 7, 4);
    const days = Math.floor((fromMonday + steps) / 5) * 7 + ((fromMonday + steps) % 5) - fromMonday;
    return steps === 0 ? local : start + days * millisecondsPerDay;
  }
  const { year, monthIndex, day } = fieldsOf(local);
  const isMonthEnd = day === daysInMonth(year, monthIndex);
  return addMonths(local, steps * frequency.months, frequency.anchorDay ?? (isMonthEnd ? 31 : day));
}

/** How many whole steps lead from `from` to `to` (later), or undefined when no whole number does. */
export function stepsBetween(from: number, to: number, frequency: Frequency): number | undefined {
  let guess: number;
  if (frequency.kind === "fixed") guess = (to - from) / frequency.milliseconds;
  else if (frequency.kind === "month") {
    const [a, b] = [fieldsOf(from), fieldsOf(to)];
    guess = (b.year * 12 + b.monthIndex - a.year * 12 - a.monthIndex) / frequency.months;
  } else {
    const days = (to - from) / millisecondsPerDay;
    const fromMonday = (fieldsOf(from).weekday + 6) % 7;
    guess = Math.floor((fromMonday + days) / 7) * 5 + ((fromMonday + days) % 7) - fromMonday;
  }
  return Number.isInteger(guess) && guess >= 0 && advance(from, frequency, guess) === to ? guess : undefined;
}

/**
 * Steps in one season: a day for steps of 5 minutes and more that divide it, a week for days (5 business days), a year for weeks (52), months
 * and quarters. 1 where no season is usual.
 */
export function seasonalPeriod(frequency: Frequency): number {
  const { kind, milliseconds, months } = frequency;
  if (kind === "businessDay") return 5;
  if (kind === "month") return 12 % months === 0 ? 12 / months : 1;
  if (milliseconds === millisecondsPerDay) return 7;
  if (milliseconds === 7 * millisecondsPerDay) return 52;
  const isDivisor = milliseconds >= 5 * 60_000 && milliseconds < millisecondsPerDay && millisecondsPerDay % milliseconds === 0;
  return isDivisor ? millisecondsPerDay / milliseconds : 1;
}

/** Share of steps that a frequency must explain to be believed. */
const neededShare = 0.8;

/**
 * The frequency of ascending wall-clock times (two at least). Throws `InputError`, beginning with `label`, when none explains 80% of the steps.
 */
export function inferFrequency(times: readonly number[], label: string): Frequency {
  const stepCount = times.length - 1;
  const shareOf = (frequency: Frequency): number => {
    let explained = 0;
    for (let index = 0; index < stepCount; index++) {
      if (stepsBetween(times[index]!, times[index + 1]!, frequency) === 1) explained++;
    }
    return explained / stepCount;
  };
  const lengths = stepLengths(times);
  const mostCommon = lengths[0]?.[0] ?? 0;
  // In order of preference: on a tie the calendar is the better reading of a 28- or 31-day step.
  const candidates = [...monthCandidates(times), ...(isWeekdaysOnly(times) ? [businessDay] : []), fixedFrequency(mostCommon)];
  const shares = candidates.map((frequency) => ({ frequency, share: shareOf(frequency) }));
  const best = shares.reduce((a, b) => (b.share > a.share ? b : a));
  if (best.share >= neededShare) return best.frequency;
  const found = lengths.slice(0, 3).map(([length, count]) => `${fixedFrequency(length).label} (${Math.round((100 * count) / stepCount)}%)`);
  throw new InputError(
    "irregular-steps",
    `${label}: the steps between timestamps are irregular (most common: ${found.join(", ")}; one kind must cover 80%). ` +
      `Name the step with a frequency such as ${fixedFrequency(mostCommon).label} to turn missing steps into gaps, or leave the time column out to count rows`,
  );
}

/** Step lengths with their counts, most common first, shorter first on a tie. */
function stepLengths(times: readonly number[]): [length: number, count: number][] {
  const counts = new Map<number, number>();
  for (let index = 1; index < times.length; index++) {
    const length = times[index]! - times[index - 1]!;
    counts.set(length, (counts.get(length) ?? 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
}

/** Month frequencies worth trying: the most common whole number of months, landing on the latest day of month seen. */
function monthCandidates(times: readonly number[]): Frequency[] {
  const counts = new Map<number, number>();
  for (let index = 1; index < times.length; index++) {
    const [a, b] = [fieldsOf(times[index - 1]!), fieldsOf(times[index]!)];
    const months = b.year * 12 + b.monthIndex - a.year * 12 - a.monthIndex;
    if (months > 0) counts.set(months, (counts.get(months) ?? 0) + 1);
  }
  const common = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0])[0]?.[0];
  return common === undefined ? [] : [monthFrequency(common, anchorDayOf(times))];
}

/** The day of the month that monthly times land on: 31 when all are month ends, else the latest day seen. */
export function anchorDayOf(times: readonly number[]): number {
  const fields = times.map(fieldsOf);
  const allMonthEnds = fields.every(({ year, monthIndex, day }) => day === daysInMonth(year, monthIndex));
  return allMonthEnds ? 31 : Math.max(...fields.map(({ day }) => day));
}

/** Days without any weekend, with at least one weekend skipped: the pattern of markets. */
function isWeekdaysOnly(times: readonly number[]): boolean {
  const weekdays = times.map((time) => fieldsOf(time).weekday);
  if (weekdays.some((weekday) => weekday === 0 || weekday === 6)) return false;
  return times.some(
    (time, index) => index > 0 && weekdays[index - 1] === 5 && weekdays[index] === 1 && time - times[index - 1]! === 3 * millisecondsPerDay,
  );
}
