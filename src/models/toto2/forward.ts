/**
 * Toto 2.0 as model-spec B.4 - B.8 writes it: scaler, patch embedding, time and variate layers, quantile head, and the way back to real units. One pass over the
 * tokens of a round; which round it is, is data. Traced code over token rows; nothing here knows of devices, modes or how a request is laid out.
 */
import {
  appendToCache,
  backfillStatistics,
  causalScaler,
  concat,
  finishQuantiles,
  gatherRows,
  groupAttention,
  labelled,
  linear,
  maskedAttention,
  readState,
  rmsNorm,
  rope,
  tap,
  tapping,
  type KeyValueState,
  type RotaryTables,
  type Tensor,
} from "../../tensor/index.js";
import type { Dim } from "../../ir/dim.js";
import type { State } from "../../trace/entry.js";
import type { Toto2Config } from "./config.js";
import {
  quantileLevels,
  siluFactor,
  type ResidualFactors,
  type ResidualMlp,
  type ScaledLinear,
  type Toto2Layer,
  type Toto2Weights,
} from "./weights.js";

/** What varies between compiled variants of one model. */
export interface Toto2Variant {
  /** Variates per series, covariates included: fixed per program. */
  readonly variates: number;
  /** Variates at the end whose forecast nobody wants. */
  readonly covariates: number;
}

/** Per token i32 [tokens]: where its query stands in time, what it sees, and its group there. */
export interface QueryVectors {
  readonly position: Tensor;
  /** Row of the multiplier table. */
  readonly decay: Tensor;
  /** Cache row of its sequence, and the number of keys before its own end. */
  readonly row: Tensor;
  readonly length: Tensor;
  readonly group: Tensor;
}

/** Per token i32 [tokens]: where its key and value go, and the key's row of the multiplier table. */
export interface KeyVectors {
  readonly slot: Tensor;
  readonly decay: Tensor;
}

/** Per token i32 [tokens]: its fellow variates at the same time. */
export interface VariateVectors {
  readonly first: Tensor;
  readonly stride: Tensor;
  readonly ids: Tensor;
}

/** Per sequence i32 [sequences]: its patches, and its row in the moments state. */
export interface Sequences {
  readonly first: Tensor;
  readonly count: Tensor;
  readonly prefix: Tensor;
  readonly row: Tensor;
}

/** The wanted tokens [wanted]: their places among the round's tokens, and their vectors. */
export interface Wanted {
  readonly token: Tensor;
  readonly query: QueryVectors;
  readonly variate: VariateVectors;
}

/** Per answer row [rows]: its wanted token (absent: row = wanted token), its predicted patch, and the last patch of its context. */
export interface AnswerVectors {
  readonly wanted?: Tensor;
  readonly patch: Tensor;
  readonly contextEnd: Tensor;
  /** f32 [rows, 2]: bounds before the reach is added, low and high. */
  readonly bounds: Tensor;
  /** f32 [2]: scales that the bounds reach out, -k and k. */
  readonly reach: Tensor;
}

export interface Toto2Inputs {
  /** Raw samples f32 and observed flags i32 [patches, P] of context and future, zero where nothing is known. */
  readonly values: Tensor;
  readonly mask: Tensor;
  readonly sequences: Sequences;
  /** i32 [1]: samples that statistics need before they count. */
  readonly needed: Tensor;
  /** Patches that are embedded, i32 [embedded], and the missing flags f32 [embedded, P] that the network is told. */
  readonly embedded: Tensor;
  readonly missing: Tensor;
  /** Embedded patch of each token, i32 [tokens]. */
  readonly source: Tensor;
  readonly query: QueryVectors;
  readonly key: KeyVectors;
  /** i32 [sequences, slots]: groups of the cached keys. */
  readonly keyGroups: Tensor;
  readonly variate: VariateVectors;
  readonly wanted: Wanted;
  readonly answer: AnswerVectors;
  readonly caches: readonly KeyValueState[];
  readonly rotary: RotaryTables;
  /** f64 [sequences, 6]. */
  readonly moments: State;
}

export interface Toto2Answer {
  /** f32 [rows, levels, P] in real units, sorted over the levels. */
  readonly quantiles: Tensor;
  /** f32 [rows, 2]: the bounds that the quantiles were held in. */
  readonly limits: Tensor;
}

function project(x: Tensor, { weight, bias, factor }: ScaledLinear): Tensor {
  const y = linear(x, weight, bias);
  return factor ? y.mul(readState(factor)) : y;
}

export class Toto2Network {
  constructor(
    private readonly config: Toto2Config,
    private readonly weights: Toto2Weights,
    private readonly variant: Toto2Variant,
  ) {}

  /** Context and known future in, the round's patches of every answer row out. */
  round(inputs: Toto2Inputs): Toto2Answer {
    const statistics = this.#scale(inputs);
    const tokens = tap("tokens", this.#tokens(inputs, statistics));
    const hidden = tap("outNorm", rmsNorm(this.#layers(tokens, inputs), this.weights.outNorm, this.config.epsilon));
    const crossing = tap("head", this.#residualMlp(hidden, this.weights.head));
    return this.#answer(tapping() ? this.#answered(crossing, inputs) : crossing, statistics, inputs);
  }

  /** Causal patch statistics in f64 (model-spec B.4): [patches, 2] location and scale. */
  #scale({ values, mask, sequences, moments, needed }: Toto2Inputs): Tensor {
    const statistics = causalScaler(values, mask, sequences, moments, {
      fresh: true,
      addedVariance: 0,
      minimumScale: 1e-6,
      clamp: false,
      lowFactor: 0,
      highFactor: Infinity,
    });
    tap("loc", statistics.slice(1, 0, 1));
    tap("scale", statistics.slice(1, 1, 1));
    return backfillStatistics(values, mask, statistics, sequences, needed);
  }

  /**
   * Embedded tokens [tokens, d]. All prediction tokens without known future values have the same input and share one embedded patch, as do wholly unobserved
   * patches (model-spec B.10). Given twice to gatherRows, the embedding is computed once per patch and not once per token.
   */
  #tokens({ values, mask, embedded, missing, source }: Toto2Inputs, statistics: Tensor): Tensor {
    const [x, seen, own] = [values, mask, statistics].map((all) => gatherRows(all, embedded)) as [Tensor, Tensor, Tensor];
    const z = x
      .sub(own.slice(1, 0, 1))
      .div(own.slice(1, 1, 1))
      .asinh();
    const patches = this.#residualMlp(concat([seen.select(z, 0), missing]), this.weights.embed);
    return gatherRows(patches, source, patches);
  }

  #residualMlp(x: Tensor, { first, second, skip }: ResidualMlp): Tensor {
    const hidden = project(x, first).silu();
    if (this.weights.folded) return project(hidden, second).add(project(x, skip));
    return project(hidden.mul(siluFactor), second).add(project(x, skip)).mul(Math.SQRT1_2);
  }

  /** All layers; from the last time layer's queries on only the wanted tokens are computed, because nothing mixes times after it (model-spec B.10). */
  #layers(tokens: Tensor, inputs: Toto2Inputs): Tensor {
    const { kinds } = this.config;
    const selecting = tapping() ? kinds.length : Math.max(0, kinds.lastIndexOf("time"));
    const { wanted } = inputs;
    let h = tokens;
    let time = -1;
    kinds.forEach((kind, index) => {
      const layer = this.weights.layers[index] as Toto2Layer;
      const before = index < selecting;
      h = labelled(`layer${index}`, () => {
        const kept = index === selecting ? gatherRows(h, wanted.token) : h;
        const attended =
          kind === "time"
            ? this.#timeAttention(h, kept, layer, inputs, before ? inputs.query : wanted.query, ++time)
            : this.#variateAttention(kept, layer, before ? inputs.variate : wanted.variate);
        const x = this.#residual(project(attended, layer.out), kept, layer.attention);
        return tap("out", this.#residual(this.#mlp(x, layer), x, layer.mlp));
      });
    });
    return tapping() ? gatherRows(h, wanted.token) : this.#answered(h, inputs);
  }

  /** The wanted tokens that are answered: all but those of covariates. */
  #answered(h: Tensor, { answer }: Toto2Inputs): Tensor {
    return answer.wanted ? gatherRows(h, answer.wanted) : h;
  }

  #residual(x: Tensor, before: Tensor, { taken, kept }: ResidualFactors): Tensor {
    return (taken ? x.mul(readState(taken)) : x).add(before.mul(readState(kept)));
  }

  #mlp(h: Tensor, layer: Toto2Layer): Tensor {
    const y = rmsNorm(h, layer.norm2, this.config.epsilon);
    return project(project(y, layer.up).mul(project(y, layer.gate).silu()), layer.down);
  }

  #heads(y: Tensor, weights: ScaledLinear, heads: number): Tensor {
    const projected = project(y, weights);
    return projected.reshape([projected.shape[0] as Dim, heads, (projected.shape[1] as number) / heads]);
  }

  #queries(y: Tensor, layer: Toto2Layer): Tensor {
    const { heads, epsilon, queryNorm } = this.config;
    const split = this.#heads(y, layer.query, heads);
    const q = queryNorm ? rmsNorm(split, layer.queryNorm, epsilon) : split;
    return layer.perDim ? q.mul(readState(layer.perDim)) : q;
  }

  #keys(y: Tensor, layer: Toto2Layer): Tensor {
    const { keyHeads, epsilon, queryNorm } = this.config;
    const split = this.#heads(y, layer.key, keyHeads);
    return queryNorm ? rmsNorm(split, layer.keyNorm, epsilon) : split;
  }

  #join(attended: Tensor): Tensor {
    return attended.reshape([attended.shape[0] as Dim, this.config.heads * this.config.valueWidth]);
  }

  /** Causal attention over the sequence's cached keys of the query's group. Keys come from all tokens `h`, queries from `kept`. */
  #timeAttention(h: Tensor, kept: Tensor, layer: Toto2Layer, inputs: Toto2Inputs, query: QueryVectors, index: number): Tensor {
    const { epsilon, queryWidth, valueWidth, keyHeads } = this.config;
    const form = { width: queryWidth / 2, pairing: "interleaved" } as const;
    const y = rmsNorm(h, layer.norm1, epsilon);
    const chosen = kept === h ? y : rmsNorm(kept, layer.norm1, epsilon);
    const q = tap("q", rope(this.#queries(chosen, layer), query.position, form, inputs.rotary, query.decay));
    const k = tap("k", rope(this.#keys(y, layer), inputs.query.position, form, inputs.rotary, inputs.key.decay));
    const cache = inputs.caches[index] as KeyValueState;
    appendToCache(cache, k, this.#heads(y, layer.value, keyHeads), inputs.query.row, inputs.key.slot);
    const groups = { keys: inputs.keyGroups, queries: query.group };
    return this.#join(maskedAttention(q, cache, query.row, query.length, groups, { scale: this.weights.scoreScale, valueWidth }));
  }

  /** Attention among the variates of one time, equal ids only, without positions. A single variate attends to itself with weight 1. */
  #variateAttention(h: Tensor, layer: Toto2Layer, { first, stride, ids }: VariateVectors): Tensor {
    const { epsilon, heads, keyHeads } = this.config;
    const { variates } = this.variant;
    const y = rmsNorm(h, layer.norm1, epsilon);
    if (variates === 1 && heads === keyHeads) return project(y, layer.value);
    const [q, k, v] = [this.#queries(y, layer), this.#keys(y, layer), this.#heads(y, layer.value, keyHeads)];
    return this.#join(groupAttention(q, k, v, first, stride, ids, { scale: this.weights.scoreScale, variates }));
  }

  /** From asinh space to real units with the statistics of the predicted patch, then cleaned, bounded and sorted (model-spec B.8 e, f). */
  #answer(crossing: Tensor, statistics: Tensor, { answer }: Toto2Inputs): Toto2Answer {
    const own = gatherRows(statistics, answer.patch);
    const real = crossing
      .sinh()
      .mul(own.slice(1, 1, 1))
      .add(own.slice(1, 0, 1));
    const limits = answer.bounds.add(gatherRows(statistics, answer.contextEnd).slice(1, 1, 1).mul(answer.reach));
    const shaped = real.reshape([real.shape[0] as Dim, this.config.patch, quantileLevels.length]);
    return { quantiles: finishQuantiles(shaped, limits), limits };
  }
}
