/** C text for the address of one row of an operand. Must not know what is computed with it. */
import { broadcastStrides, resolveAccess, type Access } from "../ir/access.js";
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
export interface AxisGroup {
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

/** How an operand is read in an iteration over [...rowShape, width]. */
export interface RowRead {
  readonly rowShape: readonly Dim[];
  readonly width: number;
  /** C text of the row's number. */
  readonly row: string;
  /** The iteration's last axis is one of the rows' axes (its size is data), so operands have none for the columns. */
  readonly trailing: boolean;
}

/**
 * Declares what the address of one row of `node` needs, and returns it. With `source` it is where the node's own value comes from: the rows that a gatherRows
 * picks, the state that a read copies. A gatherRows that no kernel stores is always read that way.
 */
export function rowAddress(writer: KernelWriter, node: Node, read: RowRead, role = "x", source = false): RowAddress {
  if (node.op === "gatherRows" && (source || !writer.isStored(node))) return gatheredAddress(writer, node, read, role);
  const access = resolveAccess(node);
  const { strides, terms } = placeOf(writer, access, read, read.row);
  if (access.offset !== 0) terms.push(writer.number(access.offset));
  const key = source ? node.states[0]?.state : undefined;
  const base = writer.pointer(key ?? storageKey(access.base), access.base.dtype, role);
  return {
    pointer: terms.length === 0 ? base : `(${base} + ${terms.join(" + ")})`,
    stride: strides[strides.length - 1] as Dim,
    dtype: access.base.dtype,
  };
}

/** Strides of an operand in the iteration, and the terms of a row's offset. */
function placeOf(
  writer: KernelWriter,
  { shape, strides }: Pick<Access, "shape" | "strides">,
  { rowShape, width, trailing }: RowRead,
  row: string,
): { strides: Dim[]; terms: string[] } {
  const own = trailing ? { shape: [...shape, 1], strides: [...strides, 0] } : { shape, strides };
  const full = broadcastStrides(own, [...rowShape, width]);
  return { strides: full, terms: groupsText(writer, groupAxes(rowShape, full.slice(0, -1)), row) };
}

/** A row of gatherRows: the index picks the source's row, the source's own strides lead to its elements. Two sources both lie contiguously. */
function gatheredAddress(writer: KernelWriter, node: Node, read: RowRead, role: string): RowAddress {
  const [source, index, other] = node.inputs as [Node, Node, Node | undefined];
  const { rowShape, row } = read;
  const access = resolveAccess(source);
  const innerRows = productOf(rowShape.slice(1));
  const at = writer.fresh("index");
  const lead = innerRows === 1 ? row : `${row} / ${writer.number(innerRows)}`;
  writer.line(`const int64_t ${at} = ${plainPointer(writer, index, "index")}[${lead}];`);
  const rowOf = (of: Node, text: string, stride: Dim): string =>
    `${plainPointer(writer, of, role)} + clamp_index(${text}, ${writer.number(of.shape[0] as Dim)}) * ${writer.number(stride)}`;
  const own = rowOf(source, at, access.strides[0] as Dim);
  const chosen = other ? `${at} < 0 ? ${rowOf(other, `-1 - ${at}`, productOf(other.shape.slice(1)))} : ${own}` : own;
  const inner = placeOf(
    writer,
    { shape: [1, ...access.shape.slice(1)], strides: [0, ...access.strides.slice(1)] },
    { ...read, rowShape: [1, ...rowShape.slice(1)] },
    `(${row} % ${writer.number(innerRows)})`,
  );
  const name = writer.fresh("gathered");
  const place = inner.terms.length > 0 ? `${other ? `(${chosen})` : chosen} + ${inner.terms.join(" + ")}` : chosen;
  writer.line(`const ${cType[node.dtype]} *const ${name} = ${place};`);
  return { pointer: name, stride: inner.strides[inner.strides.length - 1] as Dim, dtype: node.dtype };
}

/** Pointer to the first element of a value that lies contiguously. */
export function plainPointer(writer: KernelWriter, node: Node, role: string): string {
  const access = resolveAccess(node);
  const base = writer.pointer(storageKey(access.base), access.base.dtype, role);
  return access.offset === 0 ? base : `(${base} + ${writer.number(access.offset)})`;
}
