/** Kronos as a ForecastModel: requests checked, normalised and chunked into generate calls, answers put back into the candles' units. */
import { InputError } from "../input-error.js";
import { checksOf, inspectPrograms, type ModelInspection } from "../inspection.js";
import type { ForecastModel, ModelReport, ModelRequest, ModelSeries, ModelSeriesAnswer } from "../model.js";
import { runsEager, stanceOf, type LoadedDevice, type ModelOptions } from "../options.js";
import type { Checkpoint } from "../tensor-source.js";
import { KronosCodec } from "./codec.js";
import { candleColumns, isKronosTokenizer, parseKronosModelConfig, parseKronosTokenizerConfig, type KronosModelConfig } from "./config.js";
import { KronosGenerator } from "./generate.js";
import { averagePaths, denormalise, normaliseCandles, type CandleScale } from "./normalise.js";
import type { GenerateRequest } from "./request.js";
import { loadKronosModelWeights, loadKronosTokenizerWeights, type KronosModelWeights, type KronosTokenizerWeights } from "./weights.js";

/** Paths per generate call; larger requests are chunked, with the same bits. */
const maximumRows = 4096;
/** Cache memory per generate call. */
const cacheBytes = 2 ** 31;
/** Longest window that a caller may ask for. */
const largestWindow = 1 << 14;

/** What the published predictor uses when nothing is said. */
export const samplingDefaults = { temperature: 1, topK: 0, topP: 0.9, clip: 5 } as const;

/** A checkpoint and how it was asked for. */
export interface NamedCheckpoint {
  readonly name: string;
  readonly checkpoint: Checkpoint;
}

/** Tokenizers that published models were trained with, by parts of their names. */
const published = [
  { model: /kronos[-_]?mini/i, tokenizer: /tokenizer[-_]?2k/i, expected: "Kronos-Tokenizer-2k" },
  { model: /kronos[-_]?(small|base)/i, tokenizer: /tokenizer[-_]?base/i, expected: "Kronos-Tokenizer-base" },
];

/** A wrong tokenizer of the right size gives numbers without meaning, so what can be told from names and sizes is checked. */
function checkPair(model: NamedCheckpoint, tokenizer: NamedCheckpoint): void {
  if (!isKronosTokenizer(tokenizer.checkpoint.config))
    throw new InputError("tokenizer", `${tokenizer.name} is no Kronos tokenizer: its config.json has no "n_enc_layers" and "d_in".`);
  const [own, other] = [parseKronosModelConfig(model.checkpoint.config), parseKronosTokenizerConfig(tokenizer.checkpoint.config)];
  if (own.coarseBits !== other.coarseBits || own.fineBits !== other.fineBits)
    throw new InputError(
      "tokenizer",
      `${model.name} reads tokens of ${own.coarseBits} + ${own.fineBits} bits, ${tokenizer.name} writes ${other.coarseBits} + ${other.fineBits}: use the tokenizer that the model was trained with.`,
    );
  const pair = published.find((entry) => entry.model.test(model.name));
  const recognised = published.some((entry) => entry.tokenizer.test(tokenizer.name));
  if (pair && recognised && !pair.tokenizer.test(tokenizer.name))
    throw new InputError(
      "tokenizer",
      `${model.name} was trained with ${pair.expected}, not with ${tokenizer.name}: name that one as its tokenizer.`,
    );
}

/** A range of one series' paths. */
interface Part {
  readonly index: number;
  readonly pathFrom: number;
  readonly paths: number;
}

interface Settled {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly clip: number;
  readonly window: number;
}

export class KronosModel implements ForecastModel {
  readonly family = "kronos";
  readonly takes = "candles";
  readonly defaultSamples = 16;
  readonly #codec: KronosCodec;
  readonly #generator: KronosGenerator;
  #steps = 0;
  #peakBytes = 0;
  #sampled = true;
  /** Whether the request under way, or the last one, runs op by op. */
  #eager = false;
  #running = 0;
  /** One predict at a time: all of them use the same caches. */
  #turn: Promise<unknown> = Promise.resolve();
  readonly #ending = new AbortController();

  private constructor(
    readonly name: string,
    readonly config: KronosModelConfig,
    private readonly weights: KronosModelWeights,
    private readonly tokenizerWeights: KronosTokenizerWeights,
    private readonly tokenizerConfig: ReturnType<typeof parseKronosTokenizerConfig>,
    private readonly loaded: LoadedDevice,
    private readonly options: ModelOptions,
  ) {
    const shared = { device: loaded.device, mode: options.mode, taps: false, check: options.check, stance: () => stanceOf(this.#eager) };
    this.#codec = new KronosCodec(this.tokenizerConfig, tokenizerWeights, shared);
    this.#generator = new KronosGenerator(config, weights, this.#codec, {
      ...shared,
      cached: options.kvCache !== "none",
      sharePrefix: options.sharePrefix ?? true,
    });
  }

  /** Checks both configurations, that they belong together, and all weights. Closes nothing: the caller owns the checkpoints. Throws InputError. */
  static load(model: NamedCheckpoint, tokenizer: NamedCheckpoint, loaded: LoadedDevice, options: ModelOptions): KronosModel {
    checkPair(model, tokenizer);
    const config = parseKronosModelConfig(model.checkpoint.config);
    const tokenizerConfig = parseKronosTokenizerConfig(tokenizer.checkpoint.config);
    const tokenizerWeights = loadKronosTokenizerWeights(tokenizer.checkpoint.source, tokenizerConfig, loaded.device);
    try {
      const weights = loadKronosModelWeights(model.checkpoint.source, config, loaded.device, { fold: true, stored: options.weights });
      return new KronosModel(model.name, config, weights, tokenizerWeights, tokenizerConfig, loaded, options);
    } catch (error) {
      tokenizerWeights.dispose();
      throw error;
    }
  }

  get maximumContext(): number {
    return this.config.maximumContext;
  }

  get maximumHorizon(): number {
    return largestWindow;
  }

  /** The compiled programs, for profiling. */
  get programs(): KronosGenerator["programs"] {
    return [...this.#codec.programs, ...this.#generator.programs];
  }

  async predict(request: ModelRequest): Promise<readonly ModelSeriesAnswer[]> {
    if (this.#ending.signal.aborted) throw new InputError("disposed", `${this.name} was disposed; load the model again.`);
    const { signal } = this.#ending;
    this.#running++;
    const turn = this.#turn.then(() =>
      this.#predictAll({ ...request, signal: request.signal ? AbortSignal.any([request.signal, signal]) : signal }),
    );
    this.#turn = turn.catch(() => undefined);
    try {
      return await turn;
    } finally {
      this.#running--;
      if (signal.aborted) this.#free();
    }
  }

  async #predictAll(request: ModelRequest): Promise<readonly ModelSeriesAnswer[]> {
    const settled = this.#settle(request);
    const paths = Math.max(1, request.samples);
    this.#eager = runsEager(request);
    this.#sampled = request.samples > 0;
    const prepared = request.series.map((series, index) => {
      this.#checkSeries(series, index, request.horizon);
      return normaliseCandles(series.values, settled.clip);
    });
    const count = request.horizon * candleColumns;
    const values = request.series.map(() => new Float32Array(paths * count));
    const chunks = this.#chunks(request, paths, settled.window);
    const total = chunks.length * request.horizon;
    let done = 0;
    for (const [at, chunk] of chunks.entries()) {
      request.signal?.throwIfAborted();
      const generated = await this.#generator.generate({
        entries: chunk.map(({ index, paths: own }) => ({
          candles: (prepared[index] as { candles: Float32Array }).candles,
          stamps: request.series[index]?.stamps?.context as Int32Array,
          futureStamps: request.series[index]?.stamps?.future as Int32Array,
          paths: own,
        })),
        ...this.#drawing(request, settled, chunk),
        onStep: (step) => {
          this.#steps++;
          this.#peakBytes = Math.max(this.#peakBytes, this.loaded.device.allocatedBytes);
          // Held and sliding windows, and parts of the latter, each come to the same candle.
          const reached = at * request.horizon + step + 1;
          if (reached > done) request.onProgress?.((done = reached), total);
        },
      });
      let row = 0;
      for (const { index, pathFrom, paths: own } of chunk) {
        (values[index] as Float32Array).set(generated.values.subarray(row * count, (row + own) * count), pathFrom * count);
        row += own;
      }
    }
    return values.map((normalised, index) => this.#answer(normalised, (prepared[index] as { scale: CandleScale }).scale, request));
  }

  #settle({ sampling = {}, horizon }: ModelRequest): Settled {
    const window = sampling.maxContext ?? this.config.maximumContext;
    if (!Number.isInteger(window) || window < 2 || window > largestWindow)
      throw new InputError("max-context", `maxContext is ${window}, expected a whole number of candles from 2 to ${largestWindow}.`);
    if (horizon > window)
      throw new InputError(
        "horizon-too-large",
        `horizon ${horizon} is more than ${this.name} can decode at once: at most ${window} candles (maxContext), because the answer must fit its window.`,
      );
    const { temperature, topK, topP, clip } = { ...samplingDefaults, ...sampling };
    if (!(temperature > 0 && Number.isFinite(temperature)))
      throw new InputError(
        "temperature",
        `temperature is ${temperature}, expected a number above 0; for the likeliest candle use topK: 1.`,
      );
    if (!Number.isInteger(topK) || topK < 0)
      throw new InputError("top-k", `topK is ${topK}, expected a whole number, 0 to keep all tokens.`);
    if (!(topP > 0 && topP <= 1)) throw new InputError("top-p", `topP is ${topP}, expected a share above 0 and at most 1.`);
    if (!(clip > 0)) throw new InputError("clip", `clip is ${clip}, expected a number above 0.`);
    return { temperature, topK, topP, clip, window };
  }

  #checkSeries({ values, stamps }: ModelSeries, index: number, horizon: number): void {
    const length = values[0]?.length ?? 0;
    const label = `series ${index}`;
    if (values.length !== candleColumns)
      throw new InputError(
        "candles",
        `${label} has ${values.length} columns, expected ${candleColumns}: open, high, low, close, volume, amount.`,
      );
    if (length < 2) throw new InputError("candles", `${label} has ${length} candles; Kronos needs two or more.`);
    if (values.some((column) => column.length !== length || !column.every(Number.isFinite)))
      throw new InputError("candles", `${label} has missing or infinite values; candles must be complete.`);
    if (stamps?.context.length !== length * 5 || stamps.future.length !== horizon * 5)
      throw new InputError("candles", `${label} needs time features of its ${length} candles and of the ${horizon} to come.`);
  }

  #drawing(request: ModelRequest, settled: Settled, chunk: readonly Part[]): Omit<GenerateRequest, "entries" | "onStep"> {
    const keys = chunk.flatMap(({ index, pathFrom, paths }) =>
      Array.from({ length: paths }, (_, path) => [(request.series[index] as ModelSeries).stream | 0, pathFrom + path]).flat(),
    );
    const { temperature, topK, topP, window } = settled;
    // Without samples, the one path takes the likeliest tokens.
    return {
      steps: request.horizon,
      window,
      keys: Int32Array.from(keys),
      seed: request.seed,
      temperature,
      topK: this.#sampled ? topK : 1,
      topP,
      signal: request.signal,
    };
  }

  /** Paths in order, cut where a call would hold too many or too much memory. */
  #chunks(request: ModelRequest, paths: number, window: number): Part[][] {
    const chunks: Part[][] = [];
    let [open, rows, bytes]: [Part[], number, number] = [[], 0, 0];
    request.series.forEach(({ values }, index) => {
      const length = (values[0] as Float32Array).length;
      const perSeries = this.#generator.bytesPerSeries(length, window);
      const perRow = this.#generator.bytesPerRow(length, request.horizon);
      for (let from = 0; from < paths;) {
        const room = Math.min(maximumRows - rows, Math.floor((cacheBytes - bytes - perSeries) / perRow));
        if (room < 1 && open.length > 0) {
          chunks.push(open);
          [open, rows, bytes] = [[], 0, 0];
          continue;
        }
        const take = Math.min(Math.max(1, room), paths - from);
        open.push({ index, pathFrom: from, paths: take });
        rows += take;
        bytes += perSeries + take * perRow;
        from += take;
      }
    });
    return open.length > 0 ? [...chunks, open] : chunks;
  }

  /** The mean is taken over normalised paths and then put into units, as the published predictor does. */
  #answer(normalised: Float32Array, scale: CandleScale, { horizon, samples }: ModelRequest): ModelSeriesAnswer {
    const count = horizon * candleColumns;
    const mean = averagePaths(normalised, Math.max(1, samples), count);
    const columns = Array.from({ length: candleColumns }, (_, column) => column);
    const columnOf = (values: Float32Array, length: number, column: number): Float32Array =>
      Float32Array.from({ length }, (_, index) => denormalise(values[index * candleColumns + column] as number, column, scale));
    return {
      mean: columns.map((column) => columnOf(mean, horizon, column)),
      ...(samples > 0 ? { paths: columns.map((column) => columnOf(normalised, samples * horizon, column)) } : {}),
    };
  }

  inspect(profile: boolean): ModelInspection {
    return inspectPrograms(this.loaded.device, this.programs, profile);
  }

  report(): ModelReport {
    const reports = this.programs.map((program) => program.report());
    const total = (pick: (report: (typeof reports)[0]) => number, of = reports): number =>
      of.reduce((sum, report) => sum + pick(report), 0);
    const steps = this.#generator.programs.map((program) => program.report());
    const calls = total((report) => report.calls, steps);
    return {
      device: this.loaded.device.description,
      mode: this.#eager ? "eager" : this.options.mode,
      kvCache: this.options.kvCache,
      weights: this.options.weights ?? "f32",
      threads: this.loaded.device.capabilities.threads,
      compiles: total((report) => report.compiles),
      recompiles: total((report) => report.recompiles),
      graphBreaks: total((report) => report.graphBreaks),
      fallbacks: total((report) => report.fallbacks) + (this.loaded.note ? 1 : 0),
      capturedSteps: this.loaded.device.name === "reference" ? 0 : total((report) => report.capturedCalls, steps),
      steps: this.#steps,
      foreignCallsPerStep: calls === 0 ? 0 : total((report) => report.foreignCalls, steps) / calls,
      calls,
      waits: total((report) => report.waits),
      milliseconds: {
        compile: total(({ milliseconds }) => milliseconds.trace + milliseconds.lower + milliseconds.build + milliseconds.search),
      },
      peakBytes: this.#peakBytes,
      meanKind: this.#sampled ? "sample mean" : "likeliest path",
      ...checksOf(reports),
    };
  }

  /** Ends a running predict; memory is freed once no kernel uses it any more. */
  dispose(): void {
    if (this.#ending.signal.aborted) return;
    this.#ending.abort(new InputError("disposed", `${this.name} was disposed while it was running.`));
    this.#free();
  }

  #free(): void {
    if (this.#running > 0) return;
    this.#generator.dispose();
    this.#codec.dispose();
    this.weights.dispose();
    this.tokenizerWeights.dispose();
  }
}
