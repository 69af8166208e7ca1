/**
 * The vector functions that generated C may call, in an order in which each uses only earlier ones. One record per instruction set where C has no portable word;
 * everything else is the same text for all of them. Sixteen virtual lanes everywhere, so every width gives the same bits.
 */
import { argument } from "../ir/scalar.js";
import { emitScalar } from "./c-scalar.js";
import { functionDefinitions } from "./functions.js";

export type TargetIsa = "avx512" | "avx2" | "neon" | "plain";

interface IsaRecord {
  /** Body of `fma_f32(a, b, c)`: a * b + c rounded once, lane by lane. */
  readonly fma: string;
  /** Compare in two halves: compilers take whole vectors apart, lane by lane and with a branch each, where no register holds one. */
  readonly comparesHalves: boolean;
  /** Rows and vectors of the accumulator tile that fits the register file; `lanes` of its vectors, 16 where the registers are as wide. */
  readonly tile: { readonly rows: number; readonly vectors: number; readonly lanes: 4 | 8 | 16 };
}

const fmaByLane = "  f32x16 r;\n  for (int l = 0; l < 16; l++) r[l] = __builtin_fmaf(a[l], b[l], c[l]);\n  return r;";
const viaClang = (gcc: string): string =>
  `#if defined(__clang__)\n  _Pragma("clang fp contract(fast)") return a * b + c;\n#else\n${gcc}\n#endif`;

export const isaTable: Record<TargetIsa, IsaRecord> = {
  avx512: {
    fma: viaClang("  return (f32x16)__builtin_ia32_vfmaddps512_mask(a, b, c, (unsigned short)-1, 4);"),
    comparesHalves: false,
    tile: { rows: 8, vectors: 3, lanes: 16 },
  },
  avx2: {
    fma: viaClang(`  f32x8 x[2], y[2], z[2];
  memcpy(x, &a, 64), memcpy(y, &b, 64), memcpy(z, &c, 64);
  z[0] = (f32x8)__builtin_ia32_vfmaddps256(x[0], y[0], z[0]);
  z[1] = (f32x8)__builtin_ia32_vfmaddps256(x[1], y[1], z[1]);
  memcpy(&c, z, 64);
  return c;`),
    comparesHalves: true,
    tile: { rows: 4, vectors: 3, lanes: 8 },
  },
  neon: {
    fma: viaClang(`  float32x4_t x[4], y[4], z[4];
  memcpy(x, &a, 64), memcpy(y, &b, 64), memcpy(z, &c, 64);
  for (int l = 0; l < 4; l++) z[l] = vfmaq_f32(z[l], x[l], y[l]);
  memcpy(&c, z, 64);
  return c;`),
    comparesHalves: false,
    tile: { rows: 8, vectors: 3, lanes: 4 },
  },
  plain: { fma: fmaByLane, comparesHalves: false, tile: { rows: 2, vectors: 1, lanes: 16 } },
};

export interface Helper {
  readonly name: string;
  readonly text: string;
}

/** A helper's name is the first word that is followed by a bracket. */
const helper = (text: string): Helper => ({ name: /(\w+)\((?!\()/.exec(text.replace(/\/\*[^]*?\*\//, ""))?.[1] as string, text });

/** A mask of all ones where the comparison holds; never where an operand is NaN. */
function comparison(name: string, symbol: string, type: "f32" | "i32", inHalves: boolean): Helper {
  const head = `INLINE i32x16 ${name}_${type}(${type}x16 a, ${type}x16 b)`;
  if (!inHalves) return helper(`${head} { return a ${symbol} b; }`);
  return helper(`${head} {
  ${type}x8 x[2], y[2];
  memcpy(x, &a, 64), memcpy(y, &b, 64);
  const i32x8 halves[2] = {x[0] ${symbol} y[0], x[1] ${symbol} y[1]};
  i32x16 mask;
  memcpy(&mask, halves, 64);
  return mask;
}`);
}

const comparisons = (inHalves: boolean): Helper[] =>
  (["f32", "i32"] as const).flatMap((type) => [
    comparison("less", "<", type, inHalves),
    comparison("lessEqual", "<=", type, inHalves),
    comparison("equal", "==", type, inHalves),
  ]);

const common = [
  "INLINE f32x16 splat_f32(float x) { return (f32x16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }",
  "INLINE i32x16 splat_i32(int32_t x) { return (i32x16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }",
  "INLINE i32x16 lane_index(void) { return (i32x16){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }",
  "INLINE f32x16 select_f32(i32x16 mask, f32x16 a, f32x16 b) { return (f32x16)((mask & (i32x16)a) | (~mask & (i32x16)b)); }",
  "INLINE i32x16 select_i32(i32x16 mask, i32x16 a, i32x16 b) { return (mask & a) | (~mask & b); }",
  "INLINE i32x16 add_i32(i32x16 a, i32x16 b) { return (i32x16)((u32x16)a + (u32x16)b); }",
  "INLINE i32x16 sub_i32(i32x16 a, i32x16 b) { return (i32x16)((u32x16)a - (u32x16)b); }",
  "INLINE i32x16 mul_i32(i32x16 a, i32x16 b) { return (i32x16)((u32x16)a * (u32x16)b); }",
  "INLINE f32x16 abs_f32(f32x16 a) { return (f32x16)((i32x16)a & splat_i32(0x7fffffff)); }",
  "INLINE i32x16 abs_i32(i32x16 a) { return select_i32(less_i32(a, splat_i32(0)), sub_i32(splat_i32(0), a), a); }",
  `/* a / b towards zero; 0 where b is 0, and wrapping where the quotient is beyond the int32 range. */
INLINE i32x16 divide_i32(i32x16 a, i32x16 b) {
  i32x16 r;
  for (int l = 0; l < 16; l++) r[l] = b[l] == 0 ? 0 : (int32_t)((int64_t)a[l] / b[l]);
  return r;
}`,
  `INLINE f32x16 sqrt_f32(f32x16 a) {
  f32x16 r;
  for (int l = 0; l < 16; l++) r[l] = __builtin_sqrtf(a[l]);
  return r;
}`,
  `/* Towards zero, clamped to the int32 range; NaN becomes 0. */
INLINE i32x16 truncate_f32(f32x16 a) {
  const f32x16 low = splat_f32(-2147483648.0f), high = splat_f32(2147483520.0f);
  a = select_f32(less_f32(a, low), low, select_f32(less_f32(high, a), high, a));
  return __builtin_convertvector(select_f32(equal_f32(a, a), a, splat_f32(0)), i32x16);
}`,
  "/* An index outside 0 .. size - 1 is moved to the nearer end. */\nINLINE int64_t clamp_index(int64_t index, int64_t size) { index = index < size ? index : size - 1; return index < 0 ? 0 : index; }",
  "INLINE f32x16 load_f32(const float *p) { return (f32x16)*(const f32x16u *)p; }",
  "INLINE i32x16 load_i32(const int32_t *p) { return (i32x16)*(const i32x16u *)p; }",
  "INLINE void store_f32(float *p, f32x16 v) { *(f32x16u *)p = (f32x16u)v; }",
  "INLINE void store_i32(int32_t *p, i32x16 v) { *(i32x16u *)p = (i32x16u)v; }",
  "/* The first count lanes; the others are zero, respectively left alone. */\nINLINE f32x16 load_part_f32(const float *p, int64_t count) { f32x16 v = splat_f32(0); memcpy(&v, p, (size_t)count * 4); return v; }",
  "INLINE i32x16 load_part_i32(const int32_t *p, int64_t count) { i32x16 v = splat_i32(0); memcpy(&v, p, (size_t)count * 4); return v; }",
  "INLINE void store_part_f32(float *p, f32x16 v, int64_t count) { memcpy(p, &v, (size_t)count * 4); }",
  "INLINE void store_part_i32(int32_t *p, i32x16 v, int64_t count) { memcpy(p, &v, (size_t)count * 4); }",
  `INLINE f32x16 load_strided_f32(const float *p, int64_t stride, int64_t count) {
  f32x16 v = splat_f32(0);
  for (int64_t l = 0; l < count; l++) v[l] = p[l * stride];
  return v;
}`,
  `INLINE i32x16 load_strided_i32(const int32_t *p, int64_t stride, int64_t count) {
  i32x16 v = splat_i32(0);
  for (int64_t l = 0; l < count; l++) v[l] = p[l * stride];
  return v;
}`,
  `/* Lanes from count on become fill. */
INLINE f32x16 keep_f32(f32x16 v, int64_t count, float fill) { return select_f32(less_i32(lane_index(), splat_i32((int32_t)count)), v, splat_f32(fill)); }`,
  `/* The fixed tree: lanes i and i + 8, then 4, 2, 1. */
INLINE float sum_lanes(f32x16 v) {
  float t[16];
  memcpy(t, &v, 64);
  for (int w = 8; w > 0; w /= 2) for (int l = 0; l < w; l++) t[l] += t[l + w];
  return t[0];
}`,
  "/* NaN if either is. */\nINLINE f32x16 larger_f32(f32x16 a, f32x16 b) { return select_f32(less_f32(b, a) | ~equal_f32(a, a), a, b); }",
  `INLINE float max_lanes(f32x16 v) {
  float t[16];
  memcpy(t, &v, 64);
  for (int w = 8; w > 0; w /= 2) for (int l = 0; l < w; l++) t[l] = t[l + w] < t[l] || t[l] != t[l] ? t[l] : t[l + w];
  return t[0];
}`,
].map(helper);

function functionHelpers(): Helper[] {
  return functionDefinitions.map(({ name, parameters, body }) => {
    const lines: string[] = [];
    let count = 0;
    const names = parameters === 1 ? ["x"] : Array.from({ length: parameters }, (_, index) => `x${index}`);
    const result = emitScalar(
      body(names.map((_, index) => argument("f32", index))),
      names,
      (line) => lines.push(`  ${line}\n`),
      () => `t${++count}`,
    );
    return {
      name: `${name}_f32`,
      text: `INLINE f32x16 ${name}_f32(${names.map((x) => `f32x16 ${x}`).join(", ")}) {\n${lines.join("")}  return ${result};\n}`,
    };
  });
}

/** C text of 16-bit words as 32-bit ones, zeros in the upper halves. GCC takes portable conversions of wide vectors apart, so it gets the instruction by name. */
function extended(isa: TargetIsa, lanes: 4 | 8 | 16): string {
  const portable = `return (f32x${lanes})(__builtin_convertvector((u16x${lanes})v, u32x${lanes}) << 16);`;
  const instruction = { avx512: "pmovzxwd512_mask(v, (i32x16){0}, (unsigned short)-1)", avx2: "pmovzxwd256(v)", neon: "", plain: "" }[isa];
  if (instruction === "") return `  ${portable}`;
  return `#if defined(__clang__)\n  ${portable}\n#else\n  return (f32x${lanes})((u32x${lanes})__builtin_ia32_${instruction} << 16);\n#endif`;
}

/** Stored bf16 as the f32 they stand for, a register's width of them. */
function widening(isa: TargetIsa): Helper {
  const { lanes } = isaTable[isa].tile;
  const suffix = lanes === 16 ? "f32" : `f32x${lanes}`;
  // The instructions take signed words.
  const word = isa === "avx512" || isa === "avx2" ? `i16x${lanes}` : `u16x${lanes}`;
  return helper(
    `INLINE f32x${lanes} widen_${suffix}(const uint16_t *p) {\n  ${word} v;\n  memcpy(&v, p, ${2 * lanes});\n${extended(isa, lanes)}\n}`,
  );
}

/** C text of a narrow fma; the accumulator comes last in each. */
const narrowFma = { 4: "vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b)", 8: "__builtin_ia32_vfmaddps256(a, b, c)" } as const;

/** Vectors as wide as the registers, for accumulators that must stay in them: compilers keep f32x16 in memory where no register holds it. */
const narrow = (lanes: 4 | 8): Helper[] => {
  const type = `f32x${lanes}`;
  return [
    `INLINE ${type} splat_${type}(float x) { return (${type}){${Array.from({ length: lanes }, () => "x").join(", ")}}; }`,
    `INLINE ${type} load_${type}(const float *p) { ${type} v; memcpy(&v, p, ${4 * lanes}); return v; }`,
    `INLINE void store_${type}(float *p, ${type} v) { memcpy(p, &v, ${4 * lanes}); }`,
    `INLINE ${type} fma_${type}(${type} a, ${type} b, ${type} c) {\n${viaClang(`  return (${type})${narrowFma[lanes]};`)}\n}`,
  ].map(helper);
};

const cached = new Map<TargetIsa, readonly Helper[]>();

/** All helpers of an instruction set. */
export function helpersOf(isa: TargetIsa): readonly Helper[] {
  let list = cached.get(isa);
  if (!list) {
    const fma = { name: "fma_f32", text: `INLINE f32x16 fma_f32(f32x16 a, f32x16 b, f32x16 c) {\n${isaTable[isa].fma}\n}` };
    const { comparesHalves, tile } = isaTable[isa];
    list = [
      ...comparisons(comparesHalves),
      ...common,
      fma,
      ...(tile.lanes === 16 ? [] : narrow(tile.lanes)),
      widening(isa),
      ...functionHelpers(),
    ];
    cached.set(isa, list);
  }
  return list;
}
