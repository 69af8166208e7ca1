/**
 * How a batch of ragged series becomes the tokens of one round: sequence after sequence, with the int32 vectors that say where each token stands and what it
 * sees. Plain arrays; must not know how they are computed with.
 */
import { size } from "../../trace/entry.js";
import { Tensor } from "../../tensor/index.js";
import { keyLanes, padded } from "../../ir/ops/state.js";
import type { KeyVectors, QueryVectors, VariateVectors, Wanted } from "./forward.js";
import { column, ints, unobserved, type Entry, type SampleOptions, type SampleStore } from "./samples.js";

/** Published behaviour that a caller may switch to what it should have been; see docs/fidelity.md. */
export interface Corrections {
  /** One xPos centre for all rounds instead of each round's own. */
  readonly stableCentre: boolean;
  /** Group ids of the tokens' own positions in later rounds instead of those of the first positions. */
  readonly placedGroups: boolean;
}

/** A round of decoding: how many patches are done, how many to predict, how many predicted ones are fed again. */
export interface Round {
  readonly done: number;
  readonly block: number;
  readonly again: number;
}

export interface LayoutOptions extends SampleOptions {
  readonly hasMissingValues: boolean;
  readonly corrections: Corrections;
  /** Predicted patches of the first round, whose centre `stableCentre` keeps. */
  readonly firstBlock: number;
  /** Row of the multiplier table that holds exponent 0. */
  readonly reach: number;
  /** Keep the last prediction token of a round, whose output is unused. */
  readonly everyToken: boolean;
}

interface Token {
  readonly sequence: number;
  readonly entry: Entry;
  readonly variate: number;
  readonly position: number;
  /** Tokens of each of the entry's sequences, and the place among them. */
  readonly perSequence: number;
  readonly place: number;
}

/** The vectors of one round. */
export class RoundLayout {
  readonly tokens: readonly Token[];

  constructor(
    private readonly store: SampleStore,
    private readonly options: LayoutOptions,
    private readonly round: Round,
  ) {
    this.tokens = this.#listTokens();
  }

  #listTokens(): Token[] {
    const { done, block, again } = this.round;
    const tokens: Token[] = [];
    this.store.eachSequence((sequence, entry, variate) => {
      const start = again === 0 ? 0 : entry.patches + done - again;
      const end = entry.patches + done + block - (this.options.everyToken ? 0 : 1);
      for (let position = start; position < end; position++)
        tokens.push({ sequence, entry, variate, position, perSequence: end - start, place: position - start });
    });
    return tokens;
  }

  /** Longest sequence in slots. */
  get longest(): number {
    return Math.max(...this.store.entries.map(({ patches }) => patches)) + this.round.done + this.round.block;
  }

  #isCovariate(variate: number): boolean {
    return variate >= this.options.variates - this.options.covariates;
  }

  /** Patches to embed, their missing flags, and the embedded patch of each token. */
  embedding(): { embedded: Tensor; missing: Tensor; source: Tensor } {
    const { patch } = this.options;
    const { mask, firstPatch, patches } = this.store;
    const embedded: number[] = [patches - 1];
    const flags: (0 | 1 | undefined)[] = [1];
    const source = column(this.tokens, ({ sequence, entry, variate, position }) => {
      const isPrediction = position >= entry.patches + this.round.done;
      if (isPrediction ? !this.#isCovariate(variate) : this.store.isUnobserved(sequence, position)) return 0;
      embedded.push((firstPatch[sequence] as number) + position);
      // A patch that is fed again counts as observed, also where a covariate is not (model-spec B.8).
      flags.push(!isPrediction && position >= entry.patches ? 0 : undefined);
      return embedded.length - 1;
    });
    const missing = new Float32Array(embedded.length * patch);
    embedded.forEach((from, row) => {
      const flag = flags[row];
      const [target, source] = [row * patch, from * patch];
      if (flag !== undefined) missing.fill(flag, target, target + patch);
      else for (let p = 0; p < patch; p++) if (mask[source + p] !== 1) missing[target + p] = 1;
    });
    return {
      embedded: ints(Int32Array.from(embedded), "embedded"),
      missing: Tensor.from(missing, [size("embedded", embedded.length), patch]),
      source: ints(source, "tokens"),
    };
  }

  /** The xPos centre of the round: the middle of its positions, the unused last one included. */
  #centre(entry: Entry): number {
    const { done, block } = this.options.corrections.stableCentre ? { done: 0, block: this.options.firstBlock } : this.round;
    return Math.floor((entry.patches + done + block) / 2);
  }

  /**
   * Positions see each other in time where this is equal. In the first round that is where their group ids are: a wholly unobserved patch has none.
   * Later rounds see what had a group id in the first, and everything after the context.
   */
  #timeGroup({ sequence, entry, variate }: Pick<Token, "sequence" | "entry" | "variate">, position: number): number {
    const isContext = position < entry.patches;
    if (this.round.again > 0 ? !isContext : !this.options.hasMissingValues) return 1;
    return this.store.group(sequence, position, entry.groups[variate] as number) === unobserved ? 0 : 1;
  }

  #queryVectors(tokens: readonly Token[], axis: string): QueryVectors {
    const { reach } = this.options;
    const vector = (value: (token: Token) => number): Tensor => ints(column(tokens, value), axis);
    return {
      position: vector(({ position }) => position),
      decay: vector(({ entry, position }) => reach + position - this.#centre(entry)),
      row: vector(({ sequence }) => sequence),
      length: vector(({ position }) => position + 1),
      group: vector((token) => this.#timeGroup(token, token.position)),
    };
  }

  queryVectors(): QueryVectors {
    return this.#queryVectors(this.tokens, "tokens");
  }

  keyVectors(): KeyVectors {
    const { reach } = this.options;
    const vector = (value: (token: Token) => number): Tensor => ints(column(this.tokens, value), "tokens");
    return {
      slot: vector(({ position }) => position),
      decay: vector(({ entry, position }) => reach - position + this.#centre(entry)),
    };
  }

  /** i32 [sequences, slots]. */
  keyGroups(): Tensor {
    const slots = padded(Math.max(keyLanes, this.longest));
    const rows = this.store.firstPatch.length;
    const groups = new Int32Array(rows * slots).fill(1);
    this.store.eachSequence((sequence, entry, variate) => {
      const end = entry.patches + this.round.done + this.round.block;
      const series = { sequence, entry, variate };
      for (let t = 0; t < end; t++) groups[sequence * slots + t] = this.#timeGroup(series, t);
    });
    return Tensor.from(groups, [size("groupRows", rows), size("groupSlots", slots)]);
  }

  /** In later rounds the published model looks up group ids at the first positions of the sequence instead of the round's (model-spec B.8). */
  #variateGroup({ sequence, entry, variate, position, place }: Token): number {
    const id = entry.groups[variate] as number;
    const looked = this.round.again > 0 && !this.options.corrections.placedGroups ? place : position;
    return this.store.group(sequence, looked, id);
  }

  variateVectors(): VariateVectors {
    const vector = (value: (token: Token, index: number) => number): Tensor => ints(column(this.tokens, value), "tokens");
    return {
      first: vector(({ variate, perSequence }, index) => index - variate * perSequence),
      stride: vector(({ perSequence }) => perSequence),
      ids: vector((token) => this.#variateGroup(token)),
    };
  }

  /** The token before each predicted patch: sequence by sequence, `block` of each. */
  wanted(): Wanted {
    const { done, block } = this.round;
    const places: number[] = [];
    this.tokens.forEach(({ entry, position }, index) => {
      const ahead = position - (entry.patches + done - 1);
      if (ahead >= 0 && ahead < block) places.push(index);
    });
    const tokens = places.map((place) => this.tokens[place] as Token);
    const vector = (value: (token: Token, index: number) => number): Tensor => ints(column(tokens, value), "wanted");
    return {
      token: ints(Int32Array.from(places), "wanted"),
      query: this.#queryVectors(tokens, "wanted"),
      variate: {
        first: vector(({ variate }, index) => index - variate * block),
        stride: vector(() => block),
        ids: vector((token) => this.#variateGroup(token)),
      },
    };
  }

  /** Rows (entry, target, patch of the block): the wanted token, the predicted patch and the last context patch of each, and its sequence. */
  answerRows(): { wanted: Int32Array; patch: Int32Array; contextEnd: Int32Array; sequence: Int32Array } {
    const { done, block } = this.round;
    const rows: { wanted: number; patch: number; contextEnd: number; sequence: number }[] = [];
    this.store.eachSequence((sequence, { patches }, variate) => {
      if (this.#isCovariate(variate)) return;
      const first = (this.store.firstPatch[sequence] as number) + patches;
      for (let k = 0; k < block; k++) rows.push({ wanted: sequence * block + k, patch: first + done + k, contextEnd: first - 1, sequence });
    });
    return {
      wanted: column(rows, (row) => row.wanted),
      patch: column(rows, (row) => row.patch),
      contextEnd: column(rows, (row) => row.contextEnd),
      sequence: column(rows, (row) => row.sequence),
    };
  }
}
