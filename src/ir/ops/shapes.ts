/** Shape rules that several ops share. Must not know of any op in particular. */
import { printShape, sameDim, type Dim } from "../dim.js";
import type { Node } from "../graph.js";

export class ShapeError extends Error {
  override readonly name = "ShapeError";
}

/** Throws a ShapeError naming the op, its label and every operand's shape. */
export function refuse(op: string, label: string, inputs: readonly Node[], problem: string): never {
  const operands = inputs.map((node) => `${node.dtype}${printShape(node.shape)}`).join(", ");
  throw new ShapeError(`${op}${label ? ` (${label})` : ""}: ${problem}; operands are ${operands || "none"}`);
}

/** Broadcast of two shapes, aligned at the last axis; a size variable equals only itself. */
export function broadcastShapes(op: string, label: string, inputs: readonly Node[]): readonly Dim[] {
  const rank = Math.max(0, ...inputs.map((node) => node.shape.length));
  const result: Dim[] = [];
  for (let axis = 1; axis <= rank; axis++) {
    let chosen: Dim = 1;
    for (const node of inputs) {
      const dim = node.shape[node.shape.length - axis];
      if (dim === undefined || dim === 1) continue;
      if (chosen === 1) chosen = dim;
      else if (!sameDim(chosen, dim))
        refuse(op, label, inputs, `axis -${axis} is ${String(chosen)} in one operand and ${String(dim)} in another`);
    }
    result.unshift(chosen);
  }
  return result;
}

/** What a vector lane can hold; f64 and bf16 are storage that only the routines made for them read. */
export const isLaneType = (dtype: unknown): boolean => dtype === "f32" || dtype === "i32";

export const clamp = (value: number, low: number, high: number): number => Math.min(Math.max(value, low), high);

export const lastDim = (node: Node): Dim => node.shape[node.shape.length - 1] ?? 1;

export function staticLastDim(op: string, label: string, node: Node): number {
  const dim = lastDim(node);
  if (typeof dim !== "number") refuse(op, label, [node], `the last axis must be a fixed size, found ${String(dim)}`);
  return dim;
}

export const elementCount = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Row-major strides. */
export function stridesOf(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length).fill(1);
  for (let axis = shape.length - 2; axis >= 0; axis--) strides[axis] = (strides[axis + 1] as number) * (shape[axis + 1] as number);
  return strides;
}
