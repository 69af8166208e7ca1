/** C text for the address of one row of an operand. Must not know what is computed with it. */
import { broadcastStrides, resolveAccess } from "../ir/access.js";
import { multiplyDims, productOf, sameDim, type Dim } from "../ir/dim.js";
import type { DType } from "../ir/dtype.js";
import type { Node } from "../ir/graph.js";
import { cType, type KernelWriter } from "./writer.js";

/** A row of an operand as seen by the code: element i lies at pointer[i * stride]. */
export interface RowAddress {
  readonly pointer: string;
  readonly stride: Dim;
  readonly dtype: DType;
}

/** Axes of an iteration whose offset is (row / divide % modulo) * stride. */
interface AxisGroup {
  readonly divide: Dim;
  readonly modulo: Dim | undefined;
  readonly stride: Dim;
}

/** Merges axes that continue evenly, so a contiguous operand is one multiplication. */
export function groupAxes(shape: readonly Dim[], strides: readonly Dim[]): AxisGroup[] {
  const groups: { first: number; last: number; stride: Dim }[] = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const dim = shape[axis] as Dim;
    const stride = strides[axis] as Dim;
    if (dim === 1) continue;
    const inner = groups[0];
    const extent = inner ? productOf(shape.slice(inner.first, inner.last + 1)) : 1;
    if (inner && sameDim(stride, multiplyDims(inner.stride, extent))) inner.first = axis;
    else groups.unshift({ first: axis, last: axis, stride });
  }
  return groups
    .filter(({ stride }) => stride !== 0)
    .map(({ first, last, stride }) => ({
      divide: productOf(shape.slice(last + 1)),
      modulo: shape.slice(0, first).every((dim) => dim === 1) ? undefined : productOf(shape.slice(first, last + 1)),
      stride,
    }));
}

const times = (text: string, factor: string): string => (factor === "1" ? text : `${text} * ${factor}`);

function groupsText(writer: KernelWriter, groups: readonly AxisGroup[], row: string): string[] {
  return groups.map(({ divide, modulo, stride }) => {
    const divided = divide === 1 ? row : `${row} / ${writer.number(divide)}`;
    const wrapped = modulo === undefined ? divided : `${divided} % ${writer.number(modulo)}`;
    return times(wrapped.includes(" ") ? `(${wrapped})` : wrapped, writer.number(stride));
  });
}

/** What a node's pointer is keyed by: the state for a read of a constant state, else the node itself. */
export const storageKey = (node: Node): object =>
  node.op === "read" && node.states[0]?.state.kind === "constant" ? node.states[0].state : node;

/**
 * Declares the address of row `row` of `node` in an iteration over [...rowShape, width], and returns it. A gatherRows is read through its index.
 */
export function rowAddress(writer: KernelWriter, node: Node, rowShape: readonly Dim[], width: number, row: string, role = "x"): RowAddress {
  if (node.op === "gatherRows") return gatheredAddress(writer, node, rowShape, row, role);
  const access = resolveAccess(node);
  const full = [...rowShape, width];
  const aligned =
    node.shape.length > 0 && typeof node.shape[node.shape.length - 1] !== "number"
      ? { shape: [...access.shape, 1], strides: [...access.strides, 0] }
      : access;
  const strides = broadcastStrides(aligned, full);
  const terms = groupsText(writer, groupAxes(rowShape, strides.slice(0, -1)), row);
  if (access.offset !== 0) terms.push(writer.number(access.offset));
  const base = writer.pointer(storageKey(access.base), access.base.dtype, role);
  return {
    pointer: terms.length === 0 ? base : `(${base} + ${terms.join(" + ")})`,
    stride: strides[strides.length - 1] as Dim,
    dtype: access.base.dtype,
  };
}

/** A row of gatherRows: the index picks the source's row, the source's own strides lead to its elements. Two sources must both lie contiguously. */
function gatheredAddress(writer: KernelWriter, node: Node, rowShape: readonly Dim[], row: string, role: string): RowAddress {
  const [source, index, other] = node.inputs as [Node, Node, Node | undefined];
  const inner = rowShape.slice(1);
  const innerRows = productOf(inner);
  const lead = innerRows === 1 ? row : `(${row} / ${writer.number(innerRows)})`;
  const at = writer.fresh("index");
  const indexRow = rowAddress(writer, index, rowShape.slice(0, 1), 1, lead, "index");
  writer.line(`const int64_t ${at} = *${indexRow.pointer};`);
  const access = resolveAccess(source);
  const rowOf = (of: Node, text: string, stride: Dim): string => {
    const rows = writer.number(of.shape[0] as Dim);
    return `${plainPointer(writer, of, role)} + (${text} < 0 ? 0 : ${text} < ${rows} ? ${text} : ${rows} - 1) * ${writer.number(stride)}`;
  };
  const own = rowOf(source, at, access.strides[0] as Dim);
  const chosen = other ? `${at} < 0 ? ${rowOf(other, `(-1 - ${at})`, productOf(other.shape.slice(1)))} : ${own}` : own;
  const axes = access.shape.slice(1, -1);
  const strides = broadcastStrides({ shape: axes, strides: access.strides.slice(1, -1) }, inner);
  const terms = innerRows === 1 ? [] : groupsText(writer, groupAxes(inner, strides), `(${row} % ${writer.number(innerRows)})`);
  const name = writer.fresh("gathered");
  writer.line(`const ${cType[node.dtype]} *const ${name} = ${terms.length > 0 ? `(${chosen}) + ${terms.join(" + ")}` : chosen};`);
  const width = node.shape.length > 1 ? (node.shape[node.shape.length - 1] as Dim) : 1;
  return { pointer: name, stride: width === 1 ? 0 : (access.strides[access.strides.length - 1] as Dim), dtype: node.dtype };
}

/** Pointer to the first element of a value that lies contiguously. */
export function plainPointer(writer: KernelWriter, node: Node, role: string): string {
  const access = resolveAccess(node);
  const base = writer.pointer(storageKey(access.base), access.base.dtype, role);
  return access.offset === 0 ? base : `(${base} + ${writer.number(access.offset)})`;
}
