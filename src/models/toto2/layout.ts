/**
 * How a batch of ragged series becomes the patches and tokens of one round: sequence after sequence, with the int32 vectors that say where each token stands and
 * what it sees. Plain arrays; must not know how they are computed with.
 */
import { size } from "../../trace/entry.js";
import { Tensor } from "../../tensor/index.js";
import { keyLanes, padded } from "../../ir/ops/state.js";
import type { KeyVectors, QueryVectors, Sequences, VariateVectors, Wanted } from "./forward.js";

/** Smallest and largest value of a row. */
export interface Range {
  readonly low: number;
  readonly high: number;
}

/** One series as the network sees it: targets first, then covariates; whole patches, left padded. */
export interface Entry {
  /** [V][patches * P] context, finite everywhere. */
  readonly values: readonly Float32Array[];
  /** [V][patches * P] 1 = observed. */
  readonly mask: readonly Uint8Array[];
  /** [V] range of the context's observed samples, where it is known beforehand. */
  readonly ranges?: readonly (Range | undefined)[];
  /** Context patches, C. */
  readonly patches: number;
  /** [V] series ids: variates attend to each other only when equal. */
  readonly groups: Int32Array;
  /** [E][future patches * P] of the last E variates; unknown samples are 0. */
  readonly future: readonly Float32Array[];
  readonly futureMask: readonly Uint8Array[];
}

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

export interface LayoutOptions {
  readonly patch: number;
  readonly variates: number;
  readonly covariates: number;
  /** Future patches in all, n. */
  readonly futurePatches: number;
  readonly hasMissingValues: boolean;
  readonly corrections: Corrections;
  /** Predicted patches of the first round, whose centre `stableCentre` keeps. */
  readonly firstBlock: number;
  /** Row of the multiplier table that holds exponent 0. */
  readonly reach: number;
  /** Keep the last prediction token of a round, whose output is unused. */
  readonly everyToken: boolean;
}

const ints = (values: Int32Array, name: string): Tensor => Tensor.from(values, [size(name, values.length)]);

/** One number per item. A plain loop: TypedArray.from with a function takes ten times as long, and a round makes a dozen of these. */
function column<T>(items: ArrayLike<T>, value: (item: T, index: number) => number): Int32Array {
  const result = new Int32Array(items.length);
  for (let index = 0; index < items.length; index++) result[index] = value(items[index] as T, index);
  return result;
}

/** Group of a context patch without any observed sample. */
const unobserved = -1;

/** Memory for the samples and masks of a store, as large as they are. */
export interface SampleMemory {
  readonly values: Float32Array;
  readonly mask: Int32Array;
}

/** Samples, masks and group ids of all sequences over context and future; medians are written into it between rounds. */
export class SampleStore {
  readonly values: Float32Array;
  readonly mask: Int32Array;
  readonly patches: number;
  /** First patch of each sequence; the last patch of all is empty and stands for everything unknown. */
  readonly firstPatch: Int32Array;
  /** [sequences] group id of each context patch: the series id, or -1 without an observed sample. Undefined where all samples are observed. */
  readonly #contextGroups: (Int32Array | undefined)[] = [];
  /** [sequences] 1 for each context patch without an observed sample. Undefined where all samples are observed. */
  readonly #unobserved: (Uint8Array | undefined)[] = [];
  #isWhole = true;
  /** [sequences, 2] smallest and largest observed sample of the context, 0 without any. */
  readonly range: Float32Array;

  constructor(
    readonly entries: readonly Entry[],
    private readonly options: LayoutOptions,
    /** That of a store that is no longer used; taken over where it has the right size. */
    memory?: SampleMemory,
  ) {
    const { patch, variates, covariates, futurePatches } = options;
    this.firstPatch = new Int32Array(entries.length * variates);
    this.range = new Float32Array(2 * this.firstPatch.length);
    let at = 0;
    this.eachSequence((sequence, entry) => {
      this.firstPatch[sequence] = at;
      at += entry.patches + futurePatches;
    });
    this.patches = at + 1;
    const samples = this.patches * patch;
    const isUsable = memory?.values.length === samples;
    this.values = isUsable ? memory.values.fill(0) : new Float32Array(samples);
    this.mask = isUsable ? memory.mask.fill(0) : new Int32Array(samples);
    this.eachSequence((sequence, entry, variate) => {
      const first = (this.firstPatch[sequence] as number) * patch;
      const end = first + entry.patches * patch;
      const isTarget = variate < variates - covariates;
      this.values.set(entry.values[variate] as Float32Array, first);
      const mask = entry.mask[variate] as Uint8Array;
      const isWhole = !mask.includes(0);
      if (isWhole) this.mask.fill(1, first, end);
      else this.mask.set(mask, first);
      // The last context patch of a target counts as observed whatever the mask says (model-spec B.8, step 1).
      if (isTarget) this.mask.fill(1, end - patch, end);
      else {
        const covariate = variate - (variates - covariates);
        const futureMask = entry.futureMask[covariate] as Uint8Array;
        this.values.set(entry.future[covariate] as Float32Array, end);
        this.mask.set(futureMask, end);
        this.#isWhole &&= !futureMask.includes(0);
      }
      this.#isWhole &&= isWhole;
      const empty = isWhole ? undefined : this.#emptyPatches(first, entry.patches);
      this.#unobserved.push(empty);
      this.#contextGroups.push(empty && this.#groupsOf(entry.groups[variate] as number, empty));
      this.#measure(sequence, first, end, isWhole ? entry.ranges?.[variate] : undefined);
    });
  }

  /** What all vectors of a round follow from besides its options; undefined where samples are missing, whose places they depend on as well. */
  get structure(): string | undefined {
    return this.#isWhole ? this.entries.map(({ patches, groups }) => `${patches}:${groups.join()}`).join(";") : undefined;
  }

  eachSequence(visit: (sequence: number, entry: Entry, variate: number) => void): void {
    this.entries.forEach((entry, e) => {
      for (let v = 0; v < this.options.variates; v++) visit(e * this.options.variates + v, entry, v);
    });
  }

  #emptyPatches(first: number, patches: number): Uint8Array {
    const { patch } = this.options;
    const { mask } = this;
    const result = new Uint8Array(patches);
    for (let p = 0; p < patches; p++) {
      const end = first + (p + 1) * patch;
      let at = first + p * patch;
      while (at < end && mask[at] !== 1) at++;
      result[p] = at < end ? 0 : 1;
    }
    return result;
  }

  #groupsOf(series: number, empty: Uint8Array): Int32Array {
    const groups = new Int32Array(empty.length).fill(series);
    for (let p = 0; p < empty.length; p++) if (empty[p] === 1) groups[p] = unobserved;
    return groups;
  }

  #measure(sequence: number, first: number, end: number, known: Range | undefined): void {
    const { mask, values } = this;
    let { low, high } = known ?? { low: Infinity, high: -Infinity };
    for (let i = known ? end : first; i < end; i++) {
      if (mask[i] !== 1) continue;
      const value = values[i] as number;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (!(low <= high)) return;
    this.range[2 * sequence] = low;
    this.range[2 * sequence + 1] = high;
  }

  /** Group id of position t of a sequence; prediction tokens always carry the series id. */
  group(sequence: number, t: number, seriesId: number): number {
    return this.#contextGroups[sequence]?.[t] ?? seriesId;
  }

  /** Whether position t is a context patch without any observed sample. */
  isUnobserved(sequence: number, t: number): boolean {
    return this.#unobserved[sequence]?.[t] === 1;
  }

  sequences(): Sequences {
    const { variates, futurePatches } = this.options;
    const total = this.firstPatch.length + 1;
    const [first, count] = [new Int32Array(total), new Int32Array(total)];
    first.set(this.firstPatch);
    this.eachSequence((sequence) => {
      count[sequence] = (this.entries[Math.floor(sequence / variates)] as Entry).patches + futurePatches;
    });
    // The empty patch is a sequence of its own.
    first[total - 1] = this.patches - 1;
    count[total - 1] = 1;
    return {
      first: ints(first, "sequences"),
      count: ints(count, "sequences"),
      prefix: ints(count, "sequences"),
      row: ints(
        column(count, (_, s) => s),
        "sequences",
      ),
    };
  }

  /** Fills predicted patches of the targets, from future patch `done` on; they count as observed from now on. `median` gives [block * P] of a row. */
  feed(done: number, block: number, median: (targetRow: number) => Float32Array): void {
    const { patch, variates, covariates } = this.options;
    const targets = variates - covariates;
    this.eachSequence((sequence, entry, variate) => {
      if (variate >= targets) return;
      const at = ((this.firstPatch[sequence] as number) + entry.patches + done) * patch;
      this.values.set(median(Math.floor(sequence / variates) * targets + variate), at);
      this.mask.fill(1, at, at + block * patch);
    });
  }
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
