/**
 * C text of the filter over a row of logits: temperature, top-k, top-p. It sorts nothing: the smallest kept value is found digit by digit of ordered integers, with
 * integer weights whose sums do not depend on their order. Must not know what is done with the tokens that are left.
 */
import { formOf } from "./c-scalar.js";
import { isaTable, type TargetIsa } from "./helpers.js";

/** Bits of the first digit, and of each of the others: the first leaves few tokens, and what a digit costs besides them grows with its width. */
const digitBits = [11, 7] as const;

/**
 * `filter_tokens(logits, count, settings, order, member, e, weight)` leaves e[j] = exp of the scaled logit below the largest and weight[j] = e[j] in units of 2^-40,
 * both 0 for tokens that the filter removes, and returns the kept weight. The areas hold `count` elements, rounded up to 16.
 */
export function filterFunctions(isa: TargetIsa): string[] {
  const { lanes } = isaTable[isa].tile;
  const [F, I, f, i] = [`f32x${lanes}`, `i32x${lanes}`, formOf("f32", lanes), formOf("i32", lanes)];
  const tops = Array.from({ length: 16 / lanes }, (_, part) => `top[${part}]`).join(", ");
  return [
    `/* Weights of all tokens before any is removed; order[j] is an unsigned integer in the order of the scaled logits. */
static void weigh_tokens(const float *logits, int64_t count, float temperature, uint32_t *order, float *e, int64_t *weight) {
  ${F} top[${16 / lanes}];
  for (int part = 0; part < ${16 / lanes}; part++) top[part] = splat_${f}(-__builtin_inff());
  for (int64_t j = 0; j < count; j += ${lanes}) {
    const int64_t here = count - j;
    const ${F} x = here >= ${lanes} ? load_${f}(logits + j) : load_part_${f}(logits + j, here);
    /* Adding 0 makes -0 and 0 one value. */
    const ${F} scaled = x / splat_${f}(temperature) + splat_${f}(0);
    const ${F} kept = here >= ${lanes} ? scaled : keep_${f}(scaled, here, -__builtin_inff());
    top[0] = larger_${f}(top[0], kept);
    store_${f}(e + j, kept);
    const ${I} bits = (${I})scaled;
    store_${i}((int32_t *)order + j, bits ^ ((bits >> 31) | splat_${i}(-0x7fffffff - 1)));
  }
  const ${F} largest = splat_${f}(${lanes === 16 ? "max_lanes" : `max_lanes_${f}`}(${tops}));
  for (int64_t j = 0; j < count; j += ${lanes}) {
    const ${F} x = exp_${f}(load_${f}(e + j) - largest);
    store_${f}(e + j, select_${f}(equal_${f}(x, x), x, splat_${f}(0)));
  }
  for (int64_t j = 0; j < count; j++) weight[j] = (int64_t)(e[j] * 0x1p40f);
}
`,
    `/*
 * One digit, ${digitBits.join(" or ")} bits wide: the highest such that the tokens above it, and those of it among \`members\`, reach the threshold: \`asked\` tokens, or more than \`top_p\` of
 * the total weight. Leaves in member[] those that have it, adds to \`above\` those of higher digits, and returns their number, or -1 when even all fall short. \`first\`:
 * the members are all tokens.
 */
INLINE int64_t take_digit(const int first, int shift, int64_t members, const uint32_t *order, const int64_t *weight, int64_t asked, double total, float top_p, int32_t *member, int64_t *above) {
  const int digits = 1 << (first ? ${digitBits[0]} : ${digitBits[1]});
  int64_t sum[${2 ** digitBits[0]}], left = 0;
  memset(sum, 0, (size_t)digits * 8);
  for (int64_t at = 0; at < members; at++) {
    const int64_t token = first ? at : member[at];
    sum[order[token] >> shift & (digits - 1)] += asked > 0 ? 1 : weight[token];
  }
  int digit = digits - 1;
  for (; digit >= 0; digit--) {
    if (sum[digit] == 0) continue;
    const int64_t reached = *above + sum[digit];
    if (asked > 0 ? reached >= asked : (float)((double)reached / total) > top_p) break;
    *above = reached;
  }
  if (digit < 0) return -1;
  for (int64_t at = 0; at < members; at++) {
    const int32_t token = first ? (int32_t)at : member[at];
    member[left] = token;
    left += (int)(order[token] >> shift & (digits - 1)) == digit;
  }
  return left;
}
`,
    `static int64_t filter_tokens(const float *logits, int64_t count, const float *settings, uint32_t *order, int32_t *member, float *e, int64_t *weight) {
  const float top_p = settings[2];
  const int64_t top_k = (int64_t)settings[1] < count ? (int64_t)settings[1] : count;
  weigh_tokens(logits, count, settings[0], order, e, weight);
  int64_t total = 0, above = 0;
  for (int64_t j = 0; j < count; j++) total += weight[j];
  if (top_k <= 0 && !(top_p < 1)) return total;
  const int64_t asked = top_k > 0 ? top_k : 0;
  int64_t members = take_digit(1, ${32 - digitBits[0]}, count, order, weight, asked, (double)total, top_p, member, &above);
  for (int shift = ${32 - digitBits[0] - digitBits[1]}; shift >= 0 && members >= 0; shift -= ${digitBits[1]})
    members = take_digit(0, shift, members, order, weight, asked, (double)total, top_p, member, &above);
  if (members < 0) return total;
  const uint32_t smallest = order[member[0]];
  /* Top-k keeps all tokens of the smallest value, top-p those before which the threshold is not passed yet, the lower index first. */
  int64_t kept = members;
  if (top_k <= 0)
    for (kept = 0; kept < members && !((float)((double)above / (double)total) > top_p); kept++) above += weight[member[kept]];
  for (int64_t at = kept; at < members; at++) e[member[at]] = 0, weight[member[at]] = 0;
  int64_t left = 0;
  for (int64_t j = 0; j < count; j++) {
    const int keep = order[j] >= smallest;
    e[j] = keep ? e[j] : 0;
    weight[j] = keep ? weight[j] : 0;
    left += weight[j];
  }
  return left;
}
`,
  ];
}
