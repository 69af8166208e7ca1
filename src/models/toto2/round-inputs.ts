/**
 * What a round is told about its tokens besides samples: all vectors that follow from lengths, groups and the places of missing samples. Requests of the same
 * shape repeat them, so those of whole series are kept. Must not know what is computed with them.
 */
import { size } from "../../trace/entry.js";
import { Tensor } from "../../tensor/index.js";
import type { KeyVectors, QueryVectors, Sequences, VariateVectors, Wanted } from "./forward.js";
import { RoundLayout, type LayoutOptions, type Round } from "./layout.js";
import type { SampleStore } from "./samples.js";

export interface RoundInputs {
  readonly sequences: Sequences;
  readonly embedding: { readonly embedded: Tensor; readonly missing: Tensor; readonly source: Tensor };
  readonly query: QueryVectors;
  readonly key: KeyVectors;
  readonly keyGroups: Tensor;
  readonly variate: VariateVectors;
  readonly wanted: Wanted;
  /** Rows of the answer: see RoundLayout. Their wanted tokens are given only where covariates leave some out. */
  readonly rows: { readonly wanted?: Tensor; readonly patch: Tensor; readonly contextEnd: Tensor };
  /** Sequence of each answer row. */
  readonly rowSequences: Int32Array;
  /** Axis name of the answer rows: one with the wanted tokens when all of them are answered. */
  readonly rowAxis: "rows" | "wanted";
}

function makeRoundInputs(store: SampleStore, layout: RoundLayout, covariates: number): RoundInputs {
  const { sequence, ...rows } = layout.answerRows();
  const rowAxis = covariates > 0 ? "rows" : "wanted";
  const axis = size(rowAxis, sequence.length);
  const ints = (values: Int32Array): Tensor => Tensor.from(values, [axis]);
  return {
    sequences: store.sequences(),
    embedding: layout.embedding(),
    query: layout.queryVectors(),
    key: layout.keyVectors(),
    keyGroups: layout.keyGroups(),
    variate: layout.variateVectors(),
    wanted: layout.wanted(),
    rows: {
      ...(covariates > 0 ? { wanted: ints(rows.wanted) } : {}),
      patch: ints(rows.patch),
      contextEnd: ints(rows.contextEnd),
    },
    rowSequences: sequence,
    rowAxis,
  };
}

/** Rounds that are kept, the least recently used go first; larger ones are made anew, which costs little beside their kernels. */
const keptRounds = 16;
const mostKeptTokens = 1 << 14;

export class RoundInputsCache {
  readonly #kept = new Map<string, RoundInputs>();

  /** The inputs of a round; what they hold is shared with later calls and never changed. */
  of(store: SampleStore, options: LayoutOptions, round: Round): RoundInputs {
    const { structure } = store;
    if (structure === undefined) return makeRoundInputs(store, new RoundLayout(store, options, round), options.covariates);
    const key = [...numbersOf(options), round.done, round.block, round.again, structure].join();
    let inputs = this.#kept.get(key);
    this.#kept.delete(key);
    if (!inputs) {
      const layout = new RoundLayout(store, options, round);
      inputs = makeRoundInputs(store, layout, options.covariates);
      if (layout.tokens.length > mostKeptTokens) return inputs;
    }
    this.#kept.set(key, frozen(inputs));
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > keptRounds && oldest !== undefined) this.#kept.delete(oldest);
    return inputs;
  }
}

/** Frozen with all records in it, so that a call that brings it again is known by it. */
function frozen(inputs: RoundInputs): RoundInputs {
  const { sequences, embedding, query, key, variate, wanted, rows } = inputs;
  for (const record of [sequences, embedding, query, key, variate, wanted.query, wanted.variate, wanted, rows, inputs])
    Object.freeze(record);
  return inputs;
}

/** Every option that a layout depends on. */
function numbersOf(options: LayoutOptions): number[] {
  const { patch, variates, covariates, futurePatches, hasMissingValues, corrections, firstBlock, reach, everyToken } = options;
  const flags = [hasMissingValues, corrections.stableCentre, corrections.placedGroups, everyToken].map(Number);
  return [patch, variates, covariates, futurePatches, firstBlock, reach, ...flags];
}
