/**
 * C text of the filter over a row of logits: temperature, top-k, top-p. It sorts nothing: tokens are counted by how far their logits lie below the largest, and only the
 * few of the interval in which the threshold is reached are told apart further. Weights are integers, so that sums do not depend on their order. Must not know what is
 * done with the tokens that are left.
 */
import { formOf } from "./c-scalar.js";
import { isaTable, type TargetIsa } from "./helpers.js";

/**
 * Intervals of the distance below the largest logit: twice as wide from each octave of (distance + 1/4) to the next, so that flat and peaked rows are both told
 * apart; what lies further than the octaves reach weighs nothing.
 */
const octaves = 7;
const intervalsPerOctave = 64;
const intervals = octaves * intervalsPerOctave + 1;

/** Tokens whose weights are summed together, so that a draw finds its token in two short searches. */
const blockLength = 128;

/** Bits of a digit by which the tokens of the interval are told apart. */
const digitBits = 5;

/** Number of blocks in a row of `count` tokens. */
export const blocksOf = (count: number): number => Math.ceil(count / blockLength);

/** Bits of the lanes whose mask is set, where an instruction makes them; `mask` is all ones or zeros in every lane. */
const setLanes: Readonly<Record<TargetIsa, string | undefined>> = {
  avx512: "(uint16_t)__builtin_ia32_cvtd2mask512(mask)",
  avx2: "(uint32_t)__builtin_ia32_movmskps256((f32x8)mask)",
  neon: undefined,
  plain: undefined,
};

function laneFunctions(isa: TargetIsa): string {
  const { lanes } = isaTable[isa].tile;
  const I = `i32x${lanes}`;
  const each = (term: (lane: number) => string, joined: string): string =>
    Array.from({ length: lanes }, (_, lane) => term(lane)).join(joined);
  return `INLINE uint32_t set_lanes(${I} mask) { return ${setLanes[isa] ?? each((lane) => `((uint32_t)mask[${lane}] & ${2 ** lane}u)`, " | ")}; }
INLINE int64_t sum_of_lanes(${I} v) { return (int64_t)(${each((lane) => `v[${lane}]`, " + ")}); }
`;
}

/** The weights of a row, and in which interval each token lies. */
function weighing(isa: TargetIsa): string {
  const { lanes } = isaTable[isa].tile;
  const [F, I, f, i] = [`f32x${lanes}`, `i32x${lanes}`, formOf("f32", lanes), formOf("i32", lanes)];
  const parts = Array.from({ length: 16 / lanes }, (_, part) => part);
  const tops = (separator: string, value: (part: number) => string): string => parts.map(value).join(separator);
  const larger = (from: string): string =>
    tops("\n    ", (part) => `top${part} = larger_${f}(top${part}, load_${f}(${from} + ${part * lanes}));`);
  return `/* NaN if one of them is. */
static float largest_of(const float *logits, int64_t count) {
  ${F} ${tops(", ", (part) => `top${part} = splat_${f}(-__builtin_inff())`)};
  const int64_t whole = count - count % 16;
  for (int64_t j = 0; j < whole; j += 16) {
    ${larger("logits + j")}
  }
  if (whole < count) {
    float rest[16];
    for (int l = 0; l < 16; l++) rest[l] = whole + l < count ? logits[whole + l] : -__builtin_inff();
    ${larger("rest")}
  }
  return ${lanes === 16 ? "max_lanes" : `max_lanes_${f}`}(${tops(", ", (part) => `top${part}`)});
}

/* A token's weight in units of 2^-40: 20 bits in each of two words, \`places\` apart. */
INLINE int64_t weight_of(const int32_t *weight, int64_t places, int64_t token) { return ((int64_t)weight[token] << 20) + weight[places + token]; }

/*
 * Weights of all tokens before any is removed: exp of the scaled logit below the largest, rounded down. Leaves the scaled logits, the intervals, the sums of whole
 * blocks, and returns the sum of all. Places beyond the row are tokens of -inf.
 */
static int64_t weigh_tokens(const float *logits, int64_t count, int64_t places, float temperature, float largest, float *scaled, int32_t *interval, int32_t *weight, int64_t *block) {
  int64_t total = 0;
  for (int64_t first = 0; first < places; first += ${blockLength}) {
    const int64_t end = first + ${blockLength} < places ? first + ${blockLength} : places;
    ${I} highs = splat_${i}(0), lows = splat_${i}(0);
    for (int64_t j = first; j < end; j += ${lanes}) {
      const int64_t here = count - j;
      const ${F} x = here >= ${lanes} ? load_${f}(logits + j) : keep_${f}(load_part_${f}(logits + j, here > 0 ? here : 0), here, -__builtin_inff());
      /* Adding 0 makes -0 and 0 one value. */
      const ${F} own = x / splat_${f}(temperature) + splat_${f}(0), below = own - splat_${f}(largest);
      const ${F} distance = splat_${f}(0.25f) - below, farthest = splat_${f}(${2 ** (octaves - 2)}.0f);
      const ${I} steps = (${I})select_${f}(less_${f}(distance, farthest), distance, farthest) >> ${23 - Math.log2(intervalsPerOctave)};
      const ${F} raised = exp_${f}(below) * splat_${f}(0x1p20f);
      const ${I} high = __builtin_convertvector(raised, ${I});
      const ${I} low = __builtin_convertvector((raised - __builtin_convertvector(high, ${F})) * splat_${f}(0x1p20f), ${I});
      store_${f}(scaled + j, own);
      store_${i}(interval + j, steps - splat_${i}(0x3e800000 >> ${23 - Math.log2(intervalsPerOctave)}));
      store_${i}(weight + j, high);
      store_${i}(weight + places + j, low);
      highs += high;
      lows += low;
    }
    block[first / ${blockLength}] = (sum_of_lanes(highs) << 20) + sum_of_lanes(lows);
    total += block[first / ${blockLength}];
  }
  return total;
}
`;
}

/** How much is asked for, and the intervals in which it may be reached. */
const thresholds = `/* The smallest weight that is more than top_p of the total, by the rounding of the published comparison; 0 where nothing already is. */
static int64_t weight_asked(float top_p, int64_t total) {
  if (!(top_p >= 0)) return 0;
  uint32_t bits;
  float next;
  memcpy(&bits, &top_p, 4), bits++, memcpy(&next, &bits, 4);
  /* What lies halfway to the next float rounds either way: a few steps lead to the edge. */
  int64_t asked = (int64_t)(((double)top_p + (double)next) / 2 * (double)total);
  while (!((float)((double)asked / (double)total) > top_p)) asked++;
  while ((float)((double)(asked - 1) / (double)total) > top_p) asked--;
  return asked;
}

/*
 * The first and the last interval in which the threshold may be reached, from the largest down. Tokens count one each, or by the upper words of their weights: each then
 * lacks less than one unit. Neighbours are counted apart, since additions to the same sum wait for each other.
 */
INLINE void find_intervals(const int counted, int64_t count, int64_t places, const int32_t *interval, const int32_t *weight, int64_t asked, int32_t *first, int32_t *last) {
  int64_t even[${intervals}], odd[${intervals}];
  memset(even, 0, sizeof even);
  memset(odd, 0, sizeof odd);
  for (int64_t j = 0; j < places; j += 2) {
    even[interval[j]] += counted ? 1 : weight[j];
    odd[interval[j + 1]] += counted ? 1 : weight[j + 1];
  }
  const int64_t surely = counted ? asked : (asked + 0xfffff) >> 20, possibly = counted ? asked : surely - count;
  int64_t reached = even[0] + odd[0];
  int32_t at = 0;
  for (; reached < possibly && at < ${intervals - 1}; reached += even[at] + odd[at]) at++;
  *first = at;
  for (; reached < surely && at < ${intervals - 1}; reached += even[at] + odd[at]) at++;
  *last = at;
}
`;

/** Tokens of the intervals that are kept whole, and of those that must be looked at. */
function gathering(isa: TargetIsa): string {
  const { lanes } = isaTable[isa].tile;
  const [I, i] = [`i32x${lanes}`, formOf("i32", lanes)];
  return `/*
 * Leaves in block[] the weights of the tokens up to the last interval, and at the beginning of interval[] the numbers of those from the first one on; returns how
 * many these are. \`above\`: number and weight of the tokens before them.
 */
static int64_t gather_members(int32_t first, int32_t last, int64_t places, int32_t *interval, const int32_t *weight, int64_t *block, int64_t *above) {
  int64_t members = 0;
  for (int64_t begin = 0; begin < places; begin += ${blockLength}) {
    const int64_t end = begin + ${blockLength} < places ? begin + ${blockLength} : places;
    ${I} highs = splat_${i}(0), lows = splat_${i}(0), numbers = splat_${i}(0);
    for (int64_t j = begin; j < end; j += ${lanes}) {
      const ${I} at = load_${i}(interval + j), kept = less_${i}(at, splat_${i}(last + 1)), before = less_${i}(at, splat_${i}(first));
      highs += load_${i}(weight + j) & kept;
      lows += load_${i}(weight + places + j) & kept;
      numbers -= before;
      for (uint32_t hits = set_lanes(kept & ~before); hits != 0; hits &= hits - 1) interval[members++] = (int32_t)j + __builtin_ctz(hits);
    }
    block[begin / ${blockLength}] = (sum_of_lanes(highs) << 20) + sum_of_lanes(lows);
    above[0] += sum_of_lanes(numbers);
    above[1] += block[begin / ${blockLength}];
  }
  for (int64_t at = 0; at < members; at++) above[1] -= weight_of(weight, places, interval[at]);
  return members;
}
`;
}

const settling = `/* An unsigned integer in the order of the scaled logits. */
INLINE uint32_t order_of(const float *scaled, int32_t token) {
  int32_t bits;
  memcpy(&bits, scaled + token, 4);
  return (uint32_t)(bits ^ ((bits >> 31) | (-0x7fffffff - 1)));
}

/*
 * Digit by digit, the members that have the smallest value that is kept: the highest digit such that they and those of higher digits reach the threshold. Takes the
 * weights of lower ones out of block[] and returns the number of those that have it, which are left in member[].
 */
static int64_t settle_members(int counted, int64_t members, int64_t places, const float *scaled, const int32_t *weight, int64_t asked, int32_t *member, int64_t *above, int64_t *block) {
  for (;;) {
    uint32_t least = 0xffffffffu, most = 0;
    for (int64_t at = 0; at < members; at++) {
      const uint32_t order = order_of(scaled, member[at]);
      least = order < least ? order : least;
      most = order > most ? order : most;
    }
    if (least >= most) return members;
    const int bits = 32 - __builtin_clz(most - least), shift = bits > ${digitBits} ? bits - ${digitBits} : 0;
    int64_t sum[${2 ** digitBits}] = {0}, left = 0;
    for (int64_t at = 0; at < members; at++)
      sum[(order_of(scaled, member[at]) - least) >> shift] += counted ? 1 : weight_of(weight, places, member[at]);
    uint32_t digit = (most - least) >> shift;
    for (; digit > 0 && *above + sum[digit] < asked; digit--) *above += sum[digit];
    for (int64_t at = 0; at < members; at++) {
      const int32_t token = member[at];
      const uint32_t own = (order_of(scaled, token) - least) >> shift;
      if (own < digit) block[token / ${blockLength}] -= weight_of(weight, places, token);
      member[left] = token;
      left += own == digit;
    }
    members = left;
  }
}
`;

const filtering = `/* The tokens that are kept: scaled logits above the smallest, and equal ones up to the last token. */
typedef struct { float largest, smallest; int64_t last, weight; } kept_tokens;
INLINE int is_kept(const kept_tokens *kept, const float *scaled, int64_t token) {
  return scaled[token] > kept->smallest || (scaled[token] == kept->smallest && token <= kept->last);
}

/*
 * Leaves the scaled logits, the weights of all tokens, and in block[] those of the kept ones. Where no weights can be told, as with a NaN among the logits, none is
 * kept. \`scaled\` and \`member\` hold \`count\` elements, rounded up to 16, and \`weight\` twice as many.
 */
static kept_tokens filter_tokens(const float *logits, int64_t count, const float *settings, float *scaled, int32_t *member, int32_t *weight, int64_t *block) {
  const float top_p = settings[2];
  const int64_t top_k = (int64_t)settings[1] < count ? (int64_t)settings[1] : count, places = (count + 15) / 16 * 16;
  const int counted = top_k > 0;
  kept_tokens kept = {largest_of(logits, count) / settings[0] + 0, __builtin_inff(), -1, 0};
  if (kept.largest - kept.largest != 0) return kept;
  kept.weight = weigh_tokens(logits, count, places, settings[0], kept.largest, scaled, member, weight, block);
  kept.smallest = -__builtin_inff();
  kept.last = count;
  if (!counted && !(top_p < 1)) return kept;
  const int64_t asked = counted ? top_k : weight_asked(top_p, kept.weight);
  int32_t first, last;
  if (counted) find_intervals(1, count, places, member, weight, asked, &first, &last);
  else find_intervals(0, count, places, member, weight, asked, &first, &last);
  int64_t sums[2] = {0, 0};
  int64_t members = gather_members(first, last, places, member, weight, block, sums), above = sums[!counted];
  members = settle_members(counted, members, places, scaled, weight, asked, member, &above, block);
  kept.smallest = scaled[member[0]];
  /* Top-k keeps all tokens of the smallest value, top-p those before which the threshold is not reached yet, the lower index first. */
  if (!counted) {
    int64_t at = 0;
    for (; at < members && above < asked; at++) above += weight_of(weight, places, member[at]);
    kept.last = at > 0 ? member[at - 1] : -1;
    for (; at < members; at++) block[member[at] / ${blockLength}] -= weight_of(weight, places, member[at]);
  }
  kept.weight = 0;
  for (int64_t j = 0; j < (places + ${blockLength - 1}) / ${blockLength}; j++) kept.weight += block[j];
  return kept;
}
`;

/** `kept_tokens filter_tokens(logits, count, settings, scaled, member, weight, block)`, and `is_kept` and `weight_of` for what it leaves. */
export const filterFunctions = (isa: TargetIsa): string[] => [
  laneFunctions(isa),
  weighing(isa),
  thresholds,
  gathering(isa),
  settling,
  filtering,
];

/** \`int64_t token_at(target, kept, count, scaled, weight, block)\`: the first token up to which the kept ones weigh more than the target; 0 where all weigh less. */
export const tokenSearch = `static int64_t token_at(double target, const kept_tokens *kept, int64_t count, const float *scaled, const int32_t *weight, const int64_t *block) {
  const int64_t places = (count + 15) / 16 * 16;
  int64_t cumulated = 0, j = 0;
  if (!((double)kept->weight > target)) return 0;
  for (; !((double)(cumulated + block[j]) > target); j++) cumulated += block[j];
  for (j *= ${blockLength};; j++) {
    cumulated += is_kept(kept, scaled, j) ? weight_of(weight, places, j) : 0;
    if ((double)cumulated > target) return j;
  }
}
`;

/** `double kept_powers(kept, count, scaled, e)`: e[j] = exp of the scaled logit below the largest, 0 for removed tokens; returns their sum in order. */
export function keptPowers(isa: TargetIsa): string {
  const { lanes } = isaTable[isa].tile;
  const f = formOf("f32", lanes);
  return `static double kept_powers(const kept_tokens *kept, int64_t count, const float *scaled, float *e) {
  double total = 0;
  for (int64_t j = 0; j < count; j += ${lanes}) store_${f}(e + j, exp_${f}(load_${f}(scaled + j) - splat_${f}(kept->largest)));
  for (int64_t j = 0; j < count; j++) {
    e[j] = is_kept(kept, scaled, j) ? e[j] : 0;
    total += (double)e[j];
  }
  return total;
}
`;
}
