/**
 * Candle series as callers give them, checked and turned into what candle models take: six columns and time features.
 * Knows column names and their mistakes; the calendar is in candle-calendar.ts, normalisation belongs to the model.
 */
import { candleColumn, candleNames, type CandleName } from "../io/candle-names.js";
import { fillCandles } from "../models/kronos/normalise.js";
import type { TokenSampling } from "../models/model.js";
import type { Warning } from "./calendar.js";
import { planCandles, type CandleCalendar, type CandlePlan } from "./candle-calendar.js";
import { featuresOf, wallClock } from "./candle-time.js";
import { InputError } from "./errors.js";
import type { PreparedSeries, SeriesInput, Values } from "./series.js";
import { seriesStream } from "./stream.js";
import { instantOf, parseStamp, type Stamp } from "../io/timestamps.js";

/** What a request says about candles beyond the common options. */
export interface CandleOptions {
  readonly sampling: TokenSampling;
  readonly timeZone: string | undefined;
  readonly calendar: CandleCalendar | undefined;
  readonly consistent: boolean;
}

export interface CheckedCandles {
  readonly id: string;
  readonly label: string;
  readonly length: number;
  readonly plan: CandlePlan;
  readonly input: SeriesInput;
  /** [6] by name; volume and amount may be missing. */
  readonly columns: Readonly<Partial<Record<CandleName, Values>>>;
}

/** Columns of a candle, in the order of the answer's entries. */
export const CANDLE_NAMES = candleNames;

const fields = ["columns", "timestamps", "frequency", "id", "futureTimestamps"];

/** Checks names, lengths, stamps and values of one series. Throws InputError. */
export function checkCandles(input: SeriesInput, index: number, options: CandleOptions): CheckedCandles {
  const label = typeof input?.id === "string" ? `series "${input.id}"` : `series ${index}`;
  if (typeof input !== "object" || input === null || input.columns === undefined)
    throw new InputError(
      "candles",
      `${label} has no columns: this model takes candles, {columns: {open, high, low, close, volume?, amount?}, timestamps}`,
    );
  const extra = Object.keys(input).find((field) => !fields.includes(field));
  if (extra !== undefined)
    throw new InputError("bad-series", `${label} has a field "${extra}", which candles do not take: known are ${fields.join(", ")}`);
  const columns = namedColumns(input.columns, label);
  const length = columns.close?.length ?? 0;
  for (const [name, values] of Object.entries(columns)) {
    if (values.length !== length)
      throw new InputError(
        "ragged-variates",
        `${label}: "${name}" has ${values.length} values, "close" has ${length}: give one of each per candle`,
      );
  }
  if (length < 2) throw new InputError("candles", `${label} has ${length} candle${length === 1 ? "" : "s"}; two or more are needed`);
  const { timestamps } = input;
  if (timestamps === undefined)
    throw new InputError("bad-timestamps", `${label} has no timestamps: candle models read the time of day, weekday, day and month`);
  if (timestamps.length !== length)
    throw new InputError(
      "bad-timestamps",
      `${label} has ${length} candles and ${timestamps.length} timestamps: give one timestamp per candle`,
    );
  const plan = planCandles(timestamps, { ...options, frequency: input.frequency }, label);
  for (const name of candleNames) if (columns[name]) checkValues(columns[name], name, timestamps, label);
  return { id: input.id ?? String(index), label, length, plan, input, columns };
}

function namedColumns(given: NonNullable<SeriesInput["columns"]>, label: string): CheckedCandles["columns"] {
  const columns: Partial<Record<CandleName, Values>> = {};
  const from: Partial<Record<CandleName, string>> = {};
  for (const [name, values] of Object.entries(given)) {
    const column = candleColumn(name);
    if (!column) continue;
    if (from[column] !== undefined)
      throw new InputError("candles", `${label}: columns "${from[column]}" and "${name}" both mean ${column}: give one of them`);
    columns[column] = values;
    from[column] = name;
  }
  const missing = candleNames.slice(0, 4).filter((name) => columns[name] === undefined);
  if (missing.length > 0)
    throw new InputError(
      "candles",
      `${label} has no column ${missing.map((name) => `"${name}"`).join(", ")}: candles need open, high, low and close; found ${Object.keys(given).join(", ") || "none"}`,
    );
  return columns;
}

function checkValues(values: Values, name: string, timestamps: readonly (string | Date)[], label: string): void {
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    if (typeof value === "number" && Number.isFinite(Math.fround(value))) continue;
    const found = value === null || value === undefined || Number.isNaN(value) ? "missing" : String(value);
    throw new InputError(
      "missing-candle",
      `${label}, candle ${row} (${String(timestamps[row])}): "${name}" is ${found}; candles must be complete finite numbers: leave incomplete ones out`,
    );
  }
}

/** Cuts to the context, fills missing columns, writes time features and future stamps. Throws InputError. */
export function prepareCandles(
  series: CheckedCandles,
  horizon: number,
  context: number,
  window: number,
  options: CandleOptions,
): PreparedSeries {
  const { columns, length, plan, id, label, input } = series;
  const start = Math.max(0, length - context);
  const cut = (name: CandleName): Float64Array | undefined =>
    columns[name] && Float64Array.from({ length: length - start }, (_, row) => (columns[name] as Values)[start + row] as number);
  const values = fillCandles({
    open: cut("open") as Float64Array,
    high: cut("high") as Float64Array,
    low: cut("low") as Float64Array,
    close: cut("close") as Float64Array,
    volume: cut("volume"),
    amount: cut("amount"),
  });
  if (values[5]?.some((value) => !Number.isFinite(value)))
    throw new InputError(
      "infinite-value",
      `${label}: volume times price is beyond the range of float32; scale the volume down or give the amount`,
    );
  const future =
    input.futureTimestamps === undefined ? plan.future(horizon) : givenFuture(input.futureTimestamps, series, horizon, options.timeZone);
  return {
    id,
    variates: candleNames,
    model: {
      values,
      stream: seriesStream(input.id),
      stamps: { context: featuresOf(plan.locals.slice(start)), future: featuresOf(future.locals) },
    },
    timestamps: future.timestamps,
    warnings: [...contradictions(label, values), ...longSteps(label, plan), ...slidingWarning(label, length - start, horizon, window)],
  };
}

function givenFuture(
  given: readonly (string | Date)[],
  { plan, label, input }: CheckedCandles,
  horizon: number,
  timeZone: string | undefined,
): { timestamps: string[]; locals: number[] } {
  if (given.length !== horizon)
    throw new InputError(
      "bad-timestamps",
      `${label} has ${given.length} future timestamps for a horizon of ${horizon}: give one per candle to come`,
    );
  // The same checks as for the past: text, order, and that the first one comes after the last candle.
  const known = input.timestamps as readonly (string | Date)[];
  const all = planCandles(
    [known[known.length - 1] as string | Date, ...given],
    { timeZone, frequency: `${Math.max(1, Math.round(plan.barMilliseconds / 1000))}s` },
    `${label}, future`,
  );
  return { timestamps: all.timestamps.slice(1) as string[], locals: all.locals.slice(1) };
}

/** Candles whose high is not their highest price, or whose low is not their lowest: most often two columns are swapped. They are used as they are. */
function contradictions(label: string, values: readonly Float32Array[]): Warning[] {
  const [open, high, low, close] = values as [Float32Array, Float32Array, Float32Array, Float32Array];
  const count = high.reduce((sum, top, row) => {
    const [from, to, bottom] = [open[row] as number, close[row] as number, low[row] as number];
    return sum + (top < Math.max(from, to, bottom) || bottom > Math.min(from, to) ? 1 : 0);
  }, 0);
  if (count === 0) return [];
  const message = `${label}: ${count} of ${high.length} candles have a high below, or a low above, another of their prices; check that the columns are what their names say`;
  return [{ code: "candle-prices", message }];
}

function longSteps(label: string, { longSteps: count, barMilliseconds }: CandlePlan): Warning[] {
  if (count === 0) return [];
  const bar = barMilliseconds % 86_400_000 === 0 ? `${barMilliseconds / 86_400_000} d` : `${barMilliseconds / 60_000} min`;
  const message = `${label}: ${count} step${count === 1 ? " is" : "s are"} longer than a candle of ${bar} (market closed, or candles missing); steps count as candles`;
  return [{ code: "gaps", message }];
}

/** Says when candles will cost a whole window each, and how to avoid it. */
function slidingWarning(label: string, context: number, horizon: number, window: number): Warning[] {
  const sliding = context + horizon - 1 - window;
  if (sliding <= 0) return [];
  const count = Math.min(sliding, horizon - 1);
  if (count <= 0) return [];
  const advice = window - horizon + 1 >= 2 ? `; context ${window - horizon + 1} or less avoids that` : "";
  return [
    {
      code: "sliding-window",
      message: `${label}: ${context} candles and ${horizon} to come exceed the window of ${window}, so ${count} of them recompute it whole${advice}`,
    },
  ];
}

/** Wall-clock features of stamps, i32 [count * 5]: minute, hour, weekday (Monday 0), day, month. Throws InputError for text that is no timestamp. */
export function candleFeatures(timestamps: readonly (string | Date)[], timeZone?: string): Int32Array {
  return featuresOf(
    timestamps.map((value) => {
      const stamp: Stamp | undefined =
        typeof value === "string" ? parseStamp(value) : { local: value.getTime(), offset: 0, precision: "time" };
      if (!stamp || Number.isNaN(instantOf(stamp))) throw new InputError("timestamp", `${String(value)} is no timestamp`);
      return wallClock(stamp, timeZone);
    }),
  );
}
