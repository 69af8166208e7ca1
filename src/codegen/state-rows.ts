/** Where the rows that a kernel writes into a State lie: appended keys and values, and rows replaced by index. Must not know what is written. */
import { multiplyDims, productOf, type Dim } from "../ir/dim.js";
import type { Node } from "../ir/graph.js";
import { plainPointer } from "./address.js";
import { iterationOf } from "./steps.js";
import type { KernelWriter } from "./writer.js";

/** One row of a kernel's iteration. */
export interface EmittedRow {
  readonly writer: KernelWriter;
  readonly rowShape: readonly Dim[];
  /** C text of its number. */
  readonly row: string;
}

export const isStateWrite = (node: Node): boolean => node.states.some((access) => access.writes);

/** Declares a pointer to the row's place in the state that `node` writes, and returns its name; null when the row's index lies outside. */
export function declareStateRow({ writer, rowShape, row }: EmittedRow, node: Node): string {
  const state = node.states[0]?.state;
  if (!state) throw new Error(`${node.op} (${node.label}) has no state`);
  const [, first, second] = node.inputs as [Node, Node, Node | undefined];
  const heads = productOf(rowShape.slice(1));
  const token = heads === 1 ? row : `(${row} / ${writer.number(heads)})`;
  const head = heads === 1 ? "0" : `${row} % ${writer.number(heads)}`;
  const load = (index: Node, role: string): string => {
    const name = writer.fresh(role);
    writer.line(`const int64_t ${name} = ${plainPointer(writer, index, "index")}[${token}];`);
    return name;
  };
  const base = writer.pointer(state, state.dtype, "state");
  const name = writer.fresh("place");
  const dims = state.shape;
  const inside = (index: string, limit: Dim): string => `${index} >= 0 && ${index} < ${writer.number(limit)}`;
  const type = state.dtype === "i32" ? "int32_t" : state.dtype === "f64" ? "double" : "float";
  const r = load(first, "stateRow");
  if (node.op === "writeRows") {
    const rest = productOf(dims.slice(1));
    const width = iterationOf(node.inputs[0] as Node).width;
    const offset = heads === 1 ? "" : ` + ${head} * ${width}`;
    writer.line(`${type} *const ${name} = ${inside(r, dims[0] as Dim)} ? ${base} + ${r} * ${writer.number(rest)}${offset} : (${type} *)0;`);
    return name;
  }
  const slot = load(second as Node, "slot");
  const [rows, stateHeads, third, fourth] = dims as [Dim, Dim, Dim, Dim];
  const capacity = node.op === "appendKeys" ? multiplyDims(third, 16) : third;
  const headBase = `(${r} * ${writer.number(stateHeads)} + ${head})`;
  const offset =
    node.op === "appendKeys"
      ? `(${headBase} * ${writer.number(third)} + ${slot} / 16) * ${writer.number(multiplyDims(fourth, 16))} + ${slot} % 16`
      : `(${headBase} * ${writer.number(third)} + ${slot}) * ${writer.number(fourth)}`;
  writer.line(`${type} *const ${name} = ${inside(r, rows)} && ${inside(slot, capacity)} ? ${base} + ${offset} : (${type} *)0;`);
  return name;
}
