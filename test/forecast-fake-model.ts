/**
 * A model without weights for tests of the layers above models: a seeded random walk from the last observed value.
 */
import type { ForecastModel, ModelReport, ModelRequest, ModelSeriesAnswer } from "../src/models/model.js";

export interface FakeModelOptions {
  readonly defaultSamples?: number;
  readonly maximumContext?: number;
  readonly maximumHorizon?: number;
  /** Native quantile levels; the quantile at level q is last value + 10 q. */
  readonly knots?: readonly number[];
  /** Milliseconds between steps. */
  readonly stepDelay?: number;
  readonly trained?: boolean;
}

export class FakeModel implements ForecastModel {
  readonly family = "fake";
  readonly name = "fake-random-walk";
  readonly maximumContext: number;
  readonly maximumHorizon: number;
  readonly defaultSamples: number;
  readonly quantileLevels?: readonly number[];
  readonly trained?: boolean;
  /** Every request, for assertions. */
  readonly requests: ModelRequest[] = [];
  disposed = 0;
  running = 0;
  mostRunning = 0;
  #steps = 0;
  readonly #options: FakeModelOptions;

  constructor(options: FakeModelOptions = {}) {
    this.#options = options;
    this.maximumContext = options.maximumContext ?? 4096;
    this.maximumHorizon = options.maximumHorizon ?? 4096;
    this.defaultSamples = options.defaultSamples ?? 32;
    if (options.knots !== undefined) this.quantileLevels = options.knots;
    if (options.trained !== undefined) this.trained = options.trained;
  }

  async predict(request: ModelRequest): Promise<readonly ModelSeriesAnswer[]> {
    this.requests.push(request);
    this.running += 1;
    this.mostRunning = Math.max(this.mostRunning, this.running);
    try {
      for (let step = 1; step <= request.horizon; step += 1) {
        await new Promise((resolve) => setTimeout(resolve, this.#options.stepDelay ?? 0));
        if (request.signal?.aborted === true || this.disposed > 0) throw new Error("the model was told to stop");
        this.#steps += 1;
        request.onProgress?.(step, request.horizon);
      }
      return request.series.map((series) => this.#answer(series.values, series.mask, series.stream, request));
    } finally {
      this.running -= 1;
    }
  }

  #answer(
    values: readonly Float32Array[],
    mask: readonly Uint8Array[] | undefined,
    stream: number,
    { horizon, samples, seed }: ModelRequest,
  ): ModelSeriesAnswer {
    const last = values.map((row, variate) => row.findLast((_, step) => (mask?.[variate]?.[step] ?? 1) === 1) ?? Number.NaN);
    const knots = this.#options.knots;
    const paths = last.map((level, variate) => {
      const drawn = new Float32Array(samples * horizon);
      for (let path = 0; path < samples; path += 1) {
        let at = level;
        for (let step = 0; step < horizon; step += 1) {
          at += uniform(seed, stream, path, variate * 65536 + step) - 0.5;
          drawn[path * horizon + step] = at;
        }
      }
      return drawn;
    });
    return {
      mean: last.map((level) => new Float32Array(horizon).fill(level)),
      ...(samples > 0 && knots === undefined ? { paths } : {}),
      ...(knots === undefined
        ? {}
        : {
            quantiles: {
              levels: knots,
              values: last.map((level) =>
                Float32Array.from({ length: knots.length * horizon }, (_, index) => level + 10 * (knots[Math.floor(index / horizon)] ?? 0)),
              ),
            },
          }),
    };
  }

  report(): ModelReport {
    return {
      device: "fake",
      mode: "reduce-overhead",
      kvCache: "static",
      weights: "f32",
      threads: 1,
      compiles: this.requests.length > 0 ? 2 : 0,
      recompiles: 0,
      graphBreaks: 0,
      fallbacks: 0,
      capturedSteps: this.#steps,
      steps: this.#steps,
      foreignCallsPerStep: 1,
      waits: this.requests.length,
      milliseconds: { compile: 1.5 },
      peakBytes: 4096,
      meanKind: "last value",
    };
  }

  dispose(): void {
    this.disposed += 1;
  }
}

/** A hash of four integers to [0, 1): good enough for a fake, and the same wherever the series stands. */
function uniform(...words: number[]): number {
  let hash = 2166136261;
  for (const word of words) {
    hash = Math.imul(hash ^ word, 16777619);
    hash = Math.imul(hash ^ (hash >>> 15), 2246822519);
  }
  return ((hash ^ (hash >>> 13)) >>> 0) / 2 ** 32;
}
