/**
 * `tempograph forecast FILE|-`: reads series, forecasts them, writes table, JSON, CSV or chart.
 * Knows flags and their meaning for a request; reading is `series-file.ts`, text is `present.ts`.
 */
import { InputError } from "../forecast/errors.js";
import { resolveSettings } from "../forecast/resolve-settings.js";
import type { SettingName } from "../forecast/settings.js";
import { CANDLE_NAMES, candleColumn } from "../forecast/candles.js";
import type { PredictOptions, SeriesInput } from "../index.js";
import { readSeriesTable, type SeriesColumn, type TableSeries } from "../io/table.js";
import { note, type CliContext } from "./context.js";
import { checkOutput, deliver } from "./output.js";
import { forecastChart, forecastCsv, forecastJson, forecastTable, reportLines, type History } from "./present.js";
import { settingFlags } from "./setting-flags.js";

export const FORMATS = ["table", "json", "csv", "chart", "parquet"] as const;

/** Flags as commander hands them over: text, or true; names in camelCase. */
export interface ForecastFlags extends Partial<Record<Exclude<SettingName, "cacheDir" | "logs" | "dump" | "check" | "debug">, string>> {
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
  temperature?: string;
  topK?: string;
  topP?: string;
  clip?: string;
  maxContext?: string;
  timeZone?: string;
  calendar?: string;
  consistent?: boolean;
}

/** Flags that INTERFACES names and this version cannot serve: refused with a reason, never ignored. */
const NOT_AVAILABLE: readonly (readonly [keyof ForecastFlags, string])[] = [
  ["revision", "--revision needs model downloads, which this version cannot do: download the folder and name it with --model"],
  ["offline", "--offline concerns model downloads, which this version cannot do: leave it out, nothing is ever downloaded"],
  ["known", "--known is not available in this version: known covariates can be given through the API (series.knownCovariates)"],
  ["last", "--last is not available in this version: cut the file to the window you want to forecast from"],
];

export async function runForecast(file: string, flags: ForecastFlags, context: CliContext): Promise<number> {
  for (const [flag, reason] of NOT_AVAILABLE) if (flags[flag] !== undefined) throw new InputError("not-available", reason);
  const format = readFormat(flags.format);
  if (flags.paths === true && format !== "json") {
    throw new InputError("bad-flag", `--paths gives sample paths in JSON only: add --format json, or leave --paths out`);
  }
  if (flags.output !== undefined && flags.output !== "-") checkOutput(flags.output);
  const { values, settings } = resolveSettings({ flags: settingFlags(flags), environment: context.environment, folder: context.folder });

  const targets = splitNames(flags.target, "--target");
  const past = splitNames(flags.past, "--past");
  const request = {
    ...(flags.time === undefined ? {} : { time: flags.time }),
    ...(flags.id === undefined ? {} : { id: flags.id }),
    ...(flags.frequency === undefined ? {} : { frequency: flags.frequency }),
    ...(targets === undefined ? {} : { targets }),
    ...(past === undefined ? {} : { past }),
  };
  const table = await (file === "-" ? readSeriesTable(file, request, context.standardInput()) : readSeriesTable(file, request));
  if (flags.quiet !== true) for (const text of table.notes) note(context, text);
  const sampling = candleFlags(flags);

  const forecaster = await context.load(values.model, {
    device: values.device,
    mode: values.mode,
    kvCache: values.kvCache,
    ...(flags.tokenizer === undefined ? {} : { tokenizer: flags.tokenizer }),
    ...(values.threads === undefined ? {} : { threads: values.threads }),
  });
  try {
    const { inputs, histories } =
      forecaster.takes === "candles" ? candleInputs(table.series) : toInputs(table.series, flags.joint === true);
    const quantilesAsked = settings.some((setting) => setting.name === "quantiles" && setting.source !== "default");
    const forecast = await forecaster.predict(inputs, {
      ...(values.horizon === undefined ? {} : { horizon: values.horizon }),
      ...(values.context === undefined ? {} : { context: values.context }),
      ...(values.samples === undefined ? {} : { samples: values.samples }),
      ...(quantilesAsked ? { quantiles: values.quantiles } : {}),
      seed: values.seed,
      ...sampling,
      paths: flags.paths ?? false,
      report: flags.report ?? true,
      signal: context.signal,
    });
    if (flags.quiet !== true) {
      // Gaps were reported when the file was read.
      for (const warning of forecast.warnings) if (warning.code !== "gaps") note(context, warning.message);
    }
    const withReport = (text: string): string => (flags.report === false ? text : `${text}\n${reportLines(forecast.report).join("\n")}\n`);
    const text = {
      json: () => forecastJson(forecast),
      csv: () => forecastCsv(forecast),
      table: () => withReport(forecastTable(forecast)),
      chart: () => withReport(forecastChart(forecast, histories, context)),
    }[format]();
    deliver(context, flags.output, text);
    return 0;
  } finally {
    forecaster.dispose();
  }
}

/** Options of candle models, from the flags that were given. */
function candleFlags(flags: ForecastFlags): PredictOptions {
  const numbers = [
    ["temperature", "--temperature"],
    ["topK", "--top-k"],
    ["topP", "--top-p"],
    ["clip", "--clip"],
    ["maxContext", "--max-context"],
  ] as const;
  const options: Record<string, unknown> = {};
  for (const [name, flag] of numbers) {
    const text = flags[name];
    if (text === undefined) continue;
    if (text.trim() === "" || !Number.isFinite(Number(text))) throw new InputError("bad-flag", `${flag} "${text}" is not a number`);
    options[name] = Number(text);
  }
  if (flags.timeZone !== undefined) options["timeZone"] = flags.timeZone;
  if (flags.calendar !== undefined) options["calendar"] = flags.calendar;
  if (flags.consistent !== undefined) options["consistent"] = flags.consistent;
  return options;
}

function readFormat(text = "table"): "table" | "json" | "csv" | "chart" {
  if (text === "table" || text === "json" || text === "csv" || text === "chart") return text;
  const reason = text === "parquet" ? "is not available in this version" : "is unknown";
  throw new InputError("unknown-format", `--format ${text} ${reason}: use table, json, csv or chart`);
}

function splitNames(text: string | undefined, flag: string): readonly string[] | undefined {
  if (text === undefined) return undefined;
  const names = text.split(",").map((name) => name.trim());
  if (names.some((name) => name === ""))
    throw new InputError("bad-flag", `${flag} "${text}" holds an empty name: give column names with commas between`);
  return names;
}

/** One candle input per series, and histories in the order of a candle answer's entries. */
export function candleInputs(series: readonly TableSeries[]): { inputs: SeriesInput[]; histories: History[] } {
  const inputs: SeriesInput[] = [];
  const histories: History[] = [];
  for (const { id, targets, calendar, frequency } of series) {
    const timestamps = calendar?.timestamps;
    const stamps = timestamps === undefined ? {} : { timestamps };
    inputs.push({ id, ...stamps, ...(frequency === undefined ? {} : { frequency }), columns: byName(targets) });
    for (const column of CANDLE_NAMES) {
      const known = targets.find(({ name }) => candleColumn(name) === column);
      histories.push({ values: known?.values ?? [], ...(known === undefined ? {} : stamps) });
    }
  }
  return { inputs, histories };
}

/** One input per target column, or per series with `joint`; and the histories in the order of the answer's entries. */
export function toInputs(series: readonly TableSeries[], joint: boolean): { inputs: SeriesInput[]; histories: History[] } {
  const inputs: SeriesInput[] = [];
  const histories: History[] = [];
  for (const { id, targets, past, calendar, frequency } of series) {
    const timestamps = calendar?.timestamps;
    const common = {
      id,
      ...(timestamps === undefined ? {} : { timestamps }),
      ...(frequency === undefined ? {} : { frequency }),
      ...(past.length === 0 ? {} : { pastCovariates: byName(past) }),
    };
    for (const group of joint ? [targets] : targets.map((column) => [column])) {
      inputs.push({ ...common, columns: byName(group) });
      for (const { values } of group) histories.push({ values, ...(timestamps === undefined ? {} : { timestamps }) });
    }
  }
  return { inputs, histories };
}

function byName(columns: readonly SeriesColumn[]): Record<string, Float64Array> {
  return Object.fromEntries(columns.map(({ name, values }) => [name, values]));
}
