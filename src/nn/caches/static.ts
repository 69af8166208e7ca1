/**
 * `static`, the default: buffers of a fixed capacity, where position and length are data. Nothing recompiles and nothing is copied. Also the base of strategies that hold
 * their keys and values in states.
 */
import type { Device } from "../../runtime/device.js";
import { appendToCache, compile, copyRows, Tensor, type Compiled, type KeyValueState } from "../../tensor/index.js";
import { size } from "../../trace/entry.js";
import { KeyValueCache } from "../key-value-cache.js";
import {
  attend,
  largest,
  plainContents,
  rowPlan,
  slotBytes,
  stateLayer,
  type AttentionOptions,
  type Attended,
  type CacheArguments,
  type CacheShape,
  type CacheStore,
  type PrefixStore,
  type LayerContents,
  type NewTokens,
  type Places,
  type PrefixArguments,
} from "./contract.js";

type Copy = Compiled<[readonly KeyValueState[], readonly KeyValueState[], Tensor], undefined>;

export class StaticStore implements PrefixStore {
  readonly strategy: string = "static";
  readonly sizes = {};
  readonly wholeGraph: boolean = true;
  copiedBytes = 0;
  protected cache: KeyValueCache;
  #copy: Copy | undefined;

  constructor(
    protected readonly device: Device,
    /** Prefix of state names; the prefix and the own cache of one program need different ones. */
    protected readonly name: string,
    protected readonly shape: CacheShape,
  ) {
    this.cache = new KeyValueCache(device, name, shape);
  }

  get bytes(): number {
    return this.cache.bytes;
  }

  bytesPerRow(slots: number): number {
    return slotBytes(this.shape, slots);
  }

  begin(slots: Int32Array): void {
    this.cache.ensure(slots.length, largest(slots));
  }

  /** On the device, whole rows, when the other store has states too. */
  fill(from: CacheStore, source: Int32Array, count: Int32Array): void {
    if (!(from instanceof StaticStore))
      throw new Error(`a ${this.strategy} cache is filled from a cache in states, not from "${from.strategy}"`);
    this.reserve(largest(count));
    const body = (own: readonly KeyValueState[], other: readonly KeyValueState[], rows: Tensor): undefined => {
      own.forEach((target, layer) => {
        const { keys, values } = other[layer] as KeyValueState;
        copyRows(target.keys, keys, rows);
        copyRows(target.values, values, rows);
      });
      return undefined;
    };
    this.#copy ??= compile(body, { device: this.device, name: `${this.name}.fill`, dynamic: { rows: [1, 1 << 16] } });
    this.#copy(this.cache.layers, from.cache.layers, Tensor.from(source, [size("rows", source.length)]));
  }

  /** Room for so many slots, contents kept. A static cache has had it since `begin`. */
  protected reserve(slots: number): void {
    if (slots > this.cache.slots)
      throw new Error(`the cache "${this.name}" was begun with room for ${this.cache.slots} keys per row and cannot take key ${slots}`);
  }

  arguments({ slot }: Places): CacheArguments {
    this.reserve(1 + largest(slot.data() as Int32Array));
    return this.reading();
  }

  reading(): CacheArguments {
    return { layers: this.cache.layers };
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
    appendToCache(own, k, v, places.row, places.slot);
    return { attended: attend(q, own, places, options, prefix, layer) };
  }

  accept(): void {
    // Appending wrote to the states.
  }

  contents(layer: number, count: Int32Array): LayerContents {
    const { keys, values } = this.cache.layers[layer] as KeyValueState;
    const plan = rowPlan(this.shape, keys.shape[2] as number, values.shape[2] as number);
    return plainContents(this.shape, keys.read() as Float32Array, values.read() as Float32Array, count, plan);
  }

  dispose(): void {
    this.#copy?.dispose();
    this.#copy = undefined;
    this.cache.dispose();
  }
}
