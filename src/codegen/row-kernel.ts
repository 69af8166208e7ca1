/** Row kernels as stand-alone kernels: one unit per row. The row emitter itself also serves prologues and epilogues. */
import { addDims, multiplyDims, productOf, type Dim } from "../ir/dim.js";
import type { Node } from "../ir/graph.js";
import type { RowKernel, Units } from "../ir/kernel.js";
import type { TargetIsa } from "./helpers.js";
import { RowEmitter } from "./rows.js";
import { iterationOf, StepPlanner } from "./steps.js";
import type { KernelWriter } from "./writer.js";

export function emitRows(writer: KernelWriter, kernel: RowKernel, isa: TargetIsa): Units {
  const planner = new StepPlanner();
  for (const node of kernel.values) planner.compute(node);
  const target = (node: Node): string => `(${writer.pointer(node, node.dtype, "out")} + row * ${iterationOf(node).width})`;
  writer.block("for (int64_t row = begin; row < end; row++)", () => {
    const emitter = new RowEmitter(planner, kernel.values, kernel.stores, { writer, isa, rowShape: kernel.rowShape, row: "row", target });
    emitter.prepare();
    emitter.emitRow();
  });
  return { dim: productOf(kernel.rowShape), divide: 1, times: 1 };
}

/** Memory traffic: every distinct operand and result once. */
export function rowsCost(kernel: RowKernel): { flops: Dim; bytes: Dim } {
  const operands = new Set(kernel.values.flatMap((node) => node.inputs.filter((input) => !kernel.values.includes(input))));
  const touched = [...operands, ...kernel.stores];
  const bytes = touched.reduce<Dim>((sum, node) => addDims(sum, multiplyDims(productOf(node.shape), 4)), 0);
  return { flops: 0, bytes };
}
