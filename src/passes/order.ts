/** What must run before what: operands, and accesses to one State in program order. */
import type { Graph, Node, StateDeclaration } from "../ir/graph.js";

/** Direct predecessors of every node. */
export function predecessors(graph: Graph): Map<Node, readonly Node[]> {
  const before = new Map<Node, Node[]>();
  const writer = new Map<StateDeclaration, Node>();
  const readers = new Map<StateDeclaration, Node[]>();
  for (const node of graph.nodes) {
    const list = [...node.inputs];
    for (const { state, writes } of node.states) {
      const last = writer.get(state);
      if (last && last !== node) list.push(last);
      if (writes) list.push(...(readers.get(state) ?? []).filter((reader) => reader !== node));
    }
    for (const { state, writes } of node.states) {
      if (writes) {
        writer.set(state, node);
        readers.set(state, []);
      } else readers.set(state, [...(readers.get(state) ?? []), node]);
    }
    before.set(node, list);
  }
  return before;
}
