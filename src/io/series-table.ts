/**
 * What a series file becomes, whatever its format: types and the rules that all formats share. Knows nothing of cells, JSON or models.
 */

import { readCalendar, writtenStamps, type SeriesCalendar } from "./calendar.js";
import { candleTargets } from "./candle-names.js";
import { InputError } from "./errors.js";

export interface SeriesColumn {
  readonly name: string;
  /** [L] NaN = missing. */
  readonly values: Float64Array;
}

export interface TableSeries {
  readonly id: string;
  /** One at least, each with one observed value at least. */
  readonly targets: readonly SeriesColumn[];
  readonly past: readonly SeriesColumn[];
  /** [L] ISO 8601 with the input's offset, ascending. Absent when the input has no time stamps: steps are rows then. */
  readonly timestamps?: readonly string[];
  /** Absent without time stamps, and where they fit no frequency. */
  readonly calendar?: SeriesCalendar;
  /** Why stamps fit no frequency; an error for everything but candles, whose sessions have a calendar of their own. */
  readonly irregular?: InputError;
  /** The frequency that was named, by flag or in the input; never an inferred one. */
  readonly frequency?: string;
}

export interface SeriesTable {
  readonly series: readonly TableSeries[];
  /** Sentences for people: columns left out. */
  readonly notes: readonly string[];
  /** Sentences about steps that are missing; candles have their own, for a closed market is no gap. */
  readonly gaps: readonly string[];
}

export interface TableRequest {
  /** Column of time stamps; found by name or content when absent. */
  readonly time?: string;
  /** Column of series ids in a long table; absent: the table is one series per file, named after it. */
  readonly id?: string;
  /** Target columns; absent: the OHLCV columns if present, else every numeric column. */
  readonly targets?: readonly string[];
  /** Past covariates. */
  readonly past?: readonly string[];
  /** Named frequency; missing steps then count as gaps to fill. */
  readonly frequency?: string;
  /** CSV numbers have a comma before their decimals ("3,14"); columns are then separated by semicolons or tabs. */
  readonly decimalComma?: boolean;
  /** Bytes up to which CSV and JSON Lines are read whole; of larger ones the last `keepRows` rows per series are kept. Default 256 MiB. */
  readonly wholeBytes?: number;
  /** Default 16384. */
  readonly keepRows?: number;
}

/** The calendar of a series whose steps must be even; undefined without time stamps. Throws its `irregular`. */
export function calendarOf({ calendar, irregular }: TableSeries): SeriesCalendar | undefined {
  if (irregular) throw irregular;
  return calendar;
}

/**
 * What stamps say of a series with columns `names`. Text, order and offsets must be right; steps that fit no frequency are an error too, and kept as
 * `irregular` where the columns are candles. Throws `InputError`.
 */
export function timesOfSeries(
  stamps: readonly string[],
  names: readonly string[],
  frequency: string | undefined,
  label: string,
  row?: (index: number) => string,
): Pick<TableSeries, "timestamps" | "calendar" | "irregular"> {
  try {
    const calendar = readCalendar(stamps, frequency, label, row);
    return { timestamps: calendar.timestamps, calendar };
  } catch (error) {
    if (!(error instanceof InputError && error.code === "irregular-steps" && candleTargets(names))) throw error;
    return { timestamps: writtenStamps(stamps), irregular: error };
  }
}

/** Throws `InputError` for a column without a single observed value. */
export function checkObserved({ name, values }: SeriesColumn, label: string): void {
  if (values.every(Number.isNaN)) {
    throw new InputError(
      "series-missing",
      `${label}: "${name}" has no observed value (${values.length} steps, all missing); at least one is needed`,
    );
  }
}
