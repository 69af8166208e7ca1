/**
 * A forecast as text or bytes: table, JSON, CSV, Parquet or chart. Knows forecasts and terminals; reads and writes nothing.
 */
import type { Forecast, ForecastReport, SeriesForecast } from "../index.js";
import { writeParquet } from "../io/parquet.js";
import { renderChart } from "./chart.js";
import type { CliContext } from "./context.js";
import { bytes, duration, numberFormat } from "./numbers.js";
import { stampFormat } from "./stamps.js";
import { renderSvg, type SvgPanel } from "./svg-chart.js";
import { renderTable } from "./table.js";

/** What was known of a forecast series before the forecast; for charts. */
export interface History {
  readonly values: ArrayLike<number>;
  readonly timestamps?: readonly string[];
}

/** Compact JSON with a closing newline. */
export function forecastJson(forecast: Forecast): string {
  return `${JSON.stringify(forecast)}\n`;
}

/** Long form, one row per step: id, variate, timestamp, mean, then one column per level. Missing numbers are empty cells. */
export function forecastCsv(forecast: Forecast): string {
  const lines = [["id", "variate", "timestamp", "mean", ...levelsOf(forecast).map(String)].join(",")];
  for (const entry of forecast.series) {
    const columns = [entry.mean, ...levelsOf(forecast).map((level) => entry.quantile(level))];
    entry.timestamps.forEach((stamp, step) => {
      const numbers = columns.map((column) => {
        const value = column[step] ?? Number.NaN;
        return Number.isFinite(value) ? String(value) : "";
      });
      lines.push([quoted(entry.id), quoted(entry.variate), String(stamp), ...numbers].join(","));
    });
  }
  return `${lines.join("\n")}\n`;
}

export function forecastTable(forecast: Forecast): string {
  return forecast.series.map((entry) => `${seriesTitle(entry)}\n${seriesTable(entry, levelsOf(forecast))}\n`).join("\n");
}

/** One row per step: time, mean and a column per level. */
export function seriesTable(entry: SeriesForecast, levels: readonly number[]): string {
  const columns = [entry.mean, ...levels.map((level) => entry.quantile(level))];
  const format = numberFormat(columns.flatMap((column) => Array.from(column)));
  const stamp = stampFormat(entry.timestamps);
  return renderTable(
    [{ title: "time" }, ...["mean", ...levels.map(String)].map((title) => ({ title, align: "right" as const }))],
    entry.timestamps.map((time, step) => [stamp(time), ...columns.map((column) => format(column[step] ?? Number.NaN))]),
  );
}

export function forecastChart(forecast: Forecast, histories: readonly History[], context: CliContext): string {
  return forecast.series
    .map((entry, index) => `${seriesChart(entry, levelsOf(forecast), histories[index] ?? { values: [] }, context)}\n`)
    .join("\n");
}

/** History, median (mean where there are no quantiles), the band between the lowest and highest level and the one inside it. */
export function seriesChart(entry: SeriesForecast, levels: readonly number[], history: History, context: CliContext): string {
  const [outer, inner] = bandsOf(levels);
  const stamps = [...(history.timestamps ?? []), ...entry.timestamps];
  const shift = history.timestamps === undefined ? history.values.length : 0;
  const format = stampFormat(stamps);
  return renderChart(
    {
      title: seriesTitle(entry),
      history: history.values,
      center: entry.hasQuantiles ? entry.quantile(0.5) : entry.mean,
      ...(outer === undefined ? {} : { lower: entry.quantile(outer[0]), upper: entry.quantile(outer[1]) }),
      ...(inner === undefined ? {} : { innerLower: entry.quantile(inner[0]), innerUpper: entry.quantile(inner[1]) }),
      stampOf: (step) => (step < shift ? String(step) : format(stamps[step - shift] ?? step)),
      legend: `history ┊ ${entry.hasQuantiles ? "median" : "mean"}${outer === undefined ? "" : `, ░ ${outer[0]} to ${outer[1]}`}${inner === undefined ? "" : `, ▒ ${inner[0]} to ${inner[1]}`}`,
    },
    context.terminal,
  );
}

/** The same drawing as SVG, one panel per entry. */
export function forecastSvg(forecast: Forecast, histories: readonly History[]): string {
  return renderSvg(forecast.series.map((entry, index) => svgPanel(entry, levelsOf(forecast), histories[index] ?? { values: [] })));
}

function svgPanel(entry: SeriesForecast, levels: readonly number[], history: History): SvgPanel {
  const stamps = [...(history.timestamps ?? []), ...entry.timestamps];
  const shift = history.timestamps === undefined ? history.values.length : 0;
  const format = stampFormat(stamps);
  return {
    title: seriesTitle(entry),
    unit: entry.variate,
    history: history.values,
    center: entry.hasQuantiles ? entry.quantile(0.5) : entry.mean,
    centerName: entry.hasQuantiles ? "median" : "mean",
    bands: bandsOf(levels).map(([low, high]) => ({ lower: entry.quantile(low), upper: entry.quantile(high), name: `${low} to ${high}` })),
    stampOf: (step) => (step < shift ? String(step) : format(stamps[step - shift] ?? step)),
  };
}

/** At most two bands from a list of levels: the outermost pair, and the pair inside it. */
function bandsOf(levels: readonly number[]): [low: number, high: number][] {
  const sorted = [...levels].sort((left, right) => left - right);
  const bands: [number, number][] = [];
  for (let index = 0; index < 2; index += 1) {
    const [low, high] = [sorted[index], sorted[sorted.length - 1 - index]];
    if (low !== undefined && high !== undefined && low < high && index < sorted.length - 1 - index) bands.push([low, high]);
  }
  return bands;
}

/** Bytes of a Parquet file with the rows and columns of `forecastCsv`; steps without stamps are numbers. */
export function forecastParquet(forecast: Forecast): Promise<Uint8Array> {
  const rows = <Cell>(pick: (entry: SeriesForecast) => Iterable<Cell>): Cell[] => forecast.series.flatMap((entry) => [...pick(entry)]);
  const repeat = (text: (entry: SeriesForecast) => string): string[] => rows((entry) => entry.timestamps.map(() => text(entry)));
  const stamps = rows((entry) => entry.timestamps);
  const counted = stamps.every((stamp) => typeof stamp === "number");
  return writeParquet([
    { name: "id", data: repeat(({ id }) => id) },
    { name: "variate", data: repeat(({ variate }) => variate) },
    { name: "timestamp", data: counted ? stamps.map(Number) : stamps.map(String) },
    { name: "mean", data: rows((entry) => entry.mean) },
    ...levelsOf(forecast).map((level) => ({ name: String(level), data: rows((entry) => entry.quantile(level)) })),
  ]);
}

/** The run in a few lines: where it ran, how long it took, what was compiled. */
export function reportLines(report: ForecastReport): string[] {
  const time = report.milliseconds;
  return [
    `device ${report.device}, mode ${report.mode}, kv cache ${report.kvCache}, weights ${report.weights}, threads ${report.threads}, peak ${bytes(report.peakBytes)}`,
    `load ${duration(time.load)}, compile ${duration(time.compile)}, first forecast ${duration(time.first)}, forecasts in all ${duration(time.total)}`,
    `compiles ${report.compiles}, recompiles ${report.recompiles}, graph breaks ${report.graphBreaks}, fallbacks ${report.fallbacks}`,
    `steps ${report.steps}, captured ${report.capturedSteps}, calls per step ${report.foreignCallsPerStep}, waits ${report.waits}`,
    ...(report.check ? [checkLine(report.check)] : []),
  ];
}

/** What the check compared, and whether that was anything. */
export function checkLine({ runs, values, outputs, states, elements }: NonNullable<ForecastReport["check"]>): string {
  if (values + outputs + states === 0) return "check bits: nothing was compared; every program ran op by op anyway";
  return `check bits: ${values} values, ${outputs} outputs and ${states} states of ${runs} runs (${elements} numbers) equal those of running op by op`;
}

function levelsOf(forecast: Forecast): readonly number[] {
  return forecast.series[0]?.hasQuantiles === true ? forecast.quantiles : [];
}

function seriesTitle(entry: SeriesForecast): string {
  return entry.id === entry.variate ? entry.id : `${entry.id}: ${entry.variate}`;
}

function quoted(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
