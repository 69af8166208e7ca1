/**
 * Toto 1.0 as the paper and model-spec A.4 - A.8 write it: scaler, patch embedding, time and space layers, mixture head, one decode step. Traced code over token
 * rows; nothing here knows of devices, modes or how a request is laid out.
 */
import {
  causalScaler,
  concat,
  constant,
  copyRows,
  gatherRows,
  groupAttention,
  labelled,
  linear,
  mixtureDraw,
  readState,
  rmsNorm,
  rope,
  tap,
  tapping,
  type Tensor,
  type InjectedDraws,
  type KeyValueTensors,
  type RotaryTables,
} from "../../tensor/index.js";
import type { CacheArguments, CacheStore, PrefixArguments } from "../../nn/caches/index.js";
import type { Dim } from "../../ir/dim.js";
import type { State } from "../../trace/entry.js";
import type { Toto1Config } from "./config.js";
import type { LinearWeights, Toto1Layer, Toto1Weights } from "./weights.js";

/** What varies between compiled variants of one model. */
export interface Toto1Variant {
  /** Variates per series, V: fixed per program. */
  readonly variates: number;
  /** Draw samples, or decode the mixture mean. */
  readonly sampled: boolean;
  /** Known futures replace predictions of the rows marked in `known`. */
  readonly exogenous: boolean;
}

/** Rotary tables with xPos multipliers; the centre of each call is in the decay rows (quirk 2 of model-spec A.6.1). */
export type Toto1Rotary = RotaryTables;

/** Per token i32 [tokens]: where it stands in time. */
export interface TimeVectors {
  readonly position: Tensor;
  /** Rows of the multiplier table for queries and keys. */
  readonly queryDecay: Tensor;
  readonly keyDecay: Tensor;
  /** Cache row and slot that the token's key goes to, and the number of keys it sees. */
  readonly row: Tensor;
  readonly slot: Tensor;
  readonly length: Tensor;
}

/** Per token i32 [tokens]: its fellow variates at the same time. */
export interface SpaceVectors {
  readonly first: Tensor;
  readonly stride: Tensor;
  readonly ids: Tensor;
}

/** Per sequence i32 [sequences]: its patch tokens, and its row in the moments state. */
export interface Sequences {
  readonly first: Tensor;
  readonly count: Tensor;
  readonly prefix: Tensor;
  readonly row: Tensor;
}

/** Random keys [rows, 3] (stream, path, variate), first sample index [rows], seed [2]; draws given from outside in tests. */
export interface DrawKeys {
  readonly keys: Tensor;
  readonly start: Tensor;
  readonly seed: Tensor;
  readonly injected?: InjectedDraws;
}

/** Known future values [rows, P] where known [rows, 1] is 1. */
export interface KnownFuture {
  readonly values: Tensor;
  readonly known: Tensor;
}

/** What a step gives back: the next patch of every answer row f32 [rows, P], and the caches where appending makes new ones. */
export interface Toto1Answer {
  readonly patch: Tensor;
  readonly kept: readonly KeyValueTensors[];
}

export interface Toto1Inputs {
  /** Of a prefill: the declared bound of its context, a guard in words. */
  readonly contextBound?: string;
  /** Raw samples f32 and observed flags i32 [patch tokens, P]. */
  readonly values: Tensor;
  readonly mask: Tensor;
  readonly sequences: Sequences;
  readonly time: TimeVectors;
  readonly space: SpaceVectors;
  /** Space vectors of the last tokens alone, for layers that only they need. */
  readonly lastSpace?: SpaceVectors;
  /** Token of each sequence's last patch among all tokens, and among patch tokens. */
  readonly last?: Tensor;
  readonly lastPatch?: Tensor;
  /** For models with labels: patch token of each token, or -1 - label. */
  readonly tokenSource?: Tensor;
  /** Sequence that each answer row [rows] continues. */
  readonly source?: Tensor;
  readonly draws?: DrawKeys;
  readonly future?: KnownFuture;
  readonly cache: CacheArguments;
  /** The series' prefix that the rows continue. */
  readonly prefix?: PrefixArguments;
  readonly rotary: Toto1Rotary;
  /** f64 [sequences, 6]; a decode step continues them. */
  readonly moments: State;
  /** Moments of the answer rows, filled from `moments` by a prefill. */
  readonly pathMoments?: State;
}

/** float32 machine epsilon: floor of df - 2 and of the scale (model-spec A.7). */
const tiny = 2 ** -23;
/** Predictions of this size and above are replaced by 0 (model-spec A.8). */
const extreme = Math.fround(3.4028234663852886e38 / 2);

/** Extreme, infinite and NaN predictions become 0. */
export const sanitise = (values: Tensor): Tensor => values.abs().less(extreme).select(values, 0);

/** Mixture parameters of raw head outputs [..., parameters]: df above 2, scale above 0, weights that sum to 1 (model-spec A.7). */
export function outputParameters(
  centre: Tensor,
  spread: Tensor,
  components: number,
): { df: Tensor; location: Tensor; scale: Tensor; weights: Tensor } {
  const axis = centre.shape.length - 1;
  const floored = (x: Tensor): Tensor => x.softplus().maximum(constant(tiny));
  const location = centre.slice(axis, 0, components);
  return {
    df: floored(spread.slice(axis, 0, components)).add(2),
    location,
    scale: floored(spread.slice(axis, components, components)),
    weights: components === 1 ? location.equal(location).convert("f32") : centre.slice(axis, components, components).softmax(),
  };
}

/** The cache of a call, and what its layers kept of it. */
interface Caches {
  readonly store: CacheStore;
  readonly kept: KeyValueTensors[];
}

const project = (x: Tensor, { weight, bias }: LinearWeights): Tensor => linear(x, weight, bias);

export class Toto1Network {
  constructor(
    private readonly config: Toto1Config,
    private readonly weights: Toto1Weights,
    private readonly variant: Toto1Variant,
  ) {}

  /** Context in, the next patch of every answer row out, in real units. `store` is the cache behind `inputs.cache`. */
  prefill(inputs: Toto1Inputs, store: CacheStore): Toto1Answer {
    const statistics = this.#scale(inputs, true);
    const z = tap("z", this.#normalise(inputs.values, statistics));
    const embedded = tap("embed", project(z, this.weights.embed));
    const tokens =
      inputs.tokenSource && this.weights.labels ? gatherRows(embedded, inputs.tokenSource, readState(this.weights.labels)) : embedded;
    const last = inputs.last as Tensor;
    const kept: KeyValueTensors[] = [];
    const hidden = this.#layers(tokens, inputs, { store, kept }, last);
    const lastStatistics = gatherRows(statistics, inputs.lastPatch as Tensor);
    const patch = this.#nextPatch(hidden, lastStatistics, inputs);
    if (inputs.pathMoments) copyRows(inputs.pathMoments, inputs.moments, inputs.source as Tensor);
    return { patch, kept };
  }

  /** One token per row in, the next patch of each row out. */
  decode(inputs: Toto1Inputs, store: CacheStore): Toto1Answer {
    const statistics = this.#scale(inputs, false);
    const kept: KeyValueTensors[] = [];
    const tokens = project(this.#normalise(inputs.values, statistics), this.weights.embed);
    const hidden = this.#layers(tokens, inputs, { store, kept }, undefined);
    return { patch: this.#nextPatch(hidden, statistics, inputs), kept };
  }

  /** Causal patch statistics in f64 (model-spec A.4): [tokens, 2] location and scale. */
  #scale(inputs: Toto1Inputs, fresh: boolean): Tensor {
    const { scaleFactorExponent: exponent, stabilizeWithGlobal } = this.config;
    const statistics = causalScaler(inputs.values, inputs.mask, inputs.sequences, inputs.moments, {
      fresh,
      addedVariance: 0.1,
      minimumScale: 0,
      clamp: stabilizeWithGlobal,
      lowFactor: 10 ** -exponent,
      highFactor: 10 ** exponent,
    });
    tap("loc", statistics.slice(1, 0, 1));
    tap("scale", statistics.slice(1, 1, 1));
    return statistics;
  }

  #normalise(values: Tensor, statistics: Tensor): Tensor {
    return values.sub(statistics.slice(1, 0, 1)).div(statistics.slice(1, 1, 1));
  }

  /**
   * All layers. With `last` the answer is only wanted for those tokens: trailing space layers run on them alone, and the row pruning pass moves the selection
   * further up (model-spec A.10).
   */
  #layers(tokens: Tensor, inputs: Toto1Inputs, caches: Caches, last: Tensor | undefined): Tensor {
    const { kinds } = this.config;
    const trailing = kinds.length - [...kinds].reverse().findIndex((kind) => kind === "time");
    const selectBefore = last && !tapping() ? (trailing > kinds.length ? 0 : trailing) : kinds.length;
    let h = tokens;
    let space = inputs.space;
    let time = -1;
    for (const [index, kind] of kinds.entries()) {
      if (last && index === selectBefore) {
        h = gatherRows(h, last);
        space = inputs.lastSpace as SpaceVectors;
      }
      const layer = this.weights.layers[index] as Toto1Layer;
      h = labelled(`layer${index}`, () => {
        const y = rmsNorm(h, layer.norm1, 1e-8);
        const attended = kind === "time" ? this.#timeAttention(y, layer, inputs, caches, ++time) : this.#spaceAttention(y, layer, space);
        return tap("out", this.#mlp(h.add(project(attended, layer.out)), layer));
      });
    }
    return last && selectBefore >= kinds.length ? gatherRows(h, last) : h;
  }

  #mlp(h: Tensor, layer: Toto1Layer): Tensor {
    const y = rmsNorm(h, layer.norm2, 1e-8);
    return h.add(project(project(y, layer.gate).silu().mul(project(y, layer.up)), layer.down));
  }

  #split(y: Tensor, weights: LinearWeights): Tensor {
    const { heads, width } = this.config;
    const projected = project(y, weights);
    return projected.reshape([...projected.shape.slice(0, -1), heads, width / heads]);
  }

  #join(attended: Tensor): Tensor {
    return attended.reshape([...attended.shape.slice(0, -2), this.config.width]);
  }

  /** Causal attention over the sequence's own patches; padding is attended to like anything else (model-spec A.6.1). */
  #timeAttention(y: Tensor, layer: Toto1Layer, inputs: Toto1Inputs, { store, kept }: Caches, index: number): Tensor {
    const { time, rotary, prefix } = inputs;
    const headWidth = this.config.width / this.config.heads;
    const form = { width: headWidth, pairing: "interleaved" } as const;
    const q = tap("q", rope(this.#split(y, layer.query), time.position, form, rotary, time.queryDecay));
    const k = tap("k", rope(this.#split(y, layer.key), time.position, form, rotary, time.keyDecay));
    const v = this.#split(y, layer.value);
    const answer = store.attend(inputs.cache, index, { q, k, v }, time, { scale: 1 / Math.sqrt(headWidth), valueWidth: headWidth }, prefix);
    if (answer.kept) kept.push(answer.kept);
    return this.#join(answer.attended);
  }

  /** Attention among the variates of one time, equal ids only. A single variate attends to itself with weight 1. */
  #spaceAttention(y: Tensor, layer: Toto1Layer, space: SpaceVectors): Tensor {
    const { variates } = this.variant;
    if (variates === 1) return project(y, layer.value);
    const scale = 1 / Math.sqrt(this.config.width / this.config.heads);
    const [q, k, v] = [layer.query, layer.key, layer.value].map((weights) => this.#split(y, weights)) as [Tensor, Tensor, Tensor];
    return this.#join(groupAttention(q, k, v, space.first, space.stride, space.ids, { scale, variates }));
  }

  /** Output parameters [rows, P, parameters] of the given half. */
  #parameters(hidden: Tensor, half: "centre" | "spread"): Tensor {
    const { patch, width } = this.config;
    const { folded, heads, unembed } = this.weights;
    const rows = hidden.shape[0] as Dim;
    if (folded) {
      const raw = project(hidden, folded[half]);
      return raw.reshape([rows, patch, (raw.shape[1] as number) / patch]);
    }
    const features = tap("unembed", project(hidden, unembed as LinearWeights)).reshape([rows, patch, width]);
    return project(features, (heads as NonNullable<typeof heads>)[half]);
  }

  #nextPatch(hidden: Tensor, statistics: Tensor, inputs: Toto1Inputs): Tensor {
    tap("lastHidden", hidden);
    const { components, patch } = this.config;
    const centre = this.#parameters(hidden, "centre");
    if (tapping()) this.#tapParameters(hidden, centre);
    tap("patchLoc", statistics.slice(1, 0, 1));
    tap("patchScale", statistics.slice(1, 1, 1));
    const location = centre.slice(2, 0, components);
    const weighted = components === 1 ? location : centre.slice(2, components, components).softmax().mul(location);
    const mean = tap("normalisedMean", weighted.sum().reshape([hidden.shape[0] as Dim, patch]));
    const source = inputs.source;
    const rowStatistics = source ? gatherRows(statistics, source) : statistics;
    const drawn = this.variant.sampled
      ? this.#draw(centre, this.#parameters(hidden, "spread"), inputs)
      : source
        ? gatherRows(mean, source)
        : mean;
    const scaled = tap(
      "mean",
      rowStatistics
        .slice(1, 1, 1)
        .mul(drawn)
        .add(rowStatistics.slice(1, 0, 1)),
    );
    const sane = sanitise(scaled);
    return inputs.future ? inputs.future.known.select(inputs.future.values, sane) : sane;
  }

  #draw(centre: Tensor, spread: Tensor, inputs: Toto1Inputs): Tensor {
    const { keys, start, seed, injected } = inputs.draws as DrawKeys;
    return mixtureDraw(concat([spread, centre]), inputs.source as Tensor, keys, start, seed, this.config.components, injected);
  }

  #tapParameters(hidden: Tensor, centre: Tensor): void {
    const { df, location, scale, weights } = outputParameters(centre, this.#parameters(hidden, "spread"), this.config.components);
    tap("df", df);
    tap("compLoc", location);
    tap("compScale", scale);
    tap("weights", weights);
  }
}
