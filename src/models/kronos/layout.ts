/** How ragged sequences become rows of tokens: one after the other, with the int32 vectors that say where each stands; and the tables and caches of a stack. */
import { size } from "../../trace/entry.js";
import { Tensor, type RotaryTables } from "../../tensor/index.js";
import type { CacheShape } from "../../nn/key-value-cache.js";
import { rotaryTables } from "../../nn/rotary.js";
import type { Device } from "../../runtime/device.js";
import type { Places } from "./blocks.js";
import type { KronosBlockConfig } from "./config.js";
import type { Frequencies } from "./weights.js";

/** Tokens of one sequence that are computed in a call. */
export interface Segment {
  /** Cache row. */
  readonly row: number;
  /** Position of the first of them, and how many there are. */
  readonly position: number;
  readonly count: number;
  /** Position that slot 0 of the cache row stands for. */
  readonly base?: number;
}

export const ints = (values: Int32Array | readonly number[], axis: string): Tensor =>
  Tensor.from(values instanceof Int32Array ? values : Int32Array.from(values), [size(axis, values.length)]);

export function placesOf(segments: readonly Segment[], axis: string): Places {
  const total = segments.reduce((sum, { count }) => sum + count, 0);
  const vectors = {
    position: new Int32Array(total),
    row: new Int32Array(total),
    slot: new Int32Array(total),
    length: new Int32Array(total),
  };
  let token = 0;
  for (const { row, position, count, base = 0 } of segments) {
    for (let at = position; at < position + count; at++, token++) {
      vectors.position[token] = at;
      vectors.row[token] = row;
      vectors.slot[token] = at - base;
      vectors.length[token] = at + 1;
    }
  }
  return {
    position: ints(vectors.position, axis),
    row: ints(vectors.row, axis),
    slot: ints(vectors.slot, axis),
    length: ints(vectors.length, axis),
  };
}

/** Position that the own cache of a path starts at when `prefix` tokens are shared: key lanes follow absolute positions in blocks of 16. */
export const ownBase = (prefix: number): number => prefix - (prefix % 16);

/** Parts one after the other. */
export function joined(parts: readonly Int32Array[]): Int32Array {
  const result = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (result.set(part, at), at + part.length), 0);
  return result;
}

/** Cache of a stack's keys and values. */
export const cacheShape = ({ width, heads }: Pick<KronosBlockConfig, "width" | "heads">, layers: number): CacheShape => ({
  layers,
  heads,
  keyWidth: width / heads,
  valueWidth: width / heads,
});

/** Positions of tables that serve `needed` ones: 4096 at least, so that usual requests never recompile. */
export const rotaryPositions = (needed: number): number => Math.max(4096, 2 ** Math.ceil(Math.log2(needed)));

/** Rotary tables of a stack's heads, by the stored frequencies when there are some. */
export function stackRotary(
  device: Device,
  name: string,
  { width, heads }: KronosBlockConfig,
  frequencies: Frequencies,
  positions: number,
): RotaryTables {
  const headWidth = width / heads;
  const stored = frequencies && ((pair: number): number => frequencies[pair] as number);
  return rotaryTables(device, name, { positions, headWidth, width: headWidth, pairing: "half" }, stored);
}
