/** Running the Kronos tokenizer: ragged series of candles to tokens, and tokens of many paths back to candles, their common context computed once. */
import { compile, Tensor, type Compiled, type RotaryTables } from "../../tensor/index.js";
import { size, type CheckSetting, type Mode, type Stance } from "../../trace/entry.js";
import { KeyValueCache } from "../../nn/key-value-cache.js";
import type { Device } from "../../runtime/device.js";
import { candleColumns, type KronosTokenizerConfig } from "./config.js";
import { cacheShape, ints, joined, ownBase, placesOf, rotaryPositions, stackRotary, type Segment } from "./layout.js";
import { KronosTokenizerNetwork, type DecodeInputs, type EncodeInputs } from "./tokenizer.js";
import type { KronosTokenizerWeights } from "./weights.js";

export interface TokenArrays {
  readonly coarse: Int32Array;
  readonly fine: Int32Array;
}

type Candle = { coarse: Tensor; fine: Tensor };

export class KronosCodec {
  readonly #decodeProgram: Compiled<[DecodeInputs], Tensor>;
  readonly #encodeProgram: Compiled<[EncodeInputs], Candle>;
  readonly #encoder: KeyValueCache;
  readonly #decoderContext: KeyValueCache;
  readonly #decoderOwn: KeyValueCache;
  #rotary: { readonly tables: RotaryTables; readonly positions: number } | undefined;

  constructor(
    private readonly config: KronosTokenizerConfig,
    private readonly weights: KronosTokenizerWeights,
    private readonly options: {
      readonly device: Device;
      readonly mode: Mode;
      readonly taps: boolean;
      /** A stance for its programs alone, asked for at each call; undefined = the process-wide one. */
      readonly stance?: () => Stance | undefined;
      readonly check?: CheckSetting | undefined;
    },
  ) {
    const { device, mode, taps, stance, check } = options;
    this.#encoder = new KeyValueCache(device, "encoder", cacheShape(config, config.encoderBlocks));
    this.#decoderContext = new KeyValueCache(device, "decoderContext", cacheShape(config, config.decoderBlocks));
    this.#decoderOwn = new KeyValueCache(device, "decoderOwn", cacheShape(config, config.decoderBlocks));
    const network = new KronosTokenizerNetwork(config, weights);
    const dynamic = { tokens: [1, 1 << 22], ownTokens: [1, 1 << 22] } as const;
    const settings = { device, mode, taps, check, dynamic, fullGraph: true, ...(stance ? { stance } : {}) };
    this.#encodeProgram = compile((inputs: EncodeInputs) => ({ ...network.encode(inputs) }), { ...settings, name: "kronos.encode" });
    this.#decodeProgram = compile((inputs: DecodeInputs) => network.decode(inputs), { ...settings, name: "kronos.decode" });
  }

  get programs(): readonly Pick<Compiled<never[], unknown>, "report" | "dispose" | "profileLast">[] {
    return [this.#encodeProgram, this.#decodeProgram];
  }

  /** Bytes of cache for `slots` tokens of one path. */
  bytesPerRow(slots: number): number {
    return this.#decoderOwn.bytesPerRow(slots);
  }

  /** Tokens of each entry's candles; all candles are encoded, whatever the window. */
  async encode(
    entries: readonly { readonly candles: Float32Array }[],
    signal?: AbortSignal,
    onTaps?: (taps: ReadonlyMap<string, Tensor>) => void,
  ): Promise<TokenArrays[]> {
    const lengths = entries.map(({ candles }) => candles.length / candleColumns);
    const total = lengths.reduce((a, b) => a + b, 0);
    const candles = new Float32Array(total * candleColumns);
    entries.reduce((at, entry) => (candles.set(entry.candles, at), at + entry.candles.length), 0);
    this.#encoder.ensure(entries.length, Math.max(...lengths));
    const rotary = this.#rotaryFor(Math.max(...lengths));
    const inputs: EncodeInputs = {
      candles: Tensor.from(candles, [size("tokens", total), candleColumns]),
      places: placesOf(
        lengths.map((count, row) => ({ row, position: 0, count })),
        "tokens",
      ),
      caches: this.#encoder.layers,
      rotary,
    };
    const answer = await this.#encodeProgram.run([inputs], signal);
    onTaps?.(this.#encodeProgram.taps());
    const [coarse, fine] = [answer.coarse.data() as Int32Array, answer.fine.data() as Int32Array];
    let from = 0;
    return lengths.map((length) => {
      const part = { coarse: coarse.slice(from, from + length), fine: fine.slice(from, from + length) };
      from += length;
      return part;
    });
  }

  /** Normalised candles f32 [rows * steps * 6] of each row's tokens after its context; positions count from 0 at the context's start. */
  async decode(
    contexts: readonly TokenArrays[],
    rows: readonly (TokenArrays & { readonly source: number })[],
    signal?: AbortSignal,
    onTaps?: (taps: ReadonlyMap<string, Tensor>) => void,
  ): Promise<Float32Array> {
    const lengths = contexts.map(({ coarse }) => coarse.length);
    const steps = Math.max(...rows.map(({ coarse }) => coarse.length));
    this.#decoderContext.ensure(contexts.length, Math.max(1, ...lengths));
    this.#decoderOwn.ensure(rows.length, steps + 15);
    const rotary = this.#rotaryFor(Math.max(...lengths) + steps);
    // A context without tokens leaves one behind that nobody reads: an axis has at least one element.
    const blank = Int32Array.of(0);
    const filled = contexts.map(({ coarse, fine }) => (coarse.length > 0 ? { coarse, fine } : { coarse: blank, fine: blank }));
    const contextLength = (source: number): number => lengths[source] as number;
    const perToken = (value: (source: number) => number): Tensor =>
      ints(joined(rows.map(({ coarse, source }) => new Int32Array(coarse.length).fill(value(source)))), "ownTokens");
    const answer = await this.#decodeProgram.run(
      [
        {
          context: {
            coarse: ints(joined(filled.map(({ coarse }) => coarse)), "tokens"),
            fine: ints(joined(filled.map(({ fine }) => fine)), "tokens"),
            places: placesOf(
              filled.map(({ coarse }, row) => ({ row, position: 0, count: coarse.length })),
              "tokens",
            ),
            caches: this.#decoderContext.layers,
          },
          own: {
            coarse: ints(joined(rows.map(({ coarse }) => coarse)), "ownTokens"),
            fine: ints(joined(rows.map(({ fine }) => fine)), "ownTokens"),
            places: placesOf(
              rows.map(({ coarse, source }, row): Segment => {
                const position = contextLength(source);
                return { row, position, count: coarse.length, base: ownBase(position) };
              }),
              "ownTokens",
            ),
            caches: this.#decoderOwn.layers,
          },
          prefix: { row: perToken((source) => source), length: perToken(contextLength) },
          rotary,
        },
      ],
      signal,
    );
    onTaps?.(this.#decodeProgram.taps());
    return answer.data() as Float32Array;
  }

  /** Tables for contexts of usual length; a longer one makes larger tables, which is one recompile. */
  #rotaryFor(needed: number): RotaryTables {
    if (this.#rotary && this.#rotary.positions >= needed) return this.#rotary.tables;
    const positions = rotaryPositions(needed);
    this.#disposeRotary();
    this.#rotary = {
      tables: stackRotary(this.options.device, "tokenizerRotary", this.config, this.weights.frequencies, positions),
      positions,
    };
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
    for (const cache of [this.#encoder, this.#decoderContext, this.#decoderOwn]) cache.dispose();
    this.#disposeRotary();
  }
}
