/** Elementwise ops: one value out per element, operands broadcast. Definitions in scalar expressions, meanings in f64. */
import type { Attributes, Node } from "../graph.js";
import type { DType } from "../dtype.js";
import type { Evaluation, OpSpec } from "../ops.js";
import * as s from "../scalar.js";
import type { Scalar } from "../scalar.js";
import { broadcastShapes, elementCount, isLaneType, refuse, stridesOf } from "./shapes.js";

interface ElementwiseRecord {
  readonly name: string;
  readonly meaning: (a: number, b: number, c: number, attributes: Attributes) => number;
  readonly define: (inputs: readonly Scalar[], attributes: Attributes) => Scalar;
  /** Meaning for i32 operands, where the f64 one does not give all 32 bits. */
  readonly integer?: (a: number, b: number) => number;
  /** Takes f32 only; other ops take f32 and i32. */
  readonly real?: boolean;
  /** Result dtype; default: that of the first operand. */
  readonly result?: (inputs: readonly Node[], attributes: Attributes) => DType;
  readonly arity: number;
}

const at = (inputs: readonly Scalar[], index: number): Scalar => inputs[index] as Scalar;
const one = (x: Scalar): Scalar => s.constant(x.type, 1);
const boolean = (): DType => "i32";
const truth = (mask: Scalar): Scalar => s.maskToNumber(mask);

/** softplus with the published threshold: x above 20, else log1p(e^x). */
const softplus = (x: Scalar): Scalar =>
  s.select(s.less(s.constant(x.type, 20), x), x, s.call("log1p", x.type, [s.call("exp", x.type, [x])]));

/** Towards zero, clamped to the int32 range at the largest f32 below it; NaN becomes 0. */
const truncated = (a: number): number => (Number.isNaN(a) ? 0 : Math.trunc(Math.min(Math.max(a, -2147483648), 2147483520)));

const records: readonly ElementwiseRecord[] = [
  {
    name: "constant",
    arity: 0,
    result: (_, attributes) => attributes["dtype"] as DType,
    meaning: (_a, _b, _c, attributes) => attributes["value"] as number,
    define: (_, attributes) => s.constant(attributes["dtype"] as s.ScalarType, attributes["value"] as number),
  },
  /** The same values, stored contiguously. */
  { name: "copy", arity: 1, meaning: (a) => a, define: (x) => at(x, 0) },
  { name: "add", arity: 2, meaning: (a, b) => a + b, define: (x) => s.add(at(x, 0), at(x, 1)) },
  { name: "sub", arity: 2, meaning: (a, b) => a - b, define: (x) => s.sub(at(x, 0), at(x, 1)) },
  { name: "mul", arity: 2, meaning: (a, b) => a * b, integer: Math.imul, define: (x) => s.mul(at(x, 0), at(x, 1)) },
  /** Of integers: towards zero, and 0 where b is 0. */
  { name: "div", arity: 2, meaning: (a, b) => a / b, integer: (a, b) => (b === 0 ? 0 : a / b), define: (x) => s.div(at(x, 0), at(x, 1)) },
  { name: "maximum", arity: 2, meaning: (a, b) => (b < a || Number.isNaN(a) ? a : b), define: (x) => s.maximum(at(x, 0), at(x, 1)) },
  { name: "minimum", arity: 2, meaning: (a, b) => (a < b || Number.isNaN(a) ? a : b), define: (x) => s.minimum(at(x, 0), at(x, 1)) },
  { name: "neg", arity: 1, meaning: (a) => -a, define: (x) => s.neg(at(x, 0)) },
  { name: "abs", arity: 1, meaning: (a) => Math.abs(a), define: (x) => s.abs(at(x, 0)) },
  { name: "sqrt", arity: 1, real: true, meaning: (a) => Math.sqrt(a), define: (x) => s.sqrt(at(x, 0)) },
  { name: "exp", arity: 1, real: true, meaning: (a) => Math.exp(a), define: (x) => s.call("exp", at(x, 0).type, x) },
  { name: "log", arity: 1, real: true, meaning: (a) => Math.log(a), define: (x) => s.call("log", at(x, 0).type, x) },
  { name: "log1p", arity: 1, real: true, meaning: (a) => Math.log1p(a), define: (x) => s.call("log1p", at(x, 0).type, x) },
  { name: "asinh", arity: 1, real: true, meaning: (a) => Math.asinh(a), define: (x) => s.call("asinh", at(x, 0).type, x) },
  { name: "sinh", arity: 1, real: true, meaning: (a) => Math.sinh(a), define: (x) => s.call("sinh", at(x, 0).type, x) },
  {
    name: "sigmoid",
    arity: 1,
    real: true,
    meaning: (a) => 1 / (1 + Math.exp(-a)),
    define: (x) => s.div(one(at(x, 0)), s.add(one(at(x, 0)), s.call("exp", at(x, 0).type, [s.neg(at(x, 0))]))),
  },
  {
    name: "silu",
    arity: 1,
    real: true,
    meaning: (a) => a / (1 + Math.exp(-a)),
    define: (x) => s.div(at(x, 0), s.add(one(at(x, 0)), s.call("exp", at(x, 0).type, [s.neg(at(x, 0))]))),
  },
  { name: "softplus", arity: 1, real: true, meaning: (a) => (a > 20 ? a : Math.log1p(Math.exp(a))), define: (x) => softplus(at(x, 0)) },
  { name: "less", arity: 2, result: boolean, meaning: (a, b) => (a < b ? 1 : 0), define: (x) => truth(s.less(at(x, 0), at(x, 1))) },
  {
    name: "lessEqual",
    arity: 2,
    result: boolean,
    meaning: (a, b) => (a <= b ? 1 : 0),
    define: (x) => truth(s.lessEqual(at(x, 0), at(x, 1))),
  },
  { name: "equal", arity: 2, result: boolean, meaning: (a, b) => (a === b ? 1 : 0), define: (x) => truth(s.equal(at(x, 0), at(x, 1))) },
  {
    name: "select",
    arity: 3,
    result: (inputs) => (inputs[1] as Node).dtype,
    meaning: (mask, a, b) => (mask !== 0 ? a : b),
    define: (x) => s.select(s.numberToMask(at(x, 0)), at(x, 1), at(x, 2)),
  },
  {
    name: "convert",
    arity: 1,
    result: (_, attributes) => attributes["dtype"] as DType,
    meaning: (a, _b, _c, attributes) => (attributes["dtype"] === "i32" ? truncated(a) : a),
    integer: (a) => a,
    define: (x, attributes) => s.convert(attributes["dtype"] as s.ScalarType, at(x, 0)),
  },
];

/** Maps a flat index of the result to flat indices of broadcast operands. */
function operandStrides(shape: readonly number[], operand: readonly number[]): number[] {
  const strides = stridesOf(operand);
  const lead = shape.length - operand.length;
  return shape.map((_, axis) => (axis < lead || operand[axis - lead] === 1 ? 0 : (strides[axis - lead] as number)));
}

function evaluateElementwise(record: ElementwiseRecord, { inputs, shape, attributes, output }: Evaluation): void {
  const meaning = (inputs[0]?.dtype === "i32" ? record.integer : undefined) ?? record.meaning;
  const total = elementCount(shape);
  const same = inputs.every((input) => input.data.length === total);
  const [a, b, c] = inputs.map((input) => input.data);
  if (same) {
    for (let i = 0; i < total; i++) output[i] = meaning(a?.[i] ?? 0, b?.[i] ?? 0, c?.[i] ?? 0, attributes);
    return;
  }
  const strides = inputs.map((input) => operandStrides(shape, input.shape));
  const index = new Array<number>(shape.length).fill(0);
  const offsets = inputs.map(() => 0);
  for (let i = 0; i < total; i++) {
    output[i] = meaning(a?.[offsets[0] ?? 0] ?? 0, b?.[offsets[1] ?? 0] ?? 0, c?.[offsets[2] ?? 0] ?? 0, attributes);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis] = (index[axis] as number) + 1;
      for (let k = 0; k < strides.length; k++) offsets[k] = (offsets[k] as number) + ((strides[k] as number[])[axis] as number);
      if ((index[axis] as number) < (shape[axis] as number)) break;
      for (let k = 0; k < strides.length; k++)
        offsets[k] = (offsets[k] as number) - ((strides[k] as number[])[axis] as number) * (shape[axis] as number);
      index[axis] = 0;
    }
  }
}

function checkDTypes(record: ElementwiseRecord, inputs: readonly Node[], attributes: Attributes, label: string): void {
  if (inputs.length !== record.arity) refuse(record.name, label, inputs, `takes ${record.arity} operands, got ${inputs.length}`);
  const compared = record.name === "select" ? inputs.slice(1) : inputs;
  const [first] = compared;
  if (compared.some((node) => node.dtype !== first?.dtype))
    refuse(record.name, label, inputs, "operands must have one dtype; convert explicitly");
  if (record.name === "select" && inputs[0]?.dtype !== "i32") refuse(record.name, label, inputs, "the mask must be i32");
  if (inputs.some((node) => !isLaneType(node.dtype)) || !isLaneType(attributes["dtype"] ?? "f32"))
    refuse(record.name, label, inputs, "works on f32 and i32 only");
  if (record.real && first?.dtype !== "f32") refuse(record.name, label, inputs, "takes f32 only; convert first");
}

export const elementwiseOps: readonly OpSpec[] = records.map((record) => ({
  name: record.name,
  class: "elementwise",
  shape(inputs, attributes, _states, label) {
    checkDTypes(record, inputs, attributes, label);
    return broadcastShapes(record.name, label, inputs);
  },
  dtype: (inputs, attributes) => record.result?.(inputs, attributes) ?? (inputs[0] as Node).dtype,
  evaluate: (evaluation) => evaluateElementwise(record, evaluation),
  define: record.define,
}));
