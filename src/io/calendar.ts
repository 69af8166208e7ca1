/**
 * The calendar of one series: its stamps checked, its frequency named or inferred, its gaps counted, its future stamps written.
 * Knows nothing of values, models or files.
 */

import { InputError } from "./errors.js";
import { advance, anchorDayOf, inferFrequency, monthFrequency, parseFrequency, seasonalPeriod, stepsBetween } from "./frequency.js";
import type { Frequency } from "./frequency.js";
import { formatStamp, instantOf, millisecondsPerDay, parseStamp } from "./timestamps.js";
import type { Stamp } from "./timestamps.js";

export interface Gaps {
  /** Places where at least one step is missing. */
  readonly count: number;
  /** Steps missing in all, and in the longest gap. */
  readonly missing: number;
  readonly longest: number;
}

export interface SeriesCalendar {
  /** [L] ISO 8601 with the input's offset. */
  readonly timestamps: readonly string[];
  /** Undefined for a single stamp without a named frequency. */
  readonly frequency: Frequency | undefined;
  readonly gaps: Gaps;
  /**
   * Only with a named frequency: [L] ascending places of the rows on the regular grid that starts at the first stamp; places in between are
   * missing steps. Without one, steps are rows.
   */
  readonly positions?: Int32Array;
  /** Steps in a season; 1 where none is usual or the frequency is unknown. */
  readonly seasonalPeriod: number;
  /** [horizon] stamps after the last one; undefined when the frequency is unknown. */
  future(horizon: number): string[] | undefined;
}

/** Longest regular grid built from a named frequency; guards against a mistyped year. */
const longestGrid = 50_000_000;

/**
 * Checks ascending stamps (one at least). `label` begins every message and `row` names a row by index for people. Throws `InputError` for
 * text that is no stamp, duplicate or unsorted stamps, mixed offsets and none, irregular steps, and stamps off a named frequency's grid.
 */
export function readCalendar(
  input: readonly (string | Date)[],
  frequencyText: string | undefined,
  label: string,
  row: (index: number) => string = (index) => `index ${index}`,
): SeriesCalendar {
  const stamps = input.map((value, index) => toStamp(value, label, row(index)));
  checkOrder(stamps, label, row);
  const named = frequencyText === undefined ? undefined : parseFrequency(frequencyText);
  const times = timesOf(stamps, named);
  const frequency = named ? anchored(named, times) : times.length < 2 ? undefined : inferFrequency(times, label);
  const positions = named && frequency ? gridPositions(times, frequency, label, row) : undefined;
  const last = stamps.at(-1);
  const lastTime = times.at(-1);
  return {
    timestamps: stamps.map(formatStamp),
    frequency,
    gaps: countGaps(times, frequency),
    ...(positions && { positions }),
    seasonalPeriod: frequency ? seasonalPeriod(frequency) : 1,
    future: (horizon) => (frequency && last && lastTime !== undefined ? futureStamps(last, lastTime, frequency, horizon) : undefined),
  };
}

/** Stamps that were read before, as ISO 8601 with the offset each was written with. */
export function writtenStamps(stamps: readonly string[]): string[] {
  return stamps.map((text) => formatStamp(toStamp(text, "timestamps", text)));
}

/**
 * [horizon] stamps after `last`, ISO 8601 with the offset it was written with. Throws `InputError` when `last` is no time stamp.
 */
export function futureTimestamps(last: string, frequency: Frequency, horizon: number): string[] {
  const stamp = toStamp(last, "future timestamps", "the last one");
  return futureStamps(stamp, stamp.local, frequency, horizon);
}

function futureStamps(last: Stamp, lastTime: number, frequency: Frequency, horizon: number): string[] {
  // Times may be instants or wall clock; either way the last stamp's own clock goes on from the last stamp.
  const shift = last.local - lastTime;
  const isPartOfDay = frequency.kind === "fixed" && frequency.milliseconds % millisecondsPerDay !== 0;
  const precision = isPartOfDay ? "time" : last.precision;
  return Array.from({ length: horizon }, (_, step) =>
    formatStamp({ ...last, precision, local: advance(lastTime, frequency, step + 1) + shift }),
  );
}

function toStamp(value: string | Date, label: string, row: string): Stamp {
  if (typeof value === "string") {
    const stamp = parseStamp(value);
    if (stamp) return stamp;
  } else if (!Number.isNaN(value.getTime())) return { local: value.getTime(), offset: 0, precision: "time" };
  throw new InputError(
    "timestamp",
    `${label}, ${row}: ${typeof value === "string" ? JSON.stringify(value) : "an invalid Date"} is no timestamp; expected ISO 8601 such as 2024-01-31 or 2024-01-31T10:15:00Z`,
  );
}

function checkOrder(stamps: readonly Stamp[], label: string, row: (index: number) => string): void {
  for (let index = 1; index < stamps.length; index++) {
    const [previous, current] = [stamps[index - 1]!, stamps[index]!];
    if ((previous.offset === undefined) !== (current.offset === undefined)) {
      throw new InputError(
        "timestamp",
        `${label}, ${row(index)}: timestamp ${formatStamp(current)} ${current.offset === undefined ? "has no offset from UTC, the one before has one" : "has an offset from UTC, the one before has none"}; give every timestamp an offset, or none`,
      );
    }
    const step = instantOf(current) - instantOf(previous);
    if (step === 0) {
      throw new InputError(
        "timestamp",
        `${label}, ${row(index)}: timestamp ${formatStamp(current)} occurs twice; each step needs its own (several series in one file need an id column: --id)`,
      );
    }
    if (step < 0) {
      throw new InputError(
        "timestamp",
        `${label}, ${row(index)}: timestamp ${formatStamp(current)} comes after ${formatStamp(previous)}; sort the rows oldest first`,
      );
    }
  }
}

/**
 * The clock that steps are measured on. Where the offset changes (summer time), steps of a day and more follow the wall clock and shorter
 * ones the instants.
 */
function timesOf(stamps: readonly Stamp[], named: Frequency | undefined): number[] {
  const local = stamps.map((stamp) => stamp.local);
  if (stamps.every((stamp) => stamp.offset === stamps[0]?.offset)) return local;
  const instants = stamps.map(instantOf);
  const steps = instants.slice(1).map((instant, index) => instant - instants[index]!);
  const typical = named?.milliseconds ?? steps.sort((a, b) => a - b)[steps.length >> 1] ?? 0;
  // A day of 23 hours is still a day.
  return typical >= millisecondsPerDay - 2 * 3_600_000 ? local : instants;
}

function anchored(frequency: Frequency, times: readonly number[]): Frequency {
  return frequency.kind === "month" ? monthFrequency(frequency.months, anchorDayOf(times)) : frequency;
}

function gridPositions(times: readonly number[], frequency: Frequency, label: string, row: (index: number) => string): Int32Array {
  const positions = new Int32Array(times.length);
  for (let index = 1; index < times.length; index++) {
    const steps = stepsBetween(times[index - 1]!, times[index]!, frequency);
    if (steps === undefined || steps === 0) {
      throw new InputError(
        "irregular-steps",
        `${label}, ${row(index)}: the timestamp is not a whole number of ${frequency.label} steps after the one before; name another frequency`,
      );
    }
    const position = positions[index - 1]! + steps;
    if (position >= longestGrid) {
      throw new InputError(
        "timestamp",
        `${label}, ${row(index)}: with frequency ${frequency.label} the series would have more than ${longestGrid} steps`,
      );
    }
    positions[index] = position;
  }
  return positions;
}

function countGaps(times: readonly number[], frequency: Frequency | undefined): Gaps {
  let [count, missing, longest] = [0, 0, 0];
  for (let index = 1; frequency && index < times.length; index++) {
    const [from, to] = [times[index - 1]!, times[index]!];
    const steps = stepsBetween(from, to, frequency) ?? Math.round((to - from) / frequency.milliseconds);
    if (steps < 2) continue;
    count++;
    missing += steps - 1;
    longest = Math.max(longest, steps - 1);
  }
  return { count, missing, longest };
}
