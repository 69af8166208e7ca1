/**
 * Evaluation of a forecaster over many series: windows at the end of each, scores by group against baselines, ratios to seasonal naive.
 * Knows how to ask and how to score; reads no files and prints nothing.
 */
import { BASELINES, type Baseline } from "./baselines.js";
import { EVALUATION_CONTEXT, EVALUATION_GROUPS } from "./evaluation-groups.js";
import { ets, theta } from "./exponential-smoothing.js";
import { scoreWindow, WQL_LEVELS, type ScorableForecast, type WindowScores } from "./metrics.js";
import { meanScores, type MeanScores } from "./rolling.js";

export interface EvaluationSeries {
  readonly id: string;
  readonly group: string;
  /** Steps per window. */
  readonly horizon: number;
  /** Seasonal period in steps, 1 = none. */
  readonly period: number;
  /** [L] NaN = missing. */
  readonly values: ArrayLike<number>;
}

export interface EvaluationWindow {
  readonly series: EvaluationSeries;
  /** [at most the context] */
  readonly past: Float64Array;
  /** [horizon] */
  readonly actual: Float64Array;
}

export interface GroupScores {
  readonly name: string;
  readonly series: number;
  readonly windows: number;
  readonly model: MeanScores;
  readonly baselines: Readonly<Record<EvaluationBaseline, MeanScores>>;
}

export type EvaluationBaseline = "seasonalNaive" | "naive" | "drift" | "ets" | "theta";

export interface EvaluationResult {
  readonly groups: readonly GroupScores[];
  /** Model over seasonal naive, over the groups where both are above 0; NaN where there is none. */
  readonly geometricMean: { readonly mase: number; readonly wql: number };
  /** Windows that could not be scored, by reason. */
  readonly skipped: { readonly tooShort: number; readonly pastUnobserved: number; readonly futureUnobserved: number };
}

export interface EvaluationOptions {
  /** Windows at the end of each series, one horizon apart. Default 1. */
  readonly windows?: number;
  /** Longest past in steps. Default 2,048. */
  readonly context?: number;
  /** Windows per call of `predict`. Default 64. */
  readonly batch?: number;
  readonly onProgress?: (done: number, total: number) => void;
  /** Hears every forecast once, for pictures; it may keep what it is given. */
  readonly onForecast?: (window: EvaluationWindow, forecast: ScorableForecast) => void;
}

const EVALUATION_BASELINES: Readonly<Record<EvaluationBaseline, Baseline>> = { ...BASELINES, ets, theta };

/** Answers forecasts for windows of equal horizon, in their order; each states the levels of `WQL_LEVELS`. */
export type PredictWindows = (windows: readonly EvaluationWindow[], horizon: number) => Promise<readonly ScorableForecast[]>;

export async function evaluate(
  series: readonly EvaluationSeries[],
  predict: PredictWindows,
  options: EvaluationOptions = {},
): Promise<EvaluationResult> {
  const skipped = { tooShort: 0, pastUnobserved: 0, futureUnobserved: 0 };
  const windows = series.flatMap((entry) => windowsOf(entry, options.windows ?? 1, options.context ?? EVALUATION_CONTEXT, skipped));
  const scores = new Map<string, { ids: Set<string>; model: WindowScores[]; baselines: Record<EvaluationBaseline, WindowScores[]> }>();
  let done = 0;
  for (const batch of batches(windows, options.batch ?? 64)) {
    const forecasts = await predict(batch, batch[0]?.actual.length ?? 0);
    for (const [index, window] of batch.entries()) {
      const forecast = forecasts[index];
      if (forecast === undefined) throw new Error(`asked for ${batch.length} forecasts, got ${forecasts.length}`);
      const { group, id, period, horizon } = window.series;
      let entry = scores.get(group);
      if (entry === undefined) {
        entry = { ids: new Set(), model: [], baselines: { seasonalNaive: [], naive: [], drift: [], ets: [], theta: [] } };
        scores.set(group, entry);
      }
      entry.ids.add(id);
      entry.model.push(scoreWindow(forecast, window.actual, window.past, period));
      for (const [name, baseline] of Object.entries(EVALUATION_BASELINES) as [EvaluationBaseline, Baseline][]) {
        const remembered = withMemory(baseline(window.past, horizon, period));
        entry.baselines[name].push(scoreWindow(remembered, window.actual, window.past, period));
      }
      options.onForecast?.(window, forecast);
    }
    done += batch.length;
    options.onProgress?.(done, windows.length);
  }
  const groups = [...scores]
    .sort(([left], [right]) => rank(left) - rank(right))
    .map(([name, { ids, model, baselines }]): GroupScores => ({
      name,
      series: ids.size,
      windows: model.length,
      model: meanScores(model),
      baselines: {
        seasonalNaive: meanScores(baselines.seasonalNaive),
        naive: meanScores(baselines.naive),
        drift: meanScores(baselines.drift),
        ets: meanScores(baselines.ets),
        theta: meanScores(baselines.theta),
      },
    }));
  return { groups, geometricMean: { mase: meanRatio(groups, "mase"), wql: meanRatio(groups, "wql") }, skipped };
}

/** Finest steps first; groups of other names last, in the order of their first series. */
function rank(group: string): number {
  const place = EVALUATION_GROUPS.indexOf(group);
  return place < 0 ? EVALUATION_GROUPS.length : place;
}

/** exp of the mean log ratio of model to seasonal naive. */
export function meanRatio(groups: readonly GroupScores[], score: "mase" | "wql"): number {
  const logs = groups.map(({ model, baselines }) => Math.log(model[score] / baselines.seasonalNaive[score])).filter(Number.isFinite);
  return Math.exp(logs.reduce((sum, value) => sum + value, 0) / logs.length);
}

/** The last `count` windows, oldest first, one horizon apart; each leaves two horizons of past at least, or one when the horizon was chosen by hand. */
function windowsOf(
  series: EvaluationSeries,
  count: number,
  context: number,
  skipped: { tooShort: number; pastUnobserved: number; futureUnobserved: number },
): EvaluationWindow[] {
  const values = Float64Array.from(series.values);
  const result: EvaluationWindow[] = [];
  for (let index = count - 1; index >= 0; index -= 1) {
    const origin = values.length - (index + 1) * series.horizon;
    if (origin < 2 * series.horizon) {
      skipped.tooShort += 1;
      continue;
    }
    const past = values.slice(Math.max(0, origin - context), origin);
    const actual = values.slice(origin, origin + series.horizon);
    if (past.every(Number.isNaN)) skipped.pastUnobserved += 1;
    else if (actual.every(Number.isNaN)) skipped.futureUnobserved += 1;
    else result.push({ series, past, actual });
  }
  return result;
}

/** Windows of one group and horizon together, those of similar past next to each other so that little is padded. */
function batches(windows: readonly EvaluationWindow[], size: number): EvaluationWindow[][] {
  const kinds = new Map<string, EvaluationWindow[]>();
  for (const window of windows) {
    const key = `${window.series.group} ${window.series.horizon}`;
    const kind = kinds.get(key);
    if (kind === undefined) kinds.set(key, [window]);
    else kind.push(window);
  }
  return [...kinds.values()].flatMap((kind) => {
    const sorted = kind.sort((left, right) => left.past.length - right.past.length);
    return Array.from({ length: Math.ceil(sorted.length / size) }, (_, index) => sorted.slice(index * size, (index + 1) * size));
  });
}

/** Each level is computed once: scores ask for the same levels several times. */
function withMemory(forecast: ScorableForecast): ScorableForecast {
  const known = new Map(WQL_LEVELS.map((level) => [level, forecast.quantile(level)]));
  return { mean: forecast.mean, quantile: (level) => known.get(level) ?? forecast.quantile(level) };
}
