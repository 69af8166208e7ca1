/**
 * Decoding with Toto 1.0 (model-spec A.8): prefill once per series, then one compiled step per patch for all rows; or, without cache, the whole grown context
 * every step, which gives other numbers (quirk 2) and is offered because the published GluonTS predictor does it.
 */
import { compile, Tensor, type Compiled, type KeyValueTensors } from "../../tensor/index.js";
import { size, State, type CheckSetting, type Mode, type Stance } from "../../trace/entry.js";
import { cacheStrategies, type CacheShape, type CacheStore, type LayerContents, type PrefixStore } from "../../nn/caches/index.js";
import { decayTable, rotaryTables } from "../../nn/rotary.js";
import { sizeVar } from "../../ir/dim.js";
import { momentColumns } from "../../ir/ops/routines.js";
import { keyLanes } from "../../ir/ops/state.js";
import type { Device } from "../../runtime/device.js";
import type { KvCacheStrategy } from "../options.js";
import type { Toto1Config } from "./config.js";
import { Toto1Network, type Toto1Answer, type Toto1Inputs, type Toto1Rotary, type Toto1Variant } from "./forward.js";
import { decodeVectors, PrefillLayout, type Entry, type LayoutOptions } from "./layout.js";
import type { Toto1Weights } from "./weights.js";

export interface Toto1DecoderOptions {
  readonly device: Device;
  readonly mode: Mode;
  /** A stance for its programs alone, asked for at each call; undefined = the process-wide one. */
  readonly stance?: () => Stance | undefined;
  /** How keys and values are kept; "none" recomputes the whole grown context every step. */
  readonly kvCache: KvCacheStrategy;
  /** Sample paths read their series' prefix; off, each path gets a copy (the same bits). */
  readonly sharePrefix: boolean;
  /** Keep every tapped value of each step. */
  readonly taps: boolean;
  readonly check?: CheckSetting | undefined;
}

/** One chunk of work: entries with equal V, and what their rows draw or know. */
export interface DecodeRequest {
  readonly entries: readonly Entry[];
  readonly variates: number;
  readonly exogenous: number;
  readonly steps: number;
  readonly sampled: boolean;
  /** [rows, 3]: series stream, path, variate of each row. */
  readonly keys: Int32Array;
  readonly seed: number;
  /** Known values of all rows for a step, [rows, P], and which rows they replace; needed when exogenous > 0. */
  readonly future?: (step: number) => { values: Float32Array; known: Int32Array };
  /** Given draws of a step instead of random ones, each [rows, P]. */
  readonly injected?: (step: number) => { component: Int32Array; normal: Float32Array; chiSquare: Float32Array };
  readonly signal?: AbortSignal | undefined;
  readonly onStep?: (step: number, taps: ReadonlyMap<string, Tensor>) => void;
  /** Answer every patch of the context instead of the last one; for goldens of the forward pass. */
  readonly everyPatch?: boolean;
}

type Step = Compiled<[Toto1Inputs], Toto1Answer>;

interface Programs {
  readonly prefill: Step;
  readonly decode: Step;
  /** Both were compiled, or that was tried, ahead of the first decode. */
  prepared: boolean;
}

interface Rotary {
  readonly tables: Toto1Rotary;
  readonly positions: number;
  /** Row of the multiplier table that holds exponent 0. */
  readonly reach: number;
}

interface Moments {
  readonly prefix: State;
  readonly path: State;
  readonly sequences: number;
  readonly rows: number;
}

/** Most patches of context plus horizon that never recompile, beyond the model's own context. */
const horizonPatches = 1024;
/** Most tokens of a call that compiled code is made for. */
const mostTokens = 1 << 22;

export class Toto1Decoder {
  readonly #programs = new Map<string, Programs>();
  readonly #shape: CacheShape;
  readonly #prefix: PrefixStore;
  /** Undefined without cache. */
  readonly #own: CacheStore | undefined;
  #rotary: Rotary | undefined;
  #moments: Moments | undefined;
  #boundPatches: number;

  constructor(
    private readonly config: Toto1Config,
    private readonly weights: Toto1Weights,
    private readonly options: Toto1DecoderOptions,
  ) {
    const headWidth = config.width / config.heads;
    this.#shape = {
      layers: config.kinds.filter((kind) => kind === "time").length,
      heads: config.heads,
      keyWidth: headWidth,
      valueWidth: headWidth,
    };
    this.#boundPatches = Math.ceil(maximumContext / config.patch);
    const strategy = options.kvCache === "none" ? undefined : cacheStrategies[options.kvCache];
    this.#prefix = (strategy ?? cacheStrategies.static).createPrefix(options.device, "prefix", this.#shape);
    this.#own = strategy?.create(options.device, "path", this.#shape);
  }

  get compiled(): readonly Step[] {
    return [...this.#programs.values()].flatMap(({ prefill, decode }) => [prefill, decode]);
  }

  /** Bytes of cache one answer row needs for this many steps. */
  bytesPerRow(contextTokens: number, steps: number): number {
    if (!this.#own) return this.#prefix.bytesPerRow(contextTokens + steps);
    return this.#own.bytesPerRow(this.options.sharePrefix ? steps + 15 : contextTokens + steps);
  }

  /** Predicted patches of every row, [steps][rows * P] in real units, sanitised. */
  async decode(request: DecodeRequest): Promise<Float32Array[]> {
    const answers = await (this.#own ? this.#decodeCached(request, this.#own) : this.#decodeUncached(request));
    this.#boundPatches = this.#contextBound(request);
    return answers;
  }

  /** Counts of the paths' cache, for tests and inspection. */
  get cacheCounters(): { readonly bytes: number; readonly prefixBytes: number; readonly copiedBytes: number } {
    return { bytes: this.#own?.bytes ?? 0, prefixBytes: this.#prefix.bytes, copiedBytes: this.#own?.copiedBytes ?? 0 };
  }

  /** What the paths' cache holds, layer by layer: the first slots[r] slots of every row r. */
  cacheContents(slots: Int32Array): readonly LayerContents[] {
    const own = this.#own;
    return own ? Array.from({ length: this.#shape.layers }, (_, layer) => own.contents(layer, slots)) : [];
  }

  async #decodeCached(request: DecodeRequest, own: CacheStore): Promise<Float32Array[]> {
    const layout = this.#layout(request, request.entries);
    const programs = this.#programsFor(request);
    const { sharePrefix } = this.options;
    this.#reserve(layout);
    const inputs = this.#prefillInputs(layout, request, 0, true);
    const context = layout.source.map((sequence) => layout.tokensOf(sequence));
    if (request.steps > 1) {
      own.begin(context.map((tokens) => (sharePrefix ? tokens % keyLanes : tokens) + request.steps - 1));
      if (!programs.prepared && this.#compilesTogether(own)) await this.#prepare(programs, inputs, layout, request, own);
    }
    const { patch } = await this.#run(programs.prefill, inputs, request, 0);
    const answers = [patch];
    if (request.steps === 1) return answers;
    if (!sharePrefix) own.fill(this.#prefix, layout.source, context);
    for (let step = 1; step < request.steps; step++) {
      const inputs = this.#decodeInputs(layout, request, step, answers[step - 1] as Float32Array, own);
      const answer = await this.#run(programs.decode, inputs, request, step);
      own.accept(answer.kept);
      answers.push(answer.patch);
    }
    return answers;
  }

  /** A cache that takes whole prefixes over has its first step's arguments only after that; one that breaks graphs has no program; a search wants the machine to itself. */
  #compilesTogether(own: CacheStore): boolean {
    return this.options.sharePrefix && own.wholeGraph && this.options.mode !== "max-autotune";
  }

  /** Compiles both programs at once: the C compiler works on one while the other is traced. What cannot be compiled says so when it is run. */
  async #prepare(programs: Programs, inputs: Toto1Inputs, layout: PrefillLayout, request: DecodeRequest, own: CacheStore): Promise<void> {
    programs.prepared = true;
    const prefill = programs.prefill.prepare(inputs);
    const previous = new Float32Array(layout.rows * this.config.patch);
    const decode = programs.decode.prepare(this.#decodeInputs(layout, request, 1, previous, own));
    await Promise.allSettled([prefill, decode]);
  }

  /** Every path is its own sequence, grown by one patch per step and recomputed from the start. */
  async #decodeUncached(request: DecodeRequest): Promise<Float32Array[]> {
    const { variates } = request;
    const { patch: samples } = this.config;
    const { prefill } = this.#programsFor(request);
    let entries: readonly Entry[] = request.entries.flatMap((entry) => Array.from({ length: entry.paths }, () => ({ ...entry, paths: 1 })));
    const answers: Float32Array[] = [];
    for (let step = 0; step < request.steps; step++) {
      const layout = this.#layout(request, entries);
      this.#reserve(layout);
      const { patch: answer } = await this.#run(prefill, this.#prefillInputs(layout, request, step, false), request, step);
      answers.push(answer);
      entries = entries.map((entry, index) => ({
        ...entry,
        patches: entry.patches + 1,
        values: entry.values.map((values, v) =>
          joined(values, answer.subarray((index * variates + v) * samples, (index * variates + v + 1) * samples)),
        ),
        mask: entry.mask.map((mask) => joined(mask, new Uint8Array(samples).fill(1))),
      }));
    }
    return answers;
  }

  async #run(
    program: Step,
    inputs: Toto1Inputs,
    request: DecodeRequest,
    step: number,
  ): Promise<{ patch: Float32Array; kept: readonly KeyValueTensors[] }> {
    const { patch, kept } = await program.run([inputs], request.signal);
    request.onStep?.(step, program.taps());
    return { patch: patch.data() as Float32Array, kept };
  }

  #layoutOptions(request: DecodeRequest): LayoutOptions {
    const reach = this.#rotary?.reach ?? 0;
    return {
      patch: this.config.patch,
      variates: request.variates,
      labels: this.weights.labels !== undefined,
      exogenous: request.exogenous,
      reach,
      everyPatch: request.everyPatch ?? false,
    };
  }

  #layout(request: DecodeRequest, entries: readonly Entry[]): PrefillLayout {
    const longest = Math.max(...request.entries.map(({ patches }) => patches)) + request.steps + 1;
    this.#reservePositions(longest);
    return new PrefillLayout(entries, this.#layoutOptions(request));
  }

  /** Tables for the model's own context and any horizon in bounds; a longer context makes larger ones. */
  #reservePositions(needed: number): void {
    if (this.#rotary && this.#rotary.positions >= needed) return;
    const { device } = this.options;
    const headWidth = this.config.width / this.config.heads;
    let positions = Math.ceil(maximumContext / this.config.patch) + horizonPatches + 2;
    while (positions < needed) positions *= 2;
    const reach = Math.ceil(positions / 2) + 1;
    this.#disposeRotary();
    // Quirk 1 of model-spec A.6.1: bases are concatenated over the head's halves although the rotation's pairs are interleaved.
    const base = (dim: number): number => (2 * (dim % (headWidth / 2)) + 0.4 * headWidth) / (1.4 * headWidth);
    const tables = rotaryTables(device, "rotary", { positions, bound: mostTokens, headWidth, width: headWidth, pairing: "interleaved" });
    this.#rotary = {
      tables: { ...tables, multiplier: decayTable(device, "rotary.decay", reach, headWidth, headWidth, 512, base, mostTokens) },
      positions,
      reach,
    };
  }

  /** The declared bound of a context, in patches: the model's own, doubled for a longer one, which is one counted recompile of the prefill. */
  #contextBound(request: DecodeRequest): number {
    const longest = Math.max(...request.entries.map(({ contextPatches }) => contextPatches));
    let bound = this.#boundPatches;
    while (bound < longest) bound *= 2;
    return bound;
  }

  #reserve(layout: PrefillLayout): void {
    this.#prefix.begin(Int32Array.from({ length: layout.sequences }, (_, sequence) => layout.tokensOf(sequence)));
    const known = this.#moments;
    if (known && known.sequences >= layout.sequences && known.rows >= layout.rows) return;
    known?.prefix.dispose();
    known?.path.dispose();
    const [sequences, rows] = [Math.ceil(layout.sequences / 64) * 64, Math.ceil(layout.rows / 64) * 64];
    const moments = (name: string, count: number): State =>
      new State(this.options.device, name, [sizeVar(`${name}Rows`, 1, 1 << 20), momentColumns], "f64", {
        sizes: { [`${name}Rows`]: count },
      });
    this.#moments = { prefix: moments("moments", sequences), path: moments("pathMoments", rows), sequences, rows };
  }

  #prefillInputs(layout: PrefillLayout, request: DecodeRequest, step: number, continued: boolean): Toto1Inputs {
    const { prefix: moments, path: pathMoments } = this.#moments as Moments;
    const time = layout.timeVectors();
    return {
      cache: this.#prefix.arguments(time),
      contextBound: `at most ${this.#contextBound(request)} patches`,
      ...layout.samples(),
      sequences: layout.sequenceVectors(),
      time,
      space: layout.spaceVectors(),
      ...layout.lastVectors(),
      ...(this.weights.labels ? { tokenSource: layout.tokenSource() } : {}),
      ...(request.everyPatch ? {} : { source: Tensor.from(layout.source, [size("rows", layout.rows)]) }),
      ...this.#stepInputs(layout, request, step),
      rotary: (this.#rotary as Rotary).tables,
      moments,
      ...(continued && !request.everyPatch ? { pathMoments } : {}),
    };
  }

  #decodeInputs(layout: PrefillLayout, request: DecodeRequest, step: number, previous: Float32Array, own: CacheStore): Toto1Inputs {
    const { sharePrefix } = this.options;
    const rows = size("rows", layout.rows);
    const vectors = decodeVectors(layout, this.#layoutOptions(request), step - 1, sharePrefix);
    const identity = Tensor.from(
      Int32Array.from({ length: layout.rows }, (_, row) => row),
      [rows],
    );
    const ones = Tensor.from(new Int32Array(layout.rows).fill(1), [rows]);
    return {
      cache: own.arguments(vectors.time),
      values: Tensor.from(previous, [rows, this.config.patch]),
      mask: Tensor.from(new Int32Array(previous.length).fill(1), [rows, this.config.patch]),
      sequences: { first: identity, count: ones, prefix: ones, row: identity },
      time: vectors.time,
      space: vectors.space,
      ...(request.sampled ? { source: identity } : {}),
      ...this.#stepInputs(layout, request, step),
      ...(sharePrefix ? { prefix: { cache: this.#prefix.reading(), ...vectors.prefix } } : {}),
      rotary: (this.#rotary as Rotary).tables,
      moments: (this.#moments as Moments).path,
    };
  }

  /** Draws and known futures of a step. */
  #stepInputs(layout: PrefillLayout, request: DecodeRequest, step: number): Pick<Toto1Inputs, "draws" | "future"> {
    const { patch } = this.config;
    const rows = size("rows", layout.rows);
    const future = request.future?.(step);
    const given = request.injected?.(step);
    const seed = Int32Array.of(request.seed | 0, Math.floor(request.seed / 2 ** 32) | 0);
    return {
      ...(request.sampled
        ? {
            draws: {
              keys: Tensor.from(request.keys, [rows, 3]),
              start: Tensor.from(new Int32Array(layout.rows).fill(step * patch), [rows]),
              seed: Tensor.from(seed, [2]),
              ...(given
                ? {
                    injected: {
                      component: Tensor.from(given.component, [rows, patch]),
                      normal: Tensor.from(given.normal, [rows, patch]),
                      chiSquare: Tensor.from(given.chiSquare, [rows, patch]),
                    },
                  }
                : {}),
            },
          }
        : {}),
      ...(future ? { future: { values: Tensor.from(future.values, [rows, patch]), known: Tensor.from(future.known, [rows, 1]) } } : {}),
    };
  }

  #programsFor(request: DecodeRequest): Programs {
    const variant: Toto1Variant = { variates: request.variates, sampled: request.sampled, exogenous: request.future !== undefined };
    const key = JSON.stringify([variant, request.injected !== undefined, request.everyPatch ?? false]);
    let programs = this.#programs.get(key);
    if (!programs) {
      const network = new Toto1Network(this.config, this.weights, variant);
      const { device, mode, taps, stance, check } = this.options;
      const dynamic = {
        patches: [1, mostTokens],
        tokens: [1, mostTokens],
        sequences: [1, 1 << 16],
        rows: [1, 1 << 16],
        wanted: [1, mostTokens],
        ...this.#prefix.sizes,
        ...this.#own?.sizes,
      } as const;
      const own = this.#own ?? this.#prefix;
      const make = (name: string, store: CacheStore, body: (inputs: Toto1Inputs) => Toto1Answer): Step =>
        compile(body, {
          device,
          mode,
          taps,
          check,
          ...(stance ? { stance } : {}),
          name: `toto1.${name}`,
          dynamic,
          fullGraph: store.wholeGraph,
        });
      programs = {
        prefill: make("prefill", this.#prefix, (inputs) => network.prefill(inputs, this.#prefix)),
        decode: make("decode", own, (inputs) => network.decode(inputs, own)),
        prepared: false,
      };
      this.#programs.set(key, programs);
    }
    return programs;
  }

  #disposeRotary(): void {
    const tables = this.#rotary?.tables;
    tables?.cosine.dispose();
    tables?.sine.dispose();
    tables?.multiplier?.dispose();
    this.#rotary = undefined;
  }

  dispose(): void {
    for (const program of this.compiled) program.dispose();
    this.#prefix.dispose();
    this.#own?.dispose();
    this.#moments?.prefix.dispose();
    this.#moments?.path.dispose();
    this.#disposeRotary();
  }
}

/** Context in samples that the published model was trained with; longer ones run (model-spec A.1). */
export const maximumContext = 4096;
export const maximumHorizonPatches = horizonPatches;

function joined<T extends Float32Array | Uint8Array>(before: T, after: T): T {
  const result = (
    before instanceof Float32Array ? new Float32Array(before.length + after.length) : new Uint8Array(before.length + after.length)
  ) as T;
  result.set(before);
  result.set(after, before.length);
  return result;
}
