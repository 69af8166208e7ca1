/** Toto 2.0 as a ForecastModel: requests checked, padded and chunked into decode calls, answers sorted back. */
import type { Device } from "../../runtime/device.js";
import { averageRows } from "../average.js";
import { InputError } from "../input-error.js";
import { checksOf, inspectPrograms, type ModelInspection } from "../inspection.js";
import type { ForecastModel, ModelReport, ModelRequest, ModelSeries, ModelSeriesAnswer } from "../model.js";
import { runsEager, stanceOf, type LoadedDevice, type ModelOptions } from "../options.js";
import type { Checkpoint } from "../tensor-source.js";
import { parseToto2Config, type Toto2Config } from "./config.js";
import { maximumPositions, Toto2Decoder } from "./decode.js";
import { checkDecoding, type CheckedDecoding } from "./decoding.js";
import type { Entry, Range } from "./samples.js";
import { drawPaths } from "./sampling.js";
import { loadToto2Weights, quantileLevels, type Toto2Weights } from "./weights.js";
import { wrapperEntry, wrapperPast } from "./wrapper.js";

/** Sequences (series x variates) per decode call; larger requests are chunked, with the same bits. */
const maximumSequences = 4096;
/** Memory of intermediate values per decode call. */
const activationBytes = 2 ** 28;
/** Values beyond it could leave the range of float32 on the way to a forecast, even within a cap of 10,000 scales. */
const largestValue = 1e33;
/** Context in samples that the published models were trained with; longer ones run. */
const trainedContext = 4096;

interface Member {
  readonly index: number;
  readonly series: ModelSeries;
  readonly entry: Entry;
}

export class Toto2Model implements ForecastModel {
  readonly family = "toto2";
  readonly maximumContext = trainedContext;
  readonly defaultSamples = 0;
  readonly quantileLevels: readonly number[] = quantileLevels;
  readonly #decoder: Toto2Decoder;
  readonly #usualDecoding: CheckedDecoding;
  #rounds = 0;
  #peakBytes = 0;
  /** Whether the request under way, or the last one, runs op by op. */
  #eager = false;
  #running = 0;
  /** One predict at a time: all of them use the same cache. */
  #turn: Promise<unknown> = Promise.resolve();
  /** Fires on dispose, which ends what still runs. */
  readonly #ending = new AbortController();

  private constructor(
    readonly name: string,
    readonly config: Toto2Config,
    private readonly weights: Toto2Weights,
    private readonly loaded: LoadedDevice,
    private readonly options: ModelOptions,
  ) {
    this.#usualDecoding = checkDecoding({}, config.patch);
    this.#decoder = new Toto2Decoder(config, weights, {
      device: loaded.device,
      mode: options.mode,
      taps: false,
      check: options.check,
      stance: () => stanceOf(this.#eager),
    });
  }

  /** Checks configuration and weights completely; throws InputError naming what does not fit. Closes nothing: the caller owns the checkpoint. */
  static load(name: string, checkpoint: Checkpoint, loaded: LoadedDevice, options: ModelOptions): Toto2Model {
    const config = parseToto2Config(checkpoint.config);
    return new Toto2Model(
      name,
      config,
      loadToto2Weights(checkpoint.source, config, loaded.device, { fold: true, stored: options.weights }),
      loaded,
      options,
    );
  }

  /** Positions that are left besides one patch of context. */
  get maximumHorizon(): number {
    return (maximumPositions - 1) * this.config.patch;
  }

  get #device(): Device {
    return this.loaded.device;
  }

  async predict(request: ModelRequest): Promise<readonly ModelSeriesAnswer[]> {
    if (this.#ending.signal.aborted) throw new InputError("disposed", `${this.name} was disposed; load the model again.`);
    const decoding = request.decoding ? checkDecoding(request.decoding, this.config.patch) : this.#usualDecoding;
    const members = request.series.map((series, index): Member => ({ index, series, entry: this.#entry(series, request, decoding) }));
    const { signal } = this.#ending;
    this.#running++;
    const turn = this.#turn.then(() =>
      this.#predictAll(members, { ...request, signal: request.signal ? AbortSignal.any([request.signal, signal]) : signal }, decoding),
    );
    this.#turn = turn.catch(() => undefined);
    try {
      return await turn;
    } finally {
      this.#running--;
      if (signal.aborted) this.#free();
    }
  }

  /** Left padding to whole patches, missing samples filled, group ids renumbered from 0. Throws InputError for parts that do not fit each other. */
  #entry(series: ModelSeries, { horizon }: ModelRequest, { imputation, contextLength }: CheckedDecoding): Entry {
    const { patch } = this.config;
    const { values, mask, groups, knownFuture = [] } = series;
    const length = values[0]?.length ?? 0;
    const ranges = checkShapes(series, length, horizon);
    const targets = values.length - knownFuture.length;
    const masked = (variate: number, row: Float32Array): Float32Array =>
      Float32Array.from(row, (value, t) => (mask?.[variate]?.[t] === 0 ? NaN : value));
    const known = knownFuture.map((future, e) => joined(masked(targets + e, values[targets + e] as Float32Array), future));
    const numbers = new Map([...new Set(groups ?? [])].map((id, index) => [id, index]));
    const whole = Math.max(1, Math.ceil(length / patch)) * patch;
    return wrapperEntry(
      {
        target: values.slice(0, targets),
        known,
        ranges: ranges.slice(0, targets),
        ...(mask ? { mask: mask.slice(0, targets) } : {}),
        ...(groups ? { groups: groups.map((id) => numbers.get(id) ?? 0) } : {}),
      },
      {
        past: contextLength === undefined ? whole : Math.min(whole, wrapperPast(contextLength, horizon, patch)),
        patch,
        futurePatches: Math.ceil(horizon / patch),
        imputation,
      },
    );
  }

  async #predictAll(members: readonly Member[], request: ModelRequest, decoding: CheckedDecoding): Promise<readonly ModelSeriesAnswer[]> {
    this.#eager = runsEager(request);
    const answers = new Array<ModelSeriesAnswer>(members.length);
    const futurePatches = Math.ceil(request.horizon / this.config.patch);
    const rounds = decoding.blockPatches > 0 ? Math.ceil(futurePatches / Math.min(decoding.blockPatches, futurePatches)) : 1;
    const chunks = this.#chunks(members, futurePatches);
    let done = 0;
    for (const chunk of chunks) {
      const [{ entry }] = chunk as [Member];
      const covariates = entry.future.length;
      const targets = entry.values.length - covariates;
      const quantiles = await this.#decoder.decode({
        entries: chunk.map((member) => member.entry),
        variates: entry.values.length,
        covariates,
        futurePatches,
        ...decoding,
        signal: request.signal,
        onRound: () => {
          this.#rounds++;
          this.#peakBytes = Math.max(this.#peakBytes, this.#device.allocatedBytes);
          request.onProgress?.(++done, chunks.length * rounds);
        },
      });
      chunk.forEach(({ index, series }, place) => {
        answers[index] = this.#answer(series, quantiles.slice(place * targets, (place + 1) * targets), request);
      });
    }
    return answers;
  }

  /** Series of equal variates and covariates, as many together as memory takes. */
  #chunks(members: readonly Member[], futurePatches: number): Member[][] {
    const alike = new Map<string, Member[]>();
    for (const member of members) {
      const key = `${member.entry.values.length} ${member.entry.future.length}`;
      alike.set(key, [...(alike.get(key) ?? []), member]);
    }
    const bytesPerToken = 4 * (8 * this.config.width + 2 * this.config.hidden);
    const chunks: Member[][] = [];
    for (const group of alike.values()) {
      let open: Member[] = [];
      let [sequences, tokens] = [0, 0];
      for (const member of group) {
        const variates = member.entry.values.length;
        const own = variates * (member.entry.patches + futurePatches);
        if (open.length > 0 && (sequences + variates > maximumSequences || (tokens + own) * bytesPerToken > activationBytes)) {
          chunks.push(open);
          open = [];
          [sequences, tokens] = [0, 0];
        }
        open.push(member);
        sequences += variates;
        tokens += own;
      }
      chunks.push(open);
    }
    return chunks;
  }

  /** Mean of the quantiles, the quantiles, and paths when asked for. Covariates get their known future. */
  #answer(series: ModelSeries, decoded: readonly Float32Array[], { horizon, samples, seed }: ModelRequest): ModelSeriesAnswer {
    const levels = quantileLevels.length;
    const { stream, knownFuture = [] } = series;
    const values = [
      ...decoded.map((answer) => cropped(answer, levels, horizon)),
      ...knownFuture.map((future) => repeated(future, levels, horizon)),
    ];
    const mean = values.map((row) => averageRows(row, levels, horizon));
    return {
      mean,
      quantiles: { levels: quantileLevels, values },
      ...(samples > 0 ? { paths: values.map((row, variate) => drawPaths(row, horizon, samples, { stream, variate, seed })) } : {}),
    };
  }

  /** Compiled programs, for inspection. */
  get programs(): Toto2Decoder["compiled"] {
    return this.#decoder.compiled;
  }

  inspect(profile: boolean): ModelInspection {
    return inspectPrograms(this.#device, this.programs, profile);
  }

  report(): ModelReport {
    const reports = this.#decoder.compiled.map((program) => program.report());
    const total = (pick: (report: (typeof reports)[0]) => number): number => reports.reduce((sum, report) => sum + pick(report), 0);
    const calls = total((report) => report.calls);
    return {
      device: this.#device.description,
      mode: this.#eager ? "eager" : this.options.mode,
      // Rounds overwrite the prediction tokens of the round before: only a cache with positions as data can do that.
      kvCache: "static",
      weights: this.options.weights ?? "f32",
      threads: this.#device.capabilities.threads,
      compiles: total((report) => report.compiles),
      recompiles: total((report) => report.recompiles),
      graphBreaks: total((report) => report.graphBreaks),
      fallbacks: total((report) => report.fallbacks) + (this.loaded.note ? 1 : 0),
      capturedSteps: this.#device.name === "reference" ? 0 : total((report) => report.capturedCalls),
      steps: this.#rounds,
      foreignCallsPerStep: calls === 0 ? 0 : total((report) => report.foreignCalls) / calls,
      calls,
      waits: total((report) => report.waits),
      milliseconds: {
        compile: total(({ milliseconds }) => milliseconds.trace + milliseconds.lower + milliseconds.build + milliseconds.search),
      },
      peakBytes: this.#peakBytes,
      meanKind: "mean of the quantiles",
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
    this.#decoder.dispose();
    this.weights.dispose();
  }
}

/** The range of a row, undefined where it holds anything but finite numbers. */
function rangeOf(row: Float32Array): Range | undefined {
  let [low, high, isWhole] = [Infinity, -Infinity, true];
  for (let at = 0; at < row.length; at++) {
    const value = row[at] as number;
    if (value < low) low = value;
    if (value > high) high = value;
    // What is not finite less itself is NaN.
    if (value - value !== 0) isWhole = false;
  }
  return isWhole ? { low, high } : undefined;
}

/** Index of the first number beyond what a forecast can stand, -1 without any. NaN and the infinities are missing values. */
const indexOfTooLarge = (row: Float32Array): number =>
  row.findIndex((value) => (value > largestValue || value < -largestValue) && Number.isFinite(value));

/** Throws InputError where rows, masks, ids or covariates of a series do not fit each other. Answers the range of every row that is finite throughout. */
function checkShapes(
  { values, mask, groups, knownFuture = [] }: ModelSeries,
  length: number,
  horizon: number,
): readonly (Range | undefined)[] {
  const wrong = (code: string, found: string, expected: string): never => {
    throw new InputError(code, `${found}, expected ${expected}.`);
  };
  if (values.length === 0 || length === 0) wrong("empty-series", "a series has no values", "at least one variate with one value");
  const ranges = values.map((row, v) => {
    if (row.length !== length) wrong("ragged-variates", `variate ${v} has ${row.length} values`, `${length} like the first variate`);
    const range = rangeOf(row);
    const isSmall = range && range.high <= largestValue && range.low >= -largestValue;
    const at = isSmall ? -1 : indexOfTooLarge(row);
    if (at >= 0)
      wrong("value-too-large", `value ${at} of variate ${v} is ${row[at]}`, `at most ${largestValue} in size: scale the series down`);
    return range;
  });
  if (mask && mask.length !== values.length) wrong("bad-mask", `the mask has ${mask.length} rows`, `${values.length}, one per variate`);
  mask?.forEach((row, v) => {
    if (row.length !== length) wrong("bad-mask", `the mask of variate ${v} has ${row.length} entries`, `${length}, one per value`);
  });
  if (groups && groups.length !== values.length)
    wrong("bad-ids", `there are ${groups.length} series ids`, `${values.length}, one per variate`);
  if (knownFuture.length >= values.length)
    wrong("bad-covariates", `${knownFuture.length} of ${values.length} variates have known futures`, "at least one variate to forecast");
  knownFuture.forEach((row, e) => {
    if (row.length !== horizon)
      wrong("bad-covariate-length", `the known future of covariate ${e} has ${row.length} values`, `${horizon}, the horizon`);
  });
  return ranges;
}

function joined(before: Float32Array, after: Float32Array): Float32Array {
  const result = new Float32Array(before.length + after.length);
  result.set(before);
  result.set(after, before.length);
  return result;
}

/** [levels * horizon] of [levels * future]. */
function cropped(answer: Float32Array, levels: number, horizon: number): Float32Array {
  const future = answer.length / levels;
  const result = new Float32Array(levels * horizon);
  for (let level = 0; level < levels; level++) result.set(answer.subarray(level * future, level * future + horizon), level * horizon);
  return result;
}

function repeated(row: Float32Array, levels: number, horizon: number): Float32Array {
  const result = new Float32Array(levels * horizon);
  for (let level = 0; level < levels; level++) result.set(row, level * horizon);
  return result;
}
