/** Views as strides: where the elements of a value lie in the buffer that stores it. Must not know of kernels. */
import { divideDim, multiplyDims, addDims, sameDim, type Dim } from "./dim.js";
import type { Node } from "./graph.js";

/** Element (i0, i1, ...) of the value is element offset + sum(i * stride) of the buffer that `base` is stored in. */
export interface Access {
  readonly base: Node;
  readonly offset: Dim;
  readonly shape: readonly Dim[];
  readonly strides: readonly Dim[];
}

export function contiguousStrides(shape: readonly Dim[]): Dim[] {
  const strides: Dim[] = new Array<Dim>(shape.length).fill(1);
  for (let axis = shape.length - 2; axis >= 0; axis--) strides[axis] = multiplyDims(strides[axis + 1] as Dim, shape[axis + 1] as Dim);
  return strides;
}

export const isContiguous = ({ shape, strides }: Access): boolean => {
  const expected = contiguousStrides(shape);
  return shape.every((dim, axis) => dim === 1 || sameDim(strides[axis] as Dim, expected[axis] as Dim));
};

const stored = (node: Node): Access => ({ base: node, offset: 0, shape: node.shape, strides: contiguousStrides(node.shape) });

/** Nodes never change, and fusing and rendering ask for the same ones over and over. */
const resolved = new WeakMap<Node, Access>();

/** Follows views down to the stored value. A reshape that no strides can express ends the walk: that reshape is a copy. */
export function resolveAccess(node: Node): Access {
  let access = resolved.get(node);
  if (!access) resolved.set(node, (access = followViews(node)));
  return access;
}

function followViews(node: Node): Access {
  const [operand] = node.inputs;
  if (!operand) return stored(node);
  switch (node.op) {
    case "reshape": {
      const inner = resolveAccess(operand);
      const strides = reshapeStrides(inner, node.shape);
      return strides ? { ...inner, shape: node.shape, strides } : stored(node);
    }
    case "slice": {
      const inner = resolveAccess(operand);
      const { axis, start } = node.attributes as { axis: number; start: number };
      return { ...inner, shape: node.shape, offset: addDims(inner.offset, multiplyDims(start, inner.strides[axis] as Dim)) };
    }
    case "permute": {
      const inner = resolveAccess(operand);
      const order = node.attributes["order"] as readonly number[];
      return { ...inner, shape: node.shape, strides: order.map((axis) => inner.strides[axis] as Dim) };
    }
    case "broadcast": {
      const inner = resolveAccess(operand);
      return { ...inner, shape: node.shape, strides: broadcastStrides(inner, node.shape) };
    }
    default:
      return stored(node);
  }
}

/** Strides of an access seen as `shape`, aligned at the last axis; broadcast axes get stride 0. */
export function broadcastStrides(access: Pick<Access, "shape" | "strides">, shape: readonly Dim[]): Dim[] {
  const lead = shape.length - access.shape.length;
  return shape.map((dim, axis) => {
    const own = access.shape[axis - lead];
    return own === undefined || (own === 1 && dim !== 1) ? 0 : (access.strides[axis - lead] as Dim);
  });
}

/** Strides of the same elements in a new shape, group by group of axes with equal products; undefined when a group is not evenly strided. */
function reshapeStrides(access: Access, target: readonly Dim[]): Dim[] | undefined {
  if (isContiguous(access)) return contiguousStrides(target);
  const source = access.shape.map((dim, axis) => ({ dim, stride: access.strides[axis] as Dim })).filter(({ dim }) => dim !== 1);
  const strides: Dim[] = [];
  let at = source.length - 1;
  let remaining: Dim | undefined;
  let stride: Dim = 1;
  for (let axis = target.length - 1; axis >= 0; axis--) {
    const dim = target[axis] as Dim;
    if (dim === 1) {
      strides.unshift(0);
      continue;
    }
    if (remaining === undefined || remaining === 1) {
      const next = source[at--];
      if (!next) return undefined;
      remaining = next.dim;
      stride = next.stride;
    }
    while (divideDim(remaining, dim) === undefined) {
      const next = source[at];
      const width: Dim = remaining;
      if (!next || !sameDim(next.stride, multiplyDims(stride, width))) return undefined;
      // Merge an outer axis that continues evenly: only possible before any part of this group was handed out.
      remaining = multiplyDims(remaining, next.dim);
      at--;
    }
    strides.unshift(stride);
    stride = multiplyDims(stride, dim);
    remaining = divideDim(remaining, dim);
  }
  return strides;
}
