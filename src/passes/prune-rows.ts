/**
 * Moves row selections towards the inputs: the rows of a row-independent op can be chosen before it is computed. Every row is computed by the same operations
 * in the same order, so no bit changes; only rows that nobody reads are left out.
 */
import { copyNode, rebuildGraph, type GraphBuilder } from "../ir/builder.js";
import { sameDim, type Dim } from "../ir/dim.js";
import { usersOf, type Graph, type Node } from "../ir/graph.js";
import { opSpec } from "../ir/ops.js";

/** Operands that carry the op's rows on their first axis; the others are left as they are. */
function rowOperands(node: Node): readonly boolean[] | undefined {
  const rows = node.shape[0] as Dim;
  const carries = (input: Node): boolean => input.shape.length > 0 && sameDim(input.shape[0] as Dim, rows);
  const spec = opSpec(node.op);
  if (spec.class === "elementwise") return node.inputs.map((input) => input.shape.length === node.shape.length && carries(input));
  if (node.op === "rmsNorm" || node.op === "softmax" || node.op === "sum" || node.op === "max")
    return node.shape.length > 1 ? [true, ...node.inputs.slice(1).map(() => false)] : undefined;
  if (node.op === "linear") return node.shape.length > 1 ? [true, false] : undefined;
  if (node.op === "reshape") return node.shape.length > 0 && carries(node.inputs[0] as Node) ? [true] : undefined;
  if (node.op === "rope") return [true, true, false, false, false, true];
  // Caches and block tables among the operands have rows of their own.
  if (node.op === "attention") return node.inputs.map(({ shape }, position) => position === 0 || shape.length === 1);
  return undefined;
}

/** Ops worth computing twice when some users need all rows: cheap beside what follows, with one operand that has rows. */
const repeatable = (node: Node): boolean => node.op === "rmsNorm" || node.op === "reshape";

export function pruneRows(graph: Graph): Graph {
  const users = usersOf(graph);
  const outputs = new Set(graph.outputs.map(({ node }) => node));
  const originals = new Map<Node, Node>();
  const select = (node: Node, index: Node, builder: GraphBuilder, label: string): Node => {
    const original = originals.get(node);
    const rows = original && (original.shape[0] as Dim | undefined) !== undefined ? rowOperands(original) : undefined;
    // A state may have been written since: then the op must stay where it is.
    const current = node.states.every(({ state, version }) => builder.versionOf(state) === version);
    const alone = original !== undefined && !outputs.has(original) && (users.get(original)?.length ?? 0) <= 1;
    if (!original || !rows || !current || !(alone || repeatable(original))) return builder.add("gatherRows", [node, index], {}, [], label);
    const inputs = node.inputs.map((input, position) => (rows[position] ? select(input, index, builder, label) : input));
    const attributes =
      node.op === "reshape" ? { ...node.attributes, shape: [index.shape[0] as Dim, ...node.shape.slice(1)] } : node.attributes;
    return builder.add(
      node.op,
      inputs,
      attributes,
      node.states.map(({ state, writes }) => ({ state, writes })),
      node.label,
      node.source,
    );
  };
  return rebuildGraph(graph, (node, inputs, builder) => {
    const [x, index] = inputs;
    const made =
      node.op === "gatherRows" && inputs.length === 2 && x && index
        ? select(x, index, builder, node.label)
        : copyNode(node, inputs, builder);
    if (!originals.has(made)) originals.set(made, node.op === "gatherRows" ? made : node);
    return made;
  });
}
