/** Renders scalar expressions to C over vectors of 16 lanes or of a register's width. One entry per scalar operation; the only place that knows C's operators. */
import type { Scalar, ScalarType } from "../ir/scalar.js";

export type Lanes = 4 | 8 | 16;

export const vectorType = (type: ScalarType, lanes: Lanes): string => `${type}x${lanes}`;

/** Ending of the names of functions over such vectors. */
export const formOf = (type: ScalarType, lanes: Lanes): string => (lanes === 16 ? type : vectorType(type, lanes));

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

type Render = (node: Scalar, operands: readonly Text[], lanes: Lanes) => Text;

const whole = (text: string): Text => ({ text, whole: true });
const part = (text: string): Text => ({ text, whole: false });
const bracketed = (operand: Text | undefined): string => (operand ? (operand.whole ? operand.text : `(${operand.text})`) : "");
const list = (operands: readonly Text[]): string => operands.map(({ text }) => text).join(", ");

const infix =
  (symbol: string): Render =>
  (_, operands) =>
    part(operands.map(bracketed).join(` ${symbol} `));
/** A function over vectors: its name without the ending. */
const named =
  (name: (node: Scalar) => string, type = (node: Scalar): ScalarType => node.type): Render =>
  (node, operands, lanes) =>
    whole(`${name(node)}_${formOf(type(node), lanes)}(${list(operands)})`);

/** Integers wrap, which C only promises for unsigned ones: helpers say so. */
const arithmetic =
  (symbol: string, integer: string): Render =>
  (node, operands, lanes) =>
    (node.type === "i32" ? named(() => integer) : infix(symbol))(node, operands, lanes);

/** Comparisons of 32-bit lanes are helpers, which know how wide the machine's registers are. */
const comparison =
  (name: string, symbol: string): Render =>
  (node, operands, lanes) => {
    const type = node.inputs[0]?.type as ScalarType;
    const render =
      type === "f64"
        ? infix(symbol)
        : named(
            () => name,
            () => type,
          );
    return render(node, operands, lanes);
  };

const renderers: Record<Exclude<Scalar["op"], "argument">, Render> = {
  constant: (node, _, lanes) => whole(`splat_${formOf(node.type, lanes)}(${literal(node.type, node.value as number)})`),
  add: arithmetic("+", "add"),
  sub: arithmetic("-", "sub"),
  mul: arithmetic("*", "mul"),
  div: arithmetic("/", "divide"),
  neg: (node, [a], lanes) => {
    const form = formOf("i32", lanes);
    return node.type === "i32" ? whole(`sub_${form}(splat_${form}(0), ${a?.text})`) : part(`-${bracketed(a)}`);
  },
  abs: named(() => "abs"),
  fma: named(() => "fma"),
  sqrt: named(() => "sqrt"),
  less: comparison("less", "<"),
  lessEqual: comparison("lessEqual", "<="),
  equal: comparison("equal", "=="),
  select: named(() => "select"),
  and: infix("&"),
  or: infix("|"),
  not: (_, [a]) => part(`~${bracketed(a)}`),
  shiftLeft: (node, [a], lanes) => whole(`(i32x${lanes})((u32x${lanes})${bracketed(a)} << ${node.value})`),
  shiftRight: (node, [a]) => part(`${bracketed(a)} >> ${node.value}`),
  bitcast: (node, [a], lanes) => whole(`(${vectorType(node.type, lanes)})${bracketed(a)}`),
  convert: (node, operands, lanes) =>
    node.type === "i32"
      ? named(
          () => "truncate",
          () => "f32",
        )(node, operands, lanes)
      : whole(`__builtin_convertvector(${operands[0]?.text}, ${vectorType(node.type, lanes)})`),
  call: named((node) => node.callee as string),
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
export function emitScalar(
  root: Scalar,
  inputs: readonly string[],
  write: (line: string) => void,
  fresh: () => string,
  lanes: Lanes = 16,
): string {
  const render = (value: Distinct): Text => {
    if (value.written) return value.written;
    const { node } = value;
    if (node.op === "argument") return (value.written = whole(inputs[node.value as number] as string));
    let text = renderers[node.op](node, value.operands.map(render), lanes);
    if (node.op !== "constant" && value.uses > 0 && (value.uses > 1 || text.text.length > longestInline)) {
      const name = fresh();
      write(`const ${vectorType(node.type, lanes)} ${name} = ${text.text};`);
      text = whole(name);
    }
    return (value.written = text);
  };
  return render(distinct(root)).text;
}
