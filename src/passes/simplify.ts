/** Drops what no output and no state write needs. Rewrites nothing that is computed. */
import { liveNodes, type Graph } from "../ir/graph.js";

export function dropDeadNodes(graph: Graph): Graph {
  const nodes = liveNodes(graph);
  const states = new Set(nodes.flatMap((node) => node.states.map((access) => access.state)));
  return { ...graph, nodes, states: graph.states.filter((state) => states.has(state)) };
}
