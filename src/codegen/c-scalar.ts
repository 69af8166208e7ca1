/** Renders scalar expressions to C over vectors of 16 lanes. One entry per scalar operation; the only place that knows C's operators. */
import type { Scalar, ScalarType } from "../ir/scalar.js";

export const vectorType: Record<ScalarType, string> = { f32: "f32x16", f64: "f64x16", i32: "i32x16" };

/** A C literal with exactly this value. */
export function literal(type: ScalarType, value: number): string {
  if (type === "i32") return value === -0x80000000 ? "(-2147483647 - 1)" : String(value | 0);
  const single = type === "f32" ? Math.fround(value) : value;
  if (Number.isNaN(single)) return '__builtin_nanf("")';
  if (!Number.isFinite(single)) return single > 0 ? "__builtin_inff()" : "-__builtin_inff()";
  return type === "f32" ? `${hexFloat(single)}f` : hexFloat(single);
}

/** Hexadecimal float text: exact, whatever the compiler's decimal conversion does. */
function hexFloat(value: number): string {
  if (value === 0) return Object.is(value, -0) ? "-0x0p+0" : "0x0p+0";
  const sign = value < 0 ? "-" : "";
  let mantissa = Math.abs(value);
  let exponent = 0;
  while (mantissa >= 2) ((mantissa /= 2), exponent++);
  while (mantissa < 1) ((mantissa *= 2), exponent--);
  let digits = "";
  for (let fraction = mantissa - 1; fraction > 0;) {
    fraction *= 16;
    digits += Math.floor(fraction).toString(16);
    fraction -= Math.floor(fraction);
  }
  return `${sign}0x1${digits ? `.${digits}` : ""}p${exponent >= 0 ? "+" : ""}${exponent}`;
}

type Render = (node: Scalar, operands: readonly string[]) => string;

const operator =
  (symbol: string): Render =>
  (_, operands) =>
    operands.join(` ${symbol} `);

const renderers: Record<Exclude<Scalar["op"], "argument">, Render> = {
  constant: (node) => `splat_${node.type}(${literal(node.type, node.value as number)})`,
  add: operator("+"),
  sub: operator("-"),
  mul: operator("*"),
  div: operator("/"),
  neg: (_, [a]) => `-${a}`,
  abs: (node, [a]) => `abs_${node.type}(${a})`,
  fma: (_, operands) => `fma_f32(${operands.join(", ")})`,
  sqrt: (_, [a]) => `sqrt_f32(${a})`,
  less: operator("<"),
  lessEqual: operator("<="),
  equal: operator("=="),
  select: (node, operands) => `select_${node.type}(${operands.join(", ")})`,
  and: operator("&"),
  or: operator("|"),
  not: (_, [a]) => `~${a}`,
  shiftLeft: (node, [a]) => `(i32x16)((u32x16)${a} << ${node.value})`,
  shiftRight: (node, [a]) => `${a} >> ${node.value}`,
  bitcast: (node, [a]) => `(${vectorType[node.type]})${a}`,
  convert: (node, [a]) => (node.type === "i32" ? `truncate_f32(${a})` : `__builtin_convertvector(${a}, ${vectorType[node.type]})`),
  call: (node, operands) => `${node.callee}_f32(${operands.join(", ")})`,
};

/** Emits one C statement per distinct node; shared nodes are emitted once. Returns the C name of the root's value. */
export class ScalarEmitter {
  readonly #names = new Map<Scalar, string>();
  readonly #byText = new Map<string, string>();

  constructor(
    private readonly write: (line: string) => void,
    private readonly freshName: () => string,
  ) {}

  emit(node: Scalar, inputs: readonly string[]): string {
    if (node.op === "argument") return inputs[node.value as number] as string;
    const known = this.#names.get(node);
    if (known) return known;
    const operands = node.inputs.map((input) => this.emit(input, inputs));
    const text = renderers[node.op](node, operands);
    const key = `${vectorType[node.type]} ${text}`;
    let name = this.#byText.get(key);
    if (!name) {
      name = this.freshName();
      this.write(`const ${vectorType[node.type]} ${name} = ${text};`);
      this.#byText.set(key, name);
    }
    this.#names.set(node, name);
    return name;
  }
}
