/**
 * Generating candles with Kronos (model-spec C.6): encode once, prefill once per series, one compiled step per candle for all paths while the window holds all
 * tokens, the whole window again for every candle once it slides, and one decode of the last window. Answers are tokens and normalised candles.
 */
import { compile, type Compiled, type RotaryTables, type Tensor } from "../../tensor/index.js";
import type { CheckSetting, Mode, Stance } from "../../trace/entry.js";
import { KeyValueCache } from "../../nn/key-value-cache.js";
import type { Device } from "../../runtime/device.js";
import { PrefillArguments, StepArguments, windowArguments } from "./arguments.js";
import type { KronosCodec } from "./codec.js";
import { dependencyHeads, type KronosModelConfig } from "./config.js";
import { KronosNetwork, type KronosCaches, type PrefillInputs, type StepInputs, type WindowInputs } from "./forward.js";
import { cacheShape, rotaryPositions, stackRotary } from "./layout.js";
import { Run, type GenerateRequest, type GeneratedCandles, type Row } from "./request.js";
import type { Tokens } from "./tokenizer.js";
import type { KronosModelWeights } from "./weights.js";

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
  bytesPerRow(contextLength: number, steps: number): number {
    const own = this.options.sharePrefix ? steps + 15 : contextLength + steps;
    const model = this.options.cached ? this.#bytes("path", own) : 0;
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
      ownTokens: [1, most.tokens],
      sequences: [1, most.rows],
      rows: [1, most.rows],
    } as const;
    return compile(body, { device, mode, taps, check, ...(stance ? { stance } : {}), name: `kronos.${name}`, dynamic, fullGraph: true });
  }

  #program<Inputs>(name: "prefill" | "step" | "window", forced: boolean, body: (inputs: Inputs) => Tokens): Program<Inputs, Candle> {
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
    await this.#prefill(run);
    // Paths only ever go from the first of these to the second.
    let incremental: StepArguments | undefined;
    const sliding: PrefillArguments[] = [];
    for (let step = 1; step < steps;) {
      const fits = ({ length }: Row): boolean => this.options.cached && length + step <= window;
      const held = indicesOf(run.rows, fits);
      const slid = indicesOf(run.rows, (row) => !fits(row));
      // Steps follow each other without a look at their tokens until a window slides; then all rows go candle by candle.
      const longest = Math.max(...run.rows.map(({ length }) => length));
      const most = slid.length > 0 ? 1 : Math.min(steps, window - longest + 1) - step;
      if (held.length > 0) {
        if (incremental?.rows.length !== held.length) incremental = this.#stepArguments(run, held);
        await this.#steps(run, step, most, incremental);
      }
      if (slid.length > 0) await this.#windows(run, step, slid, sliding);
      step += most;
    }
    const values = await this.#decode(run);
    return { context, tokens: run.rows.map(({ coarse, fine }) => ({ coarse, fine })), values };
  }

  /** Decoding sees the last `window` tokens of context and answer together, from position 0 on. */
  #decode({ request: { steps, window, signal }, sequences, rows }: Run): Promise<Float32Array> {
    const offset = (length: number): number => Math.max(0, length + steps - window);
    const contexts = sequences.map(({ context: { coarse, fine } }) => ({
      coarse: coarse.subarray(offset(coarse.length)),
      fine: fine.subarray(offset(fine.length)),
    }));
    return this.codec.decode(
      contexts,
      rows.map(({ sequence, coarse, fine }) => ({ source: sequence, coarse, fine })),
      signal,
    );
  }

  #reserve(run: Run): void {
    const { steps, window } = run.request;
    const lengths = run.sequences.map(({ context }) => Math.min(context.coarse.length, window));
    this.#ensure("prefix", run.sequences.length, Math.max(...lengths));
    // Never empty: the step program has these caches among its arguments even when every window slides.
    this.#ensure("path", run.rows.length, steps + 15);
  }

  /** Room for `rows` rows of `slots` keys in the blocks and the dependency layer alike. */
  #ensure(pair: "prefix" | "path" | "window", rows: number, slots: number): void {
    const { blocks, dependency } = this.#caches[pair];
    blocks.ensure(rows, slots);
    dependency.ensure(rows, slots);
  }

  #cachesOf(name: "prefix" | "path" | "window"): KronosCaches {
    const { blocks, dependency } = this.#caches[name];
    return { blocks: blocks.layers, dependency: dependency.layers[0] as KronosCaches["dependency"] };
  }

  /** The first candle: every series once, for all its paths. */
  async #prefill(run: Run): Promise<void> {
    const { window } = run.request;
    const none = new Int32Array(0);
    const sequences = run.sequences.map((sequence) => ({
      sequence,
      own: { coarse: none, fine: none },
      end: sequence.context.coarse.length,
    }));
    const inputs = new PrefillArguments(
      run,
      [...run.rows.keys()],
      sequences.map(({ end }) => Math.min(window, end)),
      run.rows.map(({ sequence }) => sequence),
      { caches: this.#cachesOf("prefix"), rotary: this.#rotaryFor(window) },
    );
    await this.#whole(run, 0, inputs, sequences);
  }

  /**
   * Later candles whose window has slid: windows whole, as many paths at once as memory allows. `known` holds the arguments of each part of them, which serve again as
   * long as rows, lengths and caches stay what they were. What several paths of a series still see of its context is computed once for all of them.
   */
  async #windows(run: Run, step: number, rows: readonly number[], known: PrefillArguments[]): Promise<void> {
    const { window } = run.request;
    const lengthOf = (row: number): number => Math.min(window, (run.rows[row] as Row).length + step);
    const longest = Math.max(...rows.map(lengthOf));
    const perCall = Math.max(1, Math.floor(windowBytes / this.#bytes("window", longest)));
    const [shared, alone] = this.#sharesWindows ? bySharing(run, rows) : [[], rows];
    // Paths that share the rest of their windows have fewer tokens of their own.
    const sharedPerCall = perCall * Math.max(1, Math.floor(window / step));
    for (let from = 0; from < shared.length; from += sharedPerCall) {
      await this.#sharedWindows(run, step, shared.slice(from, from + sharedPerCall));
    }
    for (let from = 0, part = 0; from < alone.length; from += perCall, part++) {
      const members = alone.slice(from, from + perCall);
      this.#ensure("window", Math.min(perCall, alone.length), longest);
      const lengths = members.map(lengthOf);
      const before = known[part];
      const states = { caches: this.#cachesOf("window"), rotary: this.#rotaryFor(window) };
      const inputs =
        before?.states.caches.blocks === states.caches.blocks && same(before.rows, members) && same(before.lengths, lengths)
          ? before
          : new PrefillArguments(run, members, lengths, [...members.keys()], states);
      known[part] = inputs;
      const paths = members.map((index) => {
        const row = run.rows[index] as Row;
        return { sequence: run.sequenceOf(row), own: row, end: row.length + step };
      });
      await this.#whole(run, step, inputs, paths);
    }
  }

  /** Taps are about windows as the published code computes them, whole. */
  get #sharesWindows(): boolean {
    const { cached, sharePrefix, taps } = this.options;
    return cached && sharePrefix && !taps;
  }

  async #sharedWindows(run: Run, step: number, rows: readonly number[]): Promise<void> {
    const { window, forced, signal } = run.request;
    this.#ensure("window", new Set(rows.map((row) => run.rows[row]?.sequence)).size, window - step);
    // A path that slides no longer needs what it had cached for its steps.
    const states = { common: this.#cachesOf("window"), own: this.#cachesOf("path"), rotary: this.#rotaryFor(window) };
    const program = this.#program("window", forced !== undefined, (given: WindowInputs) => this.#network.window(given));
    run.accept(step, rows, await program.run([windowArguments(run, step, rows, states)], signal), program.taps());
  }

  async #whole(run: Run, step: number, inputs: PrefillArguments, sequences: Parameters<PrefillArguments["at"]>[1]): Promise<void> {
    const program = this.#program("prefill", run.request.forced !== undefined, (given: PrefillInputs) => this.#network.prefill(given));
    run.accept(step, inputs.rows, await program.run([inputs.at(step, sequences)], run.request.signal), program.taps());
  }

  #stepArguments(run: Run, rows: readonly number[]): StepArguments {
    const [own, prefix] = [this.#cachesOf("path"), this.#cachesOf("prefix")];
    return new StepArguments(run, rows, { own, prefix, rotary: this.#rotaryFor(run.request.window) });
  }

  /** The next `most` candles of paths whose window still holds all tokens: one token each. */
  async #steps(run: Run, first: number, most: number, inputs: StepArguments): Promise<void> {
    const program = this.#program("step", run.request.forced !== undefined, (given: StepInputs) => this.#network.step(given));
    const argumentsOf = (index: number): [StepInputs] => [inputs.at(first + index)];
    const { signal } = run.request;
    let accepted = 0;
    const take = (candles: Candle[]): void => {
      for (const candle of candles) {
        // Who is told of a candle may abort: nothing more is said then, and what runs next throws.
        if (accepted > 0 && signal?.aborted) return;
        run.accept(first + accepted++, inputs.rows, candle, program.taps());
      }
    };
    await program.runChain({ most, argumentsOf, carried: inputs.carried }, take, signal);
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

const indicesOf = (rows: readonly Row[], wanted: (row: Row) => boolean): number[] =>
  rows.flatMap((row, index) => (wanted(row) ? [index] : []));

const same = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((value, index) => value === b[index]);

/** Rows that go on from a sequence which others of them go on from as well, and the rest. */
function bySharing(run: Run, rows: readonly number[]): [shared: number[], alone: number[]] {
  const paths = new Map<number, number>();
  const sequenceOf = (row: number): number => (run.rows[row] as Row).sequence;
  for (const row of rows) paths.set(sequenceOf(row), (paths.get(sequenceOf(row)) ?? 0) + 1);
  const shares = (row: number): boolean => (paths.get(sequenceOf(row)) as number) > 1;
  return [rows.filter(shares), rows.filter((row) => !shares(row))];
}
