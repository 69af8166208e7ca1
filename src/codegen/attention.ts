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
import { formOf, literal } from "./c-scalar.js";
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
  return { type: `f32x${lanes}`, form: formOf("f32", lanes), lanes, parts: 16 / lanes };
}

/** Key blocks scored at once, for four queries and for one; vectors of sixteen values weighed at once for four queries. As many as registers can hold the sums of. */
export const together: Record<TargetIsa, { readonly joint: number; readonly single: number; readonly values: number }> = {
  avx512: { joint: 4, single: 8, values: 4 },
  avx2: { joint: 1, single: 4, values: 1 },
  neon: { joint: 1, single: 2, values: 4 },
  plain: { joint: 1, single: 2, values: 4 },
};

/** Value rows between two requests for memory that is needed later; as far ahead a group asks for the rows that it goes through. */
const valuesAhead = 32;

/**
 * C text that goes through the units head by head, so that keys and values which groups of queries share stay in the cache, and takes the groups of a head in pairs from
 * both ends, so that threads with equal ranges get early and late tokens alike, which see few and many keys.
 */
export const balancedTurn = (groups: string): string =>
  `const int64_t groups = ${groups}, head = unit / groups, at = unit % groups, turn = at % 2 == 0 ? at / 2 : groups - 1 - at / 2`;

/**
 * Functions of one head size, one text each, so that kernels of a file can share them. Those for one query and for a group are called, not inlined: they occur in many
 * places, a compiler takes seconds for copies of them, and between them nothing needs to stay in registers.
 */
export function attentionFunctions(shape: AttentionShape): string[] {
  return [commonFunctions(shape), scoreFunctions(shape), normaliseFunction(shape), weighFunctions(shape)];
}

/** What does not depend on the head size. */
function commonFunctions(shape: AttentionShape): string {
  const { type, form } = registers(shape);
  return `/* Memory that will be read soon, for each query. */
struct ahead {
  const float *from[${queryGroup}];
  int64_t floats[${queryGroup}];
};
/* Asks for part number \`part\` of so many equal ones. */
OUTLINE void fetch_part(const struct ahead *ahead, int64_t part, int64_t parts) {
  for (int i = 0; i < ${queryGroup}; i++) {
    const int64_t lines = (ahead->floats[i] + 15) / 16, end = lines * (part + 1) / parts;
    for (int64_t line = lines * part / parts; line < end; line++) __builtin_prefetch(ahead->from[i] + 16 * line, 0, 2);
  }
}
/* The larger in every lane; a NaN in b is passed over. */
INLINE ${type} higher(${type} a, ${type} b) { return select_${form}(less_${form}(a, b), b, a); }
/* Sixteen scores: those before \`first\` and from \`end\` on become -inf. */
OUTLINE void hide_lanes(float *s, int64_t first, int64_t end) {
  for (int64_t l = 0; l < 16; l++) if (l < first || l >= end) s[l] = -__builtin_inff();
}
`;
}

function scoreFunctions(shape: AttentionShape): string {
  const { width } = shape;
  const { scores } = names(shape);
  const { type, form, lanes, parts } = registers(shape);
  const wide = together[shape.isa];
  // A block of sixteen lanes is one register, or `parts` of them side by side.
  const count = parts === 1 ? "blocks" : `blocks * ${parts}`;
  const key =
    parts === 1 ? `keys + ((b + j) * ${width} + d) * 16` : `keys + ((b + j / ${parts}) * ${width} + d) * 16 + j % ${parts} * ${lanes}`;
  return `/* Sixteen scores from position \`first\` on, scaled and hidden where dead or not visible. */
INLINE void ${scores}_place(const ${type} *sum, int64_t first, int64_t dead, int64_t visible, float scale, float *s, ${type} *top) {
  float *const scored = s + first;
#pragma GCC unroll ${parts}
  for (int p = 0; p < ${parts}; p++) store_${form}(scored + ${lanes} * p, sum[p] * splat_${form}(scale));
  if (first < dead || first + 16 > visible) hide_lanes(scored, dead - first, visible - first);
#pragma GCC unroll ${parts}
  for (int p = 0; p < ${parts}; p++) top[p] = higher(top[p], load_${form}(scored + ${lanes} * p));
}
/* s[i][16 b + l] = scale * (q_i . key 16 b + l) for blocks b; lanes below dead or from visible_i on become -inf. Raises top[i]. */
INLINE void ${scores}_tile(const int queries, const int blocks, const float *const *q, const float *keys, int64_t b, int64_t dead, const int64_t *visible, float scale, float *const *s, ${type} top[][${parts}]) {
  ${type} sum[${queryGroup}][${8 * parts}];
#pragma GCC unroll ${queryGroup}
  for (int i = 0; i < queries; i++)
#pragma GCC unroll ${8 * parts}
    for (int j = 0; j < ${count}; j++) sum[i][j] = splat_${form}(0);
  for (int64_t d = 0; d < ${width}; d++) {
    ${type} key[${8 * parts}];
#pragma GCC unroll ${8 * parts}
    for (int j = 0; j < ${count}; j++) key[j] = load_${form}(${key});
    if (queries > 1)
#pragma GCC unroll 8
      for (int j = 0; j < blocks; j++) __builtin_prefetch(keys + ((b + blocks + j) * ${width} + d) * 16, 0, 2);
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
    for (int j = 0; j < blocks; j++) ${scores}_place(sum[i] + ${parts} * j, (b + j) * 16, dead, visible[i], scale, s[i], top[i]);
}
/* A group's queries, each over keys of its own: blocks from .. to - 1. One query alone would wait for every sum where there are few blocks. */
OUTLINE void ${scores}_apart(const float *const *q, const float *const *keys, int64_t from, int64_t to, const int64_t *dead, const int64_t *visible, float scale, float *const *s, ${type} top[][${parts}]) {
  for (int64_t b = from; b < to; b++) {
    ${type} sum[${queryGroup}][${parts}];
#pragma GCC unroll ${queryGroup}
    for (int i = 0; i < ${queryGroup}; i++)
#pragma GCC unroll ${parts}
      for (int p = 0; p < ${parts}; p++) sum[i][p] = splat_${form}(0);
    for (int64_t d = 0; d < ${width}; d++)
#pragma GCC unroll ${queryGroup}
      for (int i = 0; i < ${queryGroup}; i++) {
        const ${type} x = splat_${form}(q[i][d]);
#pragma GCC unroll ${parts}
        for (int p = 0; p < ${parts}; p++) sum[i][p] = fma_${form}(x, load_${form}(keys[i] + (b * ${width} + d) * 16 + ${lanes} * p), sum[i][p]);
      }
#pragma GCC unroll ${queryGroup}
    for (int i = 0; i < ${queryGroup}; i++) ${scores}_place(sum[i], b * 16, dead[i], visible[i], scale, s[i], top[i]);
  }
}
INLINE void ${scores}_any(const int queries, const float *const *q, const float *keys, int64_t blocks, int64_t dead, const int64_t *visible, float scale, float *const *s, ${type} top[][${parts}], const struct ahead *ahead) {
  const int step = queries == 1 ? ${wide.single} : ${wide.joint};
  int64_t b = 0;
  for (; b + step <= blocks; b += step) {
    if (ahead) fetch_part(ahead, b / step, (blocks + step - 1) / step);
    ${scores}_tile(queries, step, q, keys, b, dead, visible, scale, s, top);
  }
  if (ahead && b < blocks) fetch_part(ahead, b / step, b / step + 1);
  for (; b < blocks; b++) ${scores}_tile(queries, 1, q, keys, b, dead, visible, scale, s, top);
}
OUTLINE void ${scores}_one(const float *const *q, const float *keys, int64_t blocks, int64_t dead, const int64_t *visible, float scale, float *const *s, ${type} top[][${parts}], const struct ahead *ahead) {
  ${scores}_any(1, q, keys, blocks, dead, visible, scale, s, top, ahead);
}
OUTLINE void ${scores}_group(const float *const *q, const float *keys, int64_t blocks, int64_t dead, const int64_t *visible, float scale, float *const *s, ${type} top[][${parts}], const struct ahead *ahead) {
  ${scores}_any(${queryGroup}, q, keys, blocks, dead, visible, scale, s, top, ahead);
}
INLINE void ${scores}(const int queries, const float *const *q, const float *keys, int64_t blocks, int64_t dead, const int64_t *visible, float scale, float *const *s, ${type} top[][${parts}], const struct ahead *ahead) {
  if (queries == 1) ${scores}_one(q, keys, blocks, dead, visible, scale, s, top, ahead);
  else ${scores}_group(q, keys, blocks, dead, visible, scale, s, top, ahead);
}
`;
}

function normaliseFunction(shape: AttentionShape): string {
  const { type, form, lanes, parts } = registers(shape);
  return `/* s[0 .. 16 blocks - 1] from scores to weights; no score is above the largest of top, and hidden ones are -inf. */
OUTLINE void normalise(float *s, int64_t blocks, const ${type} *top) {
  ${type} total[${parts}];
  float t[16];
  memcpy(t, top, 64);
#pragma GCC unroll 4
  for (int w = 8; w > 0; w /= 2)
#pragma GCC unroll 8
    for (int l = 0; l < w; l++) t[l] = t[l] < t[l + w] ? t[l + w] : t[l];
  const ${type} m = splat_${form}(t[0]), hidden = splat_${form}(-__builtin_inff());
  for (int p = 0; p < ${parts}; p++) total[p] = splat_${form}(0);
  for (int64_t b = 0; b < blocks; b++)
#pragma GCC unroll ${parts}
    for (int p = 0; p < ${parts}; p++) {
      float *const place = s + 16 * b + ${lanes} * p;
      const ${type} x = load_${form}(place);
      const ${type} e = select_${form}(equal_${form}(x, hidden), splat_${form}(0), exp_${form}(x - m));
      total[p] += e;
      store_${form}(place, e);
    }
  memcpy(t, total, 64);
#pragma GCC unroll 4
  for (int w = 8; w > 0; w /= 2)
#pragma GCC unroll 8
    for (int l = 0; l < w; l++) t[l] += t[l + w];
  const ${type} sum = splat_${form}(t[0]);
  for (int64_t k = 0; k < 16 * blocks; k += ${lanes}) store_${form}(s + k, load_${form}(s + k) / sum);
}
`;
}

function weighFunctions(shape: AttentionShape): string {
  const stored = padded(shape.valueWidth);
  const vectors = valueVectors(stored);
  const { weigh, store } = names(shape);
  const { type, form, lanes, parts } = registers(shape);
  const step = Math.min(together[shape.isa].values, vectors);
  return `/* sum[i] += s[i][k] * value row k, for keys from .. to - 1 ascending. */
INLINE void ${weigh}_any(const int queries, const int step, const float *const *s, const float *values, int64_t from, int64_t to, ${type} sum[][${vectors * parts}], int64_t column) {
#pragma GCC unroll 1
  for (int first = 0; first < ${vectors * parts}; first += step) {
    ${type} chain[${queryGroup}][${vectors * parts}];
#pragma GCC unroll ${queryGroup}
    for (int i = 0; i < queries; i++)
#pragma GCC unroll ${vectors * parts}
      for (int v = 0; v < step; v++) chain[i][v] = sum[i][first + v];
    for (int64_t k = from; k < to; k++) {
      const float *const row = values + k * ${stored} + column + ${lanes} * first;
      ${type} value[${vectors * parts}];
#pragma GCC unroll ${vectors * parts}
      for (int v = 0; v < step; v++) value[v] = load_${form}(row + ${lanes} * v);
      if (queries > 1)
#pragma GCC unroll ${vectors}
        for (int v = 0; v < step; v += ${parts}) __builtin_prefetch(row + ${valuesAhead * stored} + ${lanes} * v, 0, 2);
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
  ${weigh}_any(1, ${vectors * parts}, s, values, from, to, sum, column);
}
OUTLINE void ${weigh}_group(const float *const *s, const float *values, int64_t from, int64_t to, ${type} sum[][${vectors * parts}], int64_t column) {
  ${weigh}_any(${queryGroup}, ${step * parts}, s, values, from, to, sum, column);
}
INLINE void ${weigh}(const int queries, const float *const *s, const float *values, int64_t from, int64_t to, ${type} sum[][${vectors * parts}], int64_t column, const struct ahead *ahead) {
  if (queries == 1 && !ahead) return ${weigh}_one(s, values, from, to, sum, column);
  for (int64_t k = from; k < to; k += ${valuesAhead}) {
    const int64_t end = k + ${valuesAhead} < to ? k + ${valuesAhead} : to;
    if (ahead) fetch_part(ahead, (k - from) / ${valuesAhead}, (to - from + ${valuesAhead - 1}) / ${valuesAhead});
    if (queries == 1) ${weigh}_one(s, values, k, end, sum, column);
    else ${weigh}_group(s, values, k, end, sum, column);
  }
}
/* Part of a value row, without its padding. */
INLINE void ${store}(float *out, const ${type} *sum, int64_t column) {
  for (int v = 0; v < ${vectors * parts}; v++) {
    const int64_t left = ${shape.valueWidth} - column - ${lanes} * v;
    if (left >= ${lanes}) store_${form}(out + column + ${lanes} * v, sum[v]);
    else if (left > 0) memcpy(out + column + ${lanes} * v, &sum[v], (size_t)left * 4);
  }
}
`;
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
      writer.line(`${balancedTurn(`(${tokens} + ${queryGroup - 1}) / ${queryGroup}`)};`);
      writer.line(`const int64_t first = turn * ${queryGroup}, keyHead = ${this.#keyHead()};`);
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
  ${type} top[${queryGroup}][${parts}];
  int64_t longest = 0, shortest = shared[0];
  for (int i = 0; i < queries; i++) {
    for (int p = 0; p < ${parts}; p++) top[i][p] = splat_${form}(-__builtin_inff());
    longest = shared[i] > longest ? shared[i] : longest;
    shortest = shared[i] < shortest ? shared[i] : shortest;
  }
  const int64_t blocks = (longest + 15) / 16;
  int64_t ownBlocks[${queryGroup}] = {0}, dead[${queryGroup}] = {0}, visible[${queryGroup}] = {0};
  float *own[${queryGroup}] = {0};
  struct ahead ownKeysAhead = {0}, ownValuesAhead = {0};
  for (int i = 0; i < queries && length; i++) {
    const int64_t base = shared[i] / 16 * 16;
    dead[i] = shared[i] - base;
    visible[i] = length[i] - base;
    own[i] = s[i] + blocks * 16;
    ownBlocks[i] = visible[i] > dead[i] ? (visible[i] + 15) / 16 : 0;
    ownKeysAhead.from[i] = ownKeys + row[i] * ownKeyRow;
    ownKeysAhead.floats[i] = ownBlocks[i] * ${16 * shape.width};
    ownValuesAhead.from[i] = ownValues + row[i] * ownValueRow;
    ownValuesAhead.floats[i] = ownBlocks[i] * ${16 * stored};
  }
  ${scores}(queries, q, keys, blocks, 0, shared, scale, s, top, length ? &ownKeysAhead : 0);
  int64_t alike = queries == ${queryGroup} ? 1 : 0;
  for (int i = 1; i < queries; i++) alike = alike && ownBlocks[i] == ownBlocks[0];
  const int64_t whole = alike ? ownBlocks[0] / ${together[shape.isa].single} * ${together[shape.isa].single} : 0;
  if (alike) ${scores}_apart(q, ownKeysAhead.from, whole, ownBlocks[0], dead, visible, scale, own, top);
  for (int i = 0; i < queries; i++) {
    const int64_t rest = alike ? whole : ownBlocks[i];
    if (rest > 0) ${scores}(1, q + i, ownKeysAhead.from[i], rest, dead[i], visible + i, scale, own + i, top + i, 0);
    normalise(s[i], blocks + ownBlocks[i], top[i]);
  }
  for (int64_t column = 0; column < ${stored}; column += ${16 * vectors}) {
    ${type} sum[${queryGroup}][${vectors * parts}];
    for (int i = 0; i < queries; i++) for (int v = 0; v < ${vectors * parts}; v++) sum[i][v] = splat_${form}(0);
    ${weigh}(queries, (const float *const *)s, values, 0, shortest, sum, column, length && column == 0 ? &ownValuesAhead : 0);
    for (int i = 0; i < queries; i++) {
      const float *one = s[i];
      if (shared[i] > shortest) ${weigh}(1, &one, values, shortest, shared[i], sum + i, column, 0);
      if (ownBlocks[i] > 0) {
        one = own[i];
        ${weigh}(1, &one, ownValuesAhead.from[i], dead[i], visible[i], sum + i, column, 0);
      }
      ${store}(out + i * outStride, sum[i], column);
    }
  }
}
`;
}
