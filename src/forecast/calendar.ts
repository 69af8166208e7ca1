/**
 * Stamps of the future and the seasonal period of one series, from its timestamps and frequency.
 * The calendar itself lives in io; this says how a series without stamps is counted.
 */
import { InputError } from "./errors.js";

/** ISO 8601 text with the input's offset, or a step counted from 0. */
export type Timestamp = string | number;

export interface CalendarPlan {
  /** Steps in one seasonal period of the frequency; undefined where none is known. */
  readonly seasonality: number | undefined;
  /** [horizon] stamps after the last step. */
  future(horizon: number): Timestamp[];
}

export function planCalendar(
  timestamps: readonly (string | Date)[] | undefined,
  frequency: string | undefined,
  length: number,
  label: string,
): CalendarPlan {
  void frequency;
  if (timestamps !== undefined && timestamps.length > 1) throw new InputError("later", `${label}: timestamps are not supported yet`);
  return { seasonality: undefined, future: (horizon) => Array.from({ length: horizon }, (_, step) => length + step) };
}
