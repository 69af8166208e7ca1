/**
 * A model opened with device "auto": when the native device cannot build a kernel after all, the model is loaded again on the reference device, said once and
 * counted. Must not know any family.
 */
import type { ModelInspection } from "./inspection.js";
import type { ForecastModel, ModelReport, ModelRequest, ModelSeriesAnswer } from "./model.js";

/** Codes of errors that mean "this machine cannot build", not "this request is wrong". */
const buildFailure = /^(compiler|cache|library)-/;

const cannotBuild = (error: unknown): boolean =>
  error instanceof Error && "code" in error && typeof error.code === "string" && buildFailure.test(error.code);

export class FallbackModel implements ForecastModel {
  #model: ForecastModel;
  #fallbacks = 0;

  constructor(
    preferred: ForecastModel,
    private readonly loadReference: () => ForecastModel,
    private readonly onNote: (note: string) => void,
  ) {
    this.#model = preferred;
  }

  get family(): string {
    return this.#model.family;
  }
  get name(): string {
    return this.#model.name;
  }
  get takes(): "candles" | undefined {
    return this.#model.takes;
  }
  get maximumContext(): number {
    return this.#model.maximumContext;
  }
  get maximumHorizon(): number {
    return this.#model.maximumHorizon;
  }
  get defaultSamples(): number {
    return this.#model.defaultSamples;
  }
  get trained(): boolean | undefined {
    return this.#model.trained;
  }
  get quantileLevels(): readonly number[] | undefined {
    return this.#model.quantileLevels;
  }

  async predict(request: ModelRequest): Promise<readonly ModelSeriesAnswer[]> {
    try {
      return await this.#model.predict(request);
    } catch (error) {
      if (this.#fallbacks > 0 || !cannotBuild(error)) throw error;
      this.#fallbacks++;
      this.onNote(
        `the native device cannot build its kernels (${(error as Error).message.split("\n").slice(0, 2).join(" ")}); using the reference device, which is much slower`,
      );
      this.#model.dispose();
      this.#model = this.loadReference();
      return this.#model.predict(request);
    }
  }

  report(): ModelReport {
    const report = this.#model.report();
    return { ...report, fallbacks: report.fallbacks + this.#fallbacks };
  }

  inspect(profile: boolean): ModelInspection | undefined {
    return this.#model.inspect?.(profile);
  }

  dispose(): void {
    this.#model.dispose();
  }
}
