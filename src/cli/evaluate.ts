/**
 * `tempograph evaluate FILE...|FOLDER`: how good a model is on series whose end is known. Reads files and corpus folders, writes table, JSON and picture.
 * Scores and baselines are in forecast/evaluation.ts.
 */
import { InputError } from "../forecast/errors.js";
import { EVALUATION_CONTEXT, groupOfCorpusSeries, groupOfFrequency } from "../forecast/evaluation-groups.js";
import {
  evaluate,
  type EvaluationBaseline,
  type EvaluationResult,
  type EvaluationSeries,
  type EvaluationWindow,
  type GroupScores,
} from "../forecast/evaluation.js";
import { WQL_LEVELS, type ScorableForecast } from "../forecast/metrics.js";
import { DEFAULT_HORIZON } from "../forecast/options.js";
import { resolveSettings } from "../forecast/resolve-settings.js";
import type { MeanScores } from "../forecast/rolling.js";
import type { SettingName } from "../forecast/settings.js";
import type { ForecastReport } from "../index.js";
import { isCorpusFolder, readCorpus } from "../io/corpus.js";
import { calendarOf, readSeriesTable, type TableRequest, type TableSeries } from "../io/table.js";
import { note, type CliContext } from "./context.js";
import { checkOutput, deliver } from "./output.js";
import { reportLines } from "./present.js";
import { startProgress } from "./progress.js";
import { settingFlags } from "./setting-flags.js";
import { renderSvg, type SvgPanel } from "./svg-chart.js";
import { renderTable } from "./table.js";

export interface EvaluateFlags extends Partial<Record<SettingName, string>> {
  time?: string;
  target?: string;
  id?: string;
  frequency?: string;
  period?: string;
  windows?: string;
  every?: string;
  json?: boolean;
  output?: string;
  picture?: string;
  quiet?: boolean;
}

const BASELINE_NAMES: Readonly<Record<EvaluationBaseline, string>> = {
  seasonalNaive: "seasonal naive",
  naive: "naive",
  drift: "drift",
  ets: "exponential smoothing",
  theta: "theta",
};

/** Pictures per group. */
const PICTURES = 2;

export async function runEvaluate(paths: readonly string[], flags: EvaluateFlags, context: CliContext): Promise<number> {
  for (const path of [flags.output, flags.picture]) if (path !== undefined && path !== "-") checkOutput(path);
  const every = wholeNumber(flags.every ?? "1", "--every");
  const windows = wholeNumber(flags.windows ?? "1", "--windows");
  const { values } = resolveSettings({ flags: settingFlags(flags), environment: context.environment, folder: context.folder });
  const all = (await Promise.all(paths.map((path) => readPath(path, flags, values.horizon, context)))).flat();
  const series = everyNth(all, every);
  if (series.length === 0) {
    throw new InputError(
      "evaluate-nothing",
      `nothing to evaluate in ${paths.join(", ")}: no series has a known frequency and three horizons of steps`,
    );
  }
  const forecaster = await context.load(values.model, {
    device: values.device,
    mode: values.mode,
    kvCache: values.kvCache,
    weights: values.weights,
    ...(values.threads === undefined ? {} : { threads: values.threads }),
    onNote: (text) => {
      if (flags.quiet !== true) note(context, text);
    },
  });
  const progress = startProgress(context, "evaluating", flags.quiet);
  const panels = new Map<string, SvgPanel[]>();
  try {
    const result = await evaluate(
      series,
      async (batch, horizon) => {
        const forecast = await forecaster.predict(
          batch.map(({ series: { id }, past }) => ({ id, values: past })),
          {
            horizon,
            quantiles: WQL_LEVELS,
            seed: values.seed,
            signal: context.signal,
            ...(values.samples === undefined ? {} : { samples: values.samples }),
          },
        );
        return forecast.series;
      },
      {
        windows,
        context: values.context ?? EVALUATION_CONTEXT,
        onProgress: progress.update,
        onForecast: (window, forecast) => {
          const list = panels.get(window.series.group) ?? [];
          if (flags.picture !== undefined && list.length < PICTURES) panels.set(window.series.group, [...list, panelOf(window, forecast)]);
        },
      },
    );
    progress.end();
    if (result.groups.length === 0) {
      const { tooShort, pastUnobserved, futureUnobserved } = result.skipped;
      throw new InputError(
        "evaluate-nothing",
        `no window could be measured: ${tooShort} with too few steps (three horizons are needed), ${pastUnobserved} without an observed past, ${futureUnobserved} without an observed end`,
      );
    }
    const report = forecaster.report();
    deliver(
      context,
      flags.output,
      flags.json === true ? evaluationJson(values.model, result, report) : evaluationText(values.model, result, report),
    );
    if (flags.picture !== undefined) deliver(context, flags.picture, renderSvg([...panels.values()].flat()));
    return 0;
  } finally {
    progress.end();
    forecaster.dispose();
  }
}

async function readPath(path: string, flags: EvaluateFlags, horizon: number | undefined, context: CliContext): Promise<EvaluationSeries[]> {
  if (isCorpusFolder(path)) {
    const series = readCorpus(path).flatMap(({ source, id, frequency, period, values }): EvaluationSeries[] => {
      const group = groupOfCorpusSeries(source, frequency, values.length);
      return group === undefined ? [] : [{ id: `${source}/${id}`, group: group.name, horizon: horizon ?? group.horizon, period, values }];
    });
    return series;
  }
  const targets = flags.target?.split(",").map((name) => name.trim());
  const request: TableRequest = {
    ...(flags.time === undefined ? {} : { time: flags.time }),
    ...(flags.id === undefined ? {} : { id: flags.id }),
    ...(flags.frequency === undefined ? {} : { frequency: flags.frequency }),
    ...(targets === undefined ? {} : { targets }),
  };
  const table = await (path === "-" ? readSeriesTable(path, request, context.standardInput()) : readSeriesTable(path, request));
  if (flags.quiet !== true) for (const text of [...table.notes, ...table.gaps]) note(context, text);
  return table.series.flatMap((entry) => ofTable(entry, flags, horizon));
}

/** One evaluation series per target column. A named frequency's missing steps become NaN, as in `forecast`. */
function ofTable(entry: TableSeries, flags: EvaluateFlags, horizon: number | undefined): EvaluationSeries[] {
  const { id, targets } = entry;
  const calendar = calendarOf(entry);
  const frequency = flags.frequency ?? calendar?.frequency?.label;
  const group = frequency === undefined ? undefined : groupOfFrequency(frequency);
  const usual = calendar?.seasonalPeriod ?? 1;
  const period = flags.period === undefined ? usual : wholeNumber(flags.period, "--period");
  return targets.map(({ name, values }) => ({
    id: targets.length > 1 || name !== id ? `${id}: ${name}` : id,
    group: group?.name ?? "other",
    horizon: horizon ?? group?.horizon ?? (usual > 1 ? usual : DEFAULT_HORIZON),
    period,
    values: calendar?.positions === undefined ? values : spread(values, calendar.positions),
  }));
}

function spread(values: Float64Array, positions: Int32Array): Float64Array {
  const result = new Float64Array((positions.at(-1) ?? -1) + 1).fill(Number.NaN);
  positions.forEach((place, index) => (result[place] = values[index] ?? Number.NaN));
  return result;
}

/** The first, the n-th after it ... of each group. */
function everyNth(series: readonly EvaluationSeries[], every: number): EvaluationSeries[] {
  const seen = new Map<string, number>();
  return series.filter(({ group }) => {
    const count = seen.get(group) ?? 0;
    seen.set(group, count + 1);
    return count % every === 0;
  });
}

function panelOf({ series, past, actual }: EvaluationWindow, forecast: ScorableForecast): SvgPanel {
  const band = (low: number, high: number): SvgPanel["bands"][number] => ({
    lower: forecast.quantile(low),
    upper: forecast.quantile(high),
    name: `${low} to ${high}`,
  });
  return {
    title: `${series.group}: ${series.id}`,
    history: past,
    center: forecast.quantile(0.5),
    centerName: "median",
    bands: [band(0.1, 0.9), band(0.3, 0.7)],
    actual,
    stampOf: (step) => (step === past.length ? "now" : `${step - past.length} steps`),
  };
}

/** Scores that are not defined are null. */
function evaluationJson(model: string, result: EvaluationResult, report: ForecastReport): string {
  const { groups, geometricMean, skipped } = result;
  const content = { model, groups, geometricMean, skipped, report };
  return `${JSON.stringify(content, (_, value: unknown) => (typeof value === "number" && !Number.isFinite(value) ? null : value))}\n`;
}

function evaluationText(model: string, result: EvaluationResult, report: ForecastReport): string {
  const ratio = (value: number): string => (Number.isFinite(value) ? value.toFixed(3) : "-");
  const { tooShort, pastUnobserved, futureUnobserved } = result.skipped;
  const missed = tooShort + pastUnobserved + futureUnobserved;
  return [
    ...result.groups.map((group) => groupText(model, group)),
    `${model} over seasonal naive, geometric mean of groups: MASE ${ratio(result.geometricMean.mase)}, WQL ${ratio(result.geometricMean.wql)} (below 1: the model is better)`,
    ...(missed === 0
      ? []
      : [
          `not scored: ${tooShort} windows too short, ${pastUnobserved} without an observed past, ${futureUnobserved} without an observed end`,
        ]),
    ...reportLines(report),
    "",
  ].join("\n");
}

function groupText(model: string, group: GroupScores): string {
  const number = (value: number): string => (Number.isFinite(value) ? value.toFixed(4) : "-");
  const row = (name: string, scores: MeanScores): string[] => [
    name,
    ...[scores.mase, scores.wql, scores.smape, scores.coverage80, scores.msis, scores.rmsse].map(number),
  ];
  const baselines = (Object.keys(BASELINE_NAMES) as EvaluationBaseline[]).map((name) => row(BASELINE_NAMES[name], group.baselines[name]));
  const titles = ["forecast", "MASE", "WQL", "sMAPE", "coverage 80%", "MSIS", "RMSSE"];
  const table = renderTable(
    titles.map((title, index) => ({ title, align: index === 0 ? ("left" as const) : ("right" as const) })),
    [row(model, group.model), ...baselines],
  );
  return `${group.name}: ${group.series} series, ${group.windows} window${group.windows === 1 ? "" : "s"}\n${table}\n`;
}

function wholeNumber(text: string, flag: string): number {
  const value = /^\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new InputError("bad-flag", `${flag} "${text}" is not usable: expected a whole number, 1 or more`);
}
