/**
 * From the series of a file to what a forecaster is asked: variates, covariates, rolling windows; and what a chart needs to know of their past.
 * Knows tables and requests; reads no files.
 */
import { candleColumn, candleNames } from "../io/candle-names.js";
import { InputError } from "../forecast/errors.js";
import { DEFAULT_HORIZON } from "../forecast/options.js";
import type { SeriesInput } from "../index.js";
import { timesOfSeries } from "../io/series-table.js";
import { calendarOf, type SeriesColumn, type TableSeries } from "../io/table.js";
import type { History } from "./present.js";

/** A request and, in the order of the answer's entries, the past of each. */
export interface Inputs {
  readonly inputs: SeriesInput[];
  readonly histories: History[];
}

/** One input per target column, or per series with `joint`. */
export function toInputs(series: readonly TableSeries[], joint: boolean, known: readonly KnownColumns[] = []): Inputs {
  const inputs: SeriesInput[] = [];
  const histories: History[] = [];
  series.forEach((entry, index) => {
    const { id, targets, past, frequency } = entry;
    const calendar = calendarOf(entry);
    const timestamps = calendar?.timestamps;
    const ahead = known[index];
    const common = {
      id,
      ...(timestamps === undefined ? {} : { timestamps }),
      ...(frequency === undefined ? {} : { frequency }),
      ...(past.length === 0 ? {} : { pastCovariates: byName(past) }),
      ...(ahead === undefined ? {} : { knownCovariates: ahead }),
    };
    for (const group of joint ? [targets] : targets.map((column) => [column])) {
      inputs.push({ ...common, columns: byName(group) });
      for (const { values } of group) histories.push({ values, ...(timestamps === undefined ? {} : { timestamps }) });
    }
  });
  return { inputs, histories };
}

/** [context + horizon] by covariate name. */
export type KnownColumns = Readonly<Record<string, Float64Array>>;

/** Steps to forecast when nobody says: one seasonal period of the frequency, else 24. */
export function usualHorizon(entry: TableSeries): number {
  const period = calendarOf(entry)?.seasonalPeriod ?? 1;
  return period > 1 ? period : DEFAULT_HORIZON;
}

/**
 * Values of the known covariates on the steps of each series and `horizon` steps after it, in the order of `series`. Rows are found by time stamp,
 * or by place where the series has none; series by id, or one table serves all. Throws `InputError` naming what is missing.
 */
export function alignKnown(series: readonly TableSeries[], known: readonly TableSeries[], horizon: number, file: string): KnownColumns[] {
  const only = known.length === 1 ? known[0] : undefined;
  return series.map((entry) => {
    const table = known.find(({ id }) => id === entry.id) ?? only;
    if (table === undefined) {
      throw new InputError(
        "missing-covariate",
        `--known ${file} has no rows for series "${entry.id}"; it has ${known.map(({ id }) => `"${id}"`).join(", ")}`,
      );
    }
    const rows = knownRows(entry, table, horizon, file);
    return Object.fromEntries(table.targets.map(({ name, values }) => [name, Float64Array.from(rows, (row) => values[row] ?? Number.NaN)]));
  });
}

function knownRows(entry: TableSeries, table: TableSeries, horizon: number, file: string): number[] {
  const length = entry.targets[0]?.values.length ?? 0;
  const label = `--known ${file}, series "${entry.id}"`;
  const future = entry.calendar?.future(horizon);
  if (entry.calendar === undefined || future === undefined) {
    const found = table.targets[0]?.values.length ?? 0;
    if (found >= length + horizon) return Array.from({ length: length + horizon }, (_, row) => row);
    throw new InputError(
      "bad-covariate-length",
      `${label}: ${found} rows, expected ${length + horizon}: the ${length} steps of the series and the horizon of ${horizon}`,
    );
  }
  if (table.calendar === undefined) {
    throw new InputError(
      "missing-covariate",
      `${label}: the series has time stamps and the known covariates have none; give both the same time column`,
    );
  }
  const places = new Map(table.calendar.timestamps.map((stamp, row) => [Date.parse(zoned(stamp)), row]));
  return [...entry.calendar.timestamps, ...future].map((stamp, step) => {
    const row = places.get(Date.parse(zoned(stamp)));
    if (row !== undefined) return row;
    const role = step < length ? "of the series" : `ahead (horizon ${horizon})`;
    throw new InputError(
      "missing-covariate",
      `${label}: no row for ${stamp}, a step ${role}; known covariates need every step of the past and the horizon`,
    );
  });
}

/** A stamp without an offset, compared with others like it. */
function zoned(stamp: string): string {
  return /T.*(Z|[+-]\d\d:?\d\d)$/.test(stamp) || !stamp.includes("T") ? stamp : `${stamp}Z`;
}

/**
 * `count` windows at the end of each series, oldest first, one horizon apart: each is cut where its forecast begins, so that every forecast
 * can be held against what came next. The id names the first step that is forecast. Throws `InputError` when there are too few steps.
 */
export function rollingSeries(series: readonly TableSeries[], count: number, horizon: (entry: TableSeries) => number): TableSeries[] {
  return series.flatMap((entry) => {
    const length = entry.targets[0]?.values.length ?? 0;
    const steps = horizon(entry);
    return Array.from({ length: count }, (_, index) => {
      const end = length - (count - index) * steps;
      if (end >= 1) return cut(entry, end);
      throw new InputError(
        "too-short",
        `series "${entry.id}": ${length} steps are too few for --last ${count} windows of ${steps} steps: ${count * steps + 1} are needed`,
      );
    });
  });
}

/** The first `end` steps of a series. */
function cut(entry: TableSeries, end: number): TableSeries {
  const columns = (list: readonly SeriesColumn[]): SeriesColumn[] =>
    list.map(({ name, values }) => ({ name, values: values.slice(0, end) }));
  const { timestamps, calendar, frequency } = entry;
  const id = `${entry.id}@${timestamps?.[end] ?? end}`;
  return {
    id,
    targets: columns(entry.targets),
    past: columns(entry.past),
    ...(timestamps &&
      timesOfSeries(
        timestamps.slice(0, end),
        entry.targets.map(({ name }) => name),
        frequency ?? calendar?.frequency?.label,
        id,
      )),
    ...(frequency !== undefined && { frequency }),
  };
}

/** One candle input per series, and histories in the order of a candle answer's entries. */
export function candleInputs(series: readonly TableSeries[]): Inputs {
  const inputs: SeriesInput[] = [];
  const histories: History[] = [];
  for (const { id, targets, timestamps, frequency } of series) {
    const stamps = timestamps === undefined ? {} : { timestamps };
    inputs.push({ id, ...stamps, ...(frequency === undefined ? {} : { frequency }), columns: byName(targets) });
    for (const column of candleNames) {
      const known = targets.find(({ name }) => candleColumn(name) === column);
      histories.push({ values: known?.values ?? [], ...(known === undefined ? {} : stamps) });
    }
  }
  return { inputs, histories };
}

function byName(columns: readonly SeriesColumn[]): Record<string, Float64Array> {
  return Object.fromEntries(columns.map(({ name, values }) => [name, values]));
}
