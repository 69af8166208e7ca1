/** Routines: C text of the ops that are no loop nest. Each mirrors the op's `evaluate`, step by step; f64 where that says so. */
import { productOf, type Dim } from "../ir/dim.js";
import type { Node } from "../ir/graph.js";
import { dtypes } from "../ir/dtype.js";
import type { Units } from "../ir/kernel.js";
import { copiedHeads, padded } from "../ir/ops/state.js";
import { momentColumns } from "../ir/ops/routines.js";
import { plainPointer } from "./address.js";
import { cacheValueRoutines } from "./cache-values.js";
import { emitMixtureDraw, mixtureFunctions } from "./mixture.js";
import type { TargetIsa } from "./helpers.js";
import { philoxFunctions } from "./philox.js";
import { quantileRoutines } from "./quantile-routines.js";
import { tokenRoutines } from "./token-routines.js";
import type { KernelWriter } from "./writer.js";

export interface Routine {
  readonly units: (node: Node) => Units;
  /** Static functions the body needs. */
  readonly functions?: (isa: TargetIsa) => readonly string[];
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

/** Units are tokens; scores of one head against the variates, 16 at a time. */
function emitGroupAttention(writer: KernelWriter, node: Node): void {
  const [q, k, v, first, stride, ids] = node.inputs.map((input, index) =>
    plainPointer(writer, input, ["q", "k", "v", "first", "stride", "ids"][index] as string),
  );
  const [, heads, valueWidth] = node.shape as [Dim, number, number];
  const [, keyHeads, width] = (node.inputs[1] as Node).shape as [Dim, number, number];
  const keyHead = keyHeads === heads ? "head" : `head / ${heads / keyHeads}`;
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
          writer.line(`const float *const key = ${k} + (token * ${keyHeads} + ${keyHead}) * ${width};`);
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
          `const f32x16 x = load_f32(${scores} + u0), e = select_f32(equal_f32(x, splat_f32(-__builtin_inff())), splat_f32(0), exp_f32(x - m));`,
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
          const value = `${v} + (token * ${keyHeads} + ${keyHead}) * ${valueWidth} + ${at}`;
          writer.line(
            `sum = fma_f32(splat_f32(${scores}[u]), ${count === 16 ? `load_f32(${value})` : `load_part_f32(${value}, ${count})`}, sum);`,
          );
        });
        const target = `${out} + (unit * ${heads} + head) * ${valueWidth} + ${at}`;
        writer.line(count === 16 ? `store_f32(${target}, sum);` : `store_part_f32(${target}, sum, ${count});`);
      };
      const full = valueWidth - (valueWidth % 16);
      if (full > 0) writer.block(`for (int64_t c = 0; c < ${full}; c += 16)`, () => column("c", 16));
      if (valueWidth % 16 !== 0) writer.block("", () => column(String(full), valueWidth % 16));
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
  mixtureDraw: {
    units: (node) => ({ dim: node.shape[1] as Dim, divide: 1, times: 1 }),
    functions: () => [philoxFunctions, ...mixtureFunctions],
    emit: emitMixtureDraw,
  },
  groupAttention: { units: tokensOf, emit: emitGroupAttention },
  copyRows: { units: tokensOf, emit: emitCopyRows },
  concat: { units: (node) => perRow(productOf(node.shape.slice(0, -1))), emit: emitConcat },
  ...tokenRoutines,
  ...cacheValueRoutines,
  ...quantileRoutines,
};
