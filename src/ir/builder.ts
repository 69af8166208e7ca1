/** Builds graphs node by node, applying the op table's shape and dtype rules and hash-consing pure nodes. */
import type { Dim } from "./dim.js";
import type { DType } from "./dtype.js";
import {
  nodeKey,
  type Attributes,
  type Graph,
  type GraphInput,
  type GraphOutput,
  type Node,
  type StateAccess,
  type StateDeclaration,
} from "./graph.js";
import { opSpec } from "./ops.js";

export interface StateUse {
  readonly state: StateDeclaration;
  readonly writes: boolean;
}

export class GraphBuilder {
  readonly #nodes: Node[] = [];
  readonly #inputs: GraphInput[] = [];
  readonly #consed = new Map<string, Node>();
  readonly #versions = new Map<StateDeclaration, number>();
  #nextId = 0;

  constructor(readonly name: string) {}

  get nodes(): readonly Node[] {
    return this.#nodes;
  }

  input(name: string, shape: readonly Dim[], dtype: DType): Node {
    const node: Node = { id: this.#nextId++, op: "input", inputs: [], attributes: { name }, shape, dtype, label: name, states: [] };
    this.#nodes.push(node);
    this.#inputs.push({ name, node });
    return node;
  }

  /** Version of a state that the next node would see. */
  versionOf(state: StateDeclaration): number {
    return this.#versions.get(state) ?? 0;
  }

  /** Adds one op. Throws with the op's name, label and every operand's shape when the shape rule refuses. */
  add(
    op: string,
    inputs: readonly Node[],
    attributes: Attributes = {},
    states: readonly StateUse[] = [],
    label = "",
    source?: string,
  ): Node {
    const spec = opSpec(op);
    const declared = states.map(({ state }) => state);
    const shape = spec.shape(inputs, attributes, declared, label);
    const dtype = spec.dtype(inputs, attributes);
    const pure = states.length === 0;
    const key = pure ? nodeKey(op, inputs, attributes, shape, dtype) : "";
    const known = pure ? this.#consed.get(key) : undefined;
    if (known) return known;
    const node: Node = {
      id: this.#nextId++,
      op,
      inputs,
      attributes,
      shape,
      dtype,
      label,
      states: states.map((use) => this.#access(use)),
      ...(source ? { source } : {}),
    };
    if (pure) this.#consed.set(key, node);
    this.#nodes.push(node);
    return node;
  }

  finish(outputs: readonly GraphOutput[]): Graph {
    return { name: this.name, inputs: this.#inputs, states: [...this.#versions.keys()], nodes: this.#nodes, outputs };
  }

  #access({ state, writes }: StateUse): StateAccess {
    const version = this.#versions.get(state) ?? 0;
    this.#versions.set(state, writes ? version + 1 : version);
    return { state, version, writes };
  }
}

/** Rebuilds a graph through `replace`, which may return another node for a given one, and `output`; keeps order, inputs and state versions. */
export function rebuildGraph(
  graph: Graph,
  replace: (node: Node, inputs: readonly Node[], builder: GraphBuilder) => Node,
  output: (node: Node, builder: GraphBuilder) => Node = (node) => node,
): Graph {
  const builder = new GraphBuilder(graph.name);
  const mapped = new Map<Node, Node>();
  for (const node of graph.nodes) {
    if (node.op === "input") {
      mapped.set(node, builder.input(String(node.attributes["name"]), node.shape, node.dtype));
      continue;
    }
    const inputs = node.inputs.map((input) => mapped.get(input) as Node);
    mapped.set(node, replace(node, inputs, builder));
  }
  const before = graph.became ?? new Map(graph.nodes.map((node) => [node, node]));
  const became = new Map([...before].flatMap(([traced, node]) => (mapped.has(node) ? [[traced, mapped.get(node) as Node]] : [])));
  return { ...builder.finish(graph.outputs.map(({ name, node }) => ({ name, node: output(mapped.get(node) as Node, builder) }))), became };
}

/** The node again in another builder. */
export function copyNode(node: Node, inputs: readonly Node[], builder: GraphBuilder): Node {
  return builder.add(
    node.op,
    inputs,
    node.attributes,
    node.states.map(({ state, writes }) => ({ state, writes })),
    node.label,
    node.source,
  );
}
