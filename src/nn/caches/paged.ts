/**
 * `paged`: blocks of 16 slots in one pool and a table per row that says which block is where. Rows of different length take only the blocks they use; the table is
 * data, so nothing recompiles.
 */
import { sizeVar } from "../../ir/dim.js";
import { keyLanes, padded } from "../../ir/ops/state.js";
import type { Device } from "../../runtime/device.js";
import { appendToCache, Tensor, type KeyValueState } from "../../tensor/index.js";
import { size, State } from "../../trace/entry.js";
import {
  attend,
  largest,
  placeRow,
  plainContents,
  slotBytes,
  stateLayer,
  tokenAxis,
  type AttentionOptions,
  type Attended,
  type CacheArguments,
  type CacheShape,
  type CacheStore,
  type PrefixStore,
  type LayerContents,
  type LayerPlan,
  type NewTokens,
  type Places,
  type PrefixArguments,
} from "./contract.js";

const unassigned = -1;

export class PagedStore implements PrefixStore {
  readonly strategy = "paged";
  readonly wholeGraph = true;
  copiedBytes = 0;
  #layers: KeyValueState[] = [];
  #pages = 0;
  #used = 0;
  /** [rows][blocks] page of each block. */
  #table = new Int32Array(0);
  #rows = 0;
  #blocks = 0;

  constructor(
    private readonly device: Device,
    private readonly name: string,
    private readonly shape: CacheShape,
  ) {}

  get sizes(): Readonly<Record<string, readonly [number, number]>> {
    return { [`${this.name}TableRows`]: [1, 1 << 20], [`${this.name}TableBlocks`]: [1, 1 << 16] };
  }

  get bytes(): number {
    return this.#layers.reduce((sum, { keys, values }) => sum + keys.buffer.bytes + values.buffer.bytes, this.#table.byteLength);
  }

  /** Pages in use: those of blocks that hold a token. */
  get usedPages(): number {
    return this.#used;
  }

  bytesPerRow(slots: number): number {
    return slotBytes(this.shape, slots);
  }

  begin(slots: Int32Array): void {
    const blocks = Array.from(slots, (count) => Math.ceil(count / keyLanes));
    this.#rows = slots.length;
    this.#blocks = blocks.reduce((most, count) => Math.max(most, count), 1);
    this.#table = new Int32Array(this.#rows * this.#blocks).fill(unassigned);
    this.#used = 0;
    this.#ensurePool(blocks.reduce((sum, count) => sum + count, 0));
  }

  #ensurePool(pages: number): void {
    if (pages <= this.#pages && this.#pages <= 4 * Math.max(pages, 16)) return;
    this.#freePool();
    const { layers, heads, keyWidth, valueWidth } = this.shape;
    const variable = `${this.name}Pages`;
    const sizes = { [variable]: pages };
    const dim = sizeVar(variable, 1, 1 << 24);
    this.#layers = Array.from({ length: layers }, (_, layer) => ({
      keys: new State(this.device, `${this.name}.${layer}.keyPages`, [dim, heads, 1, keyWidth, keyLanes], "f32", { sizes }),
      values: new State(this.device, `${this.name}.${layer}.valuePages`, [dim, heads, keyLanes, padded(valueWidth)], "f32", { sizes }),
    }));
    this.#pages = pages;
  }

  /** The page of a row's slot, taken from the pool when the slot is the first of its block. */
  #pageOf(row: number, slot: number): number {
    const at = row * this.#blocks + Math.floor(slot / keyLanes);
    if (row >= this.#rows || slot >= this.#blocks * keyLanes || ((this.#table[at] as number) === unassigned && this.#used === this.#pages))
      throw new Error(
        `the paged cache "${this.name}" has ${this.#pages} pages for ${this.#rows} rows of at most ${this.#blocks} blocks; row ${row} has no room for slot ${slot}`,
      );
    if (this.#table[at] === unassigned) this.#table[at] = this.#used++;
    return this.#table[at] as number;
  }

  #plan(): LayerPlan {
    const { heads, keyWidth, valueWidth } = this.shape;
    return {
      keyAt: (row, head, slot) => (this.#pageOf(row, slot) * heads + head) * keyWidth * keyLanes + (slot % keyLanes),
      valueAt: (row, head, slot) => ((this.#pageOf(row, slot) * heads + head) * keyLanes + (slot % keyLanes)) * padded(valueWidth),
    };
  }

  fill(from: CacheStore, source: Int32Array, count: Int32Array): void {
    const counts = new Int32Array(1 + largest(source));
    source.forEach((row, own) => (counts[row] = count[own] as number));
    const starts = new Int32Array(counts.length);
    for (let row = 1; row < counts.length; row++)
      starts[row] = (starts[row - 1] as number) + (counts[row - 1] as number) * this.shape.heads;
    const plan = this.#plan();
    this.#layers.forEach((state, index) => {
      const plain = from.contents(index, counts);
      const stored = { keys: state.keys.read() as Float32Array, values: state.values.read() as Float32Array };
      source.forEach((row, own) => placeRow(this.shape, plain, starts[row] as number, count[own] as number, own, stored, plan));
      state.keys.write(stored.keys);
      state.values.write(stored.values);
      this.copiedBytes += stored.keys.byteLength + stored.values.byteLength;
    });
  }

  arguments({ row, slot }: Places): CacheArguments {
    const [rows, slots] = [row.data() as Int32Array, slot.data() as Int32Array];
    const axes = [tokenAxis(row)];
    const page = rows.map((r, token) => this.#pageOf(r, slots[token] as number));
    return {
      ...this.reading(),
      page: Tensor.from(page, axes),
      lane: Tensor.from(
        slots.map((at) => at % keyLanes),
        axes,
      ),
    };
  }

  reading(): CacheArguments {
    const axes = [size(`${this.name}TableRows`, this.#rows), size(`${this.name}TableBlocks`, this.#blocks)];
    return {
      layers: this.#layers,
      table: Tensor.from(
        this.#table.map((page) => Math.max(page, 0)),
        axes,
      ),
    };
  }

  attend(
    cache: CacheArguments,
    layer: number,
    { q, k, v }: NewTokens,
    places: Places,
    options: AttentionOptions,
    prefix?: PrefixArguments,
  ): Attended {
    const own = stateLayer(cache, layer);
    appendToCache(own, k, v, cache.page as Tensor, cache.lane as Tensor);
    return { attended: attend(q, own, places, options, prefix, layer) };
  }

  accept(): void {
    // Appending wrote to the pool.
  }

  contents(layer: number, count: Int32Array): LayerContents {
    const { keys, values } = this.#layers[layer] as KeyValueState;
    return plainContents(this.shape, keys.read() as Float32Array, values.read() as Float32Array, count, this.#plan());
  }

  #freePool(): void {
    for (const { keys, values } of this.#layers) {
      keys.dispose();
      values.dispose();
    }
    this.#layers = [];
    this.#pages = 0;
  }

  dispose(): void {
    this.#freePool();
    this.#table = new Int32Array(0);
  }
}
