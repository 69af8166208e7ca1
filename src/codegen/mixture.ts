/**
 * The mixture draw: one Student-t mixture sample per row and position. Sixteen rows at a time; consecutive rows of one source share its cumulated weights. Mirrors
 * the op's `evaluate`; f64 where that says so.
 */
import type { Node } from "../ir/graph.js";
import { padded } from "../ir/ops/state.js";
import type { Dim } from "../ir/dim.js";
import { plainPointer } from "./address.js";
import type { KernelWriter } from "./writer.js";

/** Sum of c[k] x^k as C text, every step one multiplication and one addition. */
const horner = (variable: string, terms: readonly string[]): string =>
  [...terms].reverse().reduce((sum, term) => (sum === "" ? `splat_f64(${term})` : `(splat_f64(${term}) + ${variable} * ${sum})`), "");

const factorial = (n: number): number => (n < 2 ? 1 : n * factorial(n - 1));
const signed = (k: number, divisor: number): string => `${k % 2 ? "-" : ""}1.0 / ${divisor}.0`;
const series = {
  atanh: Array.from({ length: 12 }, (_, k) => `1.0 / ${2 * k + 1}.0`),
  exponential: Array.from({ length: 15 }, (_, k) => `1.0 / ${factorial(k + 1)}.0`),
  cosine: Array.from({ length: 10 }, (_, k) => signed(k, factorial(2 * k))),
  sine: Array.from({ length: 10 }, (_, k) => signed(k, factorial(2 * k + 1))),
};

/** f64 logarithm, exponential minus one and cosine, eight lanes: series whose first left-out term lies below the rounding error; no library calls. */
const drawFunctions = `typedef double f64x8 __attribute__((vector_size(64)));
typedef int64_t i64x8 __attribute__((vector_size(64)));
INLINE f64x8 splat_f64(double x) { return (f64x8){x, x, x, x, x, x, x, x}; }
INLINE i64x8 splat_i64(int64_t x) { return (i64x8){x, x, x, x, x, x, x, x}; }
INLINE f64x8 select_f64(i64x8 mask, f64x8 a, f64x8 b) { return (f64x8)((mask & (i64x8)a) | (~mask & (i64x8)b)); }
/* Natural logarithm of a positive normal number: m in [sqrt(1/2), sqrt(2)), log m = 2 atanh((m - 1) / (m + 1)). */
INLINE f64x8 log_f64(f64x8 x) {
  const i64x8 e = ((i64x8)x - splat_i64(0x3fe6a09e667f3bcdLL)) >> 52;
  const f64x8 m = (f64x8)((i64x8)x - e * splat_i64((int64_t)1 << 52)), exponent = __builtin_convertvector(e, f64x8);
  const f64x8 s = (m - 1.0) / (m + 1.0), z = s * s;
  return exponent * 0.693147180369123816490 + (2.0 * s * ${horner("z", series.atanh)} + exponent * 1.90821492927058770002e-10);
}
/* e^x - 1 for x >= 0. */
INLINE f64x8 expm1_f64(f64x8 x) {
  const i64x8 n = __builtin_convertvector(x * 1.44269504088896338700 + 0.5, i64x8);
  const i64x8 k = (n & ~(n > 1023)) | ((n > 1023) & splat_i64(1023));
  const f64x8 whole = __builtin_convertvector(n, f64x8), r = (x - whole * 0.693147180369123816490) - whole * 1.90821492927058770002e-10;
  const f64x8 power = (f64x8)((k + 1023) << 52);
  const f64x8 large = (1.0 + r * ${horner("r", series.exponential)}) * power - 1.0;
  return select_f64(x < 0.35, x * ${horner("x", series.exponential)}, large);
}
/* cos(2 pi v) for v in [0, 1], by octants. */
INLINE f64x8 cos_turns(f64x8 v) {
  const f64x8 half = select_f64(v > 0.5, 1.0 - v, v);
  const i64x8 beyond = half > 0.25;
  const f64x8 a = select_f64(beyond, 0.5 - half, half);
  const i64x8 near = a > 0.125;
  const f64x8 x = 6.28318530717958647693 * select_f64(near, 0.25 - a, a), z = x * x;
  const f64x8 value = select_f64(near, x * ${horner("z", series.sine)}, ${horner("z", series.cosine)});
  return select_f64(beyond, -value, value);
}
/* Student-t by the rejection-free polar form (Bailey 1994). */
INLINE f64x8 student_t(f64x8 u, f64x8 v, f64x8 df) {
  f64x8 root = df * expm1_f64(-2.0 / df * log_f64(u));
  for (int l = 0; l < 8; l++) root[l] = __builtin_sqrt(root[l]);
  return root * cos_turns(v);
}
`;

const softplusFunction = `/* x above 20, else log(1 + e^x). */
INLINE f32x16 softplus_f32(f32x16 x) { return select_f32(less_f32(splat_f32(20.0f), x), x, log1p_f32(exp_f32(x))); }
/* At least 2^-23; NaN stays NaN. */
INLINE f32x16 floored_f32(f32x16 x) { return select_f32(less_f32(splat_f32(0x1p-23f), x) | ~equal_f32(x, x), x, splat_f32(0x1p-23f)); }
`;

export const mixtureFunctions: readonly string[] = [softplusFunction, drawFunctions];

/** Units are sample positions of the patch. */
export function emitMixtureDraw(writer: KernelWriter, node: Node): void {
  const roles = ["raw", "source", "keys", "start", "seed", "component", "normal", "chiSquare"];
  const [raw, source, keys, start, seed, component, normal, chiSquare] = node.inputs.map((input, index) =>
    plainPointer(writer, input, roles[index] as string),
  );
  const [rowCount, patch] = node.shape as [Dim, number];
  const rows = writer.number(rowCount);
  const components = node.attributes["components"] as number;
  const width = (node.inputs[0] as Node).shape[2] as number;
  const out = writer.pointer(node, "f32", "out");
  const injected = component !== undefined;
  const chooses = !injected && components > 1;
  if (injected) writer.line(`(void)${keys}; (void)${start}; (void)${seed};`);
  writer.block("for (int64_t position = begin; position < end; position++)", () => {
    if (chooses) writer.line(`float weights[${padded(components)}]; double cumulated[${components}]; int64_t weighed = -1;`);
    writer.block(`for (int64_t first = 0; first < ${rows}; first += 16)`, () => {
      writer.line(`const int64_t count = ${rows} - first < 16 ? ${rows} - first : 16;`);
      writer.line("float df[16] = {0}, scale[16] = {0}, location[16] = {0};");
      writer.line(injected ? "double z[16] = {0}, chi[16] = {0};" : "double u[16], v[16];");
      if (!injected) writer.line("for (int64_t l = 0; l < 16; l++) u[l] = v[l] = 0.5;");
      writer.block("for (int64_t l = 0; l < count; l++)", () => {
        writer.line(`const int64_t row = first + l, from = ${source}[row];`);
        writer.line(`const float *const parameters = ${raw} + (from * ${patch} + position) * ${width};`);
        if (injected) {
          const at = `row * ${patch} + position`;
          writer.line(`const int64_t k = ${component}[${at}]; z[l] = (double)${normal}[${at}]; chi[l] = (double)${chiSquare}[${at}];`);
        } else {
          const counter = [
            `(uint32_t)${keys}[3 * row]`,
            `(uint32_t)${keys}[3 * row + 1]`,
            `(uint32_t)(${start}[row] + position)`,
            `(uint32_t)${keys}[3 * row + 2] << 4`,
          ];
          writer.line(`const uint32_t counter[4] = {${counter.join(", ")}};`);
          writer.line("uint32_t words[4];");
          writer.line(`philox(counter, (uint32_t)${seed}[0], (uint32_t)${seed}[1], words);`);
          writer.line("u[l] = uniform(words[1]); v[l] = uniform(words[2]);");
          if (chooses) emitChoice(writer, components);
          else writer.line("const int64_t k = 0;");
        }
        writer.line(`df[l] = parameters[k]; scale[l] = parameters[${components} + k]; location[l] = parameters[${2 * components} + k];`);
      });
      writer.line("const f32x16 degrees = splat_f32(2.0f) + floored_f32(softplus_f32(load_f32(df)));");
      writer.line("float wide[16], t[16];");
      writer.line("store_f32(wide, degrees);");
      writer.block("for (int64_t half = 0; half < 16; half += 8)", () => {
        writer.line("f64x8 d, a, b;");
        writer.line(
          `for (int64_t l = 0; l < 8; l++) { d[l] = (double)wide[half + l]; a[l] = ${injected ? "z" : "u"}[half + l]; b[l] = ${injected ? "chi" : "v"}[half + l]; }`,
        );
        if (injected) {
          writer.line("f64x8 ratio = b / d;");
          writer.line("for (int64_t l = 0; l < 8; l++) ratio[l] = __builtin_sqrt(ratio[l]);");
          writer.line("const f64x8 drawn = a / ratio;");
        } else writer.line("const f64x8 drawn = student_t(a, b, d);");
        writer.line("for (int64_t l = 0; l < 8; l++) t[half + l] = (float)drawn[l];");
      });
      writer.line("store_f32(t, load_f32(location) + floored_f32(softplus_f32(load_f32(scale))) * load_f32(t));");
      writer.line(`for (int64_t l = 0; l < count; l++) ${out}[(first + l) * ${patch} + position] = t[l];`);
    });
  });
}

/** First component whose cumulated weight exceeds u times the total; weights are cumulated once per source. */
function emitChoice(writer: KernelWriter, components: number): void {
  const parts = Array.from({ length: Math.ceil(components / 16) }, (_, part) => ({
    at: 16 * part,
    count: Math.min(16, components - 16 * part),
  }));
  const load = ({ at, count }: { at: number; count: number }): string => {
    const place = `parameters + ${3 * components + at}`;
    return count === 16 ? `load_f32(${place})` : `load_part_f32(${place}, ${count})`;
  };
  writer.block("if (from != weighed)", () => {
    writer.line("f32x16 top = splat_f32(-__builtin_inff());");
    for (const part of parts)
      writer.line(
        `top = larger_f32(top, ${part.count === 16 ? load(part) : `keep_f32(${load(part)}, ${part.count}, -__builtin_inff())`});`,
      );
    writer.line("const f32x16 largest = splat_f32(max_lanes(top));");
    for (const part of parts) writer.line(`store_f32(weights + ${part.at}, exp_f32(${load(part)} - largest));`);
    writer.line("double sum = 0;");
    writer.line(`for (int64_t c = 0; c < ${components}; c++) { sum += (double)weights[c]; cumulated[c] = sum; }`);
    writer.line("weighed = from;");
  });
  writer.line(`const double target = uniform(words[0]) * cumulated[${components - 1}];`);
  writer.line("int64_t k = 0;");
  writer.line(`while (k < ${components - 1} && cumulated[k] <= target) k++;`);
}
