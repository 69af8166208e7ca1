/** How kernels read operands: through strides, or as plain memory. The one place that fusion and materialisation ask. */
import type { Node } from "../ir/graph.js";
import { opSpec } from "../ir/ops.js";

/** Ops whose first operand is a row that is computed in place; the others are vectors and tables in memory. */
const firstByRow = new Set(["rope", "writeRows", "appendKeys", "appendValues", "matmul"]);

/** Whether kernels read this operand as adjacent elements of one buffer, complete before the kernel starts. */
export function needsPlain(node: Node, position: number): boolean {
  const { class: opClass } = opSpec(node.op);
  if (opClass === "elementwise" || opClass === "reduce" || opClass === "view") return false;
  if (node.op === "rmsNorm" || node.op === "softmax" || node.op === "linear") return false;
  if (node.op === "gatherRows") return position > 0 || node.inputs.length > 2;
  return firstByRow.has(node.op) ? position > 0 : true;
}

/** Row kernels have constants in their code; everything else reads them from a buffer. */
export const takesConstants = (node: Node): boolean =>
  opSpec(node.op).class === "elementwise" || opSpec(node.op).class === "reduce" || node.op === "rmsNorm" || node.op === "softmax";
