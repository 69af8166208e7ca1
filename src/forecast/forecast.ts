/**
 * The answer of a predict call: one entry per (series, variate) with mean, quantiles, paths and stamps, and the run's report.
 * Plain data and arithmetic on it; knows nothing of models, devices or files. Owns all its memory.
 */
import type { ModelSeriesAnswer } from "../models/model.js";
import type { Timestamp, Warning } from "./calendar.js";
import { InputError } from "./errors.js";
import { quantileOfKnots, quantileOfPaths } from "./quantiles.js";

/** What a run cost and how it ran; the counters cover one predict call, or a forecaster's life in `Forecaster.report()`. */
export interface ForecastReport {
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
  /** Calls into the device that run kernels, per decode step. */
  readonly foreignCallsPerStep: number;
  /** Hand-overs off the event loop. */
  readonly waits: number;
  /** Wall time: loading the model, compiling, the first predict, and predicting in all. */
  readonly milliseconds: { readonly load: number; readonly compile: number; readonly first: number; readonly total: number };
  readonly peakBytes: number;
  readonly meanKind: string;
  /** With the setting `check`: what was compared with running op by op. All zero when nothing was. */
  readonly check?: {
    readonly runs: number;
    readonly values: number;
    readonly outputs: number;
    readonly states: number;
    readonly elements: number;
  };
}

/** One entry of the JSON form. A number that is not finite is null there. */
export interface SeriesForecastJson {
  id: string;
  variate: string;
  timestamps: Timestamp[];
  mean: number[];
  quantiles: Record<string, number[]>;
  paths?: number[][];
}

/** The JSON form of a forecast; schemas/forecast.schema.json describes it. */
export interface ForecastJson {
  series: SeriesForecastJson[];
  report?: ForecastReport;
}

/** Forecast of one variate of one series. */
export class SeriesForecast {
  readonly id: string;
  readonly variate: string;
  /** [horizon] */
  readonly timestamps: readonly Timestamp[];
  /** [horizon] float32, in the series' units; how it was made: `report.meanKind`. */
  readonly mean: Float32Array;
  /** [samples][horizon] float32; undefined when no paths were drawn. */
  readonly paths: readonly Float32Array[] | undefined;
  readonly #drawn: Float32Array | undefined;
  readonly #knots: { levels: readonly number[]; values: Float32Array } | undefined;
  readonly #known = new Map<number, Float64Array>();

  readonly #stated: { readonly quantiles: readonly number[]; readonly paths: boolean };

  constructor(
    id: string,
    variate: string,
    timestamps: readonly Timestamp[],
    answer: ModelSeriesAnswer,
    row: number,
    /** What `toJSON` states: the levels and paths that were asked for. */
    stated: { readonly quantiles: readonly number[]; readonly paths: boolean } = { quantiles: [], paths: false },
  ) {
    this.#stated = stated;
    this.id = id;
    this.variate = variate;
    this.timestamps = timestamps;
    const mean = answer.mean[row];
    if (mean === undefined) throw new Error(`the model answered ${answer.mean.length} variates, variate ${row} is missing`);
    this.mean = mean;
    this.#drawn = answer.paths?.[row];
    const horizon = timestamps.length;
    const drawn = this.#drawn;
    this.paths =
      drawn === undefined
        ? undefined
        : Array.from({ length: drawn.length / horizon }, (_, path) => drawn.subarray(path * horizon, (path + 1) * horizon));
    const knotValues = answer.quantiles?.values[row];
    this.#knots =
      answer.quantiles === undefined || knotValues === undefined ? undefined : { levels: answer.quantiles.levels, values: knotValues };
  }

  get horizon(): number {
    return this.timestamps.length;
  }

  /** Whether this forecast can state quantiles at all: it has paths or native quantiles. */
  get hasQuantiles(): boolean {
    return this.#drawn !== undefined || this.#knots !== undefined;
  }

  /**
   * [horizon] float64 quantile at `level`: native quantiles, linear between the model's knots; otherwise the sample quantile
   * (linear between order statistics, type 7). Throws InputError for a level outside 0 to 1, outside the model's knots, or after a mean decode.
   */
  quantile(level: number): Float64Array {
    if (!(level > 0 && level < 1)) throw new InputError("bad-quantile", `quantile ${level} must lie strictly between 0 and 1`);
    const known = this.#known.get(level);
    if (known !== undefined) return known;
    let values: Float64Array;
    if (this.#knots !== undefined) values = quantileOfKnots(this.#knots.levels, this.#knots.values, this.horizon, level);
    else if (this.#drawn !== undefined) values = quantileOfPaths(this.#drawn, this.horizon, level);
    else {
      throw new InputError(
        "no-quantiles",
        "a mean decode (samples: 0) of this model has no quantiles: ask for samples, for example samples: 256",
      );
    }
    this.#known.set(level, values);
    return values;
  }

  /** The levels and paths that the call asked for. `JSON.stringify` passes a key, which is not looked at. */
  toJSON(_key?: string): SeriesForecastJson {
    const quantiles: Record<string, number[]> = {};
    for (const level of this.hasQuantiles ? this.#stated.quantiles : []) quantiles[String(level)] = Array.from(this.quantile(level));
    return {
      id: this.id,
      variate: this.variate,
      timestamps: [...this.timestamps],
      mean: Array.from(this.mean),
      quantiles,
      ...(this.#stated.paths && this.paths !== undefined ? { paths: this.paths.map((path) => Array.from(path)) } : {}),
    };
  }
}

export interface ForecastShape {
  readonly quantiles: readonly number[];
  readonly report: boolean;
}

/**
 * All series of one predict call, in the order given; iterable. The shortcuts `mean`, `paths`, `timestamps` and `quantile` serve the
 * common case of one series with one variate and throw InputError otherwise: use `series[i]` then.
 */
export class Forecast implements Iterable<SeriesForecast> {
  readonly #shape: ForecastShape;

  constructor(
    /** One entry per (id, variate). */
    readonly series: readonly SeriesForecast[],
    readonly report: ForecastReport,
    /** Things a person should know; empty when all is well. */
    readonly warnings: readonly Warning[],
    shape: ForecastShape,
  ) {
    this.#shape = shape;
  }

  /** Levels asked for; those that `toJSON` states. */
  get quantiles(): readonly number[] {
    return this.#shape.quantiles;
  }

  get mean(): Float32Array {
    return this.#only("mean").mean;
  }

  get paths(): readonly Float32Array[] | undefined {
    return this.#only("paths").paths;
  }

  get timestamps(): readonly Timestamp[] {
    return this.#only("timestamps").timestamps;
  }

  quantile(level: number): Float64Array {
    return this.#only("quantile").quantile(level);
  }

  [Symbol.iterator](): Iterator<SeriesForecast> {
    return this.series[Symbol.iterator]();
  }

  /** Key order and number text are fixed: without the report, equal inputs give equal bytes of `JSON.stringify`. */
  toJSON(): ForecastJson {
    const { report } = this.#shape;
    return { series: this.series.map((entry) => entry.toJSON()), ...(report ? { report: this.report } : {}) };
  }

  #only(name: string): SeriesForecast {
    const entry = this.series[0];
    if (entry === undefined || this.series.length > 1) {
      throw new InputError("several-series", `this forecast holds ${this.series.length} series: read forecast.series[i].${name}`);
    }
    return entry;
  }
}
