/**
 * The mathematical functions of the package, defined once as scalar expressions and rendered for every target: within 2 ulp, with stated behaviour at the
 * edges (NaN stays NaN, overflow is infinite, underflow rounds through the subnormals). Polynomials are least-squares minimax fits made for this project.
 */
import * as s from "../ir/scalar.js";
import type { Scalar } from "../ir/scalar.js";

export interface FunctionDefinition {
  readonly name: string;
  readonly parameters: number;
  readonly body: (inputs: readonly Scalar[]) => Scalar;
}

const f = (value: number): Scalar => s.constant("f32", value);
const i = (value: number): Scalar => s.constant("i32", value);

/** c[0] + x (c[1] + x (...)), every step one fma. */
function polynomial(x: Scalar, coefficients: readonly number[]): Scalar {
  const [last, ...rest] = [...coefficients].reverse();
  return rest.reduce<Scalar>((sum, coefficient) => s.fma(sum, x, f(coefficient)), f(last as number));
}

const roundingMagic = 12582912; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
const ln2High = 0.693359375;
const ln2Low = -2.1219444e-4;

/** 2^n as a float, n within the normal range. */
const powerOfTwo = (n: Scalar): Scalar => s.bitcast("f32", s.shiftLeft(s.add(n, i(127)), 23));

const atMost90 = (x: Scalar): Scalar => s.select(s.less(f(90), x), f(90), x);

/** e^x * 2^shift; `bound` keeps x where powers are finite. The power is applied in two steps, so that results round once into the subnormals. */
function exponential(x: Scalar, shift: number, bound = atMost90): Scalar {
  const clamped = bound(s.select(s.less(x, f(-105)), f(-105), x));
  const magic = s.fma(clamped, f(Math.LOG2E), f(roundingMagic));
  const n = s.sub(s.bitcast("i32", magic), s.bitcast("i32", f(roundingMagic)));
  const rounded = s.sub(magic, f(roundingMagic));
  const r = s.fma(rounded, f(-ln2Low), s.fma(rounded, f(-ln2High), clamped));
  const tail = polynomial(r, [0.5, 0.1666651964187622, 0.04166620597243309, 0.008368882350623608, 0.0013950478751212358]);
  const value = s.add(f(1), s.fma(s.mul(r, r), tail, r));
  const first = s.shiftRight(n, 1);
  const second = s.sub(n, first);
  return s.mul(s.mul(value, powerOfTwo(first)), powerOfTwo(shift === 0 ? second : s.add(second, i(shift))));
}

/** Natural logarithm: -inf at 0, NaN below. */
function logarithm(x: Scalar): Scalar {
  const subnormal = s.less(x, f(1.17549435e-38));
  const scaled = s.select(subnormal, s.mul(x, f(8388608)), x);
  const bits = s.bitcast("i32", scaled);
  const exponent = s.shiftRight(s.sub(bits, i(0x3f2aaaab)), 23);
  const m = s.sub(s.bitcast("f32", s.sub(bits, s.shiftLeft(exponent, 23))), f(1));
  const e = s.convert("f32", s.sub(exponent, s.select(subnormal, i(23), i(0))));
  const square = s.mul(m, m);
  const tail = polynomial(
    m,
    [
      0.3333321511745453, -0.24999797344207764, 0.20010405778884888, -0.16680487990379333, 0.14005868136882782, -0.12184259295463562,
      0.1398443877696991, -0.1289169043302536,
    ],
  );
  const correction = s.fma(s.mul(square, m), tail, s.fma(square, f(-0.5), s.mul(e, f(ln2Low))));
  const value = s.fma(e, f(ln2High), s.add(m, correction));
  const positive = s.select(s.equal(x, f(0)), f(-Infinity), s.select(s.less(x, f(0)), f(NaN), value));
  const finite = s.less(x, f(Infinity));
  return s.select(s.or(finite, s.equal(x, f(0))), positive, x);
}

/** log(1 + x) with the rounding error of 1 + x put back. */
function logarithm1p(x: Scalar): Scalar {
  const u = s.add(f(1), x);
  const logged = s.call("log", "f32", [u]);
  const value = s.add(logged, s.div(s.sub(x, s.sub(u, f(1))), u));
  return s.select(s.or(s.equal(u, f(0)), s.equal(x, f(Infinity))), logged, value);
}

const withSignOf = (magnitude: Scalar, x: Scalar): Scalar =>
  s.bitcast("f32", s.or(s.bitcast("i32", magnitude), s.and(s.bitcast("i32", x), i(-0x80000000))));

/** Inverse hyperbolic sine; odd, and exact at 0. */
function inverseSinh(x: Scalar): Scalar {
  const a = s.abs(x);
  const square = s.mul(a, a);
  const small = s.call("log1p", "f32", [s.add(a, s.div(square, s.add(f(1), s.sqrt(s.add(square, f(1))))))]);
  const large = s.add(s.call("log", "f32", [a]), f(Math.LN2));
  return withSignOf(s.select(s.less(f(1e9), a), large, small), x);
}

/** Hyperbolic sine: a series below 1, halves of exponentials above; infinite beyond the f32 range. */
function hyperbolicSine(x: Scalar): Scalar {
  const a = s.abs(x);
  const square = s.mul(a, a);
  const series = s.fma(
    s.mul(square, a),
    polynomial(square, [0.1666666716337204, 0.00833333283662796, 0.00019841296307276934, 2.755206423898926e-6, 2.5529821812142472e-8]),
    a,
  );
  const half = s.call("expHalf", "f32", [a]);
  const large = s.sub(half, s.call("expHalf", "f32", [s.neg(a)]));
  return withSignOf(s.select(s.less(a, f(1)), series, large), x);
}

/** In an order in which each uses only earlier ones. */
export const functionDefinitions: readonly FunctionDefinition[] = [
  { name: "exp", parameters: 1, body: ([x]) => exponential(x as Scalar, 0) },
  // The same bits for what is known not to be above 0.
  { name: "expNegative", parameters: 1, body: ([x]) => exponential(x as Scalar, 0, (negative) => negative) },
  { name: "expHalf", parameters: 1, body: ([x]) => exponential(x as Scalar, -1) },
  { name: "log", parameters: 1, body: ([x]) => logarithm(x as Scalar) },
  { name: "log1p", parameters: 1, body: ([x]) => logarithm1p(x as Scalar) },
  { name: "asinh", parameters: 1, body: ([x]) => inverseSinh(x as Scalar) },
  { name: "sinh", parameters: 1, body: ([x]) => hyperbolicSine(x as Scalar) },
];
