/** Checks what every graph must satisfy, after tracing and after the passes. Must not repair anything. */
import { sameShape } from "./dim.js";
import { printGraph, type Graph, type Node, type StateDeclaration } from "./graph.js";
import { opSpec } from "./ops.js";

export class GraphError extends Error {
  override readonly name = "GraphError";
}

/** Throws a GraphError naming the node and the rule it breaks. */
export function verifyGraph(graph: Graph): void {
  const seen = new Set<Node>();
  const versions = new Map<StateDeclaration, number>();
  const declared = new Set(graph.states);
  const fail = (node: Node, problem: string): never => {
    throw new GraphError(
      `graph ${graph.name}: node ${node.id} ${node.op}${node.label ? ` (${node.label})` : ""}: ${problem}\n${printGraph(graph)}`,
    );
  };
  for (const node of graph.nodes) {
    for (const input of node.inputs) if (!seen.has(input)) fail(node, `operand ${input.id} ${input.op} comes later or is not in the graph`);
    if (node.op !== "input") {
      const spec = opSpec(node.op);
      const states = node.states.map((access) => access.state);
      if (!sameShape(spec.shape(node.inputs, node.attributes, states, node.label), node.shape))
        fail(node, "shape differs from the op's rule");
      if (spec.dtype(node.inputs, node.attributes) !== node.dtype) fail(node, "dtype differs from the op's rule");
    }
    for (const { state, version, writes } of node.states) {
      const current = versions.get(state) ?? 0;
      if (version < current) fail(node, `uses version ${version} of ${state.name} after version ${current} was written`);
      if (writes && state.kind === "constant") fail(node, `writes the constant state ${state.name}`);
      if (!declared.has(state)) fail(node, `state ${state.name} is not declared`);
      versions.set(state, writes ? version + 1 : version);
    }
    seen.add(node);
  }
  for (const { name, node } of graph.outputs)
    if (!seen.has(node)) throw new GraphError(`graph ${graph.name}: output ${name} is not in the graph`);
}
