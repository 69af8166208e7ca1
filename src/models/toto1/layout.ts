/**
 * How a batch of ragged series becomes rows of tokens: sequences one after the other, patch by patch, with the int32 vectors that say where each token stands.
 * Plain arrays; must not know how they are computed with.
 */
import { size, type Size } from "../../trace/entry.js";
import { Tensor } from "../../tensor/index.js";
import type { Sequences, SpaceVectors, TimeVectors } from "./forward.js";

/** One series as the network sees it: V variates of `patches` whole patches, left padded. */
export interface Entry {
  /** [V][patches * P], finite everywhere. */
  readonly values: readonly Float32Array[];
  /** [V][patches * P] 1 = observed. */
  readonly mask: readonly Uint8Array[];
  readonly patches: number;
  /** Patches of the context, which the scaler's global clamp looks at. */
  readonly contextPatches: number;
  /** [V] group ids. */
  readonly groups: Int32Array;
  /** Answer rows per variate: sample paths that continue this entry. */
  readonly paths: number;
}

export interface LayoutOptions {
  readonly patch: number;
  readonly variates: number;
  /** Variate labels are prepended as a token; the last `exogenous` variates get the second label. */
  readonly labels: boolean;
  readonly exogenous: number;
  /** Row of the multiplier table that holds exponent 0. */
  readonly reach: number;
  /** Answer for every patch instead of the last one of each sequence. */
  readonly everyPatch?: boolean;
}

const ints = (values: readonly number[] | Int32Array, name: string): Tensor =>
  Tensor.from(values instanceof Int32Array ? values : Int32Array.from(values), [size(name, values.length)]);

export class PrefillLayout {
  readonly patchTokens: number;
  readonly tokens: number;
  readonly sequences: number;
  readonly rows: number;
  /** Tokens of each sequence, its label included. */
  readonly tokensPerEntry: readonly number[];
  /** Sequence each answer row continues, [rows]. */
  readonly source: Int32Array;

  constructor(
    readonly entries: readonly Entry[],
    private readonly options: LayoutOptions,
  ) {
    const { variates, labels } = options;
    const extra = labels ? 1 : 0;
    this.tokensPerEntry = entries.map(({ patches }) => patches + extra);
    this.patchTokens = entries.reduce((sum, { patches }) => sum + patches * variates, 0);
    this.tokens = this.patchTokens + entries.length * variates * extra;
    this.sequences = entries.length * variates;
    this.rows = entries.reduce((sum, { paths }) => sum + paths * variates, 0);
    this.source = this.#source();
  }

  /** Axis name of all tokens: one with the patch tokens when there are no labels. */
  get #tokenAxis(): string {
    return this.options.labels ? "tokens" : "patches";
  }

  get longest(): number {
    return Math.max(...this.tokensPerEntry);
  }

  /** Tokens of one sequence, its label included. */
  tokensOf(sequence: number): number {
    return this.tokensPerEntry[Math.floor(sequence / this.options.variates)] as number;
  }

  /** Rows in the order (entry, path, variate). */
  #source(): Int32Array {
    const source = new Int32Array(this.rows);
    let row = 0;
    this.entries.forEach(({ paths }, entry) => {
      for (let path = 0; path < paths; path++)
        for (let v = 0; v < this.options.variates; v++) source[row++] = entry * this.options.variates + v;
    });
    return source;
  }

  samples(): { values: Tensor; mask: Tensor } {
    const { patch } = this.options;
    const values = new Float32Array(this.patchTokens * patch);
    const mask = new Int32Array(this.patchTokens * patch);
    let at = 0;
    for (const entry of this.entries) {
      entry.values.forEach((series, variate) => {
        values.set(series, at);
        mask.set(entry.mask[variate] as Uint8Array, at);
        at += series.length;
      });
    }
    const axes: (number | Size)[] = [size("patches", this.patchTokens), patch];
    return { values: Tensor.from(values, axes), mask: Tensor.from(mask, axes) };
  }

  sequenceVectors(): Sequences {
    const { variates } = this.options;
    const [first, count, prefix, row]: number[][] = [[], [], [], []];
    let at = 0;
    for (const { patches, contextPatches } of this.entries) {
      for (let v = 0; v < variates; v++) {
        (first as number[]).push(at);
        (count as number[]).push(patches);
        (prefix as number[]).push(contextPatches);
        (row as number[]).push((row as number[]).length);
        at += patches;
      }
    }
    return {
      first: ints(first as number[], "sequences"),
      count: ints(count as number[], "sequences"),
      prefix: ints(prefix as number[], "sequences"),
      row: ints(row as number[], "sequences"),
    };
  }

  /** Positions count from 0 at the first token; the xPos centre is the middle of the call's positions. */
  timeVectors(): TimeVectors {
    const { reach } = this.options;
    const vectors = {
      position: new Int32Array(this.tokens),
      queryDecay: new Int32Array(this.tokens),
      keyDecay: new Int32Array(this.tokens),
      row: new Int32Array(this.tokens),
      length: new Int32Array(this.tokens),
    };
    this.#eachToken((token, sequence, position, total) => {
      const centre = Math.floor((total - 1) / 2);
      vectors.position[token] = position;
      vectors.queryDecay[token] = reach + position - centre;
      vectors.keyDecay[token] = reach - position + centre;
      vectors.row[token] = sequence;
      vectors.length[token] = position + 1;
    });
    const axis = this.#tokenAxis;
    const tensor = (values: Int32Array): Tensor => ints(values, axis);
    return {
      position: tensor(vectors.position),
      queryDecay: tensor(vectors.queryDecay),
      keyDecay: tensor(vectors.keyDecay),
      row: tensor(vectors.row),
      slot: tensor(vectors.position),
      length: tensor(vectors.length),
    };
  }

  #eachToken(visit: (token: number, sequence: number, position: number, total: number, entry: number, variate: number) => void): void {
    let token = 0;
    this.tokensPerEntry.forEach((total, entry) => {
      for (let v = 0; v < this.options.variates; v++)
        for (let position = 0; position < total; position++) visit(token++, entry * this.options.variates + v, position, total, entry, v);
    });
  }

  spaceVectors(): SpaceVectors {
    const [first, stride, ids] = [new Int32Array(this.tokens), new Int32Array(this.tokens), new Int32Array(this.tokens)];
    this.#eachToken((token, _sequence, _position, total, entry, variate) => {
      first[token] = token - variate * total;
      stride[token] = total;
      ids[token] = (this.entries[entry] as Entry).groups[variate] as number;
    });
    const axis = this.#tokenAxis;
    return { first: ints(first, axis), stride: ints(stride, axis), ids: ints(ids, axis) };
  }

  /** The tokens that answers are wanted for: each sequence's last, or with `everyPatch` all patch tokens. */
  lastVectors(): { last: Tensor; lastPatch: Tensor; lastSpace: SpaceVectors } {
    const last: number[] = [];
    const lastPatch: number[] = [];
    const space = { first: [] as number[], stride: [] as number[], ids: [] as number[] };
    const { everyPatch, labels } = this.options;
    let patchToken = 0;
    let chosen = 0;
    this.#eachToken((token, _sequence, position, total, entry, variate) => {
      const isLabel = labels && position === 0;
      if (!isLabel && (everyPatch || position === total - 1)) {
        const perSequence = everyPatch ? (this.entries[entry] as Entry).patches : 1;
        last.push(token);
        lastPatch.push(patchToken);
        space.first.push(chosen - variate * perSequence);
        space.stride.push(perSequence);
        space.ids.push((this.entries[entry] as Entry).groups[variate] as number);
        chosen++;
      }
      if (!isLabel) patchToken++;
    });
    const tensor = (values: readonly number[]): Tensor => ints(values, "wanted");
    return {
      last: tensor(last),
      lastPatch: tensor(lastPatch),
      lastSpace: { first: tensor(space.first), stride: tensor(space.stride), ids: tensor(space.ids) },
    };
  }

  /** Patch token of each token, or -1 - label for a prepended label. */
  tokenSource(): Tensor {
    const { variates, exogenous } = this.options;
    const source = new Int32Array(this.tokens);
    let patchToken = 0;
    this.#eachToken((token, _sequence, position, _total, _entry, variate) => {
      source[token] = position === 0 ? (variate >= variates - exogenous ? -2 : -1) : patchToken++;
    });
    return ints(source, "tokens");
  }
}

/** The vectors of one decode step: one token per row, `step` tokens (from 0) after the context. */
export function decodeVectors(
  layout: PrefillLayout,
  options: LayoutOptions,
  step: number,
  shared: boolean,
): { time: TimeVectors; space: SpaceVectors; prefix: { row: Tensor; length: Tensor } } {
  const { variates, reach } = options;
  const rows = layout.rows;
  const columns = Array.from({ length: 8 }, () => new Int32Array(rows)) as [
    Int32Array,
    Int32Array,
    Int32Array,
    Int32Array,
    Int32Array,
    Int32Array,
    Int32Array,
    Int32Array,
  ];
  const [position, queryDecay, keyDecay, slot, length, own, first, prefixLength] = columns;
  const ids = new Int32Array(rows);
  for (let row = 0; row < rows; row++) {
    const sequence = layout.source[row] as number;
    const entry = Math.floor(sequence / variates);
    const context = layout.tokensPerEntry[entry] as number;
    const at = context + step;
    const centre = Math.floor(at / 2);
    position[row] = at;
    queryDecay[row] = reach + at - centre;
    keyDecay[row] = reach - at + centre;
    slot[row] = shared ? at - Math.floor(context / 16) * 16 : at;
    length[row] = at + 1;
    own[row] = row;
    first[row] = row - (sequence % variates);
    prefixLength[row] = context;
    ids[row] = (layout.entries[entry] as Entry).groups[sequence % variates] as number;
  }
  const tensor = (values: Int32Array): Tensor => ints(values, "rows");
  return {
    time: {
      position: tensor(position),
      queryDecay: tensor(queryDecay),
      keyDecay: tensor(keyDecay),
      row: tensor(own),
      slot: tensor(slot),
      length: tensor(length),
    },
    space: { first: tensor(first), stride: tensor(new Int32Array(rows).fill(1)), ids: tensor(ids) },
    prefix: { row: tensor(layout.source), length: tensor(prefixLength) },
  };
}
