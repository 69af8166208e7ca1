/** Toto 1.0 as a ForecastModel: requests checked, padded and chunked into decode calls, answers sorted back. */
import type { Device } from "../../runtime/device.js";
import { averageRows } from "../average.js";
import { InputError } from "../input-error.js";
import { checksOf, inspectPrograms, type ModelInspection } from "../inspection.js";
import type { ForecastModel, ModelReport, ModelRequest, ModelSeries, ModelSeriesAnswer } from "../model.js";
import type { Checkpoint } from "../tensor-source.js";
import { runsEager, stanceOf, type LoadedDevice, type ModelOptions } from "../options.js";
import { parseToto1Config, type Toto1Config } from "./config.js";
import { maximumContext, maximumHorizonPatches, Toto1Decoder, type DecodeRequest } from "./decode.js";
import type { Entry } from "./layout.js";
import { loadToto1Weights, type Toto1Weights } from "./weights.js";

/** Rows (series x variates x paths) per decode call; larger requests are chunked, with the same bits. */
const maximumRows = 4096;
/** Cache memory per decode call. */
const cacheBytes = 2 ** 31;

/** Part of one request: whole series, or a range of one series' paths. */
interface Chunk {
  readonly series: readonly { readonly index: number; readonly pathFrom: number; readonly paths: number }[];
}

export class Toto1Model implements ForecastModel {
  readonly family = "toto1";
  readonly maximumContext = maximumContext;
  readonly defaultSamples = 256;
  readonly #decoder: Toto1Decoder;
  #steps = 0;
  #peakBytes = 0;
  #sampled = false;
  /** Whether the request under way, or the last one, runs op by op. */
  #eager = false;
  #running = 0;
  /** One predict at a time: all of them use the same caches. */
  #turn: Promise<unknown> = Promise.resolve();
  /** Fires on dispose, which ends what still runs. */
  readonly #ending = new AbortController();

  private constructor(
    readonly name: string,
    readonly config: Toto1Config,
    private readonly weights: Toto1Weights,
    private readonly loaded: LoadedDevice,
    private readonly options: ModelOptions,
  ) {
    this.#decoder = new Toto1Decoder(config, weights, {
      device: loaded.device,
      mode: options.mode,
      kvCache: options.kvCache,
      sharePrefix: options.sharePrefix ?? true,
      taps: false,
      stance: () => stanceOf(this.#eager),
      check: options.check,
    });
  }

  /** Checks configuration and weights completely; throws InputError naming what does not fit. Closes nothing: the caller owns the checkpoint. */
  static load(name: string, checkpoint: Checkpoint, loaded: LoadedDevice, options: ModelOptions): Toto1Model {
    const config = parseToto1Config(checkpoint.config);
    const weights = loadToto1Weights(checkpoint.source, config, loaded.device, { fold: true, stored: options.weights });
    return new Toto1Model(name, config, weights, loaded, options);
  }

  get maximumHorizon(): number {
    return maximumHorizonPatches * this.config.patch;
  }

  get #device(): Device {
    return this.loaded.device;
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
    const answers: ModelSeriesAnswer[] = new Array<ModelSeriesAnswer>(request.series.length);
    this.#eager = runsEager(request);
    const steps = Math.ceil(request.horizon / this.config.patch);
    this.#sampled = request.samples > 0;
    const paths = request.series.map((series) => series.values.map(() => new Float32Array(Math.max(1, request.samples) * request.horizon)));
    // A program holds for one number of variates, and a chunk labels the same number of them exogenous.
    const alike = new Map<string, number[]>();
    request.series.forEach(({ values, knownFuture }, index) => {
      const key = `${values.length} ${knownFuture?.length ?? 0}`;
      alike.set(key, [...(alike.get(key) ?? []), index]);
    });
    const chunks = [...alike.values()].flatMap((indices) => this.#chunks(request, indices, steps));
    let done = 0;
    for (const chunk of chunks) {
      await this.#predictChunk(request, chunk, steps, paths, () => request.onProgress?.(++done, chunks.length * steps));
    }
    request.series.forEach((_, index) => {
      answers[index] = this.#answer(paths[index] as Float32Array[], request);
    });
    return answers;
  }

  #chunks(request: ModelRequest, indices: readonly number[], steps: number): Chunk[] {
    const chunks: Chunk[] = [];
    const perSeries = Math.max(1, request.samples);
    let open: { index: number; pathFrom: number; paths: number }[] = [];
    let rows = 0;
    const close = (): void => {
      if (open.length > 0) chunks.push({ series: open });
      open = [];
      rows = 0;
    };
    for (const index of indices) {
      const { values } = request.series[index] as ModelSeries;
      const context = Math.ceil((values[0] as Float32Array).length / this.config.patch) + 1;
      const limit = Math.max(
        values.length,
        Math.min(maximumRows, Math.floor(cacheBytes / Math.max(1, this.#decoder.bytesPerRow(context, steps)))),
      );
      for (let from = 0; from < perSeries;) {
        const room = Math.floor((limit - rows) / values.length);
        if (room <= 0) {
          close();
          continue;
        }
        const take = Math.min(room, perSeries - from);
        open.push({ index, pathFrom: from, paths: take });
        rows += take * values.length;
        from += take;
      }
    }
    close();
    return chunks;
  }

  async #predictChunk(
    request: ModelRequest,
    chunk: Chunk,
    steps: number,
    paths: readonly (readonly Float32Array[])[],
    onStep: () => void,
  ): Promise<void> {
    const { patch } = this.config;
    const { horizon } = request;
    const members = chunk.series.map((part) => ({ ...part, series: request.series[part.index] as ModelSeries }));
    const { values, knownFuture } = (members[0] as (typeof members)[0]).series;
    const [variates, exogenous] = [values.length, knownFuture?.length ?? 0];
    const rows = members.flatMap(({ series, index, pathFrom, paths: count }) =>
      Array.from({ length: count * variates }, (_, row) => ({
        series,
        index,
        path: pathFrom + Math.floor(row / variates),
        variate: row % variates,
      })),
    );
    const keys = new Int32Array(rows.length * 3);
    rows.forEach(({ series, path, variate }, row) => keys.set([series.stream | 0, path, variate], 3 * row));
    const decodeRequest: DecodeRequest = {
      entries: members.map(({ series, paths: count }) => this.#entry(series, count)),
      variates,
      exogenous,
      steps,
      sampled: request.samples > 0,
      keys,
      seed: request.seed,
      signal: request.signal,
      onStep: () => {
        this.#steps++;
        this.#peakBytes = Math.max(this.#peakBytes, this.#device.allocatedBytes);
        onStep();
      },
      ...(exogenous > 0 ? { future: (step: number) => knownPatch(rows, step, patch, horizon, variates) } : {}),
    };
    const answers = await this.#decoder.decode(decodeRequest);
    rows.forEach(({ index, path, variate }, row) => {
      const target = (paths[index] as readonly Float32Array[])[variate] as Float32Array;
      answers.forEach((answer, step) => {
        const length = Math.min(patch, horizon - step * patch);
        target.set(answer.subarray(row * patch, row * patch + length), path * horizon + step * patch);
      });
    });
  }

  /** Left padding to whole patches; unobserved values become 0, because masked samples are still fed (model-spec A.9). */
  #entry(series: ModelSeries, paths: number): Entry {
    const { patch } = this.config;
    const length = (series.values[0] as Float32Array).length;
    const patches = Math.max(1, Math.ceil(length / patch));
    const pad = patches * patch - length;
    const values = series.values.map(() => new Float32Array(patches * patch));
    const mask = series.values.map(() => new Uint8Array(patches * patch));
    series.values.forEach((source, variate) => {
      const observed = series.mask?.[variate];
      for (let i = 0; i < length; i++) {
        const seen = Number.isFinite(source[i] as number) && (observed ? observed[i] === 1 : true);
        (mask[variate] as Uint8Array)[pad + i] = seen ? 1 : 0;
        (values[variate] as Float32Array)[pad + i] = Number.isFinite(source[i] as number) ? (source[i] as number) : 0;
      }
    });
    return { values, mask, patches, contextPatches: patches, groups: series.groups ?? new Int32Array(series.values.length), paths };
  }

  #answer(paths: readonly Float32Array[], { horizon, samples }: ModelRequest): ModelSeriesAnswer {
    if (samples === 0) return { mean: paths };
    const mean = paths.map((values) => averageRows(values, samples, horizon));
    return { mean, paths };
  }

  /** Compiled programs, for inspection. */
  get programs(): Toto1Decoder["compiled"] {
    return this.#decoder.compiled;
  }

  /** The key-value cache of the last decode, for inspection and tests. */
  get cache(): Pick<Toto1Decoder, "cacheCounters" | "cacheContents"> {
    return this.#decoder;
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
      kvCache: this.options.kvCache,
      weights: this.options.weights ?? "f32",
      threads: this.#device.capabilities.threads,
      compiles: total((report) => report.compiles),
      recompiles: total((report) => report.recompiles),
      graphBreaks: total((report) => report.graphBreaks),
      fallbacks: total((report) => report.fallbacks) + (this.loaded.note ? 1 : 0),
      capturedSteps: this.#device.name === "reference" ? 0 : total((report) => report.capturedCalls),
      steps: this.#steps,
      foreignCallsPerStep: calls === 0 ? 0 : total((report) => report.foreignCalls) / calls,
      calls,
      waits: total((report) => report.waits),
      milliseconds: {
        compile: total(({ milliseconds }) => milliseconds.trace + milliseconds.lower + milliseconds.build + milliseconds.search),
      },
      peakBytes: this.#peakBytes,
      meanKind: this.#sampled ? "sample mean" : "mixture mean",
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

interface Row {
  readonly series: ModelSeries;
  readonly variate: number;
}

/** Known values of the exogenous rows for one step; beyond the horizon they are 0, which nothing reads (model-spec A.8). */
function knownPatch(
  rows: readonly Row[],
  step: number,
  patch: number,
  horizon: number,
  variates: number,
): { values: Float32Array; known: Int32Array } {
  const values = new Float32Array(rows.length * patch);
  const known = new Int32Array(rows.length);
  rows.forEach(({ series, variate }, row) => {
    const count = series.knownFuture?.length ?? 0;
    const future = series.knownFuture?.[variate - (variates - count)];
    if (!future || variate < variates - count) return;
    known[row] = 1;
    for (let p = 0; p < patch && step * patch + p < horizon; p++) values[row * patch + p] = future[step * patch + p] as number;
  });
  return { values, known };
}
