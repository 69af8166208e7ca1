/**
 * One run of traced code: collects nodes lazily; reading a value ends the segment, runs it once and goes on in a new one. Must not know how a segment is
 * compiled: it asks its host.
 */
import { isContiguous, resolveAccess } from "../ir/access.js";
import { GraphBuilder } from "../ir/builder.js";
import { evaluateDim, type Dim, type SizeBindings } from "../ir/dim.js";
import { hostArray, type DType, type HostArray } from "../ir/dtype.js";
import type { Attributes, Graph, GraphOutput, Node } from "../ir/graph.js";
import { callerLocation } from "./events.js";
import { TraceError } from "./stance.js";
import type { State } from "./state.js";
import type { Value } from "./value.js";

export interface StateUse {
  readonly state: State;
  readonly writes: boolean;
}

/** One traced segment, ready to be compiled and run. */
export interface Segment {
  readonly graph: Graph;
  /** Arrays of inputs that earlier segments made. */
  readonly carried: ReadonlyMap<string, HostArray>;
  readonly states: ReadonlyMap<string, State>;
}

export interface GraphBreak {
  readonly reason: string;
  readonly location: string | undefined;
  readonly label: string;
}

/** What a tracer needs of the compiled function it works for. */
export interface TraceHost {
  readonly name: string;
  readonly fullGraph: boolean;
  readonly sizes: SizeBindings;
  /** A copy of an argument's values in this call. */
  inputValue(name: string): HostArray;
  /** Throws when a state cannot be used on the host's device. */
  checkState(state: State): void;
  /** Runs a segment that a break ended; outputs by name. */
  runSegment(segment: Segment): Map<string, HostArray>;
  onBreak(event: GraphBreak): void;
}

export class Tracer {
  #builder: GraphBuilder;
  readonly #states = new Map<string, State>();
  readonly #labels: string[] = [];
  readonly #taps: { name: string; node: Node }[] = [];
  readonly #materialised = new Map<Node, HostArray>();
  readonly #carried = new Map<string, HostArray>();
  readonly #carriedNodes = new Map<Node, Node>();
  readonly sizeGuards = new Map<string, { value: number; location: string | undefined }>();
  segments = 1;
  #closed = false;

  constructor(
    private readonly host: TraceHost,
    readonly wantTaps: boolean,
  ) {
    this.#builder = new GraphBuilder(host.name);
  }

  input(name: string, shape: readonly Dim[], dtype: DType): Node {
    return this.#builder.input(name, shape, dtype);
  }

  /** Runs `body` with `part` appended to the labels of its nodes. */
  labelled<T>(part: string, body: () => T): T {
    this.#labels.push(part);
    try {
      return body();
    } finally {
      this.#labels.pop();
    }
  }

  add(op: string, inputs: readonly Value[], attributes: Attributes, states: readonly StateUse[], label: string): Node {
    const nodes = inputs.map((input) => this.#nodeOf(input, op));
    for (const { state } of states) this.#bind(state);
    const path = [...this.#labels, ...(label ? [label] : [])].join(".");
    return this.#builder.add(
      op,
      nodes,
      attributes,
      states.map(({ state, writes }) => ({ state: state.declaration, writes })),
      path,
    );
  }

  tap(name: string, node: Node): void {
    if (this.wantTaps) this.#taps.push({ name: [...this.#labels, name].join("."), node: this.#current(node) });
  }

  /** The value of a size in this call; from now on the specialization holds only for it. */
  guardSize(dim: Dim): number {
    const value = evaluateDim(dim, this.host.sizes);
    if (typeof dim !== "number")
      for (const name of Object.keys(dim.variables))
        this.sizeGuards.set(name, { value: this.host.sizes[name] as number, location: callerLocation() });
    return value;
  }

  /** A graph break: everything traced so far runs now, once; state writes before it take effect. */
  readValue(node: Node): HostArray {
    const known = this.#materialised.get(node);
    if (known) return known;
    if (this.#closed)
      throw new TraceError(
        `${this.host.name}: a value (${node.label || node.op}) is read after its trace has ended; return it from the compiled function instead`,
      );
    if (node.op === "constant") return constantArray(node);
    const event: GraphBreak = { reason: "value read in traced code", location: callerLocation(), label: node.label };
    if (this.host.fullGraph) {
      throw new TraceError(
        `${this.host.name}: a value (${node.label || node.op}) is read inside traced code at ${event.location ?? "an unknown place"}, which would break the graph; fullGraph forbids that. Return the value instead, or compute with it as a tensor.`,
      );
    }
    this.host.onBreak(event);
    this.#endSegment();
    if (node.op === "input") this.#materialised.set(node, this.host.inputValue(String(node.attributes["name"])));
    return this.#materialised.get(node) as HostArray;
  }

  /** From now on values can no longer be read, nor ops be added. */
  close(): void {
    this.#closed = true;
  }

  /** The last segment, with the function's outputs and the taps. */
  finish(outputs: readonly Node[]): { segment: Segment; tapNames: readonly string[] } {
    const wanted = [
      ...outputs.map((node, index) => ({ name: `out${index}`, node: this.#stored(this.#current(node)) })),
      ...this.#taps.map(({ node }, index) => ({ name: `tap${index}`, node: this.#stored(this.#current(node)) })),
    ];
    return { segment: this.#segment(wanted), tapNames: this.#taps.map(({ name }) => name) };
  }

  /** An output must lie contiguously at the start of a buffer of its own. */
  #stored(node: Node): Node {
    const access = resolveAccess(node);
    const own =
      access.base.op !== "input" &&
      access.base.op !== "constant" &&
      access.base.op !== "read" &&
      access.offset === 0 &&
      isContiguous(access);
    return own ? node : this.#builder.add("copy", [node], {}, [], node.label);
  }

  #segment(outputs: readonly GraphOutput[]): Segment {
    return { graph: this.#builder.finish(outputs), carried: new Map(this.#carried), states: new Map(this.#states) };
  }

  #endSegment(): void {
    const nodes = this.#builder.nodes.filter(
      (node) => node.op !== "input" && node.op !== "constant" && !onlyOrders(node) && node.dtype !== "f64",
    );
    const outputs = nodes.map((node, index) => ({ name: `value${index}`, node: this.#stored(node) }));
    const results = this.host.runSegment(this.#segment(outputs));
    nodes.forEach((node, index) => this.#materialised.set(node, results.get(`value${index}`) as HostArray));
    this.segments++;
    this.#builder = new GraphBuilder(`${this.host.name}.${this.segments}`);
    this.#states.clear();
    this.#carried.clear();
    this.#carriedNodes.clear();
  }

  /** The node in the segment being built: values of earlier segments come in as inputs. */
  #current(node: Node): Node {
    if (this.segments === 1) return node;
    const carried = this.#carriedNodes.get(node);
    if (carried) return carried;
    const array = node.op === "input" ? undefined : this.#materialised.get(node);
    if (!array) {
      if (node.op === "input") return this.#inputAgain(node);
      if (node.op === "constant") return this.#builder.add("constant", [], node.attributes);
      return node;
    }
    const name = `carried${this.#carried.size}`;
    this.#carried.set(name, array);
    const input = this.#builder.input(name, node.shape, node.dtype);
    this.#carriedNodes.set(node, input);
    return input;
  }

  #inputAgain(node: Node): Node {
    if (this.#builder.nodes.includes(node)) return node;
    const input = this.#builder.input(String(node.attributes["name"]), node.shape, node.dtype);
    this.#carriedNodes.set(node, input);
    return input;
  }

  #nodeOf(value: Value, op: string): Node {
    const { content } = value;
    if (content.kind === "concrete") {
      throw new TraceError(
        `${this.host.name}: ${op} uses an array that was captured, not passed in, at ${callerLocation() ?? "an unknown place"}. A captured array would be frozen into the compiled code; pass it as an argument, or hold it in a State.`,
      );
    }
    if (content.tracer !== this)
      throw new TraceError(
        `${this.host.name}: ${op} uses a value of another trace (${content.node.label || content.node.op}); values must be returned and passed in again`,
      );
    return this.#current(content.node);
  }

  #bind(state: State): void {
    this.host.checkState(state);
    const { name } = state.declaration;
    const known = this.#states.get(name);
    if (known && known !== state)
      throw new TraceError(`${this.host.name}: two different states are called "${name}"; state names must be unique inside one function`);
    this.#states.set(name, state);
  }

  get boundStates(): ReadonlyMap<string, State> {
    return this.#states;
  }
}

/** State writes yield an empty value; the causal scaler writes and yields statistics. */
const onlyOrders = ({ states, shape }: Node): boolean => states.some((access) => access.writes) && shape.length === 1 && shape[0] === 0;

function constantArray({ dtype, attributes }: Node): HostArray {
  const values = hostArray(dtype, 1);
  values[0] = attributes["value"] as number;
  return values;
}

const active: Tracer[] = [];

export const currentTracer = (): Tracer | undefined => active[active.length - 1];

export function withTracer<T>(tracer: Tracer, body: () => T): T {
  active.push(tracer);
  try {
    return body();
  } finally {
    active.pop();
  }
}
