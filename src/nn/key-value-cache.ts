/** Key-value caches: one pair of states per time layer, grown by reallocation to a larger capacity, whose sizes are data. */
import { sizeVar } from "../ir/dim.js";
import { keyLanes, padded } from "../ir/ops/state.js";
import type { Device } from "../runtime/device.js";
import type { KeyValueState } from "../tensor/index.js";
import { State } from "../trace/entry.js";

export interface CacheShape {
  readonly layers: number;
  readonly heads: number;
  readonly keyWidth: number;
  readonly valueWidth: number;
}

const nextPower = (value: number): number => 2 ** Math.ceil(Math.log2(Math.max(1, value)));

/** All layers' keys and values, [rows][heads][capacity]. Owns its device memory. */
export class KeyValueCache {
  #layers: KeyValueState[] = [];
  #rows = 0;
  #blocks = 0;

  constructor(
    private readonly device: Device,
    /** Prefix of the state and size names; two caches of one program need different ones. */
    private readonly name: string,
    private readonly shape: CacheShape,
  ) {}

  get layers(): readonly KeyValueState[] {
    return this.#layers;
  }

  /** Keys that one row has room for. */
  get slots(): number {
    return this.#blocks * keyLanes;
  }

  get bytes(): number {
    return this.#layers.reduce((sum, { keys, values }) => sum + keys.buffer.bytes + values.buffer.bytes, 0);
  }

  /** Bytes one row takes with room for `slots` keys. */
  bytesPerRow(slots: number): number {
    const { layers, heads, keyWidth, valueWidth } = this.shape;
    return layers * heads * Math.ceil(slots / keyLanes) * keyLanes * (keyWidth + padded(valueWidth)) * 4;
  }

  /** Room for `rows` rows of `slots` keys. Contents are lost when it has to grow: call it before a prefill. */
  ensure(rows: number, slots: number): void {
    const blocks = Math.max(1, Math.ceil(slots / keyLanes));
    if (rows <= this.#rows && blocks <= this.#blocks && this.#rows <= 4 * Math.max(rows, 16)) return;
    this.dispose();
    const [capacityRows, capacityBlocks] = [rows <= 64 ? nextPower(rows) : Math.ceil(rows / 64) * 64, blocks];
    const { layers, heads, keyWidth, valueWidth } = this.shape;
    const [rowsName, blocksName, slotsName] = [`${this.name}Rows`, `${this.name}Blocks`, `${this.name}Slots`];
    const sizes = { [rowsName]: capacityRows, [blocksName]: capacityBlocks, [slotsName]: capacityBlocks * keyLanes };
    const [rowsVar, blocksVar, slotsVar] = [
      sizeVar(rowsName, 1, 1 << 20),
      sizeVar(blocksName, 1, 1 << 16),
      sizeVar(slotsName, keyLanes, 1 << 20),
    ];
    this.#layers = Array.from({ length: layers }, (_, layer) => ({
      keys: new State(this.device, `${this.name}.${layer}.keys`, [rowsVar, heads, blocksVar, keyWidth, keyLanes], "f32", { sizes }),
      values: new State(this.device, `${this.name}.${layer}.values`, [rowsVar, heads, slotsVar, padded(valueWidth)], "f32", { sizes }),
    }));
    this.#rows = capacityRows;
    this.#blocks = capacityBlocks;
  }

  dispose(): void {
    for (const { keys, values } of this.#layers) {
      keys.dispose();
      values.dispose();
    }
    this.#layers = [];
    this.#rows = 0;
    this.#blocks = 0;
  }
}
