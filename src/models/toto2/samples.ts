/**
 * The samples of a batch of ragged series over context and future, sequence after sequence, with what is known of them: masks, ranges, groups of patches. Plain
 * arrays; must not know of rounds or tokens.
 */
import { size } from "../../trace/entry.js";
import { Tensor } from "../../tensor/index.js";
import type { Sequences } from "./forward.js";

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

export interface SampleOptions {
  readonly patch: number;
  readonly variates: number;
  readonly covariates: number;
  /** Future patches in all, n. */
  readonly futurePatches: number;
}

/** An i32 vector over an axis of that name. */
export const ints = (values: Int32Array, name: string): Tensor => Tensor.from(values, [size(name, values.length)]);

/** One number per item. A plain loop: TypedArray.from with a function takes ten times as long, and a round makes a dozen of these. */
export function column<T>(items: ArrayLike<T>, value: (item: T, index: number) => number): Int32Array {
  const result = new Int32Array(items.length);
  for (let index = 0; index < items.length; index++) result[index] = value(items[index] as T, index);
  return result;
}

/** Group of a context patch without any observed sample. */
export const unobserved = -1;

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
    private readonly options: SampleOptions,
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
