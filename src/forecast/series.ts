/**
 * Series as callers give them, checked and turned into what models take.
 * Knows the input forms and their mistakes; nothing of models' insides, files or devices.
 */
import type { ModelSeries } from "../models/model.js";
import { onGrid, planCalendar, type CalendarPlan, type Timestamp, type Warning } from "./calendar.js";
import { InputError } from "./errors.js";
import { seriesStream } from "./stream.js";

/** Numbers of one variate, oldest first; NaN or null = missing. */
export type Values = ArrayLike<number | null>;

/** One series: either one variate, or several that may attend to each other. Unrelated series are separate entries of `predict`. */
export interface SeriesInput {
  /** [L] one variate, or [V][L] variates of one joint series. Give this or `columns`. */
  values?: Values | readonly Values[];
  /** Named variates of one joint series, each [L]. */
  columns?: Readonly<Record<string, Values>>;
  /** [L] ISO 8601 text or Date, ascending. Absent: steps are counted from 0. */
  timestamps?: readonly (string | Date)[];
  /** Calendar step such as "1h", "15min", "D", "MS". Absent: found from the timestamps. */
  frequency?: string;
  /** [horizon] stamps of the candles to come; candle models only. Absent: they follow the calendar. */
  futureTimestamps?: readonly (string | Date)[];
  /** Name in the answer, and the random stream: equal ids draw equal numbers. */
  id?: string;
  /** [L] or [V][L], 1 or true = observed. Absent: every finite value counts as observed. */
  mask?: ArrayLike<number | boolean> | readonly ArrayLike<number | boolean>[];
  /** [V] variates attend to each other only where these are equal. Absent: all together. */
  ids?: ArrayLike<number>;
  /** [E][context + horizon] covariates known ahead. */
  knownCovariates?: readonly Values[] | Readonly<Record<string, Values>>;
  /** [E][context] covariates known up to now. */
  pastCovariates?: readonly Values[] | Readonly<Record<string, Values>>;
}

/** A series ready for a model, with what the answer needs to name it. */
export interface PreparedSeries {
  readonly id: string;
  /** Names of the target variates; the first `variates.length` rows of `model.values`. */
  readonly variates: readonly string[];
  readonly model: ModelSeries;
  /** [horizon] stamps of the forecast. */
  readonly timestamps: readonly Timestamp[];
  readonly warnings: readonly Warning[];
}

/** A checked series before horizon and context are known. */
export interface CheckedSeries {
  readonly input: SeriesInput;
  readonly label: string;
  readonly id: string;
  readonly names: readonly string[];
  /** [V][length]; missing steps of a named frequency are NaN. */
  readonly rows: readonly Values[];
  /** Values given per variate, and steps they span. */
  readonly given: number;
  readonly length: number;
  readonly calendar: CalendarPlan;
}

const FIELDS = ["values", "columns", "timestamps", "frequency", "id", "mask", "ids", "knownCovariates", "pastCovariates"];

/** Checks the form of one series. `index` is its place in the call, for messages. Throws InputError. */
export function checkSeries(input: SeriesInput, index: number): CheckedSeries {
  if (typeof input !== "object" || input === null || isNumbers(input)) {
    throw new InputError(
      "bad-series",
      `series ${index} is not an object: give {values: [...]} or {columns: {name: [...]}}, or a list of such objects`,
    );
  }
  const label = input.id === undefined ? `series ${index}` : `series "${input.id}"`;
  for (const field of Object.keys(input)) {
    if (!FIELDS.includes(field))
      throw new InputError("bad-series", `${label} has an unknown field "${field}": known are ${FIELDS.join(", ")}`);
  }
  if (input.id !== undefined && typeof input.id !== "string") throw new InputError("bad-series", `${label}: id must be text`);
  if ((input.values === undefined) === (input.columns === undefined)) {
    const found = input.values === undefined ? "neither" : "both";
    throw new InputError("bad-series", `${label} must have either values or columns; it has ${found}`);
  }
  const { names, rows } = input.columns === undefined ? valueRows(input.values, label) : namedRows(input.columns);
  const length = rows[0]?.length ?? 0;
  if (rows.length === 0 || length === 0) throw new InputError("empty-series", `${label} is empty: at least one value is needed`);
  rows.forEach((row, variate) => {
    if (row.length !== length) {
      throw new InputError(
        "ragged-variates",
        `${label}: variate "${names[variate]}" has ${row.length} values, "${names[0]}" has ${length}; variates of one series have equal length` +
          ` (unrelated series go in as separate entries)`,
      );
    }
  });
  if (input.timestamps !== undefined && input.timestamps.length !== length) {
    throw new InputError(
      "bad-timestamps",
      `${label} has ${length} values and ${input.timestamps.length} timestamps: give one timestamp per value`,
    );
  }
  const calendar = planCalendar(input.timestamps, input.frequency, length, label);
  const { positions } = calendar;
  const gridRows = positions === undefined ? rows : rows.map((row) => onGrid(row, positions, null));
  return { input, label, id: input.id ?? String(index), names, rows: gridRows, given: length, length: gridRows[0]?.length ?? 0, calendar };
}

/** Cuts to the context, converts to float32, builds masks and future stamps. Throws InputError. */
export function prepareSeries(series: CheckedSeries, horizon: number, context: number): PreparedSeries {
  const { input, label, rows, names, length } = series;
  const start = Math.max(0, length - context);
  const past = covariateRows(series, input.pastCovariates, "pastCovariates", 0);
  const known = covariateRows(series, input.knownCovariates, "knownCovariates", horizon);
  const all = [...rows, ...past.rows, ...known.rows];
  const allNames = [...names, ...past.names, ...known.names];
  const values = all.map((row, variate) => toFloat32(row, start, length, `${label}, "${allNames[variate]}"`));
  const mask = buildMask(series, values, start);
  const warnings: Warning[] = series.calendar.warning === undefined ? [] : [series.calendar.warning];
  for (let variate = 0; variate < rows.length; variate += 1) {
    const observed = countOnes(mask[variate]);
    if (observed === 0) {
      const where = start > 0 ? `the last ${length - start} values` : "every value";
      throw new InputError(
        "all-missing",
        `${label}: ${where} of "${names[variate]}" are missing (NaN or masked): at least one observed value is needed`,
      );
    }
    if (observed === 1) {
      warnings.push({
        code: "one-value",
        message: `${label}: "${names[variate]}" has one observed value: no pattern and no spread can be learnt from it`,
      });
    }
  }
  const knownFuture = known.rows.map((row, index) => {
    const future = toFloat32(row, length, length + horizon, `${label}, "${known.names[index]}"`);
    const gap = future.findIndex((value) => Number.isNaN(value));
    if (gap >= 0) {
      throw new InputError(
        "missing-covariate",
        `${label}: known covariate "${known.names[index]}" is missing at future step ${gap}: its future must be complete`,
      );
    }
    return future;
  });
  const anyMissing = mask.some((row) => row.includes(0));
  const model: ModelSeries = {
    values,
    stream: seriesStream(input.id),
    ...(anyMissing ? { mask } : {}),
    ...(input.ids === undefined ? {} : { groups: groupIds(input.ids, rows.length, all.length, label) }),
    ...(knownFuture.length === 0 ? {} : { knownFuture }),
  };
  return { id: series.id, variates: names, model, timestamps: series.calendar.future(horizon), warnings };
}

function isNumbers(value: unknown): boolean {
  return Array.isArray(value) || ArrayBuffer.isView(value);
}

function valueRows(values: SeriesInput["values"], label: string): { names: string[]; rows: Values[] } {
  if (values === undefined || !isNumbers(values)) {
    throw new InputError("bad-series", `${label}: values must be a list of numbers [L] or a list of such lists [V][L]`);
  }
  const nested = values.length > 0 && isNumbers(values[0]);
  const rows = nested ? Array.from(values as readonly Values[]) : [values as Values];
  rows.forEach((row, variate) => {
    if (!isNumbers(row)) throw new InputError("bad-series", `${label}: variate ${variate} is not a list of numbers`);
  });
  return { rows, names: rows.length === 1 ? ["value"] : rows.map((_, variate) => String(variate)) };
}

function namedRows(columns: Readonly<Record<string, Values>>): { names: string[]; rows: Values[] } {
  const names = Object.keys(columns);
  const rows = names.map((name) => {
    const row = columns[name];
    if (row === undefined || !isNumbers(row)) throw new InputError("bad-series", `column "${name}" is not a list of numbers`);
    return row;
  });
  return { names, rows };
}

/** Covariates on the steps of the series, with `ahead` steps of the future after them. */
function covariateRows(
  series: CheckedSeries,
  covariates: SeriesInput["knownCovariates"],
  field: string,
  ahead: number,
): { names: string[]; rows: Values[] } {
  if (covariates === undefined) return { names: [], rows: [] };
  const { label, given, calendar } = series;
  const { names, rows } = isNumbers(covariates)
    ? {
        rows: Array.from(covariates as readonly Values[]),
        names: (covariates as readonly Values[]).map((_, index) => `${field}[${index}]`),
      }
    : namedRows(covariates as Readonly<Record<string, Values>>);
  rows.forEach((row, index) => {
    if (!isNumbers(row)) throw new InputError("bad-series", `${label}: ${field} must be lists of numbers, one per covariate`);
    if (row.length !== given + ahead) {
      const meaning = `the ${given} steps of the series${ahead === 0 ? "" : ` plus the horizon of ${ahead}`}`;
      throw new InputError(
        "bad-covariate-length",
        `${label}: ${field} "${names[index]}" has ${row.length} values, expected ${given + ahead}: ${meaning}`,
      );
    }
  });
  const { positions } = calendar;
  return { names, rows: positions === undefined ? rows : rows.map((row) => onGrid(row, positions, null)) };
}

function toFloat32(row: Values, start: number, end: number, where: string): Float32Array {
  const result = new Float32Array(end - start);
  for (let step = start; step < end; step += 1) {
    const value = row[step];
    if (value === null || value === undefined) result[step - start] = Number.NaN;
    else if (typeof value !== "number") {
      throw new InputError(
        "not-a-number",
        `${where}: value ${step} is ${JSON.stringify(value)}, expected a number (NaN or null = missing)`,
      );
    } else {
      const single = Math.fround(value);
      if (single === Infinity || single === -Infinity) {
        throw new InputError(
          "infinite-value",
          `${where}: value ${step} is ${value}, beyond the range of float32; use NaN for a missing value`,
        );
      }
      result[step - start] = single;
    }
  }
  return result;
}

/** [V][steps from `start`] 1 = observed; covariates have no mask of their own. */
function buildMask({ input, rows, given, calendar, label }: CheckedSeries, values: readonly Float32Array[], start: number): Uint8Array[] {
  const mask = input.mask;
  const maskRows =
    mask === undefined ? [] : isNumbers(mask[0]) ? (mask as readonly ArrayLike<number | boolean>[]) : [mask as ArrayLike<number | boolean>];
  if (mask !== undefined && maskRows.length !== rows.length && maskRows.length !== 1) {
    throw new InputError("bad-mask", `${label}: mask has ${maskRows.length} rows, the series has ${rows.length} variates`);
  }
  const { positions } = calendar;
  return values.map((row, variate) => {
    const own = variate < rows.length ? (maskRows[variate] ?? maskRows[0]) : undefined;
    if (own !== undefined && own.length !== given) {
      throw new InputError("bad-mask", `${label}: mask has ${own.length} entries for ${given} values: give one per value`);
    }
    const onSteps = own === undefined || positions === undefined ? own : onGrid(own, positions, 0);
    return Uint8Array.from(row, (value, step) => (!Number.isNaN(value) && Number(onSteps?.[start + step] ?? 1) !== 0 ? 1 : 0));
  });
}

function groupIds(ids: ArrayLike<number>, targets: number, all: number, label: string): Int32Array {
  if (ids.length !== targets && ids.length !== all) {
    throw new InputError(
      "bad-ids",
      `${label}: ids has ${ids.length} entries, expected one per variate: ${targets}${all > targets ? ` (or ${all} with covariates)` : ""}`,
    );
  }
  const groups = Int32Array.from(ids);
  for (let variate = 0; variate < ids.length; variate += 1) {
    if (groups[variate] !== ids[variate])
      throw new InputError("bad-ids", `${label}: ids must be 32-bit whole numbers; got ${ids[variate]}`);
  }
  if (ids.length === all) return groups;
  if (groups.some((group) => group !== groups[0])) {
    throw new InputError(
      "bad-ids",
      `${label}: with several groups, say which group each covariate belongs to: give ids for all ${all} rows`,
    );
  }
  return new Int32Array(all).fill(groups[0] ?? 0);
}

function countOnes(row: Uint8Array | undefined): number {
  return row === undefined ? 0 : row.reduce((sum, value) => sum + value, 0);
}
