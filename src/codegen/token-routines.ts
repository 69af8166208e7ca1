/**
 * C text of the token ops. The filter sorts nothing: the smallest kept value is found by bisection on ordered integers, with integer weights whose sums do not
 * depend on their order.
 */
import { productOf, type Dim } from "../ir/dim.js";
import type { Node } from "../ir/graph.js";
import type { Units } from "../ir/kernel.js";
import { padded } from "../ir/ops/state.js";
import { plainPointer } from "./address.js";
import { literal } from "./c-scalar.js";
import { philoxFunctions } from "./philox.js";
import type { KernelWriter } from "./writer.js";

interface TokenRoutine {
  readonly units: (node: Node) => Units;
  readonly functions?: readonly string[];
  readonly emit: (writer: KernelWriter, node: Node) => void;
}

const rowsOf = (node: Node): Units => ({ dim: node.shape[0] as Dim, divide: 1, times: 1 });

const filterFunctions = `typedef int64_t i64x16 __attribute__((vector_size(128)));
typedef int64_t i64x16u __attribute__((vector_size(128), aligned(8), may_alias));
static int64_t tokens_from(const int32_t *order, int64_t blocks, int32_t floor) {
  i32x16 count = splat_i32(0);
  for (int64_t b = 0; b < blocks; b++) count -= lessEqual_i32(splat_i32(floor), load_i32(order + 16 * b));
  int64_t total = 0;
  for (int l = 0; l < 16; l++) total += count[l];
  return total;
}
static int64_t weight_from(const int32_t *order, const int64_t *weight, int64_t blocks, int32_t floor) {
  i64x16 sum = {0};
  for (int64_t b = 0; b < blocks; b++)
    sum += (i64x16)*(const i64x16u *)(weight + 16 * b) & __builtin_convertvector(lessEqual_i32(splat_i32(floor), load_i32(order + 16 * b)), i64x16);
  int64_t total = 0;
  for (int l = 0; l < 16; l++) total += sum[l];
  return total;
}
/* e[j] = exp of the scaled logit below the largest, weight[j] = e[j] in units of 2^-40; both 0 for tokens the filter removes. Returns the kept weight. */
static int64_t filter_tokens(const float *logits, int64_t count, const float *settings, int32_t *order, float *e, int64_t *weight) {
  const float temperature = settings[0], top_p = settings[2];
  const int64_t top_k = (int64_t)settings[1] < count ? (int64_t)settings[1] : count, blocks = (count + 15) / 16;
  f32x16 top = splat_f32(-__builtin_inff());
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t here = count - 16 * b;
    const f32x16 x = here >= 16 ? load_f32(logits + 16 * b) : load_part_f32(logits + 16 * b, here);
    /* Adding 0 makes -0 and 0 one value. */
    const f32x16 scaled = x / splat_f32(temperature) + splat_f32(0);
    const f32x16 kept = here >= 16 ? scaled : keep_f32(scaled, here, -__builtin_inff());
    top = larger_f32(top, kept);
    store_f32(e + 16 * b, kept);
    /* Integers in the order of the values. */
    const i32x16 bits = (i32x16)scaled, ranked = bits ^ ((bits >> 31) & splat_i32(0x7fffffff));
    store_i32(order + 16 * b, here >= 16 ? ranked : select_i32(less_i32(lane_index(), splat_i32((int32_t)here)), ranked, splat_i32(-0x7fffffff - 1)));
  }
  const f32x16 largest = splat_f32(max_lanes(top));
  for (int64_t b = 0; b < blocks; b++) {
    f32x16 x = exp_f32(load_f32(e + 16 * b) - largest);
    x = select_f32(equal_f32(x, x), x, splat_f32(0));
    store_f32(e + 16 * b, x);
    for (int l = 0; l < 16; l++) weight[16 * b + l] = (int64_t)(x[l] * 0x1p40f);
  }
  const int32_t lowest = -0x7fffffff;
  int64_t low = lowest, high = 0x7fffffff;
  if (top_k > 0) {
    while (low < high) {
      const int64_t middle = low + (high - low + 1) / 2;
      if (tokens_from(order, blocks, (int32_t)middle) >= top_k) low = middle;
      else high = middle - 1;
    }
    for (int64_t b = 0; b < blocks; b++)
      for (int l = 0; l < 16; l++)
        if (order[16 * b + l] < low) { e[16 * b + l] = 0; weight[16 * b + l] = 0; }
  } else if (top_p < 1) {
    const double total = (double)weight_from(order, weight, blocks, lowest);
    while (low < high) {
      const int64_t middle = low + (high - low + 1) / 2;
      if ((float)((double)weight_from(order, weight, blocks, (int32_t)middle) / total) > top_p) low = middle;
      else high = middle - 1;
    }
    int64_t before = low < 0x7fffffff ? weight_from(order, weight, blocks, (int32_t)low + 1) : 0;
    for (int64_t j = 0; j < count; j++) {
      if (order[j] > low) continue;
      const int keep = order[j] == low && !((float)((double)before / total) > top_p);
      if (order[j] == low) before += weight[j];
      if (!keep) { e[j] = 0; weight[j] = 0; }
    }
  }
  return weight_from(order, weight, blocks, lowest);
}
`;

interface FilterAreas {
  readonly order: string;
  readonly e: string;
  readonly weight: string;
}

function filterAreas(writer: KernelWriter, count: number): FilterAreas {
  const size = padded(count);
  const [order, e, weight] = [writer.scratch(size), writer.scratch(size), writer.scratch(2 * size)];
  return { order: `(int32_t *)${order}`, e, weight: `(int64_t *)${weight}` };
}

function emitDrawToken(writer: KernelWriter, node: Node): void {
  const roles = ["logits", "source", "keys", "step", "seed", "settings", "forced"];
  const [logits, source, keys, step, seed, settings, forced] = node.inputs.map((input, index) =>
    plainPointer(writer, input, roles[index] as string),
  );
  const out = writer.pointer(node, "i32", "out");
  if (forced) {
    writer.line(`for (int64_t unit = begin; unit < end; unit++) ${out}[unit] = ${forced}[unit];`);
    return;
  }
  const [sources, count] = (node.inputs[0] as Node).shape as [Dim, number];
  const { order, e, weight } = filterAreas(writer, count);
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.line(`const int64_t from = clamp_index(${source}[unit], ${writer.number(sources)});`);
    writer.line(`int64_t *const weights = ${weight};`);
    writer.line(`const int64_t total = filter_tokens(${logits} + from * ${count}, ${count}, ${settings}, ${order}, ${e}, weights);`);
    writer.line(
      `const uint32_t counter[4] = {(uint32_t)${keys}[2 * unit], (uint32_t)${keys}[2 * unit + 1], (uint32_t)${step}[unit], ${String(node.attributes["site"])}u};`,
    );
    writer.line("uint32_t words[4];");
    writer.line(`philox(counter, (uint32_t)${seed}[0], (uint32_t)${seed}[1], words);`);
    writer.line("const double target = uniform(words[0]) * (double)total;");
    writer.line("int64_t cumulated = 0, chosen = 0;");
    writer.line(
      `for (int64_t j = 0; j < ${count}; j++) { cumulated += weights[j]; if ((double)cumulated > target) { chosen = j; break; } }`,
    );
    writer.line(`${out}[unit] = (int32_t)chosen;`);
  });
}

function emitProbabilities(writer: KernelWriter, node: Node): void {
  const [logits, settings] = node.inputs.map((input, index) => plainPointer(writer, input, ["logits", "settings"][index] as string));
  const count = node.shape[1] as number;
  const { order, e, weight } = filterAreas(writer, count);
  const out = writer.pointer(node, "f32", "out");
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.line(`filter_tokens(${logits} + unit * ${count}, ${count}, ${settings}, ${order}, ${e}, ${weight});`);
    writer.line("double total = 0;");
    writer.line(`for (int64_t j = 0; j < ${count}; j++) total += (double)${e}[j];`);
    writer.line(`for (int64_t j = 0; j < ${count}; j++) ${out}[unit * ${count} + j] = (float)((double)${e}[j] / total);`);
  });
}

function emitPackSigns(writer: KernelWriter, node: Node): void {
  const x = node.inputs[0] as Node;
  const { start, count } = node.attributes as { start: number; count: number };
  const pointer = plainPointer(writer, x, "x");
  const out = writer.pointer(node, "i32", "out");
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.line(`const float *const bits = ${pointer} + unit * ${x.shape[1] as number} + ${start};`);
    writer.line("int32_t code = 0;");
    writer.line(`for (int j = 0; j < ${count}; j++) code |= (int32_t)(bits[j] > 0) << j;`);
    writer.line(`${out}[unit] = code;`);
  });
}

function emitExpandBits(writer: KernelWriter, node: Node): void {
  const [coarse, fine] = node.inputs.map((input, index) => plainPointer(writer, input, ["coarse", "fine"][index] as string));
  const { coarseBits, fineBits, scale } = node.attributes as { coarseBits: number; fineBits: number; scale: number };
  const out = writer.pointer(node, "f32", "out");
  const width = coarseBits + fineBits;
  const value = literal("f32", scale);
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.line(`float *const bits = ${out} + unit * ${width};`);
    writer.line(`for (int j = 0; j < ${coarseBits}; j++) bits[j] = ${coarse}[unit] >> j & 1 ? ${value} : -${value};`);
    writer.line(`for (int j = 0; j < ${fineBits}; j++) bits[${coarseBits} + j] = ${fine}[unit] >> j & 1 ? ${value} : -${value};`);
  });
}

/** One entry per token op. */
export const tokenRoutines: Readonly<Record<string, TokenRoutine>> = {
  drawToken: { units: rowsOf, functions: [philoxFunctions, filterFunctions], emit: emitDrawToken },
  tokenProbabilities: {
    units: (node) => ({ dim: productOf(node.shape.slice(0, -1)), divide: 1, times: 1 }),
    functions: [filterFunctions],
    emit: emitProbabilities,
  },
  packSigns: { units: rowsOf, emit: emitPackSigns },
  expandBits: { units: rowsOf, emit: emitExpandBits },
};
