/** `dynamic`: the capacity is a size variable; when it is used up the buffers are bound anew at twice the capacity. No recompile, a copy per doubling. */
import { keyLanes } from "../../ir/ops/state.js";
import type { KeyValueState } from "../../tensor/index.js";
import { KeyValueCache } from "../key-value-cache.js";
import { StaticStore } from "./static.js";

export class DynamicStore extends StaticStore {
  override readonly strategy = "dynamic";
  /** Times the buffers were bound anew with their contents. */
  rebinds = 0;
  #rows = 0;

  /** Whatever the decode will need, it starts with what is there, one block at least. */
  override begin(slots: Int32Array): void {
    this.#rows = slots.length;
    this.cache.ensure(slots.length, Math.max(keyLanes, this.cache.slots));
  }

  protected override reserve(slots: number): void {
    if (slots <= this.cache.slots) return;
    let capacity = this.cache.slots;
    while (capacity < slots) capacity *= 2;
    const larger = new KeyValueCache(this.device, this.name, this.shape);
    larger.ensure(this.#rows, capacity);
    this.cache.layers.forEach((old, layer) => {
      const target = larger.layers[layer] as KeyValueState;
      for (const part of ["keys", "values"] as const) {
        const values = old[part].read() as Float32Array;
        const heads = Math.min(old[part].shape[0] as number, target[part].shape[0] as number) * this.shape.heads;
        const room = target[part].shape.slice(2).reduce((a, b) => a * b, 1);
        const width = old[part].shape.slice(2).reduce((a, b) => a * b, 1);
        const grown = new Float32Array(target[part].shape.reduce((a, b) => a * b, 1));
        for (let head = 0; head < heads; head++) grown.set(values.subarray(head * width, (head + 1) * width), head * room);
        target[part].write(grown);
        this.copiedBytes += values.byteLength;
      }
    });
    this.rebinds++;
    this.cache.dispose();
    this.cache = larger;
  }
}
