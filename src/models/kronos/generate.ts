/**
 * Generating candles with Kronos (model-spec C.6): encode once, prefill once per series, one compiled step per candle for all paths while the window holds all
 * tokens, the whole window again for every candle once it slides, and one decode of the last window. Answers are tokens and normalised candles.
 */
import { compile, Tensor, type Compiled, type RotaryTables } from "../../tensor/index.js";
import { size, type CheckSetting, type Mode, type Stance } from "../../trace/entry.js";
import { KeyValueCache } from "../../nn/key-value-cache.js";
import type { Device } from "../../runtime/device.js";
import type { KronosCodec, TokenArrays } from "./codec.js";
import { dependencyHeads, type KronosModelConfig } from "./config.js";
import { KronosNetwork, type CandleDraws, type KronosCaches, type PrefillInputs, type StepInputs, type TokenStream } from "./forward.js";
import { cacheShape, columnOf, ints, joined, ownBase, placesOf, rotaryPositions, stackRotary, type Segment } from "./layout.js";
import type { Tokens } from "./tokenizer.js";
import { stampFields, type KronosModelWeights } from "./weights.js";

export interface KronosGeneratorOptions {
  readonly device: Device;
  readonly mode: Mode;
  /** A stance for its programs alone, asked for at each call; undefined = the process-wide one. */
  readonly stance?: () => Stance | undefined;
  /** Keep keys and values between steps; off, every candle recomputes its window. The same bits. */
  readonly cached: boolean;
  /** Paths read their series' prefix; off, every path computes its own. The same bits. */
  readonly sharePrefix: boolean;
  readonly taps: boolean;
  readonly check?: CheckSetting | undefined;
}

/** One series ready for the tokenizer. */
export interface KronosEntry {
  /** f32 [length * 6] normalised, clipped. */
  readonly candles: Float32Array;
  /** i32 [length * 5] and [steps * 5]: minute, hour, weekday, day, month. */
  readonly stamps: Int32Array;
  readonly futureStamps: Int32Array;
  readonly paths: number;
}

export interface GenerateRequest {
  readonly entries: readonly KronosEntry[];
  /** Candles to generate, at most `window`. */
  readonly steps: number;
  /** Tokens the model sees at once, W. */
  readonly window: number;
  /** i32 [rows, 2]: series stream and path of every row. */
  readonly keys: Int32Array;
  readonly seed: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  /** Tokens of a step, [rows] each, instead of draws. */
  readonly forced?: (step: number) => { coarse: Int32Array; fine: Int32Array };
  readonly signal?: AbortSignal | undefined;
  /** Called after each candle; `rows` are the answer rows that the taps of this call are about. */
  readonly onStep?: (step: number, taps: ReadonlyMap<string, Tensor>, rows: readonly number[]) => void;
}

export interface GeneratedCandles {
  /** Per entry: tokens of its context, [length] each. */
  readonly context: readonly TokenArrays[];
  /** Per row: generated tokens, [steps] each. */
  readonly tokens: readonly TokenArrays[];
  /** f32 [rows * steps * 6] normalised. */
  readonly values: Float32Array;
}

type Program<Inputs, Result> = Compiled<[Inputs], Result>;
type Candle = { coarse: Tensor; fine: Tensor };

/** Cache memory of one recompute of sliding windows; more rows than fit go in several calls, with the same bits. */
const windowBytes = 2 ** 29;
const most = { tokens: 1 << 22, rows: 1 << 16 };

export class KronosGenerator {
  readonly #programs = new Map<string, Program<never, Candle>>();
  readonly #network: KronosNetwork;
  readonly #caches: Readonly<Record<"prefix" | "path" | "window", { blocks: KeyValueCache; dependency: KeyValueCache }>>;
  #rotary: { readonly tables: RotaryTables; readonly positions: number } | undefined;

  constructor(
    private readonly config: KronosModelConfig,
    private readonly weights: KronosModelWeights,
    /** Belongs to the caller. */
    private readonly codec: KronosCodec,
    private readonly options: KronosGeneratorOptions,
  ) {
    const { device } = options;
    this.#network = new KronosNetwork(config, weights);
    // Prefix and window caches have one name: a window is a prefill into another cache, so both run the same program.
    const pair = (name: string): { blocks: KeyValueCache; dependency: KeyValueCache } => ({
      blocks: new KeyValueCache(device, name, cacheShape(config, config.layers)),
      dependency: new KeyValueCache(device, `${name}Dependency`, cacheShape({ ...config, heads: dependencyHeads }, 1)),
    });
    this.#caches = { prefix: pair("prefix"), path: pair("path"), window: pair("prefix") };
  }

  /** Every program there is, the codec's not among them. */
  get programs(): readonly Pick<Compiled<never[], unknown>, "report" | "dispose" | "profileLast">[] {
    return [...this.#programs.values()];
  }

  /** Bytes of cache that one path needs besides its series' prefix. */
  bytesPerRow(contextLength: number, steps: number, window: number): number {
    const own = this.options.sharePrefix ? steps + 15 : contextLength + steps;
    const model = this.options.cached && contextLength + 1 <= window ? this.#bytes("path", own) : 0;
    return model + this.codec.bytesPerRow(own);
  }

  /** Bytes of cache that one series needs for its prefix; a path each when prefixes are not shared. */
  bytesPerSeries(contextLength: number, window: number): number {
    return this.#bytes("prefix", Math.min(contextLength, window)) + this.codec.bytesPerRow(contextLength);
  }

  /** Cache bytes of one path of `pair` with room for `slots` keys. */
  #bytes(pair: "prefix" | "path" | "window", slots: number): number {
    const { blocks, dependency } = this.#caches[pair];
    return blocks.bytesPerRow(slots) + dependency.bytesPerRow(slots);
  }

  #compile<Inputs, Result>(name: string, body: (inputs: Inputs) => Result): Program<Inputs, Result> {
    const { device, mode, taps, stance, check } = this.options;
    const dynamic = {
      tokens: [1, most.tokens],
      sequences: [1, most.rows],
      rows: [1, most.rows],
    } as const;
    return compile(body, { device, mode, taps, check, ...(stance ? { stance } : {}), name: `kronos.${name}`, dynamic, fullGraph: true });
  }

  #program<Inputs>(name: "prefill" | "step", forced: boolean, body: (inputs: Inputs) => Tokens): Program<Inputs, Candle> {
    const key = forced ? `${name}.forced` : name;
    let program = this.#programs.get(key) as Program<Inputs, Candle> | undefined;
    if (!program) {
      program = this.#compile(key, (inputs: Inputs) => ({ ...body(inputs) }));
      this.#programs.set(key, program as unknown as Program<never, Candle>);
    }
    return program;
  }

  async generate(request: GenerateRequest): Promise<GeneratedCandles> {
    const { steps, window, signal } = request;
    const context = await this.codec.encode(request.entries, signal);
    const run = new Run(request, context, this.options.sharePrefix);
    this.#rotaryFor(window);
    this.#reserve(run);
    for (let step = 0; step < steps; step++) {
      const incremental: number[] = [];
      const sliding: number[] = [];
      run.rows.forEach(({ length }, row) => (this.options.cached && length + step <= window ? incremental : sliding).push(row));
      if (step === 0) await this.#prefill(run);
      else {
        if (incremental.length > 0) await this.#step(run, step, incremental);
        if (sliding.length > 0) await this.#windows(run, step, sliding);
      }
    }
    // Decoding sees the last `window` tokens of context and answer together, from position 0 on.
    const offset = (length: number): number => Math.max(0, length + steps - window);
    const contexts = run.sequences.map(({ context: { coarse, fine } }) => ({
      coarse: coarse.subarray(offset(coarse.length)),
      fine: fine.subarray(offset(fine.length)),
    }));
    const values = await this.codec.decode(
      contexts,
      run.rows.map(({ sequence, coarse, fine }) => ({ source: sequence, coarse, fine })),
      signal,
    );
    return { context, tokens: run.rows.map(({ coarse, fine }) => ({ coarse, fine })), values };
  }

  #reserve(run: Run): void {
    const { steps, window } = run.request;
    const lengths = run.sequences.map(({ context }) => Math.min(context.coarse.length, window));
    const { prefix, path } = this.#caches;
    prefix.blocks.ensure(run.sequences.length, Math.max(...lengths));
    prefix.dependency.ensure(run.sequences.length, Math.max(...lengths));
    // Never empty: the step program has these caches among its arguments even when every window slides.
    path.blocks.ensure(run.rows.length, steps + 15);
    path.dependency.ensure(run.rows.length, steps + 15);
  }

  #cachesOf(name: "prefix" | "path" | "window"): KronosCaches {
    const { blocks, dependency } = this.#caches[name];
    return { blocks: blocks.layers, dependency: dependency.layers[0] as KronosCaches["dependency"] };
  }

  /** The first candle: every series once, for all its paths. */
  async #prefill(run: Run): Promise<void> {
    const { window } = run.request;
    const sequences = run.sequences.map(({ context, entry }) => {
      const from = Math.max(0, context.coarse.length - window);
      return {
        coarse: context.coarse.subarray(from),
        fine: context.fine.subarray(from),
        stamps: entry.stamps.subarray(from * stampFields.length),
      };
    });
    const rows = run.rows.map((_, row) => row);
    await this.#whole(
      run,
      0,
      rows,
      sequences,
      Int32Array.from(run.rows, ({ sequence }) => sequence),
      "prefix",
    );
  }

  /** Later candles whose window has slid: every path's whole window, as many paths at once as memory allows. */
  async #windows(run: Run, step: number, rows: readonly number[]): Promise<void> {
    const { window } = run.request;
    const longest = Math.max(...rows.map((row) => Math.min(window, (run.rows[row] as Row).length + step)));
    const perCall = Math.max(1, Math.floor(windowBytes / this.#bytes("window", longest)));
    for (let from = 0; from < rows.length; from += perCall) {
      const part = rows.slice(from, from + perCall);
      const { blocks, dependency } = this.#caches.window;
      blocks.ensure(Math.min(perCall, rows.length), longest);
      dependency.ensure(Math.min(perCall, rows.length), longest);
      const sequences = part.map((row) => run.windowOf(row, step));
      await this.#whole(run, step, part, sequences, Int32Array.from(part.keys()), "window");
    }
  }

  async #whole(
    run: Run,
    step: number,
    rows: readonly number[],
    sequences: readonly (TokenArrays & { readonly stamps: Int32Array })[],
    source: Int32Array,
    caches: "prefix" | "window",
  ): Promise<void> {
    const lengths = sequences.map(({ coarse }) => coarse.length);
    const program = this.#program("prefill", run.request.forced !== undefined, (inputs: PrefillInputs) => this.#network.prefill(inputs));
    let end = 0;
    const last = lengths.map((length) => (end += length) - 1);
    const stamps = joined(sequences.map((sequence) => sequence.stamps));
    const inputs: PrefillInputs = {
      stream: streamOf(joined(sequences.map(({ coarse }) => coarse)), joined(sequences.map(({ fine }) => fine)), stamps, "tokens"),
      places: placesOf(
        lengths.map((count, row) => ({ row, position: 0, count })),
        "tokens",
      ),
      last: ints(last, "sequences"),
      source: ints(source, "rows"),
      length: ints(
        Int32Array.from(source, (sequence) => lengths[sequence] as number),
        "rows",
      ),
      ...run.draws(step, rows),
      caches: this.#cachesOf(caches),
      rotary: this.#rotaryFor(run.request.window),
    };
    run.accept(step, rows, await program.run([inputs], run.request.signal), program.taps());
  }

  /** The next candle of paths whose window still holds all tokens: one token each. */
  async #step(run: Run, step: number, rows: readonly number[]): Promise<void> {
    const program = this.#program("step", run.request.forced !== undefined, (inputs: StepInputs) => this.#network.step(inputs));
    const members = rows.map((row) => run.rows[row] as Row);
    const stamps = joined(members.map(({ entry }) => stampOf(entry.futureStamps, step - 1)));
    const inputs: StepInputs = {
      stream: streamOf(
        Int32Array.from(members, ({ coarse }) => coarse[step - 1] as number),
        Int32Array.from(members, ({ fine }) => fine[step - 1] as number),
        stamps,
        "rows",
      ),
      places: placesOf(
        members.map(({ length }, index): Segment => ({
          row: rows[index] as number,
          position: length + step - 1,
          count: 1,
          base: ownBase(length),
        })),
        "rows",
      ),
      caches: this.#cachesOf("path"),
      prefix: {
        caches: this.#cachesOf("prefix"),
        row: ints(
          members.map(({ sequence }) => sequence),
          "rows",
        ),
        length: ints(
          members.map(({ length }) => length),
          "rows",
        ),
      },
      ...run.draws(step, rows),
      rotary: this.#rotaryFor(run.request.window),
    };
    run.accept(step, rows, await program.run([inputs], run.request.signal), program.taps());
  }

  /** Tables for windows of usual length; a longer one makes larger tables, which is one recompile. */
  #rotaryFor(needed: number): RotaryTables {
    if (this.#rotary && this.#rotary.positions >= needed) return this.#rotary.tables;
    const positions = rotaryPositions(Math.max(needed, this.config.maximumContext));
    this.#disposeRotary();
    this.#rotary = { tables: stackRotary(this.options.device, "rotary", this.config, this.weights.frequencies, positions), positions };
    return this.#rotary.tables;
  }

  #disposeRotary(): void {
    this.#rotary?.tables.cosine.dispose();
    this.#rotary?.tables.sine.dispose();
    this.#rotary = undefined;
  }

  /** Frees caches and programs; the weights belong to the caller. */
  dispose(): void {
    for (const program of this.programs) program.dispose();
    for (const { blocks, dependency } of Object.values(this.#caches)) {
      blocks.dispose();
      dependency.dispose();
    }
    this.#disposeRotary();
  }
}

const stampOf = (stamps: Int32Array, step: number): Int32Array =>
  stamps.subarray(step * stampFields.length, (step + 1) * stampFields.length);

function streamOf(coarse: Int32Array, fine: Int32Array, stamps: Int32Array, axis: string): TokenStream {
  return {
    coarse: ints(coarse, axis),
    fine: ints(fine, axis),
    stamps: stampFields.map((_, column) => ints(columnOf(stamps, stampFields.length, column), axis)),
  };
}

/** What is prefilled once. */
interface Sequence {
  readonly entry: KronosEntry;
  readonly context: TokenArrays;
}

/** A sample path. */
interface Row extends TokenArrays {
  readonly entry: KronosEntry;
  /** Sequence whose prefix it continues, and that prefix's tokens. */
  readonly sequence: number;
  readonly length: number;
}

/** One generate call: its sequences, its paths and the tokens they have so far. */
class Run {
  /** What is prefilled: one per entry, or one per path when prefixes are not shared. */
  readonly sequences: readonly Sequence[];
  readonly rows: readonly Row[];

  constructor(
    readonly request: GenerateRequest,
    context: readonly TokenArrays[],
    shared: boolean,
  ) {
    const { entries, steps } = request;
    this.sequences = entries.flatMap((entry, index) =>
      Array.from({ length: shared ? 1 : entry.paths }, () => ({ entry, context: context[index] as TokenArrays })),
    );
    let sequence = 0;
    const rows: Row[] = [];
    entries.forEach((entry, index) => {
      for (let path = 0; path < entry.paths; path++) {
        const { length } = (context[index] as TokenArrays).coarse;
        rows.push({ entry, sequence, length, coarse: new Int32Array(steps), fine: new Int32Array(steps) });
        if (!shared || path === entry.paths - 1) sequence++;
      }
    });
    this.rows = rows;
  }

  /** The last `window` tokens of a path before `step`, with their stamps. */
  windowOf(row: number, step: number): TokenArrays & { stamps: Int32Array } {
    const { sequence, coarse, fine, entry, length } = this.rows[row] as Row;
    const { context } = this.sequences[sequence] as Sequence;
    const from = Math.max(0, length + step - this.request.window);
    const cut = (before: Int32Array, after: Int32Array, width: number): Int32Array => {
      const skipped = Math.max(0, from - length);
      return joined([before.subarray(Math.min(from, length) * width), after.subarray(skipped * width, step * width)]);
    };
    return {
      coarse: cut(context.coarse, coarse, 1),
      fine: cut(context.fine, fine, 1),
      stamps: cut(entry.stamps, entry.futureStamps, stampFields.length),
    };
  }

  draws(step: number, rows: readonly number[]): CandleDraws {
    const { keys, seed, temperature, topK, topP } = this.request;
    const own = new Int32Array(rows.length * 2);
    rows.forEach((row, index) => own.set(keys.subarray(2 * row, 2 * row + 2), 2 * index));
    const given = this.request.forced?.(step);
    const forced = given && {
      coarse: ints(
        rows.map((row) => given.coarse[row] as number),
        "rows",
      ),
      fine: ints(
        rows.map((row) => given.fine[row] as number),
        "rows",
      ),
    };
    return {
      draws: {
        keys: Tensor.from(own, [size("rows", rows.length), 2]),
        step: ints(new Int32Array(rows.length).fill(step), "rows"),
        seed: Tensor.from(Int32Array.of(seed | 0, Math.floor(seed / 2 ** 32) | 0), [2]),
        settings: Tensor.from(Float32Array.of(temperature, topK, topP), [3]),
      },
      identity: ints(Int32Array.from(rows.keys()), "rows"),
      ...(forced ? { forced } : {}),
    };
  }

  accept(step: number, rows: readonly number[], candle: Candle, taps: ReadonlyMap<string, Tensor>): void {
    const [coarse, fine] = [candle.coarse.data(), candle.fine.data()];
    rows.forEach((row, index) => {
      const target = this.rows[row] as Row;
      target.coarse[step] = coarse[index] as number;
      target.fine[step] = fine[index] as number;
    });
    this.request.onStep?.(step, taps, rows);
  }
}
