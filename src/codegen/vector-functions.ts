/**
 * C functions over vectors of 16 lanes, and the same over vectors as wide as a register: compilers keep wider ones in memory. Sixteen lanes are then two or four
 * vectors, and reductions put them together in the order of the sixteen, so every width gives the same bits. Knows no instruction set.
 */
import { argument } from "../ir/scalar.js";
import { emitScalar, formOf, type Lanes } from "./c-scalar.js";
import { functionDefinitions, type FunctionDefinition } from "./functions.js";

export interface Helper {
  readonly name: string;
  readonly text: string;
}

/** A helper's name is the first word that is followed by a bracket. */
export const helper = (text: string): Helper => ({ name: /(\w+)\((?!\()/.exec(text.replace(/\/\*[^]*?\*\//, ""))?.[1] as string, text });

const listed = (count: number, element: (index: number) => string): string =>
  Array.from({ length: count }, (_, index) => element(index)).join(", ");

/** A mask of all ones where the comparison holds; never where an operand is NaN. */
function comparison(name: string, symbol: string, type: "f32" | "i32", lanes: Lanes, inHalves: boolean): Helper {
  const vector = `${type}x${lanes}`;
  const head = `INLINE i32x${lanes} ${name}_${formOf(type, lanes)}(${vector} a, ${vector} b)`;
  if (!inHalves) return helper(`${head} { return a ${symbol} b; }`);
  return helper(`${head} {
  ${type}x8 x[2], y[2];
  memcpy(x, &a, 64), memcpy(y, &b, 64);
  const i32x8 halves[2] = {x[0] ${symbol} y[0], x[1] ${symbol} y[1]};
  i32x16 mask;
  memcpy(&mask, halves, 64);
  return mask;
}`);
}

/** `inHalves`: whole vectors are compared as two of eight lanes, where no register holds sixteen. */
export const comparisons = (lanes: Lanes, inHalves = false): Helper[] =>
  (["f32", "i32"] as const).flatMap((type) => [
    comparison("less", "<", type, lanes, inHalves),
    comparison("lessEqual", "<=", type, lanes, inHalves),
    comparison("equal", "==", type, lanes, inHalves),
  ]);

/** Splats, moves to and from memory. */
function movements(type: "f32" | "i32", lanes: Lanes): string[] {
  const form = formOf(type, lanes);
  const vector = `${type}x${lanes}`;
  const c = type === "f32" ? "float" : "int32_t";
  const whole =
    lanes === 16
      ? [
          `INLINE ${vector} load_${form}(const ${c} *p) { return (${vector})*(const ${vector}u *)p; }`,
          `INLINE void store_${form}(${c} *p, ${vector} v) { *(${vector}u *)p = (${vector}u)v; }`,
        ]
      : [
          `INLINE ${vector} load_${form}(const ${c} *p) { ${vector} v; memcpy(&v, p, ${4 * lanes}); return v; }`,
          `INLINE void store_${form}(${c} *p, ${vector} v) { memcpy(p, &v, ${4 * lanes}); }`,
        ];
  return [
    `INLINE ${vector} splat_${form}(${c} x) { return (${vector}){${listed(lanes, () => "x")}}; }`,
    ...whole,
    `/* The first count lanes; the others are zero, respectively left alone. */
INLINE ${vector} load_part_${form}(const ${c} *p, int64_t count) { ${vector} v = splat_${form}(0); memcpy(&v, p, (size_t)count * 4); return v; }`,
    `INLINE void store_part_${form}(${c} *p, ${vector} v, int64_t count) { memcpy(p, &v, (size_t)count * 4); }`,
    `INLINE ${vector} load_strided_${form}(const ${c} *p, int64_t stride, int64_t count) {
  ${vector} v = splat_${form}(0);
  for (int64_t l = 0; l < count; l++) v[l] = p[l * stride];
  return v;
}`,
  ];
}

function arithmetic(lanes: Lanes): string[] {
  const [F, I, U, f, i] = [`f32x${lanes}`, `i32x${lanes}`, `u32x${lanes}`, formOf("f32", lanes), formOf("i32", lanes)];
  const laneIndex = lanes === 16 ? "lane_index" : `lane_index_${I}`;
  return [
    `INLINE ${F} select_${f}(${I} mask, ${F} a, ${F} b) { return (${F})((mask & (${I})a) | (~mask & (${I})b)); }`,
    `INLINE ${I} select_${i}(${I} mask, ${I} a, ${I} b) { return (mask & a) | (~mask & b); }`,
    ...(["add +", "sub -", "mul *"] as const).map((operation) => {
      const [name, symbol] = operation.split(" ");
      return `INLINE ${I} ${name}_${i}(${I} a, ${I} b) { return (${I})((${U})a ${symbol} (${U})b); }`;
    }),
    `INLINE ${F} abs_${f}(${F} a) { return (${F})((${I})a & splat_${i}(0x7fffffff)); }`,
    `INLINE ${I} abs_${i}(${I} a) { return select_${i}(less_${i}(a, splat_${i}(0)), sub_${i}(splat_${i}(0), a), a); }`,
    `/* a / b towards zero; 0 where b is 0, and wrapping where the quotient is beyond the int32 range. */
INLINE ${I} divide_${i}(${I} a, ${I} b) {
  ${I} r;
  for (int l = 0; l < ${lanes}; l++) r[l] = b[l] == 0 ? 0 : (int32_t)((int64_t)a[l] / b[l]);
  return r;
}`,
    `INLINE ${F} sqrt_${f}(${F} a) {
  ${F} r;
  for (int l = 0; l < ${lanes}; l++) r[l] = __builtin_sqrtf(a[l]);
  return r;
}`,
    `/* Towards zero, clamped to the int32 range; NaN becomes 0. */
INLINE ${I} truncate_${f}(${F} a) {
  const ${F} low = splat_${f}(-2147483648.0f), high = splat_${f}(2147483520.0f);
  a = select_${f}(less_${f}(a, low), low, select_${f}(less_${f}(high, a), high, a));
  return __builtin_convertvector(select_${f}(equal_${f}(a, a), a, splat_${f}(0)), ${I});
}`,
    `/* NaN if either is. */\nINLINE ${F} larger_${f}(${F} a, ${F} b) { return select_${f}(less_${f}(b, a) | ~equal_${f}(a, a), a, b); }`,
    `/* Lanes 0 and 1 swapped, 2 and 3, and so on. */
INLINE ${F} swap_pairs_${f}(${F} a) { return (${F})(((u64x${lanes / 2})a << 32) | ((u64x${lanes / 2})a >> 32)); }`,
    `INLINE ${I} ${laneIndex}(void) { return (${I}){${listed(lanes, String)}}; }`,
    `/* Lanes from count on become fill. */
INLINE ${F} keep_${f}(${F} v, int64_t count, float fill) { return select_${f}(less_${i}(${laneIndex}(), splat_${i}((int32_t)count)), v, splat_${f}(fill)); }`,
  ];
}

/** The fixed tree over sixteen lanes: lanes i and i + 8, then 4, 2, 1. */
function wholeReductions(): string[] {
  const reduce = (name: string, step: string): string => `INLINE float ${name}(f32x16 v) {
  float t[16];
  memcpy(t, &v, 64);
  for (int w = 8; w > 0; w /= 2) for (int l = 0; l < w; l++) ${step};
  return t[0];
}`;
  return [reduce("sum_lanes", "t[l] += t[l + w]"), reduce("max_lanes", "t[l] = t[l + w] < t[l] || t[l] != t[l] ? t[l] : t[l + w]")];
}

/** The same tree over vectors that make sixteen lanes together: whole vectors while there are two, then lane by lane. */
function partReductions(lanes: 4 | 8): string[] {
  const type = `f32x${lanes}`;
  const halved = (terms: readonly string[], join: (a: string, b: string) => string): string[] =>
    terms.slice(0, terms.length / 2).map((a, index) => join(a, terms[index + terms.length / 2] as string));
  const reduce = (name: string, join: (a: string, b: string) => string, joinLanes: (a: string, b: string) => string): string => {
    let vectors = Array.from({ length: 16 / lanes }, (_, index) => `v${index}`);
    while (vectors.length > 1) vectors = halved(vectors, join);
    let terms = Array.from({ length: lanes }, (_, lane) => `v[${lane}]`);
    while (terms.length > 1) terms = halved(terms, joinLanes);
    const parameters = listed(16 / lanes, (index) => `${type} v${index}`);
    return `INLINE float ${name}_${type}(${parameters}) {\n  const ${type} v = ${vectors[0]};\n  return ${terms[0]};\n}`;
  };
  return [
    "INLINE float larger(float a, float b) { return b < a || a != a ? a : b; }",
    reduce(
      "sum_lanes",
      (a, b) => `(${a} + ${b})`,
      (a, b) => `(${a} + ${b})`,
    ),
    reduce(
      "max_lanes",
      (a, b) => `larger_${type}(${a}, ${b})`,
      (a, b) => `larger(${a}, ${b})`,
    ),
  ];
}

/** The functions of one width, in an order in which each uses only earlier ones; comparisons and `fma` are not among them, and come first. */
export const vectorFunctions = (lanes: Lanes): Helper[] =>
  [
    ...movements("f32", lanes),
    ...movements("i32", lanes),
    ...arithmetic(lanes),
    ...(lanes === 16 ? wholeReductions() : partReductions(lanes)),
  ].map(helper);

/** The lines that compute a function's value from operands of these names, and what they end in. */
function rendered(
  { body }: FunctionDefinition,
  names: readonly string[],
  lanes: Lanes,
  temporary = "t",
): { lines: string[]; result: string } {
  const lines: string[] = [];
  let count = 0;
  const result = emitScalar(
    body(names.map((_, index) => argument("f32", index))),
    names,
    (line) => lines.push(`  ${line}\n`),
    () => `${temporary}${++count}`,
    lanes,
  );
  return { lines, result };
}

/** C text of a function that replaces each of `count` vectors by the function's value of it, one step of all of them after the other. */
export function interleavedFunction(callee: string, name: string, lanes: Lanes, count: number): string {
  const definition = functionDefinitions.find((one) => one.name === callee);
  if (definition?.parameters !== 1) throw new Error(`there is no function ${callee} of one number`);
  const each = Array.from({ length: count }, (_, index) => rendered(definition, [`x[${index}]`], lanes, `t${index}_`));
  const steps = (each[0]?.lines ?? []).map((_, step) => each.map(({ lines }) => lines[step]).join(""));
  const results = each.map(({ result }, index) => `  x[${index}] = ${result};\n`);
  return `INLINE void ${name}(f32x${lanes} *x) {\n${steps.join("")}${results.join("")}}`;
}

/** The mathematical functions over vectors of one width. */
export function mathematicalFunctions(lanes: Lanes): Helper[] {
  const [F, f] = [`f32x${lanes}`, formOf("f32", lanes)];
  return functionDefinitions.map((definition) => {
    const { name, parameters } = definition;
    const names = parameters === 1 ? ["x"] : Array.from({ length: parameters }, (_, index) => `x${index}`);
    const { lines, result } = rendered(definition, names, lanes);
    return {
      name: `${name}_${f}`,
      text: `INLINE ${F} ${name}_${f}(${names.map((x) => `${F} ${x}`).join(", ")}) {\n${lines.join("")}  return ${result};\n}`,
    };
  });
}
