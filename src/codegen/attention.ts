/**
 * The attention template: scores over blocks of 16 keys (lane = absolute key position mod 16), one maximum, one sum, then one chain over keys ascending. A shared
 * prefix is visited for four queries at a time; the bits do not depend on that, nor on where prefix and own keys meet.
 */
import { addDims, multiplyDims, type Dim } from "../ir/dim.js";
import type { Node } from "../ir/graph.js";
import type { Units } from "../ir/kernel.js";
import { attentionForm, attentionOperands } from "../ir/ops/attention.js";
import { keyLanes, padded } from "../ir/ops/state.js";
import { plainPointer } from "./address.js";
import { literal } from "./c-scalar.js";
import type { TargetIsa } from "./helpers.js";
import type { KernelWriter } from "./writer.js";

/** Queries that share one pass over a prefix. */
export const queryGroup = 4;

/** Vectors of a value row handled together: up to four, dividing the row evenly. */
export const valueVectors = (stored: number): number => [4, 3, 2].find((count) => (stored / 16) % count === 0) ?? 1;

export interface AttentionShape {
  readonly width: number;
  readonly valueWidth: number;
  readonly isa: TargetIsa;
}

export const names = (shape: AttentionShape): { scores: string; weigh: string; normalise: string } => ({
  scores: `scores_${shape.width}`,
  weigh: `weigh_${shape.valueWidth}`,
  normalise: "normalise",
});

/**
 * Functions of one head size, one text each, so that kernels of a file can share them. What one query needs is called, not inlined: it occurs in many places, and
 * a compiler takes seconds for copies of it.
 */
export function attentionFunctions(shape: AttentionShape): string[] {
  const { width } = shape;
  const stored = padded(shape.valueWidth);
  const wide = shape.isa === "avx512" ? { joint: 4, single: 8 } : { joint: 1, single: 2 };
  const vectors = valueVectors(stored);
  const { scores, weigh } = names(shape);
  return [
    `/* s[i][16 b + l] = scale * (q_i . key 16 b + l) for blocks b; lanes below dead or from visible_i on become -inf. Raises top[i]. */
INLINE void ${scores}_tile(const int queries, const int blocks, const float *const *q, const float *keys, int64_t b, int64_t dead, const int64_t *visible, float scale, float *const *s, f32x16 *top) {
  f32x16 sum[${queryGroup}][8];
#pragma GCC unroll ${queryGroup}
  for (int i = 0; i < queries; i++)
#pragma GCC unroll 8
    for (int j = 0; j < blocks; j++) sum[i][j] = splat_f32(0);
  for (int64_t d = 0; d < ${width}; d++) {
    f32x16 key[8];
#pragma GCC unroll 8
    for (int j = 0; j < blocks; j++) key[j] = load_f32(keys + ((b + j) * ${width} + d) * 16);
#pragma GCC unroll ${queryGroup}
    for (int i = 0; i < queries; i++) {
      const f32x16 x = splat_f32(q[i][d]);
#pragma GCC unroll 8
      for (int j = 0; j < blocks; j++) sum[i][j] = fma_f32(x, key[j], sum[i][j]);
    }
  }
#pragma GCC unroll ${queryGroup}
  for (int i = 0; i < queries; i++)
#pragma GCC unroll 8
    for (int j = 0; j < blocks; j++) {
      const i32x16 position = lane_index() + splat_i32((int32_t)((b + j) * 16));
      const i32x16 seen = less_i32(position, splat_i32((int32_t)visible[i])) & lessEqual_i32(splat_i32((int32_t)dead), position);
      const f32x16 scaled = select_f32(seen, sum[i][j] * splat_f32(scale), splat_f32(-__builtin_inff()));
      top[i] = select_f32(seen, larger_f32(top[i], scaled), top[i]);
      store_f32(s[i] + (b + j) * 16, scaled);
    }
}
INLINE void ${scores}_any(const int queries, const float *const *q, const float *keys, int64_t blocks, int64_t dead, const int64_t *visible, float scale, float *const *s, f32x16 *top) {
  const int step = queries == 1 ? ${wide.single} : ${wide.joint};
  int64_t b = 0;
  for (; b + step <= blocks; b += step) ${scores}_tile(queries, step, q, keys, b, dead, visible, scale, s, top);
  for (; b < blocks; b++) ${scores}_tile(queries, 1, q, keys, b, dead, visible, scale, s, top);
}
OUTLINE void ${scores}_one(const float *const *q, const float *keys, int64_t blocks, int64_t dead, const int64_t *visible, float scale, float *const *s, f32x16 *top) {
  ${scores}_any(1, q, keys, blocks, dead, visible, scale, s, top);
}
INLINE void ${scores}(const int queries, const float *const *q, const float *keys, int64_t blocks, int64_t dead, const int64_t *visible, float scale, float *const *s, f32x16 *top) {
  if (queries == 1) ${scores}_one(q, keys, blocks, dead, visible, scale, s, top);
  else ${scores}_any(queries, q, keys, blocks, dead, visible, scale, s, top);
}
`,
    `/* s[0 .. 16 blocks - 1] from scores to weights. */
OUTLINE void normalise(float *s, int64_t blocks, f32x16 top) {
  const f32x16 m = splat_f32(max_lanes(top));
  f32x16 total = splat_f32(0);
  for (int64_t b = 0; b < blocks; b++) {
    const f32x16 x = load_f32(s + 16 * b);
    const f32x16 e = select_f32(equal_f32(x, splat_f32(-__builtin_inff())), splat_f32(0), exp_f32(x - m));
    total += e;
    store_f32(s + 16 * b, e);
  }
  const f32x16 sum = splat_f32(sum_lanes(total));
  for (int64_t b = 0; b < blocks; b++) store_f32(s + 16 * b, load_f32(s + 16 * b) / sum);
}
`,
    `/* sum[i] += s[i][k] * value row k, for keys from .. to - 1 ascending. */
INLINE void ${weigh}_any(const int queries, const float *const *s, const float *values, int64_t from, int64_t to, f32x16 sum[][${vectors}], int64_t column) {
  f32x16 chain[${queryGroup}][${vectors}];
#pragma GCC unroll ${queryGroup}
  for (int i = 0; i < queries; i++)
#pragma GCC unroll 4
    for (int v = 0; v < ${vectors}; v++) chain[i][v] = sum[i][v];
  for (int64_t k = from; k < to; k++) {
    f32x16 value[${vectors}];
#pragma GCC unroll 4
    for (int v = 0; v < ${vectors}; v++) value[v] = load_f32(values + k * ${stored} + column + 16 * v);
#pragma GCC unroll ${queryGroup}
    for (int i = 0; i < queries; i++) {
      const f32x16 p = splat_f32(s[i][k]);
#pragma GCC unroll 4
      for (int v = 0; v < ${vectors}; v++) chain[i][v] = fma_f32(p, value[v], chain[i][v]);
    }
  }
#pragma GCC unroll ${queryGroup}
  for (int i = 0; i < queries; i++)
#pragma GCC unroll 4
    for (int v = 0; v < ${vectors}; v++) sum[i][v] = chain[i][v];
}
OUTLINE void ${weigh}_one(const float *const *s, const float *values, int64_t from, int64_t to, f32x16 sum[][${vectors}], int64_t column) {
  ${weigh}_any(1, s, values, from, to, sum, column);
}
INLINE void ${weigh}(const int queries, const float *const *s, const float *values, int64_t from, int64_t to, f32x16 sum[][${vectors}], int64_t column) {
  if (queries == 1) ${weigh}_one(s, values, from, to, sum, column);
  else ${weigh}_any(queries, s, values, from, to, sum, column);
}
`,
  ];
}

const roles = ["query", "row", "length", "prefixRow", "prefixLength"];

interface Cache {
  /** The operand that holds it, or its state. */
  readonly holder: { readonly value: Node } | { readonly state: object };
  readonly shape: readonly Dim[];
}

/** Own keys and values, then the prefix's. */
function cachesOf(node: Node): readonly Cache[] {
  const { values } = attentionOperands(node.inputs, node.attributes);
  return [
    ...values.map((value) => ({ holder: { value }, shape: value.shape })),
    ...node.states.map(({ state }) => ({ holder: { state }, shape: state.shape })),
  ];
}

export class AttentionEmitter {
  readonly #shape: AttentionShape;
  readonly #tokens: Dim;
  readonly #heads: number;
  readonly #shared: boolean;
  readonly #caches: readonly Cache[];

  constructor(
    private readonly writer: KernelWriter,
    private readonly node: Node,
    isa: TargetIsa,
  ) {
    const [tokens, heads, valueWidth] = node.shape as [Dim, number, number];
    this.#tokens = tokens;
    this.#heads = heads;
    this.#shape = { width: (node.inputs[0] as Node).shape[2] as number, valueWidth, isa };
    this.#shared = attentionOperands(node.inputs, node.attributes).shared;
    this.#caches = cachesOf(node);
  }

  get functions(): string[] {
    return [...attentionFunctions(this.#shape), attendFunction(this.#shape)];
  }

  get units(): Units {
    return { dim: this.#tokens, divide: queryGroup, times: this.#heads };
  }

  emit(): void {
    const { writer, node } = this;
    const { vectors } = attentionOperands(node.inputs, node.attributes);
    const [query, row, length, prefixRow, prefixLength] = [node.inputs[0] as Node, ...vectors].map((input, index) =>
      plainPointer(writer, input, roles[index] as string),
    );
    const tokens = writer.number(this.#tokens);
    const heads = this.#heads;
    const { width } = this.#shape;
    const own = this.#cache(0, "own");
    const common = this.#shared ? this.#cache(2, "prefix") : own;
    const slots = this.#shared ? addDims(this.#slots(0), this.#slots(2)) : this.#slots(0);
    const area = writer.scratch(multiplyDims(slots, queryGroup));
    writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
      writer.line(`const int64_t first = unit / ${heads} * ${queryGroup}, head = unit % ${heads}, keyHead = ${this.#keyHead()};`);
      writer.line(`const int64_t count = ${tokens} - first < ${queryGroup} ? ${tokens} - first : ${queryGroup};`);
      writer.line(`const float *q[${queryGroup}];`);
      writer.line(`float *s[${queryGroup}];`);
      writer.line(
        `int64_t shared[${queryGroup}], source[${queryGroup}]${this.#shared ? `, row[${queryGroup}], length[${queryGroup}]` : ""};`,
      );
      writer.line("int joint = 1;");
      writer.block("for (int64_t i = 0; i < count; i++)", () => {
        writer.line("const int64_t token = first + i;");
        writer.line(`q[i] = ${query} + (token * ${heads} + head) * ${width};`);
        writer.line(`s[i] = ${area} + i * ${writer.number(slots)};`);
        writer.line(`source[i] = ${this.#rowText(this.#shared ? prefixRow : row, this.#shared ? 2 : 0)};`);
        writer.line(`shared[i] = clamp_index(${this.#shared ? prefixLength : length}[token], ${common.lengths});`);
        if (this.#shared) {
          writer.line(`row[i] = ${this.#rowText(row, 0)};`);
          writer.line(`length[i] = clamp_index(${length}[token], shared[i] / 16 * 16 + ${own.lengths});`);
          writer.line("shared[i] = length[i] < shared[i] ? length[i] : shared[i];");
        }
        writer.line("joint = joint && source[i] == source[0];");
      });
      writer.block(`for (int64_t i = 0; i < count;)`, () => {
        writer.line(`const int queries = joint && count == ${queryGroup} ? ${queryGroup} : 1;`);
        writer.line(
          `const float *const keys = ${common.keys} + source[i] * ${common.keyRow}, *const values = ${common.values} + source[i] * ${common.valueRow};`,
        );
        writer.line(`if (queries == ${queryGroup}) ${this.#call(queryGroup, own)}`);
        writer.line(`else ${this.#call(1, own)}`);
        writer.line("i += queries;");
      });
    });
  }

  #keyHead(): string {
    const group = this.#heads / (this.#cacheAt(0).shape[1] as number);
    return group === 1 ? "head" : `head / ${group}`;
  }

  /** Row of a cache in units of heads, at the head that the query reads. */
  #rowText(vector: string | undefined, state: number): string {
    const [rows, heads] = this.#cacheAt(state).shape as [Dim, Dim];
    return `clamp_index(${vector}[token], ${this.writer.number(rows)}) * ${this.writer.number(heads)} + keyHead`;
  }

  #cacheAt(index: number): Cache {
    return this.#caches[index] as Cache;
  }

  /** Slots that both keys and values have: values that are operands may fill their last block of keys in part. */
  #capacity(first: number): Dim {
    const [slots, values] = [this.#slots(first), this.#cacheAt(first + 1).shape[2] as Dim];
    return attentionForm(this.node.attributes) === "values" && typeof slots === "number" && typeof values === "number"
      ? Math.min(slots, values)
      : slots;
  }

  #slots(state: number): Dim {
    return multiplyDims(this.#cacheAt(state).shape[2] as Dim, keyLanes);
  }

  #call(queries: number, own: CacheNames): string {
    const { width, valueWidth } = this.#shape;
    const ownArgs = this.#shared ? `${own.keys}, ${own.values}, ${own.keyRow}, ${own.valueRow}, row + i, length + i` : "0, 0, 0, 0, 0, 0";
    const out = `${this.writer.pointer(this.node, "f32", "out")} + ((first + i) * ${this.#heads} + head) * ${valueWidth}`;
    const scale = literal("f32", this.node.attributes["scale"] as number);
    return `attend_${width}_${valueWidth}(${queries}, q + i, s + i, shared + i, keys, values, ${scale}, ${ownArgs}, ${out}, ${this.#heads * valueWidth});`;
  }

  #rowElements(state: number): Dim {
    const { shape } = this.#cacheAt(state);
    return state % 2 === 0 ? multiplyDims(shape[2] as Dim, (shape[3] as number) * 16) : multiplyDims(shape[2] as Dim, shape[3] as Dim);
  }

  #cache(first: number, role: string): CacheNames {
    const { writer } = this;
    const pointer = ({ holder }: Cache, name: string): string =>
      "value" in holder ? plainPointer(writer, holder.value, name) : writer.pointer(holder.state, "f32", name);
    return {
      keys: pointer(this.#cacheAt(first), `${role}Keys`),
      values: pointer(this.#cacheAt(first + 1), `${role}Values`),
      keyRow: writer.number(this.#rowElements(first)),
      valueRow: writer.number(this.#rowElements(first + 1)),
      lengths: writer.number(addDims(this.#capacity(first), 1)),
    };
  }
}

interface CacheNames {
  readonly keys: string;
  readonly values: string;
  readonly keyRow: string;
  readonly valueRow: string;
  /** Number of lengths it can have: one more than it has slots. */
  readonly lengths: string;
}

/** One or four queries over a common segment and then each over its own keys. */
function attendFunction(shape: AttentionShape): string {
  const { scores, weigh } = names(shape);
  const stored = padded(shape.valueWidth);
  const vectors = valueVectors(stored);
  return `/* Common keys 0 .. shared[i] - 1, then (when length is given) own keys shared[i] .. length[i] - 1, whose slot 0 is shared[i] rounded down to 16. */
INLINE void attend_${shape.width}_${shape.valueWidth}(const int queries, const float *const *q, float *const *s, const int64_t *shared, const float *keys, const float *values, float scale,
    const float *ownKeys, const float *ownValues, int64_t ownKeyRow, int64_t ownValueRow, const int64_t *row, const int64_t *length, float *out, int64_t outStride) {
  f32x16 top[${queryGroup}];
  int64_t longest = 0, shortest = shared[0];
  for (int i = 0; i < queries; i++) {
    top[i] = splat_f32(-__builtin_inff());
    longest = shared[i] > longest ? shared[i] : longest;
    shortest = shared[i] < shortest ? shared[i] : shortest;
  }
  const int64_t blocks = (longest + 15) / 16;
  ${scores}(queries, q, keys, blocks, 0, shared, scale, s, top);
  int64_t ownBlocks[${queryGroup}] = {0}, base[${queryGroup}] = {0};
  for (int i = 0; i < queries; i++) {
    if (length) {
      base[i] = shared[i] / 16 * 16;
      const int64_t visible = length[i] - base[i];
      ownBlocks[i] = length[i] > shared[i] ? (visible + 15) / 16 : 0;
      float *const own = s[i] + blocks * 16;
      ${scores}(1, q + i, ownKeys + row[i] * ownKeyRow, ownBlocks[i], shared[i] - base[i], &visible, scale, &own, top + i);
    }
    normalise(s[i], blocks + ownBlocks[i], top[i]);
  }
  for (int64_t column = 0; column < ${stored}; column += ${16 * vectors}) {
    f32x16 sum[${queryGroup}][${vectors}];
    for (int i = 0; i < queries; i++) for (int v = 0; v < ${vectors}; v++) sum[i][v] = splat_f32(0);
    ${weigh}(queries, (const float *const *)s, values, 0, shortest, sum, column);
    for (int i = 0; i < queries; i++) {
      const float *one = s[i];
      if (shared[i] > shortest) ${weigh}(1, &one, values, shortest, shared[i], sum + i, column);
      if (ownBlocks[i] > 0) {
        one = s[i] + blocks * 16;
        ${weigh}(1, &one, ownValues + row[i] * ownValueRow, shared[i] - base[i], length[i] - base[i], sum + i, column);
      }
      for (int v = 0; v < ${vectors}; v++) {
        const int64_t left = ${shape.valueWidth} - column - 16 * v;
        if (left >= 16) store_f32(out + i * outStride + column + 16 * v, sum[i][v]);
        else if (left > 0) store_part_f32(out + i * outStride + column + 16 * v, sum[i][v], left);
      }
    }
  }
}
`;
}
