/**
 * `growing`: keys and values are concatenated step by step, and the position is a number that the compiled code depends on. Every step misses the guard on it, so every
 * step recompiles, until the limit, and runs eagerly from then on. This is what growing caches do under `torch.compile`; it exists to show, test and measure that.
 */
import { staticValue } from "../../trace/entry.js";
import type { KeyValueTensors } from "../../tensor/index.js";
import { largest, type CacheArguments, type CacheStore, type Places } from "./contract.js";
import { FunctionalStore } from "./functional.js";

export class GrowingStore extends FunctionalStore {
  override readonly strategy = "growing";
  /** Slots filled before the step: known from the prefix on. */
  #started = false;

  override get sizes(): Readonly<Record<string, readonly [number, number]>> {
    return { [`${this.name}Rows`]: [1, 1 << 20] };
  }

  override begin(slots: Int32Array): void {
    this.rows = slots.length;
    this.slots = 0;
    this.#started = false;
    this.clear();
  }

  override fill(from: CacheStore, source: Int32Array, count: Int32Array): void {
    this.#start(largest(count));
    super.fill(from, source, count);
  }

  #start(slots: number): void {
    this.slots = slots;
    this.#started = true;
    this.clear();
  }

  protected override extents(): { readonly blocks: number; readonly slots: number } {
    return { blocks: this.blocks, slots: this.slots };
  }

  override arguments({ slot }: Places): CacheArguments {
    const position = largest(slot.data() as Int32Array);
    if (!this.#started) this.#start(position);
    if (position !== this.slots)
      throw new Error(`the growing cache "${this.name}" holds ${this.slots} slots; the next token goes to slot ${position}`);
    return { position: staticValue(position), layers: this.tensors() };
  }

  override accept(kept: readonly KeyValueTensors[]): void {
    super.accept(kept);
    this.slots++;
  }
}
