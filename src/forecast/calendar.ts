/**
 * Stamps of the future, seasonal period and gaps of one series, from its timestamps and frequency.
 * The calendar itself lives in io; this says how a series without stamps is counted, and how missing steps become gaps.
 */
import { readCalendar, type SeriesCalendar } from "../io/calendar.js";
import { parseFrequency, seasonalPeriod } from "../io/frequency.js";

/** Something a person should know that stops nothing. */
export interface Warning {
  readonly code: "gaps" | "one-value" | "sliding-window" | "consistent" | "candle-prices";
  /** One sentence. */
  readonly message: string;
}

/** ISO 8601 text with the input's offset, or a step counted from 0. */
export type Timestamp = string | number;

export interface CalendarPlan {
  /** Steps in one seasonal period of the frequency; undefined where none is known. */
  readonly seasonality: number | undefined;
  /** [L] places of the values among all steps, when a named frequency finds steps missing; absent: every value is a step. */
  readonly positions?: Int32Array;
  /** What a person should know about gaps. */
  readonly warning?: Warning;
  /** [horizon] stamps after the last step. */
  future(horizon: number): Timestamp[];
}

/** `length` values, their stamps if any, and the frequency if named. Throws InputError; `label` begins every message. */
export function planCalendar(
  timestamps: readonly (string | Date)[] | undefined,
  frequency: string | undefined,
  length: number,
  label: string,
): CalendarPlan {
  if (timestamps === undefined) {
    const period = frequency === undefined ? 1 : seasonalPeriod(parseFrequency(frequency));
    return { seasonality: knownPeriod(period), future: (horizon) => countedSteps(length, horizon) };
  }
  const calendar = readCalendar(timestamps, frequency, label);
  const { gaps, positions } = calendar;
  const hasGaps = gaps.count > 0;
  return {
    seasonality: knownPeriod(calendar.seasonalPeriod),
    ...(hasGaps && positions !== undefined ? { positions } : {}),
    ...(hasGaps ? { warning: gapWarning(calendar, label) } : {}),
    future: (horizon) => calendar.future(horizon) ?? countedSteps(length, horizon),
  };
}

function gapWarning({ gaps, positions, frequency }: SeriesCalendar, label: string): Warning {
  const effect = positions === undefined ? "steps are rows (name a frequency to make them missing values)" : "they count as missing values";
  const size = `${plural(gaps.count, "gap")} in the timestamps, ${plural(gaps.missing, "missing step")} of ${frequency?.label ?? "one step"}, the longest ${gaps.longest}`;
  return { code: "gaps", message: `${label}: ${size}; ${effect}` };
}

/** Values on the grid of all steps: missing steps hold `missing`. `tail` values after the last position are appended as they are. */
export function onGrid<Value>(values: ArrayLike<Value>, positions: Int32Array, missing: Value): Value[] {
  const end = (positions[positions.length - 1] ?? -1) + 1;
  const result = new Array<Value>(end + Math.max(0, values.length - positions.length)).fill(missing);
  for (let index = 0; index < values.length; index += 1) {
    const place = index < positions.length ? (positions[index] ?? index) : end + index - positions.length;
    result[place] = values[index] as Value;
  }
  return result;
}

function countedSteps(length: number, horizon: number): number[] {
  return Array.from({ length: horizon }, (_, step) => length + step);
}

function knownPeriod(period: number): number | undefined {
  return period > 1 ? period : undefined;
}

function plural(count: number, word: string): string {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}
