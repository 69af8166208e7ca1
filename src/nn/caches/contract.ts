/**
 * What every key-value cache strategy offers: memory on one side, appending and attending inside traced code on the other. A model knows this file only; which strategy
 * runs is chosen by name in `strategies.ts`. Must not know of any model or strategy.
 */
import { dtypes } from "../../ir/dtype.js";
import { keyLanes, padded } from "../../ir/ops/state.js";
import type { Device } from "../../runtime/device.js";
import { attention, type KeyValueState, type KeyValueTensors, type SharedPrefix, type Tensor } from "../../tensor/index.js";
import { type Size, type StaticValue } from "../../trace/entry.js";

export interface CacheShape {
  readonly layers: number;
  readonly heads: number;
  readonly keyWidth: number;
  readonly valueWidth: number;
}

export type LayerCache = KeyValueState | KeyValueTensors;

/** What one call of a compiled step is given of a cache: an argument, so plain data, tensors, states and marked constants only. */
export interface CacheArguments {
  /** `growing` only: slots in use, a number that the compiled code depends on. First, so that a miss names it. */
  readonly position?: StaticValue<number> | number;
  readonly layers: readonly { readonly keys: KeyValueState["keys"] | Tensor; readonly values: KeyValueState["values"] | Tensor }[];
  /** `paged` only: block table i32 [table rows, blocks], and page and lane i32 [tokens] that each new token goes to. */
  readonly table?: Tensor;
  readonly page?: Tensor;
  readonly lane?: Tensor;
}

/** New tokens of one layer: q, k, v f32 [tokens, heads, d]. */
export interface NewTokens {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
}

/** i32 [tokens]: cache row and slot each token goes to, and how many keys it sees. */
export interface Places {
  readonly row: Tensor;
  readonly slot: Tensor;
  readonly length: Tensor;
}

export interface AttentionOptions {
  readonly scale: number;
  readonly valueWidth: number;
}

/** The read-only prefix that a step's rows continue, as traced code gets it. */
export interface PrefixArguments {
  readonly cache: CacheArguments;
  readonly row: Tensor;
  readonly length: Tensor;
}

export interface Attended {
  /** f32 [tokens, heads, value width] */
  readonly attended: Tensor;
  /** The layer's new cache, when appending makes a new value: the step must return it. */
  readonly kept?: KeyValueTensors;
}

/** Contents of one layer in plain order: rows one after the other, each [heads][slots in use][width]. */
export interface LayerContents {
  readonly keys: Float32Array;
  readonly values: Float32Array;
}

export interface CacheStore {
  readonly strategy: string;
  /** Bounds of the sizes that its arguments bring with them, for `compile`. */
  readonly sizes: Readonly<Record<string, readonly [number, number]>>;
  /** Whether a step runs as one graph; otherwise appending breaks it. */
  readonly wholeGraph: boolean;
  /** Bytes held on the device and on the host. */
  readonly bytes: number;
  /** Bytes that strategy moved to append or to grow, beyond the new keys and values. */
  readonly copiedBytes: number;
  /** Bytes one row takes with room for `slots` keys. */
  bytesPerRow(slots: number): number;
  /** Begins a decode: row r will hold at most slots[r] keys. What the cache held before is lost. */
  begin(slots: Int32Array): void;
  /** Fills row r with the first count[r] slots of row source[r] of another store. */
  fill(from: CacheStore, source: Int32Array, count: Int32Array): void;
  /** Arguments of a step that appends a token at each place; `places` are concrete. */
  arguments(places: Places): CacheArguments;
  /** Traced: appends the tokens of a layer and attends over everything each may see. */
  attend(
    cache: CacheArguments,
    layer: number,
    tokens: NewTokens,
    places: Places,
    options: AttentionOptions,
    prefix?: PrefixArguments,
  ): Attended;
  /** Takes over what a step kept, layer by layer. */
  accept(kept: readonly KeyValueTensors[]): void;
  /** A copy of the first count[r] slots of every row r. */
  contents(layer: number, count: Int32Array): LayerContents;
  /** Frees its memory; it may begin again. */
  dispose(): void;
}

/** A cache that later steps only read: what a prefill filled. */
export interface PrefixStore extends CacheStore {
  /** Arguments of a step that reads and does not append. */
  reading(): CacheArguments;
}

export interface CacheStrategy {
  /** One sentence for documentation and help. */
  readonly summary: string;
  readonly create: (device: Device, name: string, shape: CacheShape) => CacheStore;
  /** Where a prefill puts the prefixes that such a cache continues. */
  readonly createPrefix: (device: Device, name: string, shape: CacheShape) => PrefixStore;
}

/** Largest of any number of values, at least 0. */
export const largest = (values: Int32Array): number => values.reduce((most, value) => Math.max(most, value), 0);

/** Bytes of keys and values that `slots` slots of all layers take. */
export function slotBytes({ layers, heads, keyWidth, valueWidth }: CacheShape, slots: number): number {
  return layers * heads * Math.ceil(slots / keyLanes) * keyLanes * (keyWidth + padded(valueWidth)) * dtypes.f32.bytes;
}

/** One layer of a prefix as `attention` takes it. */
export function prefixOf(prefix: PrefixArguments | undefined, layer: number): SharedPrefix | undefined {
  return prefix && { cache: stateLayer(prefix.cache, layer), row: prefix.row, length: prefix.length };
}

/** One layer of a cache held in states. */
export function stateLayer({ layers, table }: CacheArguments, layer: number): KeyValueState {
  return { ...(layers[layer] as KeyValueState), ...(table ? { table } : {}) };
}

export const attend = (
  q: Tensor,
  cache: LayerCache,
  places: Places,
  options: AttentionOptions,
  prefix: PrefixArguments | undefined,
  layer: number,
): Tensor => attention(q, cache, places.row, places.length, options, prefixOf(prefix, layer));

/** Axis of a vector of tokens, for more vectors of the same length. */
export function tokenAxis(vector: Tensor): number | Size {
  if (vector.content.kind !== "concrete") throw new Error("places must be concrete to prepare a step");
  return vector.content.axes[0] as number | Size;
}

/** Where element j of a key and of a value lies in a layer [rows][heads][blocks][d][16] and [rows][heads][slots][stored]. */
export interface LayerPlan {
  keyAt(row: number, head: number, slot: number): number;
  valueAt(row: number, head: number, slot: number): number;
}

/** Copies slots of rows out of stored layers into plain order. `plan` says where a slot lies. */
export function plainContents(
  { heads, keyWidth, valueWidth }: CacheShape,
  keys: Float32Array,
  values: Float32Array,
  count: Int32Array,
  plan: LayerPlan,
): LayerContents {
  const total = count.reduce((sum, slots) => sum + slots, 0);
  const plain = { keys: new Float32Array(total * heads * keyWidth), values: new Float32Array(total * heads * valueWidth) };
  let at = 0;
  count.forEach((slots, row) => {
    for (let head = 0; head < heads; head++) {
      for (let slot = 0; slot < slots; slot++, at++) {
        const [key, value] = [plan.keyAt(row, head, slot), plan.valueAt(row, head, slot)];
        for (let j = 0; j < keyWidth; j++) plain.keys[at * keyWidth + j] = keys[key + j * keyLanes] as number;
        for (let j = 0; j < valueWidth; j++) plain.values[at * valueWidth + j] = values[value + j] as number;
      }
    }
  });
  return plain;
}

/** The inverse for one row: writes plain contents of `slots` slots, which start at `from` slots x heads, where `plan` says. */
export function placeRow(
  { heads, keyWidth, valueWidth }: CacheShape,
  plain: LayerContents,
  from: number,
  slots: number,
  row: number,
  target: { readonly keys: Float32Array; readonly values: Float32Array },
  plan: LayerPlan,
): void {
  let at = from;
  for (let head = 0; head < heads; head++) {
    for (let slot = 0; slot < slots; slot++, at++) {
      const [key, value] = [plan.keyAt(row, head, slot), plan.valueAt(row, head, slot)];
      for (let j = 0; j < keyWidth; j++) target.keys[key + j * keyLanes] = plain.keys[at * keyWidth + j] as number;
      for (let j = 0; j < valueWidth; j++) target.values[value + j] = plain.values[at * valueWidth + j] as number;
    }
  }
}

/** The plan of a layer without pages. */
export function rowPlan({ heads, keyWidth, valueWidth }: CacheShape, blocks: number, slots: number): LayerPlan {
  const stored = padded(valueWidth);
  return {
    keyAt: (row, head, slot) => ((row * heads + head) * blocks + Math.floor(slot / keyLanes)) * keyWidth * keyLanes + (slot % keyLanes),
    valueAt: (row, head, slot) => ((row * heads + head) * slots + slot) * stored,
  };
}
