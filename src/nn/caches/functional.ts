/**
 * `functional`: the cache is a value; appending returns a new one and leaves the old as it was. Sizes are data, so nothing recompiles, but each step copies the
 * whole cache: into the call, into the new value and out again. Also the base of `growing`.
 */
import { keyLanes, padded } from "../../ir/ops/state.js";
import type { Device } from "../../runtime/device.js";
import { appendedCache, Tensor, type KeyValueTensors } from "../../tensor/index.js";
import { size } from "../../trace/entry.js";
import {
  attend,
  largest,
  placeRow,
  plainContents,
  rowPlan,
  slotBytes,
  type AttentionOptions,
  type Attended,
  type CacheArguments,
  type CacheShape,
  type CacheStore,
  type LayerContents,
  type NewTokens,
  type Places,
  type PrefixArguments,
} from "./contract.js";

interface LayerValues {
  readonly keys: Float32Array;
  readonly values: Float32Array;
}

export class FunctionalStore implements CacheStore {
  readonly strategy: string = "functional";
  readonly wholeGraph = true;
  copiedBytes = 0;
  protected layers: LayerValues[] = [];
  protected rows = 0;
  protected slots = 0;

  constructor(
    protected readonly device: Device,
    protected readonly name: string,
    protected readonly shape: CacheShape,
  ) {}

  get sizes(): Readonly<Record<string, readonly [number, number]>> {
    return { [`${this.name}Rows`]: [1, 1 << 20], [`${this.name}Blocks`]: [1, 1 << 16], [`${this.name}Slots`]: [keyLanes, 1 << 20] };
  }

  get bytes(): number {
    return this.layers.reduce((sum, { keys, values }) => sum + keys.byteLength + values.byteLength, 0);
  }

  bytesPerRow(slots: number): number {
    return slotBytes(this.shape, slots);
  }

  protected get blocks(): number {
    return Math.ceil(this.slots / keyLanes);
  }

  begin(slots: Int32Array): void {
    this.rows = slots.length;
    this.slots = Math.ceil(Math.max(1, largest(slots)) / keyLanes) * keyLanes;
    this.clear();
  }

  /** Layers of zeros with the present number of rows and slots. */
  protected clear(): void {
    const { layers, heads, keyWidth, valueWidth } = this.shape;
    this.layers = Array.from({ length: layers }, () => ({
      keys: new Float32Array(this.rows * heads * this.blocks * keyWidth * keyLanes),
      values: new Float32Array(this.rows * heads * this.slots * padded(valueWidth)),
    }));
  }

  fill(from: CacheStore, source: Int32Array, count: Int32Array): void {
    const counts = new Int32Array(1 + largest(source));
    source.forEach((row, own) => (counts[row] = count[own] as number));
    const starts = new Int32Array(counts.length);
    for (let row = 1; row < counts.length; row++)
      starts[row] = (starts[row - 1] as number) + (counts[row - 1] as number) * this.shape.heads;
    const plan = rowPlan(this.shape, this.blocks, this.slots);
    this.layers.forEach((layer, index) => {
      const plain = from.contents(index, counts);
      source.forEach((row, own) => placeRow(this.shape, plain, starts[row] as number, count[own] as number, own, layer, plan));
    });
  }

  /** Sizes of the axes that change from call to call. */
  protected extents(): {
    readonly blocks: Parameters<typeof Tensor.from>[1][number];
    readonly slots: Parameters<typeof Tensor.from>[1][number];
  } {
    return { blocks: size(`${this.name}Blocks`, this.blocks), slots: size(`${this.name}Slots`, this.slots) };
  }

  // Places matter to `growing` alone.
  arguments(_places: Places): CacheArguments {
    return { layers: this.tensors() };
  }

  protected tensors(): { readonly keys: Tensor; readonly values: Tensor }[] {
    const { heads, keyWidth, valueWidth } = this.shape;
    const rows = size(`${this.name}Rows`, this.rows);
    const { blocks, slots } = this.extents();
    return this.layers.map(({ keys, values }) => ({
      keys: Tensor.from(keys, [rows, heads, blocks, keyWidth, keyLanes]),
      values: Tensor.from(values, [rows, heads, slots, padded(valueWidth)]),
    }));
  }

  attend(
    cache: CacheArguments,
    layer: number,
    { q, k, v }: NewTokens,
    places: Places,
    options: AttentionOptions,
    prefix?: PrefixArguments,
  ): Attended {
    const slots = cache.position === undefined ? undefined : (cache.position as number) + 1;
    const kept = appendedCache(cache.layers[layer] as KeyValueTensors, k, v, places.row, places.slot, slots);
    return { attended: attend(q, kept, places, options, prefix, layer), kept };
  }

  accept(kept: readonly KeyValueTensors[]): void {
    // In, appended, out.
    this.copiedBytes += 3 * this.bytes;
    this.layers = kept.map(({ keys, values }) => ({ keys: keys.data() as Float32Array, values: values.data() as Float32Array }));
  }

  contents(layer: number, count: Int32Array): LayerContents {
    const { keys, values } = this.layers[layer] as LayerValues;
    return plainContents(this.shape, keys, values, count, rowPlan(this.shape, this.blocks, this.slots));
  }

  dispose(): void {
    this.layers = [];
  }
}
