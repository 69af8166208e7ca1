/**
 * What a series file becomes, whatever its format. Types and the one rule that all formats share.
 */

import type { SeriesCalendar } from "./calendar.js";
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
  /** Absent when the input has no time stamps: steps are rows then. */
  readonly calendar?: SeriesCalendar;
  /** The frequency that was named, by flag or in the input; never an inferred one. */
  readonly frequency?: string;
}

export interface SeriesTable {
  readonly series: readonly TableSeries[];
  /** Sentences for people: columns left out, gaps. */
  readonly notes: readonly string[];
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

/** Throws `InputError` for a column without a single observed value. */
export function checkObserved({ name, values }: SeriesColumn, label: string): void {
  if (values.every(Number.isNaN)) {
    throw new InputError(
      "series-missing",
      `${label}: "${name}" has no observed value (${values.length} steps, all missing); at least one is needed`,
    );
  }
}
