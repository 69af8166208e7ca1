/**
 * Rolling-origin evaluation: the same series forecast from several past origins, scored against what came next and against baselines.
 * Knows how to ask a forecaster and how to score; prints nothing.
 */
import { BASELINES, type BaselineName } from "./baselines.js";
import { InputError } from "./errors.js";
import { meanDefined, scoreWindow, WQL_LEVELS, type ScorableForecast, type WindowScores } from "./metrics.js";

/** One past origin: what was known and what came next. */
export interface RollingWindow {
  /** [L] */
  readonly past: Float64Array;
  /** [horizon] */
  readonly actual: Float64Array;
  /** Steps before the origin. */
  readonly origin: number;
}

export interface MeanScores {
  readonly mase: number;
  readonly wql: number;
  readonly smape: number;
  readonly coverage80: number;
  readonly msis: number;
  readonly rmsse: number;
}

export interface RollingResult {
  readonly windows: number;
  readonly model: MeanScores;
  readonly baselines: Readonly<Record<BaselineName, MeanScores>>;
  /** 1 - model / baseline: above 0 the model is better, 0 no better, below 0 worse. */
  readonly skill: Readonly<Record<BaselineName, { readonly mase: number; readonly wql: number }>>;
}

/** The last `windows` origins, `stride` steps apart, newest last. Fewer when the series is short; throws InputError when there is none. */
export function rollingWindows(values: ArrayLike<number>, horizon: number, windows: number, stride = horizon): RollingWindow[] {
  const series = Float64Array.from(values);
  const result: RollingWindow[] = [];
  for (let index = windows - 1; index >= 0; index -= 1) {
    const origin = series.length - horizon - index * stride;
    if (origin < Math.max(2, horizon)) continue;
    result.push({ past: series.slice(0, origin), actual: series.slice(origin, origin + horizon), origin });
  }
  if (result.length === 0) {
    throw new InputError(
      "too-short",
      `${series.length} steps are too few to evaluate a horizon of ${horizon}: at least ${2 * horizon} are needed`,
    );
  }
  return result;
}

/** Forecasts every window with `predict` (all pasts at once, answers in their order), scores model and baselines. */
export async function evaluateRolling(
  windows: readonly RollingWindow[],
  seasonality: number,
  predict: (pasts: readonly Float64Array[], horizon: number, levels: readonly number[]) => Promise<readonly ScorableForecast[]>,
): Promise<RollingResult> {
  const horizon = windows[0]?.actual.length ?? 0;
  const forecasts = await predict(
    windows.map((window) => window.past),
    horizon,
    WQL_LEVELS,
  );
  const model = meanScores(
    windows.map((window, index) => {
      const forecast = forecasts[index];
      if (forecast === undefined) throw new Error(`asked for ${windows.length} forecasts, got ${forecasts.length}`);
      return scoreWindow(forecast, window.actual, window.past, seasonality);
    }),
  );
  const scoreBaseline = (name: BaselineName): MeanScores =>
    meanScores(
      windows.map((window) => scoreWindow(BASELINES[name](window.past, horizon, seasonality), window.actual, window.past, seasonality)),
    );
  const baselines = { seasonalNaive: scoreBaseline("seasonalNaive"), naive: scoreBaseline("naive"), drift: scoreBaseline("drift") };
  const skillOver = (baseline: MeanScores): { mase: number; wql: number } => ({
    mase: skill(model.mase, baseline.mase),
    wql: skill(model.wql, baseline.wql),
  });
  return {
    windows: windows.length,
    model,
    baselines,
    skill: {
      seasonalNaive: skillOver(baselines.seasonalNaive),
      naive: skillOver(baselines.naive),
      drift: skillOver(baselines.drift),
    },
  };
}

/** 1 - model / baseline; NaN against a baseline without error. */
export function skill(model: number, baseline: number): number {
  return baseline === 0 ? Number.NaN : 1 - model / baseline;
}

/** WQL is the sum of losses over the sum of absolute values; the others are means over the windows where they are defined. */
export function meanScores(scores: readonly WindowScores[]): MeanScores {
  const loss = scores.reduce((sum, score) => sum + score.quantileLoss, 0);
  const size = scores.reduce((sum, score) => sum + score.absoluteSum, 0);
  const mean = (pick: (score: WindowScores) => number): number => meanDefined(scores.map(pick)).mean;
  return {
    mase: mean((score) => score.mase),
    wql: size === 0 ? Number.NaN : loss / size,
    smape: mean((score) => score.smape),
    coverage80: mean((score) => score.coverage80),
    msis: mean((score) => score.msis),
    rmsse: mean((score) => score.rmsse),
  };
}
