/** Row kernels as stand-alone kernels: one unit per row, in the order that suits the memory they write. The row emitter itself also serves prologues and epilogues. */
import { addDims, multiplyDims, productOf, type Dim } from "../ir/dim.js";
import type { Node } from "../ir/graph.js";
import type { RowKernel, Units } from "../ir/kernel.js";
import { keyLanes } from "../ir/ops/state.js";
import type { TargetIsa } from "./helpers.js";
import { RowEmitter } from "./rows.js";
import { iterationOf, StepPlanner } from "./steps.js";
import type { KernelWriter } from "./writer.js";

export function emitRows(writer: KernelWriter, kernel: RowKernel, isa: TargetIsa): Units {
  const planner = new StepPlanner();
  for (const node of kernel.values) planner.compute(node);
  const target = (node: Node): string => `(${writer.pointer(node, node.dtype, "out")} + row * ${iterationOf(node).width})`;
  const heads = keyHeads(kernel);
  const unit = heads > 1 ? "unit" : "row";
  writer.block(`for (int64_t ${unit} = begin; ${unit} < end; ${unit}++)`, () => {
    if (heads > 1) emitRowByHead(writer, kernel.rowShape[0] as Dim, heads);
    const emitter = new RowEmitter(planner, kernel.values, kernel.stores, { writer, isa, rowShape: kernel.rowShape, row: "row", target });
    emitter.prepare();
    emitter.emitRow();
  });
  return { dim: productOf(kernel.rowShape), divide: 1, times: 1 };
}

/** Heads of a kernel that appends keys, 1 for all others. */
function keyHeads({ values, rowShape }: RowKernel): number {
  const [, heads] = rowShape;
  return rowShape.length === 2 && typeof heads === "number" && values.some((node) => node.op === "appendKeys") ? heads : 1;
}

/** Keys of adjacent tokens are adjacent lanes of the same lines of a cache: such tokens follow each other, one head at a time. */
function emitRowByHead(writer: KernelWriter, tokens: Dim, heads: number): void {
  const total = writer.number(tokens);
  writer.line(`const int64_t first = unit / ${keyLanes * heads} * ${keyLanes}, within = unit - first * ${heads};`);
  writer.line(`const int64_t together = ${total} - first < ${keyLanes} ? ${total} - first : ${keyLanes};`);
  writer.line(`const int64_t row = (first + within % together) * ${heads} + within / together;`);
}

/** Memory traffic: every distinct operand and result once. */
export function rowsCost(kernel: RowKernel): { flops: Dim; bytes: Dim } {
  const operands = new Set(kernel.values.flatMap((node) => node.inputs.filter((input) => !kernel.values.includes(input))));
  const touched = [...operands, ...kernel.stores];
  const bytes = touched.reduce<Dim>((sum, node) => addDims(sum, multiplyDims(productOf(node.shape), 4)), 0);
  return { flops: 0, bytes };
}
