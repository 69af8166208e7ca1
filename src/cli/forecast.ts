/**
 * `tempograph forecast FILE|-`: reads series, forecasts them, writes table, JSON, CSV, Parquet or chart.
 * Knows flags and their meaning for a request; reading is io/table.ts, requests are inputs.ts, text is present.ts.
 */
import { InputError } from "../forecast/errors.js";
import { resolveSettings } from "../forecast/resolve-settings.js";
import type { SettingName, SettingValues } from "../forecast/settings.js";
import { DEFAULT_HORIZON } from "../forecast/options.js";
import { readSeriesTable, type SeriesTable, type TableRequest, type TableSeries } from "../io/table.js";
import { candleChart, candleTable } from "./candle-view.js";
import { note, type CliContext } from "./context.js";
import { bytes } from "./numbers.js";
import { alignKnown, candleInputs, rollingSeries, toInputs, usualHorizon, type KnownColumns } from "./inputs.js";
import { checkOutput, deliver } from "./output.js";
import { forecastChart, forecastCsv, forecastJson, forecastParquet, forecastSvg, forecastTable, reportLines } from "./present.js";
import { modelOptions, type ModelFlags } from "./model-flags.js";
import { startProgress } from "./progress.js";
import { settingFlags } from "./setting-flags.js";

export const FORMATS = ["table", "json", "csv", "chart", "parquet"] as const;

/** Flags as commander hands them over: text, or true; names in camelCase. */
export interface ForecastFlags
  extends
    ModelFlags,
    Partial<Record<Exclude<SettingName, "autotuneSeconds" | "cacheDir" | "cacheSize" | "logs" | "dump" | "check" | "debug">, string>> {
  time?: string;
  target?: string;
  id?: string;
  frequency?: string;
  past?: string;
  joint?: boolean;
  paths?: boolean;
  report?: boolean;
  format?: string;
  output?: string;
  quiet?: boolean;
  tokenizer?: string;
  revision?: string;
  offline?: boolean;
  known?: string;
  last?: string;
  decimalComma?: boolean;
}

/** Levels of the two bands that a chart shows unless others are asked for. */
const CHART_QUANTILES = [0.1, 0.25, 0.5, 0.75, 0.9] as const;

export async function runForecast(file: string, flags: ForecastFlags, context: CliContext): Promise<number> {
  const format = readFormat(flags.format);
  if (flags.paths === true && format !== "json") {
    throw new InputError("bad-flag", `--paths gives sample paths in JSON only: add --format json, or leave --paths out`);
  }
  if (flags.output !== undefined && flags.output !== "-") checkOutput(flags.output);
  const { values, settings } = resolveSettings({ flags: settingFlags(flags), environment: context.environment, folder: context.folder });
  const windows = flags.last === undefined ? undefined : wholeNumber(flags.last, "--last");
  const table = await readTable(file, flags, context, values, windows);
  if (flags.quiet !== true) for (const text of table.notes) note(context, text);
  const known = flags.known === undefined ? undefined : await readSeriesTable(flags.known, knownRequest(flags));
  const ofModel = modelOptions(flags);

  const download = startProgress(context, "downloading", flags.quiet);
  const forecaster = await context.load(values.model, {
    device: values.device,
    mode: values.mode,
    kvCache: values.kvCache,
    weights: values.weights,
    ...(flags.tokenizer === undefined ? {} : { tokenizer: flags.tokenizer }),
    ...(flags.revision === undefined ? {} : { revision: flags.revision }),
    ...(flags.offline === undefined ? {} : { offline: flags.offline }),
    onNote: (text) => {
      if (flags.quiet !== true) note(context, text);
    },
    signal: context.signal,
    onDownload: (done, total) => download.update(done, total, bytes),
    ...(values.threads === undefined ? {} : { threads: values.threads }),
  });
  download.end();
  const progress = startProgress(context, "forecasting", flags.quiet);
  try {
    const isCandles = forecaster.takes === "candles";
    if (!isCandles && flags.quiet !== true) for (const text of table.gaps) note(context, text);
    const horizonOf = (entry: TableSeries): number => values.horizon ?? (isCandles ? DEFAULT_HORIZON : usualHorizon(entry));
    const series = windows === undefined ? table.series : rollingSeries(table.series, windows, horizonOf);
    if (!isCandles && flags.tokenizer !== undefined) {
      throw new InputError("bad-flag", `--tokenizer belongs to Kronos models; ${values.model} is none: leave it out`);
    }
    if (isCandles && known !== undefined) throw new InputError("bad-flag", "--known: candle models take no covariates; leave it out");
    const { inputs, histories } = isCandles
      ? candleInputs(series)
      : toInputs(series, flags.joint === true, knownOf(series, known, horizonOf, flags));
    const quantilesAsked = settings.some((setting) => setting.name === "quantiles" && setting.source !== "default");
    const drawsBands = format === "chart" && values.samples !== 0;
    const quantiles = quantilesAsked ? values.quantiles : drawsBands ? CHART_QUANTILES : undefined;
    const forecast = await forecaster.predict(inputs, {
      ...(values.horizon === undefined ? {} : { horizon: values.horizon }),
      ...(values.context === undefined ? {} : { context: values.context }),
      ...(values.samples === undefined ? {} : { samples: values.samples }),
      ...(quantiles === undefined ? {} : { quantiles }),
      seed: values.seed,
      ...ofModel,
      paths: flags.paths ?? false,
      report: flags.report ?? true,
      signal: context.signal,
      onProgress: ({ done, total }) => progress.update(done, total),
    });
    progress.end();
    if (flags.quiet !== true) {
      // Gaps of other series were reported when the file was read.
      for (const warning of forecast.warnings) if (isCandles || warning.code !== "gaps") note(context, warning.message);
    }
    const withReport = (text: string): string => (flags.report === false ? text : `${text}\n${reportLines(forecast.report).join("\n")}\n`);
    const chart = isCandles ? candleChart : forecastChart;
    const drawing = flags.output?.toLowerCase().endsWith(".svg") === true;
    const answer = await {
      json: () => forecastJson(forecast),
      csv: () => forecastCsv(forecast),
      table: () => withReport(isCandles ? candleTable(forecast) : forecastTable(forecast)),
      chart: () => (drawing ? forecastSvg(forecast, histories) : withReport(chart(forecast, histories, context))),
      parquet: () => forecastParquet(forecast),
    }[format]();
    deliver(context, flags.output, answer);
    return 0;
  } finally {
    progress.end();
    forecaster.dispose();
  }
}

async function readTable(
  file: string,
  flags: ForecastFlags,
  context: CliContext,
  values: SettingValues,
  windows: number | undefined,
): Promise<SeriesTable> {
  const targets = splitNames(flags.target, "--target");
  const past = splitNames(flags.past, "--past");
  const request: TableRequest = {
    ...knownRequest(flags),
    ...(flags.frequency === undefined ? {} : { frequency: flags.frequency }),
    ...(targets === undefined ? {} : { targets }),
    ...(past === undefined ? {} : { past }),
    keepRows: Math.max(16_384, (values.context ?? 0) + (windows ?? 0) * (values.horizon ?? 1024)),
  };
  return file === "-" ? readSeriesTable(file, request, context.standardInput()) : readSeriesTable(file, request);
}

/** Known covariates are a table like the series' own: the same time and id columns, every other numeric column a covariate. */
function knownRequest(flags: ForecastFlags): TableRequest {
  return {
    ...(flags.time === undefined ? {} : { time: flags.time }),
    ...(flags.id === undefined ? {} : { id: flags.id }),
    ...(flags.decimalComma === undefined ? {} : { decimalComma: flags.decimalComma }),
  };
}

/** One entry per series, or nothing. Series of different frequency need an explicit horizon anyway, so one horizon serves all. */
function knownOf(
  series: readonly TableSeries[],
  known: SeriesTable | undefined,
  horizonOf: (entry: TableSeries) => number,
  flags: ForecastFlags,
): readonly KnownColumns[] {
  const first = series[0];
  if (known === undefined || first === undefined) return [];
  if (flags.last !== undefined && known.series.length > 1) {
    throw new InputError("bad-flag", "--last with --known works for one table of covariates that serves all series: leave --id out");
  }
  return alignKnown(series, known.series, horizonOf(first), flags.known ?? "");
}

type Format = (typeof FORMATS)[number];

function readFormat(text = "table"): Format {
  const format = FORMATS.find((name) => name === text);
  if (format === undefined) throw new InputError("unknown-format", `--format ${text} is unknown: use ${FORMATS.join(", ")}`);
  return format;
}

function wholeNumber(text: string, flag: string): number {
  const value = /^\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new InputError("bad-flag", `${flag} "${text}" is not usable: expected a whole number, 1 or more`);
}

function splitNames(text: string | undefined, flag: string): readonly string[] | undefined {
  if (text === undefined) return undefined;
  const names = text.split(",").map((name) => name.trim());
  if (names.some((name) => name === ""))
    throw new InputError("bad-flag", `${flag} "${text}" holds an empty name: give column names with commas between`);
  return names;
}
