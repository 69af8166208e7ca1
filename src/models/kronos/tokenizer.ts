/** The Kronos tokenizer (model-spec C.4): candles to two tokens each and back. Traced code; nothing here knows of devices or requests. */
import { expandBits, labelled, packSigns, tap, type Tensor, type KeyValueState, type RotaryTables } from "../../tensor/index.js";
import { applyBlock, project, rememberOnly, type Places } from "./blocks.js";
import type { KronosTokenizerConfig } from "./config.js";
import type { KronosBlock, KronosTokenizerWeights } from "./weights.js";

export interface EncodeInputs {
  /** f32 [tokens, 6] normalised candles. */
  readonly candles: Tensor;
  readonly places: Places;
  readonly caches: readonly KeyValueState[];
  readonly rotary: RotaryTables;
}

/** Coarse and fine tokens, i32 [tokens]. */
export interface Tokens {
  readonly coarse: Tensor;
  readonly fine: Tensor;
}

export interface DecodeInputs {
  /** Tokens of each series' context: only remembered. */
  readonly context: Tokens & { readonly places: Places; readonly caches: readonly KeyValueState[] };
  /** Tokens to decode, those of one path adjacent. */
  readonly own: Tokens & { readonly places: Places; readonly caches: readonly KeyValueState[] };
  /** Per own token i32 [own tokens]: row and length of its context. */
  readonly prefix: { readonly row: Tensor; readonly length: Tensor };
  readonly rotary: RotaryTables;
}

export class KronosTokenizerNetwork {
  constructor(
    private readonly config: KronosTokenizerConfig,
    private readonly weights: KronosTokenizerWeights,
  ) {}

  /** Candles to tokens: bit j of the code is the sign of dimension j; the coarse token holds the first dimensions. */
  encode({ candles, places, caches, rotary }: EncodeInputs): Tokens {
    const { config, weights } = this;
    let h = tap("embed", project(candles, weights.embed));
    weights.encoder.forEach((block, index) => {
      const cache = caches[index] as KeyValueState;
      h = labelled(`encoder${index}`, () => applyBlock(h, block, config, { places, rotary, cache }));
    });
    const z = tap("z", project(h, weights.quantise));
    return { coarse: packSigns(z, 0, config.coarseBits), fine: packSigns(z, config.coarseBits, config.fineBits) };
  }

  /** Normalised candles f32 [own tokens, 6]. */
  decode({ context, own, prefix, rotary }: DecodeInputs): Tensor {
    const { config, weights } = this;
    let before = this.#expand(context);
    weights.decoder.forEach((block, index) => {
      const place = { places: context.places, rotary, cache: context.caches[index] as KeyValueState };
      if (index === weights.decoder.length - 1) rememberOnly(before, block, config, place);
      else before = labelled(`context${index}`, () => applyBlock(before, block, config, place));
    });
    const quantised = tap("quantised", this.#bits(own));
    let h = tap("postQuant", project(quantised, weights.expand));
    weights.decoder.forEach((block: KronosBlock, index) => {
      const place = {
        places: own.places,
        rotary,
        cache: own.caches[index] as KeyValueState,
        prefix: { cache: context.caches[index] as KeyValueState, ...prefix },
      };
      h = labelled(`decoder${index}`, () => applyBlock(h, block, config, place));
    });
    return tap("reconstruction", project(h, weights.head));
  }

  #bits({ coarse, fine }: Tokens): Tensor {
    const { coarseBits, fineBits } = this.config;
    return expandBits(coarse, fine, { coarseBits, fineBits, scale: Math.fround(1 / Math.sqrt(coarseBits + fineBits)) });
  }

  #expand(tokens: Tokens): Tensor {
    return project(this.#bits(tokens), this.weights.expand);
  }
}
