/**
 * Caches as values: appending gives a new cache and leaves the old one as it was. Layouts are those of cache states, so that attention reads both alike.
 * Must not know which strategy uses them.
 */
import { printShape, sameDim, type Dim } from "../dim.js";
import type { Node } from "../graph.js";
import type { OpSpec, Value } from "../ops.js";
import { elementCount, refuse } from "./shapes.js";
import { keyLanes } from "./state.js";

/** Blocks of keys, or slots of values, that the new cache has: those of the old one, or `extent` when that is given. */
function appendedShape(
  op: "appendedKeys" | "appendedValues",
  inputs: readonly Node[],
  extent: Dim | undefined,
  label: string,
): readonly Dim[] {
  const [cache, x, row, slot] = inputs as [Node, Node, Node, Node];
  if (inputs.length !== 4) refuse(op, label, inputs, "takes a cache, x, row and slot");
  if (x.shape.length !== 3 || x.dtype !== "f32") refuse(op, label, inputs, "x must be f32 [tokens, heads, d]");
  for (const index of [row, slot]) {
    if (index.dtype !== "i32" || index.shape.length !== 1 || !sameDim(index.shape[0] as Dim, x.shape[0] as Dim))
      refuse(op, label, inputs, "row and slot must be i32 [tokens]");
  }
  const [rows, heads, before, width, lanes] = cache.shape as [Dim, Dim, Dim, Dim, Dim];
  const d = x.shape[2] as Dim;
  const fits =
    op === "appendedKeys"
      ? cache.shape.length === 5 && sameDim(width, d) && lanes === keyLanes
      : cache.shape.length === 4 && Number(width) >= Number(d);
  if (cache.dtype !== "f32" || !sameDim(heads, x.shape[1] as Dim) || !fits)
    refuse(op, label, inputs, `the cache is ${cache.dtype}${printShape(cache.shape)}, which does not hold x`);
  if (typeof extent === "number" && typeof before === "number" && extent < before)
    refuse(op, label, inputs, `the new cache has room for ${extent}, the old one for ${before}: appending never forgets`);
  return [rows, heads, extent ?? before, ...cache.shape.slice(3)];
}

/** Copies the old cache head by head into the larger or equal new one; the rest stays 0. */
function copyOld(cache: Value, shape: readonly number[], output: { set(values: ArrayLike<number>, at: number): void }): void {
  const heads = (shape[0] as number) * (shape[1] as number);
  const [from, to] = [elementCount(cache.shape.slice(2)), elementCount(shape.slice(2))];
  for (let head = 0; head < heads; head++) output.set(cache.data.subarray(head * from, (head + 1) * from), head * to);
}

export const cacheValueOps: readonly OpSpec[] = [
  {
    /**
     * The cache of keys [rows, heads, blocks, d, 16] with x [tokens, heads, d] at row[n], slot[n]; `extent` = blocks of the result when it grows. A slot outside
     * is skipped.
     */
    name: "appendedKeys",
    class: "routine",
    shape: (inputs, attributes, _states, label) => appendedShape("appendedKeys", inputs, attributes["extent"] as Dim | undefined, label),
    dtype: () => "f32",
    evaluate({ inputs, shape, output }) {
      const [cache, x, row, slot] = inputs as [Value, Value, Value, Value];
      copyOld(cache, shape, output);
      const [rows, heads, blocks, width] = shape as [number, number, number, number];
      for (let n = 0; n < row.data.length; n++) {
        const [r, at] = [row.data[n] as number, slot.data[n] as number];
        if (r < 0 || r >= rows || at < 0 || at >= blocks * keyLanes) continue;
        for (let h = 0; h < heads; h++) {
          const base = ((r * heads + h) * blocks + Math.floor(at / keyLanes)) * width * keyLanes + (at % keyLanes);
          for (let j = 0; j < width; j++) output[base + j * keyLanes] = x.data[(n * heads + h) * width + j] as number;
        }
      }
    },
  },
  {
    /** The cache of values [rows, heads, slots, stored] with x [tokens, heads, d] at row[n], slot[n]; `extent` = slots of the result when it grows. */
    name: "appendedValues",
    class: "routine",
    shape: (inputs, attributes, _states, label) => appendedShape("appendedValues", inputs, attributes["extent"] as Dim | undefined, label),
    dtype: () => "f32",
    evaluate({ inputs, shape, output }) {
      const [cache, x, row, slot] = inputs as [Value, Value, Value, Value];
      copyOld(cache, shape, output);
      const [rows, heads, slots, stored] = shape as [number, number, number, number];
      const width = x.shape[2] as number;
      for (let n = 0; n < row.data.length; n++) {
        const [r, at] = [row.data[n] as number, slot.data[n] as number];
        if (r < 0 || r >= rows || at < 0 || at >= slots) continue;
        for (let h = 0; h < heads; h++)
          for (let j = 0; j < width; j++)
            output[((r * heads + h) * slots + at) * stored + j] = x.data[(n * heads + h) * width + j] as number;
      }
    },
  },
];
