/**
 * Puts copies where a kernel needs plain memory: operands that are read without strides, reshapes that no strides can express, outputs that lie inside another
 * buffer. After it every view is an alias and every such operand is contiguous. Moves values only, so no bit changes.
 */
import { isContiguous, resolveAccess } from "../ir/access.js";
import { copyNode, rebuildGraph, type GraphBuilder } from "../ir/builder.js";
import type { Graph, Node } from "../ir/graph.js";
import { opSpec } from "../ir/ops.js";
import { needsPlain, takesConstants } from "./operands.js";

const isPlain = (node: Node): boolean => isContiguous(resolveAccess(node));

/** Values without a buffer of their own that a kernel could write. */
const isBorrowed = ({ op, states }: Node): boolean =>
  op === "input" || op === "constant" || (op === "read" && states[0]?.state.kind === "constant");

function copyOf(node: Node, builder: GraphBuilder): Node {
  return builder.add("copy", [node], {}, [], node.label);
}

function prepare(operand: Node, plain: boolean, builder: GraphBuilder): Node {
  return resolveAccess(operand).base.op === "constant" || (plain && !isPlain(operand)) ? copyOf(operand, builder) : operand;
}

/** An op on rows of single elements as one on rows [n, 1]: a row kernel's inner axis is never its row axis. */
function onColumns(node: Node, inputs: readonly Node[], builder: GraphBuilder): Node {
  const column = (x: Node): Node => builder.add("reshape", [x], { shape: [...x.shape, 1] }, [], node.label);
  const states = node.states.map(({ state, writes }) => ({ state, writes }));
  const [x, index, ...others] = inputs as [Node, Node, ...Node[]];
  const made = builder.add(node.op, [column(x), index, ...others.map(column)], node.attributes, states, node.label, node.source);
  return node.op === "gatherRows" ? builder.add("reshape", [made], { shape: node.shape }, [], node.label) : made;
}

function replace(node: Node, inputs: readonly Node[], builder: GraphBuilder): Node {
  if (opSpec(node.op).class === "view") {
    const [operand] = inputs as [Node];
    if (resolveAccess(operand).base.op === "constant") return copyNode(node, [copyOf(operand, builder)], builder);
    const view = { ...node, inputs };
    return copyNode(node, resolveAccess(view).base === view ? [copyOf(operand, builder)] : inputs, builder);
  }
  const prepared = inputs.map((input, position) =>
    input.op === "constant" && takesConstants(node) ? input : prepare(input, needsPlain(node, position), builder),
  );
  if ((node.op === "gatherRows" || node.op === "writeRows") && prepared[0]?.shape.length === 1) return onColumns(node, prepared, builder);
  return copyNode(node, prepared, builder);
}

export function materialise(graph: Graph): Graph {
  return rebuildGraph(graph, replace, (output, builder) => {
    const access = resolveAccess(output);
    return isBorrowed(access.base) || access.offset !== 0 || !isContiguous(access) ? copyOf(output, builder) : output;
  });
}
