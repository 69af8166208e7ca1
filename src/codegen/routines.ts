/** Routines: C text of the ops that are no loop nest. Each mirrors the op's `evaluate`, step by step; f64 where that says so. */
import { productOf, type Dim } from "../ir/dim.js";
import type { Node } from "../ir/graph.js";
import { dtypes } from "../ir/dtype.js";
import type { Units } from "../ir/kernel.js";
import { copiedHeads, padded } from "../ir/ops/state.js";
import { momentColumns } from "../ir/ops/routines.js";
import { plainPointer } from "./address.js";
import type { KernelWriter } from "./writer.js";

export interface Routine {
  readonly units: (node: Node) => Units;
  /** Static functions the body needs. */
  readonly functions?: readonly string[];
  readonly emit: (writer: KernelWriter, node: Node) => void;
}

const perRow = (dim: Dim): Units => ({ dim, divide: 1, times: 1 });

/** A C literal of a double, exact: JavaScript prints the shortest text that reads back as the same value. */
const double = (value: number): string => (value === Infinity ? "__builtin_inf()" : Number.isInteger(value) ? `${value}.0` : String(value));

function emitScaler(writer: KernelWriter, node: Node): void {
  const [values, mask, first, count, prefix, row] = node.inputs.map((input, index) =>
    plainPointer(writer, input, ["values", "mask", "first", "count", "prefix", "row"][index] as string),
  );
  const patch = (node.inputs[0] as Node).shape[1] as number;
  const { fresh, addedVariance, minimumScale, clamp, lowFactor, highFactor } = node.attributes as Record<string, number | boolean>;
  const moments = writer.pointer(node.states[0]?.state as object, "f64", "moments");
  const out = writer.pointer(node, "f32", "out");
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.line(`double *const m = ${moments} + (int64_t)${row}[unit] * ${momentColumns};`);
    writer.line(`const int64_t from = (int64_t)${first}[unit] * ${patch}, to = from + (int64_t)${count}[unit] * ${patch};`);
    if (fresh) {
      writer.line("double weight = 0, total = 0, mean = 0, square = 0, low = 0, high = __builtin_inf();");
      if (clamp) {
        writer.line(`const int64_t stop = from + (int64_t)${prefix}[unit] * ${patch};`);
        writer.line("double n = 0, sum = 0, spread = 0;");
        writer.line(
          `for (int64_t i = from; i < stop; i++) { const double w = ${mask}[i] ? 1 : 0; n += w; sum += w * (double)${values}[i]; }`,
        );
        writer.line("n = n > 1 ? n : 1;");
        writer.line("const double centre = sum / n;");
        writer.line(
          `for (int64_t i = from; i < stop; i++) { const double d = ((double)${values}[i] - centre) * (${mask}[i] ? 1.0 : 0.0); spread += d * d; }`,
        );
        writer.line(`const double scale = __builtin_sqrt(spread / n + ${double(addedVariance as number)});`);
        writer.line(
          `low = scale * ${double(lowFactor as number)}; low = low > 0.1 ? low : 0.1; high = scale * ${double(highFactor as number)};`,
        );
      }
    } else {
      writer.line(`(void)${prefix};`);
      writer.line("double weight = m[0], total = m[1], mean = m[2], square = m[3], low = m[4], high = m[5];");
    }
    writer.block(`for (int64_t token = from / ${patch}; token < to / ${patch}; token++)`, () => {
      writer.block(`for (int64_t i = token * ${patch}; i < (token + 1) * ${patch}; i++)`, () => {
        writer.line(`const double w = ${mask}[i] ? 1 : 0, x = (double)${values}[i], before = mean;`);
        writer.line("weight += w; total += w * x;");
        writer.line("mean = total / (weight > 1 ? weight : 1);");
        writer.line("square += (x - before) * (x - mean) * w;");
      });
      writer.line("const double n = weight > 1 ? weight : 1;");
      writer.line(`double scale = __builtin_sqrt(square / (n - 1 > 1 ? n - 1 : 1) + ${double(addedVariance as number)});`);
      if ((minimumScale as number) > 0)
        writer.line(`scale = scale < ${double(minimumScale as number)} ? ${double(minimumScale as number)} : scale;`);
      if (clamp) writer.line("scale = scale < low ? low : scale; scale = scale > high ? high : scale;");
      writer.line(`${out}[2 * token] = (float)mean; ${out}[2 * token + 1] = (float)scale;`);
    });
    writer.line("m[0] = weight; m[1] = total; m[2] = mean; m[3] = square; m[4] = low; m[5] = high;");
  });
}

/** f64 logarithm, exponential minus one and cosine for draws: series whose first left-out term lies below the rounding error; no library calls. */
const drawFunctions = (): string => {
  const odd = Array.from({ length: 12 }, (_, k) => `1.0 / ${2 * k + 1}.0`);
  const horner = (variable: string, terms: readonly string[]): string =>
    [...terms].reverse().reduce((sum, term) => (sum === "" ? term : `(${term} + ${variable} * ${sum})`), "");
  const factorial = (n: number): number => (n < 2 ? 1 : n * factorial(n - 1));
  const exponential = Array.from({ length: 15 }, (_, k) => `1.0 / ${factorial(k + 1)}.0`);
  const cosine = Array.from({ length: 10 }, (_, k) => `${k % 2 ? "-" : ""}1.0 / ${factorial(2 * k)}.0`);
  const sine = Array.from({ length: 10 }, (_, k) => `${k % 2 ? "-" : ""}1.0 / ${factorial(2 * k + 1)}.0`);
  return `/* Philox 4x32-10 (Salmon et al. 2011). */
static __attribute__((unused)) void philox(const uint32_t *counter, uint32_t key0, uint32_t key1, uint32_t *out) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  for (int round = 0; round < 10; round++) {
    const uint64_t a = (uint64_t)0xd2511f53u * c0, b = (uint64_t)0xcd9e8d57u * c2;
    c0 = (uint32_t)(b >> 32) ^ c1 ^ key0; c1 = (uint32_t)b; c2 = (uint32_t)(a >> 32) ^ c3 ^ key1; c3 = (uint32_t)a;
    key0 += 0x9e3779b9u; key1 += 0xbb67ae85u;
  }
  out[0] = c0; out[1] = c1; out[2] = c2; out[3] = c3;
}
static __attribute__((unused)) double uniform(uint32_t word) { return ((double)word + 0.5) * 0x1p-32; }
/* Natural logarithm of a positive normal number: m in [sqrt(1/2), sqrt(2)), log m = 2 atanh((m - 1) / (m + 1)). */
static __attribute__((unused)) double log_f64(double x) {
  int64_t bits; memcpy(&bits, &x, 8);
  const int64_t e = (bits - 0x3fe6a09e667f3bcdLL) >> 52;
  bits -= e * ((int64_t)1 << 52);
  double m; memcpy(&m, &bits, 8);
  const double s = (m - 1) / (m + 1), z = s * s;
  return (double)e * 0.693147180369123816490 + (2 * s * ${horner("z", odd)} + (double)e * 1.90821492927058770002e-10);
}
/* e^x - 1 for x >= 0. */
static __attribute__((unused)) double expm1_f64(double x) {
  if (x < 0.35) return x * ${horner("x", exponential)};
  const double n = (double)(int64_t)(x * 1.44269504088896338700 + 0.5), r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
  const int64_t k = (int64_t)n > 1023 ? 1023 : (int64_t)n;
  const int64_t bits = (k + 1023) << 52;
  double power; memcpy(&power, &bits, 8);
  return (1 + r * ${horner("r", exponential)}) * power - 1;
}
/* cos(2 pi v) for v in [0, 1], by octants. */
static __attribute__((unused)) double cos_turns(double v) {
  double a = v > 0.5 ? 1 - v : v;
  const double sign = a > 0.25 ? -1 : 1;
  a = a > 0.25 ? 0.5 - a : a;
  const double x = 6.28318530717958647693 * (a > 0.125 ? 0.25 - a : a), z = x * x;
  return sign * (a > 0.125 ? x * ${horner("z", sine)} : ${horner("z", cosine)});
}
/* Student-t by the rejection-free polar form (Bailey 1994). */
static __attribute__((unused)) double student_t(double u, double v, double df) { return __builtin_sqrt(df * expm1_f64(-2 / df * log_f64(u))) * cos_turns(v); }
`;
};

function emitMixtureDraw(writer: KernelWriter, node: Node): void {
  const roles = ["raw", "source", "keys", "start", "seed", "component", "normal", "chiSquare"];
  const [raw, source, keys, start, seed, component, normal, chiSquare] = node.inputs.map((input, index) =>
    plainPointer(writer, input, roles[index] as string),
  );
  const patch = node.shape[1] as number;
  const components = node.attributes["components"] as number;
  const width = (node.inputs[0] as Node).shape[2] as number;
  const out = writer.pointer(node, "f32", "out");
  const injected = component !== undefined;
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.block(`for (int64_t position = 0; position < ${patch}; position++)`, () => {
      writer.line(`const float *const parameters = ${raw} + ((int64_t)${source}[unit] * ${patch} + position) * ${width};`);
      if (injected) {
        writer.line(`(void)${keys}; (void)${start}; (void)${seed};`);
        writer.line(`const int64_t k = ${component}[unit * ${patch} + position];`);
      } else {
        writer.line(
          `const uint32_t counter[4] = {(uint32_t)${keys}[3 * unit], (uint32_t)${keys}[3 * unit + 1], (uint32_t)(${start}[unit] + position), (uint32_t)${keys}[3 * unit + 2] << 4};`,
        );
        writer.line("uint32_t words[4];");
        writer.line(`philox(counter, (uint32_t)${seed}[0], (uint32_t)${seed}[1], words);`);
        if (components === 1) writer.line("const int64_t k = 0;");
        else emitChoice(writer, components);
      }
      writer.line(`const f32x16 raised = softplus_f32((f32x16){parameters[k], parameters[${components} + k]});`);
      writer.line("const float tiny = 0x1p-23f;");
      writer.line(
        "const float df = 2.0f + (tiny < raised[0] || raised[0] != raised[0] ? raised[0] : tiny), scale = tiny < raised[1] || raised[1] != raised[1] ? raised[1] : tiny;",
      );
      writer.line(
        injected
          ? `const double t = (double)${normal}[unit * ${patch} + position] / __builtin_sqrt((double)${chiSquare}[unit * ${patch} + position] / (double)df);`
          : "const double t = student_t(uniform(words[1]), uniform(words[2]), (double)df);",
      );
      writer.line(`${out}[unit * ${patch} + position] = parameters[${2 * components} + k] + scale * (float)t;`);
    });
  });
}

/** First component whose cumulated weight exceeds u times the total. */
function emitChoice(writer: KernelWriter, components: number): void {
  const size = padded(components);
  writer.line(`float weights[${size}];`);
  writer.line("f32x16 top = splat_f32(-__builtin_inff());");
  for (let at = 0; at < components; at += 16) {
    const count = Math.min(16, components - at);
    writer.line(
      `top = larger_f32(top, keep_f32(load_part_f32(parameters + ${3 * components + at}, ${count}), ${count}, -__builtin_inff()));`,
    );
  }
  writer.line("const f32x16 largest = splat_f32(max_lanes(top));");
  for (let at = 0; at < components; at += 16) {
    writer.line(
      `store_f32(weights + ${at}, exp_f32(load_part_f32(parameters + ${3 * components + at}, ${Math.min(16, components - at)}) - largest));`,
    );
  }
  writer.line("double total = 0, cumulated = 0;");
  writer.line(`for (int64_t c = 0; c < ${components}; c++) total += (double)weights[c];`);
  writer.line("const double target = uniform(words[0]) * total;");
  writer.line("int64_t k = 0;");
  writer.line(`for (; k < ${components - 1}; k++) { cumulated += (double)weights[k]; if (cumulated > target) break; }`);
}

const softplusFunction = `/* x above 20, else log(1 + e^x). */
INLINE f32x16 softplus_f32(f32x16 x) { return select_f32(splat_f32(20.0f) < x, x, log1p_f32(exp_f32(x))); }
`;

/** Units are tokens; scores of one head against the variates, 16 at a time. */
function emitGroupAttention(writer: KernelWriter, node: Node): void {
  const [q, k, v, first, stride, ids] = node.inputs.map((input, index) =>
    plainPointer(writer, input, ["q", "k", "v", "first", "stride", "ids"][index] as string),
  );
  const [, heads, width] = node.shape as [Dim, number, number];
  const { variates, scale } = node.attributes as { variates: number; scale: number };
  const out = writer.pointer(node, "f32", "out");
  const lanes = padded(variates);
  const turned = writer.scratch(16 * width);
  const scores = writer.scratch(lanes);
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.line(`const int64_t from = ${first}[unit], step = ${stride}[unit];`);
    writer.block(`for (int64_t head = 0; head < ${heads}; head++)`, () => {
      writer.line(`const float *const query = ${q} + (unit * ${heads} + head) * ${width};`);
      writer.line("f32x16 top = splat_f32(-__builtin_inff());");
      writer.block(`for (int64_t u0 = 0; u0 < ${variates}; u0 += 16)`, () => {
        writer.line("i32x16 seen = splat_i32(0);");
        writer.block("for (int64_t l = 0; l < 16; l++)", () => {
          writer.line(`const int64_t u = u0 + l, token = u < ${variates} ? from + u * step : unit;`);
          writer.line(`seen[l] = u < ${variates} && ${ids}[token] == ${ids}[unit] ? -1 : 0;`);
          writer.line(`const float *const key = ${k} + (token * ${heads} + head) * ${width};`);
          writer.line(`for (int64_t d = 0; d < ${width}; d++) ${turned}[d * 16 + l] = key[d];`);
        });
        writer.line("f32x16 sum = splat_f32(0);");
        writer.line(`for (int64_t d = 0; d < ${width}; d++) sum = fma_f32(splat_f32(query[d]), load_f32(${turned} + d * 16), sum);`);
        writer.line(`sum = select_f32(seen, sum * splat_f32(${literalF32(scale)}), splat_f32(-__builtin_inff()));`);
        writer.line("top = select_f32(seen, larger_f32(top, sum), top);");
        writer.line(`store_f32(${scores} + u0, sum);`);
      });
      writer.line(`const f32x16 m = splat_f32(max_lanes(top));`);
      writer.line("f32x16 total = splat_f32(0);");
      writer.block(`for (int64_t u0 = 0; u0 < ${lanes}; u0 += 16)`, () => {
        writer.line(
          `const f32x16 x = load_f32(${scores} + u0), e = select_f32(x == splat_f32(-__builtin_inff()), splat_f32(0), exp_f32(x - m));`,
        );
        writer.line(`total += e; store_f32(${scores} + u0, e);`);
      });
      writer.line("const f32x16 all = splat_f32(sum_lanes(total));");
      writer.line(`for (int64_t u0 = 0; u0 < ${lanes}; u0 += 16) store_f32(${scores} + u0, load_f32(${scores} + u0) / all);`);
      const column = (at: string, count: number): void => {
        writer.line("f32x16 sum = splat_f32(0);");
        writer.block(`for (int64_t u = 0; u < ${variates}; u++)`, () => {
          writer.line("const int64_t token = from + u * step;");
          writer.line(`if (${ids}[token] != ${ids}[unit]) continue;`);
          const value = `${v} + (token * ${heads} + head) * ${width} + ${at}`;
          writer.line(
            `sum = fma_f32(splat_f32(${scores}[u]), ${count === 16 ? `load_f32(${value})` : `load_part_f32(${value}, ${count})`}, sum);`,
          );
        });
        const target = `${out} + (unit * ${heads} + head) * ${width} + ${at}`;
        writer.line(count === 16 ? `store_f32(${target}, sum);` : `store_part_f32(${target}, sum, ${count});`);
      };
      const full = width - (width % 16);
      if (full > 0) writer.block(`for (int64_t c = 0; c < ${full}; c += 16)`, () => column("c", 16));
      if (width % 16 !== 0) writer.block("", () => column(String(full), width % 16));
    });
  });
}

const literalF32 = (value: number): string => {
  const rounded = Math.fround(value);
  return Number.isInteger(rounded) ? `${rounded}.0f` : `${rounded}f`;
};

function emitCopyRows(writer: KernelWriter, node: Node): void {
  const [target, source] = node.states.map((access) => access.state);
  if (!target || !source) throw new Error("copyRows needs two states");
  const bytes = dtypes[target.dtype].bytes;
  const index = plainPointer(writer, node.inputs[0] as Node, "index");
  const to = writer.pointer(target, target.dtype, "target");
  const from = writer.pointer(source, source.dtype, "source");
  const [hasHeads, headAxes] = copiedHeads(target.shape.length);
  const heads = hasHeads ? writer.number(target.shape[1] as Dim) : "1";
  const [width, sourceWidth] = [
    writer.number(productOf(target.shape.slice(headAxes))),
    writer.number(productOf(source.shape.slice(headAxes))),
  ];
  const rows = writer.number(source.shape[0] as Dim);
  const targetRows = writer.number(target.shape[0] as Dim);
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.line(`if (unit >= ${targetRows}) break;`);
    writer.line(`int64_t row = ${index}[unit]; row = row < 0 ? 0 : row < ${rows} ? row : ${rows} - 1;`);
    writer.block(`for (int64_t head = 0; head < ${heads}; head++)`, () => {
      writer.line(
        `memcpy(${to} + (unit * ${heads} + head) * ${width}, ${from} + (row * ${heads} + head) * ${sourceWidth}, (size_t)(${width} < ${sourceWidth} ? ${width} : ${sourceWidth}) * ${bytes});`,
      );
    });
  });
}

function emitConcat(writer: KernelWriter, node: Node): void {
  const width = node.shape[node.shape.length - 1] as Dim;
  const out = writer.pointer(node, node.dtype, "out");
  const sources = node.inputs.map((input) => ({
    pointer: plainPointer(writer, input, "x"),
    width: writer.number(input.shape[input.shape.length - 1] as Dim),
  }));
  const bytes = dtypes[node.dtype].bytes;
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.line("int64_t column = 0;");
    for (const source of sources) {
      writer.line(
        `memcpy(${out} + unit * ${writer.number(width)} + column, ${source.pointer} + unit * ${source.width}, (size_t)${source.width} * ${bytes}); column += ${source.width};`,
      );
    }
  });
}

const tokensOf = (node: Node): Units => perRow((node.inputs[0] as Node).shape[0] as Dim);

/** One entry per routine op. */
export const routines: Readonly<Record<string, Routine>> = {
  causalScaler: { units: (node) => perRow((node.inputs[2] as Node).shape[0] as Dim), emit: emitScaler },
  mixtureDraw: { units: (node) => perRow(node.shape[0] as Dim), functions: [softplusFunction, drawFunctions()], emit: emitMixtureDraw },
  groupAttention: { units: tokensOf, emit: emitGroupAttention },
  copyRows: { units: tokensOf, emit: emitCopyRows },
  concat: { units: (node) => perRow(productOf(node.shape.slice(0, -1))), emit: emitConcat },
};
