/**
 * The Kronos model (model-spec C.5): hierarchical and time embedding, causal blocks, coarse token, dependency layer, fine token. Traced code over token rows;
 * nothing here knows of devices, modes or how a request is laid out.
 */
import {
  appendToCache,
  attention,
  concat,
  drawToken,
  gatherRows,
  labelled,
  readState,
  rmsNorm,
  tap,
  tapping,
  type Tensor,
  type KeyValueState,
  type RotaryTables,
  type TokenDraws,
} from "../../tensor/index.js";
import type { State } from "../../trace/entry.js";
import { applyBlock, join, normEpsilon, project, split, type Places } from "./blocks.js";
import { dependencyHeads, type KronosModelConfig } from "./config.js";
import type { Tokens } from "./tokenizer.js";
import type { KronosBlock, KronosModelWeights, LinearWeights } from "./weights.js";

/** Caches of the blocks, and of the dependency layer. */
export interface KronosCaches {
  readonly blocks: readonly KeyValueState[];
  readonly dependency: KeyValueState;
}

/** Tokens with their stamps, i32 [tokens] each: minute, hour, weekday, day, month. */
export interface TokenStream extends Tokens {
  readonly stamps: readonly Tensor[];
}

/** What draws the next candle's tokens; rows are sample paths. */
export interface CandleDraws {
  readonly draws: TokenDraws;
  /** i32 [rows]: 0, 1, 2, ... */
  readonly identity: Tensor;
  /** Given tokens i32 [rows] instead of draws. */
  readonly forced?: Tokens;
}

export interface PrefillInputs extends CandleDraws {
  readonly stream: TokenStream;
  readonly places: Places;
  /** i32 [sequences]: each sequence's last token. */
  readonly last: Tensor;
  /** i32 [rows]: the sequence each path continues, and its number of tokens. */
  readonly source: Tensor;
  readonly length: Tensor;
  readonly caches: KronosCaches;
  readonly rotary: RotaryTables;
}

export interface StepInputs extends CandleDraws {
  /** One token per row. */
  readonly stream: TokenStream;
  readonly places: Places;
  readonly caches: KronosCaches;
  readonly prefix: { readonly caches: KronosCaches; readonly row: Tensor; readonly length: Tensor };
  readonly rotary: RotaryTables;
}

/** Windows whose first tokens several paths have in common. */
export interface WindowInputs extends CandleDraws {
  /** What paths have in common, once per series. */
  readonly common: { readonly stream: TokenStream; readonly places: Places; readonly caches: KronosCaches };
  /** What each path goes on with, the tokens of one path adjacent. */
  readonly own: { readonly stream: TokenStream; readonly places: Places; readonly caches: KronosCaches };
  /** Per own token i32 [own tokens]: row and length of what it has in common. */
  readonly prefix: { readonly row: Tensor; readonly length: Tensor };
  /** i32 [rows]: each path's last own token. */
  readonly last: Tensor;
  readonly rotary: RotaryTables;
}

export interface LogitsInputs {
  readonly stream: TokenStream;
  readonly places: Places;
  /** i32 [sequences]: tokens of each sequence, and its coarse token to condition on. */
  readonly length: Tensor;
  readonly chosen: Tensor;
  readonly sequenceRow: Tensor;
  readonly caches: KronosCaches;
  readonly rotary: RotaryTables;
}

/** Order in which the published code adds the calendar embeddings: columns of the stamps. */
const stampOrder = [1, 2, 3, 4, 0] as const;

export class KronosNetwork {
  constructor(
    private readonly config: KronosModelConfig,
    private readonly weights: KronosModelWeights,
  ) {}

  /** Whole sequences in, the next candle of every path out. */
  prefill(inputs: PrefillInputs): Tokens {
    const hidden = this.#trunk(inputs.stream, inputs.places, inputs.caches, inputs.rotary);
    const last = gatherRows(hidden, inputs.last);
    const { caches, source, length } = inputs;
    return this.#candle(last, source, inputs, (query) => attention(query, caches.dependency, source, length, this.#dependencyOptions));
  }

  /** One candle per path in, the next candle of every path out. */
  step(inputs: StepInputs): Tokens {
    const { places, caches, prefix, rotary, identity } = inputs;
    const hidden = this.#trunk(inputs.stream, places, caches, rotary, prefix);
    const shared = { cache: prefix.caches.dependency, row: prefix.row, length: prefix.length };
    return this.#candle(hidden, identity, inputs, (query) =>
      attention(query, caches.dependency, places.row, places.length, this.#dependencyOptions, shared),
    );
  }

  /** Whole windows in, the next candle of every path out; what paths have in common is computed once. */
  window(inputs: WindowInputs): Tokens {
    const { common, own, prefix, last, rotary, identity } = inputs;
    this.#trunk(common.stream, common.places, common.caches, rotary);
    const hidden = labelled("own", () =>
      this.#trunk(own.stream, own.places, own.caches, rotary, { caches: common.caches, row: prefix.row, length: prefix.length }),
    );
    const [row, length, commonRow, commonLength] = [own.places.row, own.places.length, prefix.row, prefix.length].map((vector) =>
      gatherRows(vector, last),
    ) as [Tensor, Tensor, Tensor, Tensor];
    const shared = { cache: common.caches.dependency, row: commonRow, length: commonLength };
    return this.#candle(gatherRows(hidden, last), identity, inputs, (query) =>
      attention(query, own.caches.dependency, row, length, this.#dependencyOptions, shared),
    );
  }

  /** Logits of both tokens at every position, the fine ones given one coarse token per sequence; for comparison with the published forward pass. */
  logits(inputs: LogitsInputs): { coarse: Tensor; fine: Tensor } {
    const hidden = tap("hidden", this.#trunk(inputs.stream, inputs.places, inputs.caches, inputs.rotary));
    const coarse = tap("s1Logits", project(hidden, this.weights.coarseHead));
    const attended = attention(
      this.#query(inputs.chosen),
      inputs.caches.dependency,
      inputs.sequenceRow,
      inputs.length,
      this.#dependencyOptions,
    );
    const cross = tap("cross", project(join(attended), this.weights.dependency.out));
    const conditioned = tap("conditioned", this.#condition(hidden, gatherRows(cross, inputs.places.row)));
    return { coarse, fine: tap("s2Logits", project(conditioned, this.weights.fineHead)) };
  }

  get #dependencyOptions(): { scale: number; valueWidth: number } {
    const headWidth = this.config.width / dependencyHeads;
    return { scale: 1 / Math.sqrt(headWidth), valueWidth: headWidth };
  }

  /** sqrt(d) times both embeddings, fused; or the sum of two folded table rows. */
  #tokenEmbedding({ coarse, fine }: Tokens): Tensor {
    const { fused, fusion } = this.weights;
    if (fused) return gatherRows(readState(fused.coarse), coarse).add(gatherRows(readState(fused.fine), fine));
    const root = Math.sqrt(this.config.width);
    const scaled = (table: State | undefined, tokens: Tensor): Tensor => gatherRows(readState(table as State), tokens).mul(root);
    return project(concat([scaled(this.weights.coarse, coarse), scaled(this.weights.fine, fine)]), fusion as LinearWeights);
  }

  #embed(stream: TokenStream): Tensor {
    const embedded = tap("tokenEmbed", this.#tokenEmbedding(stream));
    const time = stampOrder
      .map((column) => gatherRows(readState(this.weights.time[column] as State), stream.stamps[column] as Tensor))
      .reduce((sum, part) => sum.add(part));
    return tap("input", embedded.add(time));
  }

  /** All blocks and the final norm; leaves keys and values behind, those of the dependency layer included. */
  #trunk(stream: TokenStream, places: Places, caches: KronosCaches, rotary: RotaryTables, prefix?: StepInputs["prefix"]): Tensor {
    let h = this.#embed(stream);
    this.weights.blocks.forEach((block: KronosBlock, index) => {
      const cache = caches.blocks[index] as KeyValueState;
      const shared = prefix && { cache: prefix.caches.blocks[index] as KeyValueState, row: prefix.row, length: prefix.length };
      h = labelled(`layer${index}`, () => applyBlock(h, block, this.config, { places, rotary, cache, prefix: shared }));
    });
    const hidden = rmsNorm(h, this.weights.norm, normEpsilon);
    const { key, value } = this.weights.dependency;
    labelled("dependency", () =>
      appendToCache(
        caches.dependency,
        split(project(hidden, key), dependencyHeads),
        split(project(hidden, value), dependencyHeads),
        places.row,
        places.slot,
      ),
    );
    return hidden;
  }

  /** The raw embedding of the coarse token asks (model-spec C.5): [rows, heads, d / heads]. */
  #query(coarse: Tensor): Tensor {
    const { queries, query } = this.weights.dependency;
    const asked = queries
      ? gatherRows(readState(queries), coarse)
      : project(gatherRows(readState(this.weights.coarse as State), coarse), query as LinearWeights);
    return split(asked, dependencyHeads);
  }

  #condition(hidden: Tensor, cross: Tensor): Tensor {
    return rmsNorm(hidden.add(cross), this.weights.dependency.norm, normEpsilon);
  }

  /** Draws the coarse token of every row from its source's logits, then the fine token given it. */
  #candle(last: Tensor, source: Tensor, { draws, identity, forced }: CandleDraws, attend: (query: Tensor) => Tensor): Tokens {
    return labelled("candle", () => {
      const coarseLogits = project(last, this.weights.coarseHead);
      if (tapping()) {
        tap("hidden", gatherRows(last, source));
        tap("s1Logits", gatherRows(coarseLogits, source));
      }
      const coarse = drawToken(coarseLogits, source, draws, "coarse", forced?.coarse);
      const cross = project(join(attend(this.#query(coarse))), this.weights.dependency.out);
      const conditioned = this.#condition(source === identity ? last : gatherRows(last, source), cross);
      const fineLogits = tap("s2Logits", project(conditioned, this.weights.fineHead));
      return { coarse, fine: drawToken(fineLogits, identity, draws, "fine", forced?.fine) };
    });
  }
}
