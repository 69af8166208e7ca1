/**
 * `host`: the host appends, outside the graph. Reading new keys and values ends the graph at every layer and step; nothing recompiles. Exists to show what that costs.
 */
import type { KeyValueState } from "../../tensor/index.js";
import {
  attend,
  placeRow,
  rowPlan,
  stateLayer,
  type AttentionOptions,
  type Attended,
  type CacheArguments,
  type NewTokens,
  type Places,
  type PrefixArguments,
} from "./contract.js";
import { StaticStore } from "./static.js";

export class HostStore extends StaticStore {
  override readonly strategy = "host";
  override readonly wholeGraph = false;
  /** Where the tokens of the step under way go; traced code only sees them as values of the call. */
  #places: { readonly row: Int32Array; readonly slot: Int32Array } | undefined;

  override arguments(places: Places): CacheArguments {
    this.#places = { row: places.row.data() as Int32Array, slot: places.slot.data() as Int32Array };
    return super.arguments(places);
  }

  override attend(
    cache: CacheArguments,
    layer: number,
    { q, k, v }: NewTokens,
    places: Places,
    options: AttentionOptions,
    prefix?: PrefixArguments,
  ): Attended {
    // Both reads are answered by one graph break: the first ends the segment that makes the two.
    this.#append(layer, k.data() as Float32Array, v.data() as Float32Array);
    return { attended: attend(q, stateLayer(cache, layer), places, options, prefix, layer) };
  }

  #append(layer: number, keys: Float32Array, values: Float32Array): void {
    const state = this.cache.layers[layer] as KeyValueState;
    const { row, slot } = this.#places as { row: Int32Array; slot: Int32Array };
    const stored = { keys: state.keys.read() as Float32Array, values: state.values.read() as Float32Array };
    const plan = rowPlan(this.shape, state.keys.shape[2] as number, state.values.shape[2] as number);
    row.forEach((r, token) => {
      const at = slot[token] as number;
      const shifted = {
        keyAt: (_: number, head: number) => plan.keyAt(r, head, at),
        valueAt: (_: number, head: number) => plan.valueAt(r, head, at),
      };
      placeRow(this.shape, { keys, values }, token * this.shape.heads, 1, r, stored, shifted);
    });
    state.keys.write(stored.keys);
    state.values.write(stored.values);
    this.copiedBytes += 2 * (stored.keys.byteLength + stored.values.byteLength);
  }
}
