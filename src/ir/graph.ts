/**
 * The graph: immutable nodes in order, inputs, states and outputs. Pure nodes are hash-consed; state and random nodes never.
 * Must not know how nodes are traced, fused or run.
 */
import type { DType } from "./dtype.js";
import { printShape, type Dim } from "./dim.js";

export type Attribute = number | string | boolean | Dim | readonly (number | string | Dim)[];
export type Attributes = Readonly<Record<string, Attribute>>;

/** A persistent buffer as the graph sees it. The device object behind it is bound when a Program is. */
export interface StateDeclaration {
  readonly name: string;
  readonly shape: readonly Dim[];
  readonly dtype: DType;
  /** Constant states are weights: never written after loading. */
  readonly kind: "constant" | "mutable";
  /** How the device stores it: row-major, or a weight matrix [out, in] in the device's own panel layout. */
  readonly layout: "plain" | "panels";
}

export interface Node {
  readonly id: number;
  readonly op: string;
  readonly inputs: readonly Node[];
  readonly attributes: Attributes;
  readonly shape: readonly Dim[];
  readonly dtype: DType;
  /** Model path, for example `layers.3.attention.q`; names kernels and profile rows, never part of identity. */
  readonly label: string;
  /** States this node reads or writes, with the version it sees. A write makes version + 1. */
  readonly states: readonly StateAccess[];
  /** Source position that made the node, for break and guard messages. */
  readonly source?: string;
}

export interface StateAccess {
  readonly state: StateDeclaration;
  readonly version: number;
  readonly writes: boolean;
}

export interface GraphInput {
  readonly name: string;
  readonly node: Node;
}

export interface GraphOutput {
  readonly name: string;
  readonly node: Node;
}

export interface Graph {
  readonly name: string;
  readonly inputs: readonly GraphInput[];
  readonly states: readonly StateDeclaration[];
  /** Topological order; state accesses keep program order. */
  readonly nodes: readonly Node[];
  readonly outputs: readonly GraphOutput[];
  /** After passes: the node that now holds the value of each node of the traced graph. Absent on a traced graph. */
  readonly became?: ReadonlyMap<Node, Node>;
}

/** Canonical text of an attribute; distinguishes NaN, infinities and -0, which JSON would merge. */
export function printAttribute(value: Attribute): string {
  if (typeof value === "number") return Object.is(value, -0) ? "-0" : String(value);
  if (Array.isArray(value)) return `[${(value as readonly Attribute[]).map(printAttribute).join(",")}]`;
  if (typeof value === "string") return JSON.stringify(value);
  return String(value);
}

const printAttributes = (attributes: Attributes): string =>
  Object.keys(attributes)
    .sort()
    .map((key) => ` ${key}=${printAttribute(attributes[key] as Attribute)}`)
    .join("");

const printStates = (node: Node): string =>
  node.states.map(({ state, version, writes }) => ` ${writes ? "writes" : "reads"} ${state.name}@${version}`).join("");

/** One line per node; stable between runs, so two dumps can be compared with a text diff. */
export function printGraph(graph: Graph): string {
  const number = new Map(graph.nodes.map((node, index) => [node, index]));
  const reference = (node: Node): string => `%${number.get(node) ?? "?"}`;
  const lines = [`graph ${graph.name}`];
  for (const state of graph.states)
    lines.push(`  state ${state.name}: ${state.dtype}${printShape(state.shape)} ${state.kind} ${state.layout}`);
  for (const node of graph.nodes) {
    const operands = node.inputs.map(reference).join(", ");
    const label = node.label ? `  # ${node.label}` : "";
    lines.push(
      `  ${reference(node)} = ${node.op}(${operands})${printAttributes(node.attributes)}${printStates(node)} -> ${node.dtype}${printShape(node.shape)}${label}`,
    );
  }
  lines.push(`  return ${graph.outputs.map(({ name, node }) => `${name}=${reference(node)}`).join(", ")}`);
  return lines.join("\n") + "\n";
}

/** Identity of a pure node: equal keys mean equal values. */
export function nodeKey(op: string, inputs: readonly Node[], attributes: Attributes, shape: readonly Dim[], dtype: DType): string {
  return `${op}(${inputs.map((node) => node.id).join(",")})${printAttributes(attributes)}:${dtype}${printShape(shape)}`;
}

/** Nodes that can be reached from the outputs and from every state write, in graph order. */
export function liveNodes(graph: Graph): Node[] {
  const live = new Set<Node>();
  const visit = (node: Node): void => {
    if (live.has(node)) return;
    live.add(node);
    node.inputs.forEach(visit);
  };
  graph.outputs.forEach(({ node }) => visit(node));
  for (const node of graph.nodes) if (node.states.some((access) => access.writes)) visit(node);
  return graph.nodes.filter((node) => live.has(node) || node.op === "input");
}

export function usersOf(graph: Graph): Map<Node, Node[]> {
  const users = new Map<Node, Node[]>(graph.nodes.map((node) => [node, []]));
  for (const node of graph.nodes) for (const input of new Set(node.inputs)) users.get(input)?.push(node);
  return users;
}
