/** Evaluates a graph node by node with each op's reference meaning. Must not know of devices; the reference device wraps it. */
import { evaluateDim, type SizeBindings } from "./dim.js";
import { hostArray } from "./dtype.js";
import type { Graph, Node, StateDeclaration } from "./graph.js";
import { opSpec, type Value } from "./ops.js";
import { elementCount } from "./ops/shapes.js";

/** Values of the outputs by name. States are read and written in place. `onNode` hears of each node before it is evaluated, `onValue` after. */
export function interpret(
  graph: Graph,
  inputs: ReadonlyMap<string, Value>,
  states: ReadonlyMap<StateDeclaration, Value>,
  sizes: SizeBindings,
  onNode?: (node: Node) => void,
  onValue?: (node: Node, value: Value) => void,
): Map<string, Value> {
  const values = new Map<Node, Value>();
  for (const node of graph.nodes) {
    onNode?.(node);
    const value = node.op === "input" ? inputValue(node, inputs) : evaluateNode(node, values, states, sizes);
    values.set(node, value);
    onValue?.(node, value);
  }
  return new Map(graph.outputs.map(({ name, node }) => [name, values.get(node) as Value]));
}

function inputValue(node: Node, inputs: ReadonlyMap<string, Value>): Value {
  const name = String(node.attributes["name"]);
  const value = inputs.get(name);
  if (!value) throw new Error(`graph input "${name}" has no value`);
  return value;
}

function evaluateNode(
  node: Node,
  values: ReadonlyMap<Node, Value>,
  states: ReadonlyMap<StateDeclaration, Value>,
  sizes: SizeBindings,
): Value {
  const spec = opSpec(node.op);
  const shape = node.shape.map((dim) => evaluateDim(dim, sizes));
  const output = hostArray(node.dtype, elementCount(shape));
  const bound = node.states.map(({ state }) => {
    const value = states.get(state);
    if (!value) throw new Error(`${node.op} (${node.label}): state "${state.name}" is not bound`);
    return value;
  });
  spec.evaluate({
    inputs: node.inputs.map((input) => values.get(input) as Value),
    states: bound,
    attributes: node.attributes,
    shape,
    sizes,
    output,
  });
  return { shape, dtype: node.dtype, data: output };
}
