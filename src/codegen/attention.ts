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
import { isaTable, type TargetIsa } from "./helpers.js";
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

export const names = (shape: AttentionShape): { scores: string; weigh: string; store: string } => ({
  scores: `scores_${shape.width}`,
  weigh: `weigh_${shape.valueWidth}`,
  store: `store_values_${shape.valueWidth}`,
});

/** The vectors that fill a register: their C type, the ending of their functions' names, and how many make sixteen lanes. */
export function registers({ isa }: AttentionShape): {
  readonly type: string;
  readonly form: string;
  readonly lanes: number;
  readonly parts: number;
} {
  const { lanes } = isaTable[isa].tile;
  return { type: `f32x${lanes}`, form: lanes === 16 ? "f32" : `f32x${lanes}`, lanes, parts: 16 / lanes };
}

/** Key blocks scored at once, for four queries and for one; vectors of sixteen values weighed at once for four queries. As many as registers can hold the sums of. */
export const together: Record<TargetIsa, { readonly joint: number; readonly single: number; readonly values: number }> = {
  avx512: { joint: 4, single: 8, values: 4 },
  avx2: { joint: 1, single: 4, values: 1 },
  neon: { joint: 1, single: 2, values: 4 },
  plain: { joint: 1, single: 2, values: 4 },
};

/** C text that takes the units in pairs from both ends, so that threads with equal ranges of them get early and late tokens alike, which see few and many keys. */
export const balancedTurn = (groups: string, heads: number): string =>
  `const int64_t at = unit / ${heads}, turn = at % 2 == 0 ? at / 2 : ${groups} - 1 - at / 2`;

/**
 * Functions of one head size, one text each, so that kernels of a file can share them. What one query needs is called, not inlined: it occurs in many places, and
 * a compiler takes seconds for copies of it.
 */
export function attentionFunctions(shape: AttentionShape): string[] {
  const { width } = shape;
  const stored = padded(shape.valueWidth);
  const vectors = valueVectors(stored);
  const { scores, weigh, store } = names(shape);
  const { type, form, lanes, parts } = registers(shape);
  const wide = together[shape.isa];
  const step = Math.min(wide.values, vectors);
  // A block of sixteen lanes is one register, or `parts` of them side by side.
  const count = parts === 1 ? "blocks" : `blocks * ${parts}`;
  const key =
    parts === 1 ? `keys + ((b + j) * ${width} + d) * 16` : `keys + ((b + j / ${parts}) * ${width} + d) * 16 + j % ${parts} * ${lanes}`;
  const whole = parts === 1 ? "const f32x16 whole = sum[i][j];" : `f32x16 whole;\n      memcpy(&whole, &sum[i][j * ${parts}], 64);`;
  return [
    `/* s[i][16 b + l] = scale * (q_i . key 16 b + l) for blocks b; lanes below dead or from visible_i on become -inf. Raises top[i]. */
INLINE void ${scores}_tile(const int queries, const int blocks, const float *const *q, const float *keys, int64_t b, int64_t dead, const int64_t *visible, float scale, float *const *s, f32x16 *top) {
  ${type} sum[${queryGroup}][${8 * parts}];
#pragma GCC unroll ${queryGroup}
  for (int i = 0; i < queries; i++)
#pragma GCC unroll ${8 * parts}
    for (int j = 0; j < ${count}; j++) sum[i][j] = splat_${form}(0);
  for (int64_t d = 0; d < ${width}; d++) {
    ${type} key[${8 * parts}];
#pragma GCC unroll ${8 * parts}
    for (int j = 0; j < ${count}; j++) key[j] = load_${form}(${key});
#pragma GCC unroll ${queryGroup}
    for (int i = 0; i < queries; i++) {
      const ${type} x = splat_${form}(q[i][d]);
#pragma GCC unroll ${8 * parts}
      for (int j = 0; j < ${count}; j++) sum[i][j] = fma_${form}(x, key[j], sum[i][j]);
    }
  }
#pragma GCC unroll ${queryGroup}
  for (int i = 0; i < queries; i++)
#pragma GCC unroll 8
    for (int j = 0; j < blocks; j++) {
      ${whole}
      const i32x16 position = lane_index() + splat_i32((int32_t)((b + j) * 16));
      const i32x16 seen = less_i32(position, splat_i32((int32_t)visible[i])) & lessEqual_i32(splat_i32((int32_t)dead), position);
      const f32x16 scaled = select_f32(seen, whole * splat_f32(scale), splat_f32(-__builtin_inff()));
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
INLINE void ${weigh}_any(const int queries, const float *const *s, const float *values, int64_t from, int64_t to, ${type} sum[][${vectors * parts}], int64_t column) {
  const int step = queries == 1 ? ${vectors * parts} : ${step * parts};
#pragma GCC unroll 4
  for (int first = 0; first < ${vectors * parts}; first += step) {
    ${type} chain[${queryGroup}][${vectors * parts}];
#pragma GCC unroll ${queryGroup}
    for (int i = 0; i < queries; i++)
#pragma GCC unroll ${vectors * parts}
      for (int v = 0; v < step; v++) chain[i][v] = sum[i][first + v];
    for (int64_t k = from; k < to; k++) {
      ${type} value[${vectors * parts}];
#pragma GCC unroll ${vectors * parts}
      for (int v = 0; v < step; v++) value[v] = load_${form}(values + k * ${stored} + column + ${lanes} * (first + v));
#pragma GCC unroll ${queryGroup}
      for (int i = 0; i < queries; i++) {
        const ${type} p = splat_${form}(s[i][k]);
#pragma GCC unroll ${vectors * parts}
        for (int v = 0; v < step; v++) chain[i][v] = fma_${form}(p, value[v], chain[i][v]);
      }
    }
#pragma GCC unroll ${queryGroup}
    for (int i = 0; i < queries; i++)
#pragma GCC unroll ${vectors * parts}
      for (int v = 0; v < step; v++) sum[i][first + v] = chain[i][v];
  }
}
OUTLINE void ${weigh}_one(const float *const *s, const float *values, int64_t from, int64_t to, ${type} sum[][${vectors * parts}], int64_t column) {
  ${weigh}_any(1, s, values, from, to, sum, column);
}
INLINE void ${weigh}(const int queries, const float *const *s, const float *values, int64_t from, int64_t to, ${type} sum[][${vectors * parts}], int64_t column) {
  if (queries == 1) ${weigh}_one(s, values, from, to, sum, column);
  else ${weigh}_any(queries, s, values, from, to, sum, column);
}
/* Part of a value row, without its padding. */
INLINE void ${store}(float *out, const ${type} *sum, int64_t column) {
  for (int v = 0; v < ${vectors * parts}; v++) {
    const int64_t left = ${shape.valueWidth} - column - ${lanes} * v;
    if (left >= ${lanes}) store_${form}(out + column + ${lanes} * v, sum[v]);
    else if (left > 0) memcpy(out + column + ${lanes} * v, &sum[v], (size_t)left * 4);
  }
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
      writer.line(`${balancedTurn(`(${tokens} + ${queryGroup - 1}) / ${queryGroup}`, heads)};`);
      writer.line(`const int64_t first = turn * ${queryGroup}, head = unit % ${heads}, keyHead = ${this.#keyHead()};`);
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
  const { scores, weigh, store } = names(shape);
  const stored = padded(shape.valueWidth);
  const vectors = valueVectors(stored);
  const { type, form, parts } = registers(shape);
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
    ${type} sum[${queryGroup}][${vectors * parts}];
    for (int i = 0; i < queries; i++) for (int v = 0; v < ${vectors * parts}; v++) sum[i][v] = splat_${form}(0);
    ${weigh}(queries, (const float *const *)s, values, 0, shortest, sum, column);
    for (int i = 0; i < queries; i++) {
      const float *one = s[i];
      if (shared[i] > shortest) ${weigh}(1, &one, values, shortest, shared[i], sum + i, column);
      if (ownBlocks[i] > 0) {
        one = s[i] + blocks * 16;
        ${weigh}(1, &one, ownValues + row[i] * ownValueRow, shared[i] - base[i], length[i] - base[i], sum + i, column);
      }
      ${store}(out + i * outStride, sum[i], column);
    }
  }
}
`;
}
