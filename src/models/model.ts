/**
 * What every model family offers to the forecast layer: series in, values out, in the series' own units.
 * Knows nothing of files, devices or graphs.
 */

import type { CheckReport } from "../trace/entry.js";
import type { ModelInspection } from "./inspection.js";
import type { QuantileDecoding } from "./toto2/decoding.js";

export type { QuantileDecoding };

/** One series of V variates that may attend to each other. Batch and variate are different axes: unrelated series are separate entries. */
export interface ModelSeries {
  /** [V][L] raw values, oldest first; all variates of a series have equal length. Unobserved values may be anything, NaN included. */
  readonly values: readonly Float32Array[];
  /** [V][L] 1 = observed. Absent: all observed. */
  readonly mask?: readonly Uint8Array[];
  /** [V] group ids: variates attend to each other only when equal. Absent: one group. */
  readonly groups?: Int32Array;
  /** [E][horizon] known future of the last E variates (exogenous). */
  readonly knownFuture?: readonly Float32Array[];
  /** Time features of candles, [L * 5] and [horizon * 5]: minute, hour, weekday (Monday 0), day, month. Only for models that take candles. */
  readonly stamps?: { readonly context: Int32Array; readonly future: Int32Array };
  /** Random stream of this series: a hash of its id, 0 for a series without one. */
  readonly stream: number;
}

export interface ModelRequest {
  readonly series: readonly ModelSeries[];
  /** Steps to forecast, > 0. */
  readonly horizon: number;
  /** Sample paths per series; 0 = deterministic decode (no quantiles where the model has no native ones). */
  readonly samples: number;
  readonly seed: number;
  /** Only for models that draw tokens. */
  readonly sampling?: TokenSampling;
  /** Only for models that state quantiles. */
  readonly decoding?: QuantileDecoding;
  /** Run op by op whatever mode the model was loaded in: the same bits, slower. */
  readonly eager?: boolean;
  readonly signal?: AbortSignal;
  /** Called after each decode step with steps done and steps in all. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** How tokens are drawn and candles normalised; absent fields take the published predictor's defaults. */
export interface TokenSampling {
  /** > 0; 1 by default. */
  readonly temperature?: number;
  /** Likeliest tokens to draw among, ties included; 0 (the default) = all. Above 0 it switches top-p off. */
  readonly topK?: number;
  /** Probability mass to draw among, in (0, 1]; 0.9 by default. */
  readonly topP?: number;
  /** Bound of normalised values; 5 by default. */
  readonly clip?: number;
  /** Tokens the model sees at once; its own by default. */
  readonly maxContext?: number;
}

/** Answers own their memory: they stay valid after later calls and after `dispose`. */
export interface ModelSeriesAnswer {
  /** [V][horizon] */
  readonly mean: readonly Float32Array[];
  /** [V][samples * horizon], path-major; present when samples > 0 and the model draws paths. */
  readonly paths?: readonly Float32Array[];
  /** Native quantiles, [V][levels * horizon], level-major. */
  readonly quantiles?: { readonly levels: readonly number[]; readonly values: readonly Float32Array[] };
}

/** Counters of one model since it was loaded; the forecast layer adds its own times. */
export interface ModelReport {
  readonly device: string;
  readonly mode: string;
  readonly kvCache: string;
  /** How weight matrices are stored: f32 or bf16. */
  readonly weights: string;
  readonly threads: number;
  readonly compiles: number;
  readonly recompiles: number;
  readonly graphBreaks: number;
  readonly fallbacks: number;
  readonly capturedSteps: number;
  readonly steps: number;
  /** Mean over `calls`. */
  readonly foreignCallsPerStep: number;
  /** Calls of step programs so far; absent: the mean holds for every stretch of them. */
  readonly calls?: number;
  readonly waits: number;
  readonly milliseconds: { readonly compile: number };
  readonly peakBytes: number;
  /** How `mean` was made, for example "sample mean" or "mixture mean". */
  readonly meanKind: string;
  /** What was compared with running op by op; all zero when nothing was. Absent when no check was asked for. */
  readonly check?: CheckReport;
}

export interface ForecastModel {
  readonly family: string;
  /** What a series must be; `candles`: six columns (open, high, low, close, volume, amount) with time features. Absent: any variates. */
  readonly takes?: "candles";
  readonly name: string;
  /** Longest context in steps that never recompiles. */
  readonly maximumContext: number;
  /** Horizon bound in steps. */
  readonly maximumHorizon: number;
  /** Samples used when the caller names none. */
  readonly defaultSamples: number;
  /** Levels of native quantiles, ascending. Absent: quantiles come from sample paths. */
  readonly quantileLevels?: readonly number[];
  /** false: weights made from a formula, which show the engine and know nothing. Absent: trained, unless the name says "-formula". */
  readonly trained?: boolean;
  predict(request: ModelRequest): Promise<readonly ModelSeriesAnswer[]>;
  report(): ModelReport;
  /** What its compiled programs are made of; with `profile` their last calls run again, measured. Only between predicts. */
  inspect?(profile: boolean): ModelInspection | undefined;
  /** Frees device memory; a second call does nothing. During a predict it aborts that first. */
  dispose(): void;
}
