/**
 * Scalar expressions: the language in which elementwise ops and mathematical functions are defined once and rendered for every target.
 * Every operation rounds to its dtype; nothing here may be contracted or reassociated.
 */

export type ScalarType = "f32" | "f64" | "i32";

/** Operations a renderer must know. Comparisons yield i32 masks (all bits set or clear) that only `select`, `and`, `or`, `not` accept. */
export type ScalarOp =
  | "constant"
  | "argument"
  | "add"
  | "sub"
  | "mul"
  | "div"
  | "neg"
  | "abs"
  | "fma"
  | "sqrt"
  | "less"
  | "lessEqual"
  | "equal"
  | "select"
  | "and"
  | "or"
  | "not"
  | "shiftLeft"
  | "shiftRight"
  | "bitcast"
  | "convert"
  | "call";

export interface Scalar {
  readonly op: ScalarOp;
  readonly type: ScalarType;
  readonly inputs: readonly Scalar[];
  /** Value of a constant, index of an argument, shift distance. */
  readonly value?: number;
  /** Name of the called function. */
  readonly callee?: string;
}

const make = (op: ScalarOp, type: ScalarType, inputs: readonly Scalar[], value?: number): Scalar => ({
  op,
  type,
  inputs,
  ...(value === undefined ? {} : { value }),
});
const typeOf = (a: Scalar): ScalarType => a.type;

export const constant = (type: ScalarType, value: number): Scalar => make("constant", type, [], value);
export const argument = (type: ScalarType, index: number): Scalar => make("argument", type, [], index);
export const add = (a: Scalar, b: Scalar): Scalar => make("add", typeOf(a), [a, b]);
export const sub = (a: Scalar, b: Scalar): Scalar => make("sub", typeOf(a), [a, b]);
export const mul = (a: Scalar, b: Scalar): Scalar => make("mul", typeOf(a), [a, b]);
export const div = (a: Scalar, b: Scalar): Scalar => make("div", typeOf(a), [a, b]);
export const neg = (a: Scalar): Scalar => make("neg", typeOf(a), [a]);
export const abs = (a: Scalar): Scalar => make("abs", typeOf(a), [a]);
/** a * b + c rounded once. */
export const fma = (a: Scalar, b: Scalar, c: Scalar): Scalar => make("fma", typeOf(a), [a, b, c]);
export const sqrt = (a: Scalar): Scalar => make("sqrt", typeOf(a), [a]);
export const less = (a: Scalar, b: Scalar): Scalar => make("less", "i32", [a, b]);
export const lessEqual = (a: Scalar, b: Scalar): Scalar => make("lessEqual", "i32", [a, b]);
export const equal = (a: Scalar, b: Scalar): Scalar => make("equal", "i32", [a, b]);
export const select = (mask: Scalar, a: Scalar, b: Scalar): Scalar => make("select", typeOf(a), [mask, a, b]);
export const and = (a: Scalar, b: Scalar): Scalar => make("and", "i32", [a, b]);
export const or = (a: Scalar, b: Scalar): Scalar => make("or", "i32", [a, b]);
export const not = (a: Scalar): Scalar => make("not", "i32", [a]);
export const shiftLeft = (a: Scalar, distance: number): Scalar => make("shiftLeft", "i32", [a], distance);
/** Arithmetic shift: keeps the sign. */
export const shiftRight = (a: Scalar, distance: number): Scalar => make("shiftRight", "i32", [a], distance);
export const bitcast = (type: ScalarType, a: Scalar): Scalar => make("bitcast", type, [a]);
export const convert = (type: ScalarType, a: Scalar): Scalar => (a.type === type ? a : make("convert", type, [a]));
export const call = (callee: string, type: ScalarType, inputs: readonly Scalar[]): Scalar => ({ op: "call", type, inputs, callee });

/** The larger of two; NaN if either is. A select, because hardware maximum treats NaN by operand order. */
export const maximum = (a: Scalar, b: Scalar): Scalar => select(or(less(b, a), not(equal(a, a))), a, b);
export const minimum = (a: Scalar, b: Scalar): Scalar => select(or(less(a, b), not(equal(a, a))), a, b);
/** An i32 0 / 1 value of a mask, and the mask of such a value. */
export const maskToNumber = (mask: Scalar): Scalar => and(mask, constant("i32", 1));
export const numberToMask = (value: Scalar): Scalar => not(equal(value, constant("i32", 0)));
