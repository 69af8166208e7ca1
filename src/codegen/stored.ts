/** How the weights of contractions are stored, and what reading and using them costs. Must not know how kernels are rendered. */
import { multiplyDims, productOf, type Dim } from "../ir/dim.js";
import { dtypes } from "../ir/dtype.js";
import type { Node } from "../ir/graph.js";
import type { ContractionKernel } from "../ir/kernel.js";

/** How a contraction's weights are stored; a computed matrix is f32. */
export type Stored = "f32" | "bf16";

export const storedSuffix = (stored: Stored): string => (stored === "f32" ? "" : `_${stored}`);

export const storedAs = (node: Node): Stored => (node.op === "linear" && node.states[0]?.state.dtype === "bf16" ? "bf16" : "f32");

/** How a kernel's weights are stored, each form once. */
export const storedForms = (kernel: ContractionKernel): readonly Stored[] => [
  ...new Set(kernel.segments.flatMap(({ contractions }) => contractions.map(storedAs))),
];

/** Useful work of a contraction kernel, for profiles. */
export function contractionCost(kernel: ContractionKernel): { flops: Dim; bytes: Dim } {
  const rows = productOf(kernel.x.shape.slice(0, -1));
  const sum = (perColumn: (node: Node) => number): number =>
    kernel.segments.reduce(
      (total, { width, contractions }) => total + width * contractions.reduce((part, node) => part + perColumn(node), 0),
      0,
    );
  const bytes = kernel.depth * sum((node) => dtypes[storedAs(node)].bytes);
  return { flops: multiplyDims(rows, 2 * kernel.depth * sum(() => 1)), bytes };
}
