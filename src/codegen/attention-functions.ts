/**
 * C functions of attention of one head size: scores over blocks of 16 keys (lane = absolute key position mod 16), one maximum, one sum, then one chain over keys
 * ascending. Groups of four queries go together over keys they share. A loop asks for the memory that the next one reads as fast as memory can answer, because what is
 * asked beyond that is dropped. Must not know where operands and caches come from.
 */
import { padded } from "../ir/ops/state.js";
import { formOf, type Lanes } from "./c-scalar.js";
import { isaTable, type TargetIsa } from "./helpers.js";
import { interleavedFunction } from "./vector-functions.js";

/** Queries whose sums stand in registers together. */
export const queryGroup = 4;

/**
 * Groups that pass over common keys and values together: every piece of those comes from memory once and serves all of them from the first-level cache, so memory and
 * arithmetic are busy at the same time.
 */
export const groupsTogether = 4;

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
  readonly lanes: Lanes;
  readonly parts: number;
} {
  const { lanes } = isaTable[isa].tile;
  return { type: `f32x${lanes}`, form: formOf("f32", lanes), lanes, parts: 16 / lanes };
}

interface Together {
  /** Key blocks scored at once, for four queries and for one, and vectors of sixteen values weighed at once for four: as many as registers can hold the sums of. */
  readonly joint: number;
  readonly single: number;
  readonly values: number;
  /** How near common keys and values are brought that are asked for: 3 for the first-level cache, where the next pass over so few of them soon needs them, 2 for the second. */
  readonly near: 2 | 3;
  /** Steps of a loop over the inner axis in one turn: narrow vectors need as many instructions beside their fmas, the fewer of them the better. */
  readonly turn: number;
}

export const together: Record<TargetIsa, Together> = {
  avx512: { joint: 4, single: 8, values: 4, near: 2, turn: 1 },
  avx2: { joint: 1, single: 4, values: 1, near: 3, turn: 4 },
  neon: { joint: 1, single: 2, values: 4, near: 2, turn: 1 },
  plain: { joint: 1, single: 2, values: 4, near: 2, turn: 1 },
};

/** Before a loop over the inner axis. */
const unrolled = ({ isa }: AttentionShape): string => {
  const { turn } = together[isa];
  return turn === 1 ? "" : `#pragma GCC unroll ${turn}\n`;
};

/** Value rows that all groups weigh before the next ones, which they ask for meanwhile. */
const valuesTogether = 32;

/** Rows of its own values that a query of a group weighs before the next query's turn, so that memory answers four of them at the same time. */
const ownTogether = 4;

/** Vectors of scores whose exponentials are computed step by step together: one alone waits for itself at every step. */
const exponentialsTogether = 4;

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
  return `/* Where a loop asks for memory at every step, and how many bytes further on at the next. */
struct soon {
  const char *from;
  int64_t stride;
};
/* Steps over \`lines\` of memory, all of them in \`steps\` steps where those are as many. */
INLINE int64_t soon_stride(int64_t lines, int64_t steps) {
  const int64_t stride = (lines * 64 + steps - 1) / steps;
  return stride < 64 ? stride : 64;
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
  const rest = `      else for (; b < blocks[g] && b < (pass + 1) * ${wide.joint}; b++) ${scores}_tile(${queryGroup}, 1, x + i, keys, b, 0, visible + i, scale, s + i, top + i, next);\n`;
  return `/* Sixteen scores from position \`first\` on, scaled and hidden where dead or not visible. */
INLINE void ${scores}_place(const ${type} *sum, int64_t first, int64_t dead, int64_t visible, float scale, float *s, ${type} *top) {
  float *const scored = s + first;
#pragma GCC unroll ${parts}
  for (int p = 0; p < ${parts}; p++) store_${form}(scored + ${lanes} * p, sum[p] * splat_${form}(scale));
  if (first < dead || first + 16 > visible) hide_lanes(scored, dead - first, visible - first);
#pragma GCC unroll ${parts}
  for (int p = 0; p < ${parts}; p++) top[p] = higher(top[p], load_${form}(scored + ${lanes} * p));
}
/* s[i][16 b + l] = scale * (q_i . key 16 b + l) for blocks b; lanes below dead or from visible_i on become -inf. Raises top[i]. A group asks for \`next\`. */
INLINE void ${scores}_tile(const int queries, const int blocks, const float *const *q, const float *keys, int64_t b, int64_t dead, const int64_t *visible, float scale, float *const *s, ${type} top[][${parts}], struct soon next) {
  ${type} sum[${queryGroup}][${8 * parts}];
#pragma GCC unroll ${queryGroup}
  for (int i = 0; i < queries; i++)
#pragma GCC unroll ${8 * parts}
    for (int j = 0; j < ${count}; j++) sum[i][j] = splat_${form}(0);
${unrolled(shape)}  for (int64_t d = 0; d < ${width}; d++) {
    ${type} key[${8 * parts}];
#pragma GCC unroll ${8 * parts}
    for (int j = 0; j < ${count}; j++) key[j] = load_${form}(${key});
    if (queries > 1)
#pragma GCC unroll 8
      for (int j = 0; j < blocks; j++, next.from += next.stride) __builtin_prefetch(next.from, 0, ${wide.near});
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
OUTLINE void ${scores}_one(const float *const *q, const float *keys, int64_t blocks, int64_t dead, const int64_t *visible, float scale, float *const *s, ${type} top[][${parts}]) {
  const struct soon none = {0};
  int64_t b = 0;
  for (; b + ${wide.single} <= blocks; b += ${wide.single}) ${scores}_tile(1, ${wide.single}, q, keys, b, dead, visible, scale, s, top, none);
  for (; b < blocks; b++) ${scores}_tile(1, 1, q, keys, b, dead, visible, scale, s, top, none);
}
/* Common keys: blocks[g] of them for the queries of group g. Queries that lie a multiple of 2 KB apart would get into each other's way where they are read at one time. */
OUTLINE void ${scores}_groups(int64_t groups, const float *const *q, const float *keys, const int64_t *blocks, const int64_t *visible, float scale, float *const *s, ${type} top[][${parts}]) {
  float copies[${queryGroup * groupsTogether}][${width + 16}];
  const float *x[${queryGroup * groupsTogether}];
  for (int64_t i = 0; i < ${queryGroup} * groups; i++) x[i] = memcpy(copies[i], q[i], ${4 * width});
  int64_t most = 0;
  for (int64_t g = 0; g < groups; g++) most = blocks[g] > most ? blocks[g] : most;
  const int64_t passes = (most + ${wide.joint - 1}) / ${wide.joint}, share = (${wide.joint * width} + groups - 1) / groups, stride = soon_stride(share, ${wide.joint * width});
  for (int64_t pass = 0; pass < passes; pass++)
    for (int64_t g = 0, i = 0; g < groups; g++, i += ${queryGroup}) {
      int64_t b = pass * ${wide.joint};
      const struct soon next = {(const char *)(keys + (b + ${wide.joint}) * ${16 * width} + g * share * 16), stride};
      if (b + ${wide.joint} <= blocks[g]) ${scores}_tile(${queryGroup}, ${wide.joint}, x + i, keys, b, 0, visible + i, scale, s + i, top + i, next);
${wide.joint === 1 ? "" : rest}    }
}
INLINE void ${scores}(const int queries, int64_t groups, const float *const *q, const float *keys, const int64_t *blocks, const int64_t *visible, float scale, float *const *s, ${type} top[][${parts}]) {
  if (queries == 1) ${scores}_one(q, keys, blocks[0], 0, visible, scale, s, top);
  else ${scores}_groups(groups, q, keys, blocks, visible, scale, s, top);
}
`;
}

function normaliseFunction(shape: AttentionShape): string {
  const { type, form, lanes, parts } = registers(shape);
  const exponentials = `exponentials_${form}`;
  const blocksTogether = exponentialsTogether / parts;
  return `${interleavedFunction("expNegative", exponentials, lanes, exponentialsTogether)}
/* s[0 .. 16 blocks - 1] from scores to weights; no score is above the largest of top, and hidden ones are -inf. Asks for a line of \`next\` with every block. */
OUTLINE void normalise(float *s, int64_t blocks, const ${type} *top, const char *next) {
  ${type} total[${parts}];
  float t[16];
  memcpy(t, top, 64);
#pragma GCC unroll 4
  for (int w = 8; w > 0; w /= 2)
#pragma GCC unroll 8
    for (int l = 0; l < w; l++) t[l] = t[l] < t[l + w] ? t[l + w] : t[l];
  /* Where all are hidden there is no largest one, and any finite number in its place makes them 0. */
  const ${type} m = splat_${form}(t[0] == -__builtin_inff() ? 0 : t[0]);
  for (int p = 0; p < ${parts}; p++) total[p] = splat_${form}(0);
  int64_t b = 0;
  for (; b + ${blocksTogether} <= blocks; b += ${blocksTogether}) {
    float *const place = s + 16 * b;
    ${type} x[${exponentialsTogether}];
#pragma GCC unroll ${blocksTogether}
    for (int j = 0; j < ${blocksTogether}; j++, next += 64) __builtin_prefetch(next, 0, 2);
#pragma GCC unroll ${exponentialsTogether}
    for (int j = 0; j < ${exponentialsTogether}; j++) x[j] = load_${form}(place + ${lanes} * j) - m;
    ${exponentials}(x);
#pragma GCC unroll ${exponentialsTogether}
    for (int j = 0; j < ${exponentialsTogether}; j++) {
      total[j % ${parts}] += x[j];
      store_${form}(place + ${lanes} * j, x[j]);
    }
  }
  for (; b < blocks; b++)
    for (int p = 0; p < ${parts}; p++) {
      float *const place = s + 16 * b + ${lanes} * p;
      const ${type} e = expNegative_${form}(load_${form}(place) - m);
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
  return `/* sum[i] += s[i][k] * value row k, for keys from .. to - 1 ascending. A group asks for \`next\`. */
INLINE void ${weigh}_any(const int queries, const int step, const float *const *s, const float *values, int64_t from, int64_t to, ${type} sum[][${vectors * parts}], int64_t column, struct soon next) {
#pragma GCC unroll 1
  for (int first = 0; first < ${vectors * parts}; first += step) {
    ${type} chain[${queryGroup}][${vectors * parts}];
#pragma GCC unroll ${queryGroup}
    for (int i = 0; i < queries; i++)
#pragma GCC unroll ${vectors * parts}
      for (int v = 0; v < step; v++) chain[i][v] = sum[i][first + v];
${unrolled(shape)}    for (int64_t k = from; k < to; k++) {
      const float *const row = values + k * ${stored} + column + ${lanes} * first;
      ${type} value[${vectors * parts}];
#pragma GCC unroll ${vectors * parts}
      for (int v = 0; v < step; v++) value[v] = load_${form}(row + ${lanes} * v);
      if (queries > 1)
#pragma GCC unroll ${vectors}
        for (int v = 0; v < step; v += ${parts}, next.from += next.stride) __builtin_prefetch(next.from, 0, ${together[shape.isa].near});
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
  const struct soon none = {0};
  ${weigh}_any(1, ${vectors * parts}, s, values, from, to, sum, column, none);
}
/* A group's queries, each over values of its own: rows from[i] .. to[i] - 1, some rows of each in turn. */
OUTLINE void ${weigh}_apart(const float *const *s, const float *const *values, const int64_t *from, const int64_t *to, ${type} sum[][${vectors * parts}], int64_t column) {
  const struct soon none = {0};
  int64_t most = 0;
  for (int64_t i = 0; i < ${queryGroup}; i++) most = to[i] - from[i] > most ? to[i] - from[i] : most;
  for (int64_t done = 0; done < most; done += ${ownTogether})
    for (int64_t i = 0; i < ${queryGroup}; i++) {
      const int64_t first = from[i] + done, end = first + ${ownTogether} < to[i] ? first + ${ownTogether} : to[i];
      if (first < end) ${weigh}_any(1, ${vectors * parts}, s + i, values[i], first, end, sum + i, column, none);
    }
}
/* Common values: rows up to to[g] - 1 for the queries of group g. */
OUTLINE void ${weigh}_groups(int64_t groups, const float *const *s, const float *values, int64_t from, const int64_t *to, ${type} sum[][${vectors * parts}], int64_t column) {
  int64_t most = from;
  for (int64_t g = 0; g < groups; g++) most = to[g] > most ? to[g] : most;
  const int64_t turns = (most - from + ${valuesTogether - 1}) / ${valuesTogether}, share = (${(valuesTogether * stored) / 16} + groups - 1) / groups, stride = soon_stride(share, ${valuesTogether * vectors});
  for (int64_t turn = 0; turn < turns; turn++)
    for (int64_t g = 0, i = 0; g < groups; g++, i += ${queryGroup}) {
      const int64_t first = from + ${valuesTogether} * turn, end = first + ${valuesTogether} < to[g] ? first + ${valuesTogether} : to[g];
      const struct soon next = {(const char *)(values + (first + ${valuesTogether}) * ${stored} + g * share * 16), stride};
      if (first < end) ${weigh}_any(${queryGroup}, ${step * parts}, s + i, values, first, end, sum + i, column, next);
    }
}
INLINE void ${weigh}(const int queries, int64_t groups, const float *const *s, const float *values, int64_t from, const int64_t *to, ${type} sum[][${vectors * parts}], int64_t column) {
  if (queries == 1) ${weigh}_one(s, values, from, to[0], sum, column);
  else ${weigh}_groups(groups, s, values, from, to, sum, column);
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

/** One query, or groups of four, over a common segment and then each over its own keys. */
export function attendFunction(shape: AttentionShape): string {
  const { scores, weigh, store } = names(shape);
  const stored = padded(shape.valueWidth);
  const vectors = valueVectors(stored);
  const { type, form, parts } = registers(shape);
  const { single } = together[shape.isa];
  const most = queryGroup * groupsTogether;
  return `/* Common keys 0 .. shared[i] - 1, then (when length is given) own keys shared[i] .. length[i] - 1, whose slot 0 is shared[i] rounded down to 16. */
INLINE void attend_${shape.width}_${shape.valueWidth}(const int queries, int64_t groups, const float *const *q, float *const *s, const int64_t *shared, const float *keys, const float *values, float scale,
    const float *ownKeys, const float *ownValues, int64_t ownKeyRow, int64_t ownValueRow, const int64_t *row, const int64_t *length, float *const *out) {
  const int64_t n = queries * groups;
  ${type} top[${most}][${parts}];
  int64_t blocks[${groupsTogether}], shortest[${groupsTogether}];
  for (int64_t g = 0; g < groups; g++) {
    int64_t longest = 0;
    shortest[g] = shared[queries * g];
    for (int64_t i = queries * g; i < queries * (g + 1); i++) {
      for (int p = 0; p < ${parts}; p++) top[i][p] = splat_${form}(-__builtin_inff());
      longest = shared[i] > longest ? shared[i] : longest;
      shortest[g] = shared[i] < shortest[g] ? shared[i] : shortest[g];
    }
    blocks[g] = (longest + 15) / 16;
  }
  int64_t ownBlocks[${most}], dead[${most}], visible[${most}];
  const float *ownKey[${most}], *ownValue[${most}];
  float *own[${most}];
  for (int64_t i = 0; i < n; i++) {
    ownBlocks[i] = 0;
    if (!length) continue;
    const int64_t base = shared[i] / 16 * 16;
    dead[i] = shared[i] - base;
    visible[i] = length[i] - base;
    own[i] = s[i] + blocks[i / queries] * 16;
    ownBlocks[i] = visible[i] > dead[i] ? (visible[i] + 15) / 16 : 0;
    ownKey[i] = ownKeys + row[i] * ownKeyRow;
    ownValue[i] = ownValues + row[i] * ownValueRow;
  }
  ${scores}(queries, groups, q, keys, blocks, shared, scale, s, top);
  const char *next = (const char *)values;
  for (int64_t g = 0, first = 0; g < groups; g++, first += queries) {
    int64_t alike = queries == ${queryGroup} ? 1 : 0;
    for (int64_t i = first + 1; i < first + queries; i++) alike = alike && ownBlocks[i] == ownBlocks[first];
    const int64_t whole = alike ? ownBlocks[first] / ${single} * ${single} : 0;
    if (alike) ${scores}_apart(q + first, ownKey + first, whole, ownBlocks[first], dead + first, visible + first, scale, own + first, top + first);
    for (int64_t i = first; i < first + queries; i++) {
      const int64_t rest = alike ? whole : ownBlocks[i];
      if (rest > 0) ${scores}_one(q + i, ownKey[i], rest, dead[i], visible + i, scale, own + i, top + i);
      normalise(s[i], blocks[g] + ownBlocks[i], top[i], next);
      const char *const further = next + 64 * (blocks[g] + ownBlocks[i]);
      next = further < (const char *)(values + shortest[0] * ${stored}) ? further : (const char *)values;
    }
  }
  for (int64_t column = 0; column < ${stored}; column += ${16 * vectors}) {
    ${type} sum[${most}][${vectors * parts}];
    for (int64_t i = 0; i < n; i++) for (int v = 0; v < ${vectors * parts}; v++) sum[i][v] = splat_${form}(0);
    ${weigh}(queries, groups, (const float *const *)s, values, 0, shortest, sum, column);
    for (int64_t i = 0; i < n; i++) {
      const float *one = s[i];
      if (shared[i] > shortest[i / queries]) ${weigh}_one(&one, values, shortest[i / queries], shared[i], sum + i, column);
      if (queries > 1 || ownBlocks[i] == 0) continue;
      one = own[i];
      ${weigh}_one(&one, ownValue[i], dead[i], visible[i], sum + i, column);
    }
    for (int64_t i = 0; queries > 1 && length && i < n; i += queries) ${weigh}_apart((const float *const *)own + i, ownValue + i, dead + i, visible + i, sum + i, column);
    for (int64_t i = 0; i < n; i++) ${store}(out[i], sum[i], column);
  }
}
`;
}
