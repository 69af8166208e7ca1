/**
 * Candle forecasts as text: one table of candles per series, and candles drawn after those that are known, with the close's band.
 * Knows forecasts and a terminal's size; reads and writes nothing.
 */
import type { Forecast, SeriesForecast } from "../index.js";
import type { CliContext } from "./context.js";
import { numberFormat } from "./numbers.js";
import type { History } from "./present.js";
import { stampFormat } from "./stamps.js";
import { renderTable } from "./table.js";

const COLUMNS = ["open", "high", "low", "close", "volume", "amount"];

interface CandleEntry {
  readonly id: string;
  /** [6] in the order of the candle's columns. */
  readonly columns: readonly SeriesForecast[];
  readonly histories: readonly History[];
}

function candleEntries(forecast: Forecast, histories: readonly History[]): CandleEntry[] {
  const count = Math.floor(forecast.series.length / COLUMNS.length);
  return Array.from({ length: count }, (_, index) => {
    const from = index * COLUMNS.length;
    const columns = forecast.series.slice(from, from + COLUMNS.length);
    return { id: columns[0]?.id ?? "", columns, histories: histories.slice(from, from + COLUMNS.length) };
  });
}

const closeOf = ({ columns }: CandleEntry): SeriesForecast => columns[3] as SeriesForecast;

/** Per series, one row per candle: the mean of each column, then the quantiles of the close. */
export function candleTable(forecast: Forecast): string {
  return candleEntries(forecast, [])
    .map((entry) => {
      const close = closeOf(entry);
      const levels = close.hasQuantiles ? forecast.quantiles : [];
      const prices = numberFormat(entry.columns.slice(0, 4).flatMap(({ mean }) => Array.from(mean)));
      const amounts = entry.columns.slice(4).map(({ mean }) => numberFormat(Array.from(mean)));
      const stamp = stampFormat(close.timestamps);
      const rows = close.timestamps.map((time, step) => [
        stamp(time),
        ...entry.columns.map(({ mean }, column) => (column < 4 ? prices : (amounts[column - 4] as typeof prices))(mean[step] as number)),
        ...levels.map((level) => prices(close.quantile(level)[step] as number)),
      ]);
      const titles = [...COLUMNS, ...levels.map((level) => `close ${level}`)];
      return `${entry.id}\n${renderTable([{ title: "time" }, ...titles.map((title) => ({ title, align: "right" as const }))], rows)}\n`;
    })
    .join("\n");
}

interface Candle {
  readonly open: number;
  readonly high: number;
  readonly low: number;
  readonly close: number;
  /** Band of the close; only for candles to come. */
  readonly band?: readonly [number, number];
}

/** Lines of the plot. */
const PLOT_LINES = 16;

/** Candles drawn with wicks (│), rising (█) and falling (▒) bodies; after the line the mean candles with the close's band (·). */
export function candleChart(forecast: Forecast, histories: readonly History[], { terminal }: Pick<CliContext, "terminal">): string {
  return candleEntries(forecast, histories)
    .map((entry) => `${drawCandles(entry, forecast, terminal.columns)}\n`)
    .join("\n");
}

function drawCandles(entry: CandleEntry, forecast: Forecast, width: number): string {
  const close = closeOf(entry);
  const levels = close.hasQuantiles ? [...forecast.quantiles].sort((a, b) => a - b) : [];
  const [lowest, highest] = [levels[0], levels[levels.length - 1]];
  const band = lowest !== undefined && highest !== undefined && lowest < highest ? ([lowest, highest] as const) : undefined;
  const at = (column: number, step: number): number => entry.columns[column]?.mean[step] as number;
  const future = close.timestamps.map((_, step): Candle => {
    const candle = { open: at(0, step), high: at(1, step), low: at(2, step), close: at(3, step) };
    return band ? { ...candle, band: [close.quantile(band[0])[step] as number, close.quantile(band[1])[step] as number] } : candle;
  });
  const known = entry.histories[3]?.values.length ?? 0;
  const past = (column: number, row: number): number => entry.histories[column]?.values[row] as number;
  const format = numberFormat(future.flatMap(({ high, low }) => [high, low]));
  const labelWidth = Math.max(...future.map(({ high }) => format(high).length)) + 1;
  const room = Math.max(4, width - labelWidth - 3);
  const shownFuture = future.slice(0, Math.max(1, Math.floor(room * 0.6)));
  const shownPast = Math.min(known, room - shownFuture.length);
  const history = Array.from({ length: shownPast }, (_, index): Candle => {
    const row = known - shownPast + index;
    return { open: past(0, row), high: past(1, row), low: past(2, row), close: past(3, row) };
  });
  const candles = [...history, ...shownFuture];
  const values = candles.flatMap(({ open, high, low, close: last, band: edges }) => [open, high, low, last, ...(edges ?? [])]);
  const [bottom, top] = [Math.min(...values), Math.max(...values)];
  const span = top - bottom || 1;
  const lineOf = (value: number): number => Math.min(PLOT_LINES - 1, Math.max(0, Math.round(((top - value) / span) * (PLOT_LINES - 1))));
  const lines = Array.from({ length: PLOT_LINES }, (_, line) => {
    const cells = candles.map((candle) => cellOf(candle, line, lineOf));
    cells.splice(history.length, 0, "┊");
    const labelled = line === 0 || line === PLOT_LINES - 1 || line === Math.floor(PLOT_LINES / 2);
    const label = labelled ? format(top - (line / (PLOT_LINES - 1)) * span) : "";
    return `${label.padStart(labelWidth)} ${labelled ? "┤" : "│"}${cells.join("")}`.trimEnd();
  });
  const stamps = [...(entry.histories[3]?.timestamps ?? []).slice(known - shownPast), ...close.timestamps.slice(0, shownFuture.length)];
  const stamp = stampFormat(stamps);
  const first = stamps[0] === undefined ? "" : stamp(stamps[0]);
  const last = stamps.length > 1 ? stamp(stamps[stamps.length - 1] as string) : "";
  const gap = Math.max(1, candles.length + 1 - first.length - last.length);
  const legend = `known ┊ mean candles, █ rising ▒ falling${band ? `, · close ${band[0]} to ${band[1]}` : ""}`;
  const pad = " ".repeat(labelWidth + 2);
  const cut =
    shownFuture.length < future.length ? [`${pad}${future.length - shownFuture.length} more candles do not fit; the table has all`] : [];
  return [entry.id, ...lines, `${pad}${first}${" ".repeat(gap)}${last}`, `${pad}${legend}`, ...cut]
    .map((line) => line.slice(0, Math.max(width, 10)))
    .join("\n");
}

function cellOf({ open, high, low, close, band }: Candle, line: number, lineOf: (value: number) => number): string {
  const [bodyTop, bodyBottom] = [lineOf(Math.max(open, close)), lineOf(Math.min(open, close))];
  if (line >= bodyTop && line <= bodyBottom) return close >= open ? "█" : "▒";
  if (line >= lineOf(high) && line <= lineOf(low)) return "│";
  return band && line >= lineOf(band[1]) && line <= lineOf(band[0]) ? "·" : " ";
}
