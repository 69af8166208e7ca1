/** Ops that read or write States. Writes yield an empty i32 value that only orders them. */
import { printShape, productOf, sameDim, type Dim } from "../dim.js";
import type { Node, StateDeclaration } from "../graph.js";
import type { OpSpec } from "../ops.js";
import { elementCount, isLaneType, refuse } from "./shapes.js";

const nothing: readonly Dim[] = [0];
const stateAt = (states: readonly StateDeclaration[], index: number): StateDeclaration => states[index] as StateDeclaration;

/** Keys are stored [row][head][block][d][16], values [row][head][slot][d padded to 16]; see `docs/layout.md`. */
export const keyLanes = 16;
export const padded = (width: number): number => Math.ceil(width / keyLanes) * keyLanes;

/** Whether rows of a state of this rank hold heads, and the first axis inside such a part. */
export const copiedHeads = (rank: number): [boolean, number] => (rank > 2 ? [true, 2] : [false, 1]);

function checkPlain(op: string, inputs: readonly Node[], state: StateDeclaration, label: string): void {
  if (state.layout !== "plain") refuse(op, label, inputs, `the state ${state.name} is stored as weight panels, which only linear reads`);
}

function checkAppend(op: string, inputs: readonly Node[], cache: StateDeclaration, label: string): void {
  const [x, row, slot] = inputs as [Node, Node, Node];
  checkPlain(op, inputs, cache, label);
  if (x.shape.length !== 3 || x.dtype !== "f32") refuse(op, label, inputs, "x must be f32 [tokens, heads, d]");
  for (const index of [row, slot]) {
    if (index.dtype !== "i32" || index.shape.length !== 1 || !sameDim(index.shape[0] as Dim, x.shape[0] as Dim))
      refuse(op, label, inputs, "row and slot must be i32 [tokens]");
  }
  const [, heads, d] = x.shape as [Dim, Dim, Dim];
  const [, cacheHeads, , third, lanes] = cache.shape;
  const fits =
    op === "appendKeys"
      ? cache.shape.length === 5 && sameDim(third ?? 0, d) && lanes === keyLanes
      : cache.shape.length === 4 && Number(third) >= Number(d);
  if (cache.dtype !== "f32" || !sameDim(cacheHeads ?? 0, heads) || !fits)
    refuse(op, label, inputs, `the cache ${cache.name} is ${cache.dtype}${printShape(cache.shape)}, which does not hold x`);
}

export const stateOps: readonly OpSpec[] = [
  {
    /** The whole state as a value; free for constant states, a copy of the version read for mutable ones. */
    name: "read",
    class: "state",
    shape(inputs, attributes, states, label) {
      const state = stateAt(states, 0);
      checkPlain("read", inputs, state, label);
      if (!isLaneType(state.dtype) || attributes["dtype"] !== state.dtype)
        refuse("read", label, inputs, `the state ${state.name} is ${state.dtype}; f32 and i32 can be read, as what they are`);
      return (attributes["shape"] as readonly Dim[] | undefined) ?? state.shape;
    },
    dtype: (_inputs, attributes) => attributes["dtype"] as "f32",
    evaluate: ({ states, output }) => output.set(states[0]?.data.subarray(0, output.length) ?? []),
  },
  {
    /** state[index[r]] = value[r] for each row r; an index outside the state is skipped. Indices inside must differ: rows are written in no set order. */
    name: "writeRows",
    class: "state",
    shape(inputs, _attributes, states, label) {
      const [value, index] = inputs as [Node, Node];
      if (index.dtype !== "i32" || index.shape.length !== 1 || !sameDim(index.shape[0] as Dim, value.shape[0] as Dim))
        refuse("writeRows", label, inputs, "the index must be i32 [rows]");
      if (stateAt(states, 0).dtype !== value.dtype)
        refuse("writeRows", label, inputs, `the state ${stateAt(states, 0).name} is ${stateAt(states, 0).dtype}`);
      checkPlain("writeRows", inputs, stateAt(states, 0), label);
      const rowShape = stateAt(states, 0).shape.slice(1);
      if (!isLaneType(value.dtype) || !sameDim(productOf(value.shape.slice(1)), productOf(rowShape)))
        refuse(
          "writeRows",
          label,
          inputs,
          `a row of the state ${stateAt(states, 0).name} is ${stateAt(states, 0).dtype}${printShape(rowShape)}`,
        );
      return nothing;
    },
    dtype: () => "i32",
    evaluate({ inputs, states }) {
      const [value, index] = inputs;
      const state = states[0];
      if (!value || !index || !state) return;
      const width = elementCount(state.shape.slice(1));
      for (let r = 0; r < index.data.length; r++) {
        const at = index.data[r] as number;
        if (at >= 0 && at < (state.shape[0] as number))
          for (let i = 0; i < width; i++) state.data[at * width + i] = value.data[r * width + i] as number;
      }
    },
  },
  {
    /** target[r] = source[index[r]] for the first rows of target; an index outside is clamped. Caches of different capacity are copied head by head. */
    name: "copyRows",
    class: "state",
    shape(inputs, _attributes, states, label) {
      const [index] = inputs as [Node];
      const [target, source] = [stateAt(states, 0), stateAt(states, 1)];
      if (index.dtype !== "i32" || index.shape.length !== 1) refuse("copyRows", label, inputs, "the index must be i32 [rows]");
      if (target.dtype !== source.dtype || target.shape.length !== source.shape.length)
        refuse("copyRows", label, inputs, `${target.name} and ${source.name} differ in dtype or rank`);
      for (const state of [target, source]) checkPlain("copyRows", inputs, state, label);
      if (target === source)
        refuse("copyRows", label, inputs, `${target.name} cannot be copied onto itself: rows would be overwritten before they are read`);
      return nothing;
    },
    dtype: () => "i32",
    evaluate({ inputs, states }) {
      const index = inputs[0];
      const [target, source] = states;
      if (!index || !target || !source) return;
      const [heads, headAxes] = copiedHeads(target.shape.length);
      const headCount = heads ? (target.shape[1] as number) : 1;
      const [targetWidth, sourceWidth] = [elementCount(target.shape.slice(headAxes)), elementCount(source.shape.slice(headAxes))];
      const width = Math.min(targetWidth, sourceWidth);
      const last = (source.shape[0] as number) - 1;
      const rows = Math.min(index.data.length, target.shape[0] as number);
      for (let r = 0; r < rows; r++) {
        const from = Math.min(Math.max(index.data[r] as number, 0), last);
        for (let h = 0; h < headCount; h++) {
          for (let i = 0; i < width; i++)
            target.data[(r * headCount + h) * targetWidth + i] = source.data[(from * headCount + h) * sourceWidth + i] as number;
        }
      }
    },
  },
  {
    /** Writes key vectors x [tokens, heads, d] into cache slots: K[row[n]][h][slot / 16][:][slot % 16]. A slot outside is skipped. */
    name: "appendKeys",
    class: "state",
    shape(inputs, _attributes, states, label) {
      checkAppend("appendKeys", inputs, stateAt(states, 0), label);
      return nothing;
    },
    dtype: () => "i32",
    evaluate({ inputs, states }) {
      const [x, row, slot] = inputs;
      const cache = states[0];
      if (!x || !row || !slot || !cache) return;
      const [rows, heads, blocks, width] = cache.shape as [number, number, number, number];
      for (let n = 0; n < row.data.length; n++) {
        const [r, at] = [row.data[n] as number, slot.data[n] as number];
        if (r < 0 || r >= rows || at < 0 || at >= blocks * keyLanes) continue;
        for (let h = 0; h < heads; h++) {
          const base = ((r * heads + h) * blocks + Math.floor(at / keyLanes)) * width * keyLanes + (at % keyLanes);
          for (let j = 0; j < width; j++) cache.data[base + j * keyLanes] = x.data[(n * heads + h) * width + j] as number;
        }
      }
    },
  },
  {
    /** Writes value vectors x [tokens, heads, d] into cache slots: V[row[n]][h][slot][:]. A slot outside is skipped. */
    name: "appendValues",
    class: "state",
    shape(inputs, _attributes, states, label) {
      checkAppend("appendValues", inputs, stateAt(states, 0), label);
      return nothing;
    },
    dtype: () => "i32",
    evaluate({ inputs, states }) {
      const [x, row, slot] = inputs;
      const cache = states[0];
      if (!x || !row || !slot || !cache) return;
      const [rows, heads, capacity, stored] = cache.shape as [number, number, number, number];
      const width = x.shape[2] as number;
      for (let n = 0; n < row.data.length; n++) {
        const [r, at] = [row.data[n] as number, slot.data[n] as number];
        if (r < 0 || r >= rows || at < 0 || at >= capacity) continue;
        for (let h = 0; h < heads; h++) {
          const base = ((r * heads + h) * capacity + at) * stored;
          for (let j = 0; j < width; j++) cache.data[base + j] = x.data[(n * heads + h) * width + j] as number;
        }
      }
    },
  },
];
