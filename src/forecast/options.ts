/**
 * What a caller may ask of one predict call: names, aliases, defaults and limits, checked before any work.
 * Knows nothing of models beyond their declared bounds, and nothing of files.
 */
import { z } from "zod";
import type { ForecastModel, QuantileDecoding } from "../models/model.js";
import type { Warning } from "./calendar.js";
import type { CandleCalendar } from "./candle-calendar.js";
import type { CandleOptions } from "./candles.js";
import { InputError } from "./errors.js";

export const DEFAULT_QUANTILES: readonly number[] = [0.1, 0.5, 0.9];
export const DEFAULT_HORIZON = 24;

/** Spellings of the original Python tools; the meaning is the same as the name on the right. */
export const OPTION_ALIASES: Readonly<Record<string, string>> = {
  prediction_length: "horizon",
  predictionLength: "horizon",
  pred_len: "horizon",
  predLen: "horizon",
  context_length: "context",
  contextLength: "context",
  num_samples: "samples",
  numSamples: "samples",
  sample_count: "samples",
  sampleCount: "samples",
  quantile_levels: "quantiles",
  quantileLevels: "quantiles",
  T: "temperature",
  top_k: "topK",
  top_p: "topP",
  max_context: "maxContext",
};

/** How far a call is. */
export interface PredictProgress {
  /** Decode steps finished so far, over all series of the call. */
  readonly done: number;
  readonly total: number;
}

/** Options of `Forecaster.predict`. Every number is data to the compiled program: changing it recompiles nothing. */
export interface PredictOptions {
  /** Steps to forecast. Default: one seasonal period of the frequency, else 24. */
  horizon?: number;
  /** Steps of history to use, counted from the end. Default: all, up to what the model takes without recompiling. */
  context?: number;
  /** Sample paths per series; 0 = deterministic decode. Default: the model's own. */
  samples?: number;
  /** Levels strictly between 0 and 1. Default 0.1, 0.5, 0.9. */
  quantiles?: readonly number[];
  /** Default 0. The same seed gives the same bits, whatever else is in the batch. */
  seed?: number;
  /** Put the sample paths into `toJSON()`. They are readable as `forecast.paths` either way. */
  paths?: boolean;
  /** Leave the report out of `toJSON()` with `false`: equal inputs then give equal bytes. */
  report?: boolean;
  /** Stops the run within a decode step; the promise rejects with the signal's reason. */
  signal?: AbortSignal;
  onProgress?: (progress: PredictProgress) => void;
  /** Options of Toto 2's decoding: preset, block size, imputation and what else the published code lets one choose. */
  decoding?: QuantileDecoding;
  /** Options of the Kronos sampler. */
  temperature?: number;
  topK?: number;
  topP?: number;
  clip?: number;
  maxContext?: number;
  /** Candle models: zone that time features and the calendar are read in; default: the offset each stamp is written with. */
  timeZone?: string;
  /** Candle models: when candles are due. Default "auto": what the timestamps show. */
  calendar?: CandleCalendar;
  /** Candle models: widen high and low to hold open and close, lift negative volumes to 0; a warning says how many candles changed. Default false. */
  consistent?: boolean;
}

/** Options of `Forecaster.stream`: those of `predict`, for every batch. `onProgress` counts the steps of the batch that runs. */
export interface StreamOptions extends PredictOptions {
  /** Series per batch; any number gives the same bits. Default 64. */
  batch?: number;
  /** Hears what a person should know, after each batch. */
  onWarning?: (warning: Warning) => void;
}

/** What of a model decides which options it uses. */
export type ModelTraits = Pick<ForecastModel, "takes" | "quantileLevels">;

/** Options after aliases, types and ranges are settled; `undefined` = the caller left it to the model or the data. */
export interface CheckedOptions {
  readonly horizon: number | undefined;
  readonly context: number | undefined;
  readonly samples: number | undefined;
  readonly quantiles: readonly number[];
  readonly quantilesAsked: boolean;
  readonly seed: number;
  readonly paths: boolean;
  readonly report: boolean;
  /** Only for models that state quantiles; the model checks its fields. */
  readonly decoding: QuantileDecoding | undefined;
  /** Only for models that take candles. */
  readonly candles: CandleOptions | undefined;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: ((progress: PredictProgress) => void) | undefined;
}

function wholeNumber(name: string, minimum: number, unit: string, maximum = Number.MAX_SAFE_INTEGER): z.ZodType<number> {
  const range = maximum === Number.MAX_SAFE_INTEGER ? `${minimum} or more` : `from ${minimum} to ${maximum}`;
  const expected = `${name} must be a whole number of ${unit}, ${range}`;
  return z
    .number({ error: (issue) => `${expected}; got ${describe(issue.input)}` })
    .refine((value) => Number.isInteger(value) && value >= minimum && value <= maximum, {
      error: (issue) => `${expected}; got ${describe(issue.input)}`,
    });
}

const levelSchema = z
  .number({ error: (issue) => `quantiles must be numbers strictly between 0 and 1; got ${describe(issue.input)}` })
  .refine((level) => level > 0 && level < 1, {
    error: (issue) => `quantiles must lie strictly between 0 and 1; got ${describe(issue.input)}`,
  });

const optionsSchema = z.strictObject({
  horizon: wholeNumber("horizon", 1, "steps").optional(),
  context: wholeNumber("context", 1, "steps").optional(),
  samples: wholeNumber("samples", 0, "paths", 65536).optional(),
  quantiles: z
    .array(levelSchema, { error: (issue) => `quantiles must be a list of levels such as [0.1, 0.5, 0.9]; got ${describe(issue.input)}` })
    .min(1, "quantiles is an empty list: name at least one level, such as 0.5")
    .refine((levels) => new Set(levels).size === levels.length, "quantiles names a level twice: name each level once")
    .optional(),
  seed: wholeNumber("seed", 0, "any kind").optional(),
  paths: z.boolean({ error: (issue) => `paths must be true or false; got ${describe(issue.input)}` }).optional(),
  report: z.boolean({ error: (issue) => `report must be true or false; got ${describe(issue.input)}` }).optional(),
  signal: z.instanceof(AbortSignal, { error: "signal must be an AbortSignal, for example new AbortController().signal" }).optional(),
  onProgress: z
    .custom<(progress: PredictProgress) => void>((value) => typeof value === "function", "onProgress must be a function")
    .optional(),
  decoding: z
    .custom<QuantileDecoding>((value) => typeof value === "object" && value !== null && !Array.isArray(value), {
      error: (issue) => `decoding must be an object such as {decodeBlockSize: 768}; got ${describe(issue.input)}`,
    })
    .optional(),
});

function positive(name: string, expected: string, fits: (value: number) => boolean): z.ZodType<number> {
  const message = (input: unknown): string => `${name} must be ${expected}; got ${describe(input)}`;
  return z.number({ error: (issue) => message(issue.input) }).refine(fits, { error: (issue) => message(issue.input) });
}

/** Options of models that take candles and draw tokens; other models refuse them. */
const candleSchema = z.strictObject({
  temperature: positive(
    "temperature",
    "a number above 0 (for the likeliest tokens use topK 1)",
    (value) => value > 0 && Number.isFinite(value),
  ).optional(),
  topK: wholeNumber("topK", 0, "tokens").optional(),
  topP: positive("topP", "a share above 0 and at most 1", (value) => value > 0 && value <= 1).optional(),
  clip: positive("clip", "a number above 0", (value) => value > 0 && Number.isFinite(value)).optional(),
  maxContext: wholeNumber("maxContext", 2, "candles").optional(),
  timeZone: z
    .string({ error: (issue) => `timeZone must be an IANA name such as "America/New_York"; got ${describe(issue.input)}` })
    .optional(),
  calendar: z
    .custom<CandleCalendar>(
      (value) => value === "auto" || value === "24/7" || (typeof value === "object" && value !== null && !Array.isArray(value)),
      {
        error: (issue) => `calendar must be "auto", "24/7" or an object with weekdays, sessions or holidays; got ${describe(issue.input)}`,
      },
    )
    .optional(),
  consistent: z.boolean({ error: (issue) => `consistent must be true or false; got ${describe(issue.input)}` }).optional(),
});
const CANDLE_OPTIONS: readonly string[] = Object.keys(candleSchema.shape);

/** Checks options and settles aliases. Throws InputError naming the option, what was found and what is expected. */
export function checkOptions(options: PredictOptions, { takes, quantileLevels }: ModelTraits = {}): CheckedOptions {
  const named: Record<string, unknown> = {};
  const spelledAs: Record<string, string> = {};
  for (const [spelling, value] of Object.entries(options)) {
    if (value === undefined) continue;
    const name = OPTION_ALIASES[spelling] ?? spelling;
    if (name in named && named[name] !== value) {
      throw new InputError("option-conflict", `options ${spelledAs[name]} and ${spelling} mean the same and differ: give one of them`);
    }
    named[name] = value;
    spelledAs[name] = spelling;
  }
  const ofCandles: Record<string, unknown> = {};
  for (const name of CANDLE_OPTIONS) {
    if (!(name in named)) continue;
    if (takes !== "candles")
      throw new InputError("option-not-used", `option ${spelledAs[name]} belongs to Kronos models; this model does not use it: remove it`);
    ofCandles[name] = named[name];
    delete named[name];
  }
  if ("decoding" in named && quantileLevels === undefined)
    throw new InputError("option-not-used", "option decoding belongs to Toto 2 models; this model does not use it: remove it");
  const parsed = optionsSchema.safeParse(named);
  if (!parsed.success) throw optionError(parsed.error);
  const candles = candleSchema.safeParse(ofCandles);
  if (!candles.success) throw optionError(candles.error);
  const value = parsed.data;
  return {
    horizon: value.horizon,
    context: value.context,
    samples: value.samples,
    quantiles: value.quantiles ?? DEFAULT_QUANTILES,
    quantilesAsked: value.quantiles !== undefined,
    seed: value.seed ?? 0,
    paths: value.paths ?? false,
    report: value.report ?? true,
    decoding: value.decoding,
    candles: takes === "candles" ? candleOptions(candles.data) : undefined,
    signal: value.signal,
    onProgress: value.onProgress,
  };
}

function candleOptions({ timeZone, calendar, consistent, ...sampling }: z.infer<typeof candleSchema>): CandleOptions {
  const given = Object.fromEntries(Object.entries(sampling).filter(([, value]) => value !== undefined));
  return { sampling: given, timeZone, calendar, consistent: consistent ?? false };
}

function optionError(error: z.ZodError): InputError {
  const issue = error.issues[0];
  if (issue?.code === "unrecognized_keys") {
    const known = [...Object.keys(optionsSchema.shape), ...CANDLE_OPTIONS].join(", ");
    return new InputError("unknown-option", `unknown option ${issue.keys.map((key) => `"${key}"`).join(", ")}: known options are ${known}`);
  }
  return new InputError("bad-option", issue?.message ?? "options could not be read");
}

function describe(value: unknown): string {
  if (typeof value === "string") return `"${value}"`;
  if (typeof value === "number" || typeof value === "boolean" || value === null) return String(value);
  return value === undefined ? "nothing" : Array.isArray(value) ? "a list" : `a ${typeof value}`;
}
