/**
 * The Tensor handle and its operations. Inside a compiled function an operation adds a node to the trace; outside it, eager dispatch compiles and runs a graph
 * of that one op. Shapes in brackets; `...` are any leading axes.
 */
import type { Dim } from "../ir/dim.js";
import { dtypeOf, type DType, type HostArray } from "../ir/dtype.js";
import { printAttribute, type Attributes } from "../ir/graph.js";
import {
  concreteContent,
  CompiledCore,
  currentTracer,
  openDevice,
  type State,
  TraceError,
  Value,
  type Size,
  type StateUse,
} from "../trace/entry.js";

/** Values with a shape: concrete outside a traced function, symbolic inside one. Operations are elementwise with broadcasting unless they say otherwise; float32, or int32 where it holds indices. A shape that does not fit throws. */
export class Tensor extends Value {
  /** A tensor over `array`, which it shares: later changes of the array are seen by later calls. Throws when the array does not hold `dtype` or fill `shape`. */
  static from(array: HostArray, shape: readonly (number | Size)[], dtype: DType = dtypeOf(array)): Tensor {
    if (dtypeOf(array) !== dtype)
      throw new TypeError(`a ${array.constructor.name} holds ${dtypeOf(array)} values, not ${dtype}; convert it first`);
    return new Tensor(concreteContent(array, shape), dtype);
  }

  add(other: Tensor | number): Tensor {
    return binary("add", this, other);
  }
  sub(other: Tensor | number): Tensor {
    return binary("sub", this, other);
  }
  mul(other: Tensor | number): Tensor {
    return binary("mul", this, other);
  }
  div(other: Tensor | number): Tensor {
    return binary("div", this, other);
  }
  maximum(other: Tensor | number): Tensor {
    return binary("maximum", this, other);
  }
  minimum(other: Tensor | number): Tensor {
    return binary("minimum", this, other);
  }
  less(other: Tensor | number): Tensor {
    return binary("less", this, other);
  }
  lessEqual(other: Tensor | number): Tensor {
    return binary("lessEqual", this, other);
  }
  equal(other: Tensor | number): Tensor {
    return binary("equal", this, other);
  }
  neg(): Tensor {
    return apply("neg", [this]);
  }
  abs(): Tensor {
    return apply("abs", [this]);
  }
  sqrt(): Tensor {
    return apply("sqrt", [this]);
  }
  exp(): Tensor {
    return apply("exp", [this]);
  }
  log(): Tensor {
    return apply("log", [this]);
  }
  log1p(): Tensor {
    return apply("log1p", [this]);
  }
  asinh(): Tensor {
    return apply("asinh", [this]);
  }
  sinh(): Tensor {
    return apply("sinh", [this]);
  }
  sigmoid(): Tensor {
    return apply("sigmoid", [this]);
  }
  silu(): Tensor {
    return apply("silu", [this]);
  }
  softplus(): Tensor {
    return apply("softplus", [this]);
  }
  /** Elements of `a` where this is not 0, of `b` elsewhere. */
  select(a: Tensor | number, b: Tensor | number): Tensor {
    const dtype = a instanceof Tensor ? a.dtype : b instanceof Tensor ? b.dtype : "f32";
    return apply("select", [this, operand(a, dtype), operand(b, dtype)]);
  }
  convert(dtype: "f32" | "i32"): Tensor {
    return dtype === this.dtype ? this : apply("convert", [this], { dtype });
  }

  /** Sum over the last axis: [..., n] -> [..., 1]. */
  sum(): Tensor {
    return apply("sum", [this]);
  }
  /** Maximum over the last axis: [..., n] -> [..., 1]. */
  max(): Tensor {
    return apply("max", [this]);
  }
  /** Softmax over the last axis. */
  softmax(): Tensor {
    return apply("softmax", [this]);
  }

  reshape(shape: readonly Dim[]): Tensor {
    return apply("reshape", [this], { shape });
  }
  /** Elements [start, start + length) of an axis; negative axes count from the end. */
  slice(axis: number, start: number, length: number): Tensor {
    return apply("slice", [this], { axis: axis < 0 ? axis + this.shape.length : axis, start, length });
  }
  permute(order: readonly number[]): Tensor {
    return apply("permute", [this], { order });
  }
  broadcast(shape: readonly Dim[]): Tensor {
    return apply("broadcast", [this], { shape });
  }
  /** [M, K] times [K, N]. */
  matmul(other: Tensor): Tensor {
    return apply("matmul", [this, other]);
  }
}

export const makeTensor = (...parts: ConstructorParameters<typeof Value>): Tensor => new Tensor(...parts);

function operand(value: Tensor | number, dtype: DType): Tensor {
  return value instanceof Tensor ? value : constant(value, dtype);
}

function binary(op: string, a: Tensor, b: Tensor | number): Tensor {
  return apply(op, [a, operand(b, a.dtype)]);
}

/** A constant of the graph; inside a trace its value is part of the compiled code. */
export function constant(value: number, dtype: DType = "f32"): Tensor {
  if (currentTracer()) return apply("constant", [], { value, dtype });
  return Tensor.from(dtype === "i32" ? Int32Array.of(value) : Float32Array.of(value), []);
}

/** Applies one op: traced inside a compiled function, run at once outside. `states` are accessed in the op's order. */
export function apply(
  op: string,
  inputs: readonly Tensor[],
  attributes: Attributes = {},
  states: readonly StateUse[] = [],
  label = "",
): Tensor {
  const tracer = currentTracer();
  if (!tracer) return applyEagerly(op, inputs, attributes, states, label);
  const node = tracer.add(op, inputs, attributes, states, label);
  return new Tensor({ kind: "traced", tracer, node }, node.dtype);
}

const eagerOps = new Map<string, CompiledCore>();

/** One op outside a trace: a compiled function of that op alone, kept per op, attributes and states. */
function applyEagerly(op: string, inputs: readonly Tensor[], attributes: Attributes, states: readonly StateUse[], label: string): Tensor {
  for (const input of inputs) {
    if (input.content.kind === "traced")
      throw new TraceError(
        `${op} uses a value of a trace that has ended (${input.content.node.label || input.content.node.op}); return it from the compiled function instead`,
      );
  }
  const device = states[0]?.state.device ?? openDevice("auto").device;
  const described = Object.entries(attributes).map(([name, value]) => `${name}=${printAttribute(value)}`);
  const key = `${device.description} ${op} ${described.join(" ")} ${states.map(({ state }) => state.name).join(",")}`;
  let compiled = eagerOps.get(key);
  if (!compiled) {
    const body = (values: readonly Tensor[], held: readonly State[]): Tensor =>
      apply(
        op,
        values,
        attributes,
        held.map((state, index) => ({ state, writes: states[index]?.writes ?? false })),
        label,
      );
    compiled = new CompiledCore(body as never, { device, mode: "eager", name: op, dispatch: true }, makeTensor);
    eagerOps.set(key, compiled);
  }
  return compiled.callSync([inputs, states.map(({ state }) => state)]) as Tensor;
}

/** Runs `body` with `part` appended to the labels of the nodes it makes: `layers.3.attention`. */
export function labelled<T>(part: string, body: () => T): T {
  const tracer = currentTracer();
  return tracer ? tracer.labelled(part, body) : body();
}

/** Whether the current trace keeps tapped values. */
export const tapping = (): boolean => currentTracer()?.wantTaps ?? false;

/** Marks a value for goldens and inspection; returned beside the outputs when the function was compiled with `taps`. */
export function tap(name: string, value: Tensor): Tensor {
  if (value.content.kind === "traced") currentTracer()?.tap(name, value.content.node);
  return value;
}

/** The value of a size in this call. A guard: the compiled code then holds for this value only. */
export function sizeValue(dim: Dim): number {
  if (typeof dim === "number") return dim;
  const tracer = currentTracer();
  if (!tracer) throw new TraceError(`the size ${String(dim)} has a value only inside a trace`);
  return tracer.guardSize(dim);
}
