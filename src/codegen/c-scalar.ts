/** Renders scalar expressions to C over vectors of 16 lanes. One entry per scalar operation; the only place that knows C's operators. */
import type { Scalar, ScalarType } from "../ir/scalar.js";

export const vectorType: Record<ScalarType, string> = { f32: "f32x16", f64: "f64x16", i32: "i32x16" };

/** A C literal with exactly this value: JavaScript prints the shortest decimal that reads back as the same number, and C compilers round decimals correctly. */
export function literal(type: ScalarType, value: number): string {
  if (type === "i32") return value === -0x80000000 ? "(-2147483647 - 1)" : String(value | 0);
  const single = type === "f32" ? Math.fround(value) : value;
  const suffix = type === "f32" ? "f" : "";
  if (Number.isNaN(single)) return `__builtin_nan${suffix}("")`;
  if (!Number.isFinite(single)) return `${single > 0 ? "" : "-"}__builtin_inf${suffix}()`;
  const text = Object.is(single, -0) ? "-0" : String(single);
  return `${/[.e]/.test(text) ? text : `${text}.0`}${suffix}`;
}

/** C text; `whole` text needs no brackets as an operand. */
interface Text {
  readonly text: string;
  readonly whole: boolean;
}

type Render = (node: Scalar, operands: readonly Text[]) => Text;

const whole = (text: string): Text => ({ text, whole: true });
const part = (text: string): Text => ({ text, whole: false });
const bracketed = (operand: Text | undefined): string => (operand ? (operand.whole ? operand.text : `(${operand.text})`) : "");
const list = (operands: readonly Text[]): string => operands.map(({ text }) => text).join(", ");

const infix =
  (symbol: string): Render =>
  (_, operands) =>
    part(operands.map(bracketed).join(` ${symbol} `));
const named =
  (name: (node: Scalar) => string): Render =>
  (node, operands) =>
    whole(`${name(node)}(${list(operands)})`);

/** Integers wrap, which C only promises for unsigned ones: helpers say so. */
const arithmetic =
  (symbol: string, integer: string): Render =>
  (node, operands) =>
    node.type === "i32" ? whole(`${integer}(${list(operands)})`) : infix(symbol)(node, operands);

/** Comparisons of 16 lanes of 32 bits are helpers, which know how wide the machine's registers are. */
const comparison =
  (name: string, symbol: string): Render =>
  (node, operands) => {
    const type = node.inputs[0]?.type;
    return type === "f64" ? infix(symbol)(node, operands) : whole(`${name}_${type}(${list(operands)})`);
  };

const renderers: Record<Exclude<Scalar["op"], "argument">, Render> = {
  constant: (node) => whole(`splat_${node.type}(${literal(node.type, node.value as number)})`),
  add: arithmetic("+", "add_i32"),
  sub: arithmetic("-", "sub_i32"),
  mul: arithmetic("*", "mul_i32"),
  div: arithmetic("/", "divide_i32"),
  neg: (node, [a]) => (node.type === "i32" ? whole(`sub_i32(splat_i32(0), ${a?.text})`) : part(`-${bracketed(a)}`)),
  abs: named((node) => `abs_${node.type}`),
  fma: named((node) => `fma_${node.type}`),
  sqrt: named((node) => `sqrt_${node.type}`),
  less: comparison("less", "<"),
  lessEqual: comparison("lessEqual", "<="),
  equal: comparison("equal", "=="),
  select: named((node) => `select_${node.type}`),
  and: infix("&"),
  or: infix("|"),
  not: (_, [a]) => part(`~${bracketed(a)}`),
  shiftLeft: (node, [a]) => whole(`(i32x16)((u32x16)${bracketed(a)} << ${node.value})`),
  shiftRight: (node, [a]) => part(`${bracketed(a)} >> ${node.value}`),
  bitcast: (node, [a]) => whole(`(${vectorType[node.type]})${bracketed(a)}`),
  convert: (node, [a]) =>
    whole(node.type === "i32" ? `truncate_f32(${a?.text})` : `__builtin_convertvector(${a?.text}, ${vectorType[node.type]})`),
  call: named((node) => `${node.callee}_${node.type}`),
};

/** Longest expression that is written in place where it is used. */
const longestInline = 70;

interface Distinct {
  readonly id: number;
  readonly node: Scalar;
  readonly operands: readonly Distinct[];
  uses: number;
  written?: Text;
}

const keyNumber = (value: number | undefined): string => (Object.is(value, -0) ? "-0" : String(value));

/** Equal subexpressions become one, with the number of places that use it. */
function distinct(root: Scalar): Distinct {
  const known = new Map<Scalar, Distinct>();
  const byKey = new Map<string, Distinct>();
  const visit = (node: Scalar): Distinct => {
    const before = known.get(node);
    if (before) return before;
    const operands = node.inputs.map(visit);
    const key = `${node.op} ${node.type} ${keyNumber(node.value)} ${node.callee ?? ""} ${operands.map(({ id }) => id).join(" ")}`;
    let found = byKey.get(key);
    if (!found) {
      found = { id: byKey.size, node, operands, uses: 0 };
      byKey.set(key, found);
      for (const operand of operands) operand.uses++;
    }
    known.set(node, found);
    return found;
  };
  return visit(root);
}

/** C text of an expression's value. What is used twice, or is long, is first written as a constant of its own under a name from `fresh`. */
export function emitScalar(root: Scalar, inputs: readonly string[], write: (line: string) => void, fresh: () => string): string {
  const render = (value: Distinct): Text => {
    if (value.written) return value.written;
    const { node } = value;
    if (node.op === "argument") return (value.written = whole(inputs[node.value as number] as string));
    let text = renderers[node.op](node, value.operands.map(render));
    if (node.op !== "constant" && value.uses > 0 && (value.uses > 1 || text.text.length > longestInline)) {
      const name = fresh();
      write(`const ${vectorType[node.type]} ${name} = ${text.text};`);
      text = whole(name);
    }
    return (value.written = text);
  };
  return render(distinct(root)).text;
}
