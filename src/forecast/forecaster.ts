/**
 * Forecaster: a loaded model and the way to ask it. Checks input before any work, batches series, keeps counters, frees memory.
 * Knows the model contract only: nothing of families, devices or graphs, and nothing of files beyond a model's reference.
 */
import type { ModelInspection } from "../models/inspection.js";
import type { ForecastModel, ModelReport, ModelSeriesAnswer } from "../models/model.js";
import { makeConsistent } from "./candle-consistency.js";
import { checkCandles, prepareCandles } from "./candles.js";
import { InputError } from "./errors.js";
import { Forecast, SeriesForecast, type ForecastReport } from "./forecast.js";
import { loadModelFor, type LoadOptions } from "./load.js";
import { checkOptions, DEFAULT_HORIZON, type CheckedOptions, type PredictOptions, type StreamOptions } from "./options.js";
import { reportBetween } from "./report.js";
import { checkSeries, prepareSeries, type PreparedSeries, type SeriesInput } from "./series.js";

/** Series that `stream` puts into one call unless told otherwise. */
const DEFAULT_BATCH = 64;
/** Rows (series x paths) that one call of a model takes; larger requests are split, with the same bits. */
const MAXIMUM_ROWS = 4096;

export type { LoadOptions };

/** A checked series before horizon and context are known. */
interface CheckedEntry {
  /** Steps of a seasonal period, when the frequency has a usual one. */
  readonly seasonality: number | undefined;
  prepare(horizon: number, context: number): PreparedSeries;
}

/** A loaded model that answers forecast requests. Owns device memory until `dispose`; several can live in one process and in its worker threads. */
export class Forecaster {
  readonly #model: ForecastModel;
  readonly #loadMilliseconds: number;
  /** Looks at the settings file before each request; true when it asks for op by op. */
  readonly #followSettings: () => boolean;
  #lastReport: ModelReport | undefined;
  #firstMilliseconds: number | undefined;
  #totalMilliseconds = 0;
  /** One predict at a time: the machine has one parallel region, and counters then belong to one call. */
  #queue: Promise<unknown> = Promise.resolve();
  #disposed = false;

  private constructor(model: ForecastModel, loadMilliseconds: number, followSettings: () => boolean = () => false) {
    this.#model = model;
    this.#loadMilliseconds = loadMilliseconds;
    this.#followSettings = followSettings;
  }

  /**
   * Loads `bundled:NAME` or a folder with `config.json` and `model.safetensors`. Rejects with InputError naming what is wrong with the
   * reference, the files or the options.
   */
  static async load(reference: string, options: LoadOptions = {}): Promise<Forecaster> {
    const started = performance.now();
    const { model, followSettings } = await loadModelFor(reference, options);
    return new Forecaster(model, performance.now() - started, followSettings);
  }

  /** Wraps a model that is already loaded; the forecaster owns it from now on. For tests and tools. */
  static fromModel(model: ForecastModel, loadMilliseconds = 0): Forecaster {
    return new Forecaster(model, loadMilliseconds);
  }

  /** Family of the model, such as "toto1". */
  get family(): string {
    return this.#model.family;
  }

  get name(): string {
    return this.#model.name;
  }

  /** false: the weights come from a formula and know nothing of any series; they show the engine, not skill. */
  get trained(): boolean {
    return this.#model.trained ?? !/^bundled:.*-formula$/.test(this.#model.name);
  }

  /** Levels of the model's native quantiles, ascending; undefined where quantiles come from sample paths. */
  get quantileLevels(): readonly number[] | undefined {
    return this.#model.quantileLevels;
  }

  /** Longest context in steps that never recompiles; longer histories are cut to it unless `context` asks for more. */
  get maximumContext(): number {
    return this.#model.maximumContext;
  }

  /**
   * Forecasts one or many series of any lengths. Rejects with InputError before any work when something is wrong with the request, and
   * with the signal's reason when aborted. Calls on one forecaster run one after another; the event loop stays free.
   */
  async predict(series: SeriesInput | readonly SeriesInput[], options: PredictOptions = {}): Promise<Forecast> {
    const list = Array.isArray(series) ? (series as readonly SeriesInput[]) : [series as SeriesInput];
    if (list.length === 0) throw new InputError("empty-series", "no series: give at least one");
    return this.#predictFrom(list, 0, options);
  }

  /**
   * Forecasts series batch by batch and yields each entry, one per (series, variate) in the order given, when its batch is done: for more series
   * than fit into memory, and for answers that should not wait for the last one. `series` may be any iterable, asynchronous or not; it is
   * read one batch ahead of the answers at most. The numbers are those of one `predict` over all of them. Rejects like `predict`; leaving the loop stops the work.
   */
  async *stream(
    series: Iterable<SeriesInput> | AsyncIterable<SeriesInput>,
    options: StreamOptions = {},
  ): AsyncGenerator<SeriesForecast, void, undefined> {
    const { batch = DEFAULT_BATCH, onWarning, ...others } = options;
    if (!Number.isInteger(batch) || batch < 1)
      throw new InputError("bad-option", `batch must be a whole number of series, 1 or more; got ${batch}`);
    let from = 0;
    for await (const list of batchesOf(series, batch)) {
      const forecast = await this.#predictFrom(list, from, others);
      if (onWarning !== undefined) for (const warning of forecast.warnings) onWarning(warning);
      yield* forecast.series;
      from += list.length;
    }
  }

  /** `from`: place of the first series among all of the caller's; names those without an id. */
  async #predictFrom(list: readonly SeriesInput[], from: number, options: PredictOptions): Promise<Forecast> {
    this.#assertLoaded();
    const checked = checkOptions(options, this.#model);
    checked.signal?.throwIfAborted();
    const entries = this.#check(list, from, checked);
    const horizon = this.#horizon(checked, entries);
    const context = checked.context ?? this.#model.maximumContext;
    const samples = checked.samples ?? this.#model.defaultSamples;
    checkLevels(checked, samples, this.#model);
    const prepared = entries.map((entry) => entry.prepare(horizon, context));
    return this.#inTurn(checked.signal, () => this.#run(prepared, horizon, samples, checked));
  }

  /** What the series must be: candles, or any variates. */
  get takes(): "candles" | "series" {
    return this.#model.takes ?? "series";
  }

  /** The same fields as a forecast's report, accumulated since loading. */
  report(): ForecastReport {
    return reportBetween(undefined, this.#lastReport ?? this.#model.report(), {
      load: this.#loadMilliseconds,
      first: this.#firstMilliseconds ?? 0,
      total: this.#totalMilliseconds,
    });
  }

  /** What the model's compiled programs are made of, once the calls before are done; undefined for models without compiled programs. */
  async inspect(options: { profile?: boolean } = {}): Promise<ModelInspection | undefined> {
    this.#assertLoaded();
    return this.#inTurn(undefined, () => Promise.resolve(this.#model.inspect?.(options.profile ?? false)));
  }

  /** Frees the model; a running predict is aborted first. A second call does nothing. Forecasts already returned stay valid. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#lastReport = this.#model.report();
    this.#model.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.dispose();
    await this.#queue;
  }

  /** Runs `work` when the calls before it are done. A call aborted while it waits rejects at once and gives up its turn. */
  async #inTurn<Result>(signal: AbortSignal | undefined, work: () => Promise<Result>): Promise<Result> {
    const previous = this.#queue;
    let giveUp: (reason: unknown) => void = () => undefined;
    const aborted = new Promise<never>((_, reject) => (giveUp = reject));
    const onAbort = (): void => giveUp(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    const turn = previous.then(() => {
      signal?.removeEventListener("abort", onAbort);
      signal?.throwIfAborted();
      return work();
    });
    this.#queue = turn.catch(() => undefined);
    return Promise.race([turn, aborted]);
  }

  #assertLoaded(): void {
    if (this.#disposed) throw new InputError("disposed", "this forecaster was disposed: load it again");
  }

  #check(list: readonly SeriesInput[], from: number, { candles }: CheckedOptions): readonly CheckedEntry[] {
    if (candles === undefined) {
      return list.map((input, index) => {
        const series = checkSeries(input, from + index);
        return { seasonality: series.calendar.seasonality, prepare: (horizon, context) => prepareSeries(series, horizon, context) };
      });
    }
    const window = candles.sampling.maxContext ?? this.#model.maximumContext;
    return list.map((input, index) => {
      const series = checkCandles(input, from + index, candles);
      return { seasonality: undefined, prepare: (horizon, context) => prepareCandles(series, horizon, context, window, candles) };
    });
  }

  #horizon(options: CheckedOptions, series: readonly CheckedEntry[]): number {
    const horizon = options.horizon ?? defaultHorizon(series);
    if (horizon > this.#model.maximumHorizon) {
      throw new InputError(
        "horizon-too-large",
        `horizon ${horizon} is more than ${this.#model.name} takes: at most ${this.#model.maximumHorizon} steps`,
      );
    }
    return horizon;
  }

  async #run(prepared: readonly PreparedSeries[], horizon: number, samples: number, options: CheckedOptions): Promise<Forecast> {
    this.#assertLoaded();
    options.signal?.throwIfAborted();
    const eager = this.#followSettings();
    const before = this.#lastReport;
    const started = performance.now();
    const answers: ModelSeriesAnswer[] = [];
    const chunks = splitRows(prepared, samples);
    try {
      for (const [index, chunk] of chunks.entries()) {
        options.signal?.throwIfAborted();
        const chunkAnswers = await this.#model.predict({
          series: chunk.map((entry) => entry.model),
          horizon,
          samples,
          seed: options.seed,
          ...(eager ? { eager } : {}),
          ...(options.decoding === undefined ? {} : { decoding: options.decoding }),
          ...(options.candles === undefined ? {} : { sampling: options.candles.sampling }),
          ...(options.signal === undefined ? {} : { signal: options.signal }),
          // Chunks may differ in steps; a share of the whole per chunk keeps `done / total` rising to 1.
          onProgress: (done, total) => options.onProgress?.({ done: index * total + done, total: chunks.length * total }),
        });
        answers.push(...chunkAnswers);
      }
    } catch (error) {
      options.signal?.throwIfAborted();
      this.#assertLoaded();
      throw error;
    }
    const elapsed = performance.now() - started;
    this.#firstMilliseconds ??= elapsed;
    this.#totalMilliseconds += elapsed;
    const after = this.#disposed ? (this.#lastReport ?? this.#model.report()) : this.#model.report();
    this.#lastReport = after;
    const report = reportBetween(before, after, { load: this.#loadMilliseconds, first: this.#firstMilliseconds, total: elapsed });
    const consistent = options.candles?.consistent ? makeConsistent(answers) : undefined;
    const stated = { quantiles: options.quantiles, paths: options.paths };
    const entries = prepared.flatMap((entry, index) => {
      const answer = (consistent?.answers ?? answers)[index];
      if (answer === undefined) throw new Error(`the model answered ${answers.length} of ${prepared.length} series`);
      return entry.variates.map((variate, row) => new SeriesForecast(entry.id, variate, entry.timestamps, answer, row, stated));
    });
    for (const entry of entries) checkFinite(entry, this.#model.name);
    checkQuantiles(entries, options);
    return new Forecast(entries, report, [...prepared.flatMap((entry) => entry.warnings), ...(consistent?.warnings ?? [])], {
      quantiles: options.quantiles,
      report: options.report,
    });
  }
}

/** One seasonal period of the series' frequency; series that disagree need an explicit horizon. */
function defaultHorizon(series: readonly CheckedEntry[]): number {
  const periods = new Set(series.map((entry) => entry.seasonality ?? DEFAULT_HORIZON));
  if (periods.size > 1) {
    throw new InputError("horizon-needed", `the series have different seasonal periods (${[...periods].join(", ")} steps): give a horizon`);
  }
  return [...periods][0] ?? DEFAULT_HORIZON;
}

/** Groups of at most `size`, in order. */
async function* batchesOf(series: Iterable<SeriesInput> | AsyncIterable<SeriesInput>, size: number): AsyncGenerator<SeriesInput[]> {
  let list: SeriesInput[] = [];
  for await (const input of series) {
    list.push(input);
    if (list.length < size) continue;
    yield list;
    list = [];
  }
  if (list.length > 0) yield list;
}

/** An answer that is no number is a failure, not a forecast: damaged weights, or values near the end of float32. */
function checkFinite({ id, variate, mean }: SeriesForecast, model: string): void {
  const step = mean.findIndex((value) => !Number.isFinite(value));
  if (step < 0) return;
  throw new InputError(
    "not-finite",
    `series "${id}", "${variate}": ${model} answered ${mean[step]} for step ${step}, not a finite number; are its weights damaged, or the values near the end of float32 (3.4e38)?`,
  );
}

function splitRows(prepared: readonly PreparedSeries[], samples: number): PreparedSeries[][] {
  const perChunk = Math.max(1, Math.floor(MAXIMUM_ROWS / Math.max(1, samples)));
  const chunks: PreparedSeries[][] = [];
  for (let start = 0; start < prepared.length; start += perChunk) chunks.push(prepared.slice(start, start + perChunk));
  return chunks;
}

/** Levels that the model cannot state are refused before any work. Default levels are left out after a mean decode instead. */
function checkLevels({ quantiles, quantilesAsked }: CheckedOptions, samples: number, model: ForecastModel): void {
  const knots = model.quantileLevels;
  if (knots === undefined) {
    if (quantilesAsked && samples === 0) {
      throw new InputError(
        "no-quantiles",
        `a mean decode (samples: 0) of ${model.name} has no quantiles: ask for samples, for example samples: 256, or leave quantiles out`,
      );
    }
    return;
  }
  const [first, last] = [knots[0] ?? Number.NaN, knots[knots.length - 1] ?? Number.NaN];
  const outside = quantiles.find((level) => !(level >= first && level <= last));
  if (outside !== undefined) {
    throw new InputError(
      "quantile-outside-knots",
      `quantile ${outside} lies outside what ${model.name} states (${first} to ${last}): ask for a level in that range`,
    );
  }
}

/** A level that cannot be stated fails the call, not the later reading of it. Default levels are left out after a mean decode. */
function checkQuantiles(entries: readonly SeriesForecast[], options: CheckedOptions): void {
  const entry = entries[0];
  if (entry === undefined || (!entry.hasQuantiles && !options.quantilesAsked)) return;
  for (const level of options.quantiles) entry.quantile(level);
}
