/**
 * Text that opens every generated C file: vector types, the few operations C has no portable word for, and the mathematical functions. One table entry per
 * instruction set; everything else in generated code is the same text for all of them. Sixteen virtual lanes everywhere, so every width gives the same bits.
 */
import { argument } from "../ir/scalar.js";
import { ScalarEmitter } from "./c-scalar.js";
import { functionDefinitions } from "./functions.js";

export type TargetIsa = "avx512" | "avx2" | "neon" | "plain";

interface IsaRecord {
  /** Body of `fma_f32(a, b, c)`: a * b + c rounded once, lane by lane. */
  readonly fma: string;
  /** Body of `sqrt_f32(a)`. */
  readonly sqrt: string;
  /** Rows and 16-lane vectors of the accumulator tile that fits the register file. */
  readonly tile: { readonly rows: number; readonly vectors: number };
}

const lanes = (expression: string): string => `f32x16 r; for (int l = 0; l < 16; l++) r[l] = ${expression}; return r;`;
const viaClang = (gcc: string): string =>
  ["#if defined(__clang__)", '  _Pragma("clang fp contract(fast)") return a * b + c;', "#else", `  ${gcc}`, "#endif"].join("\n");

export const isaTable: Record<TargetIsa, IsaRecord> = {
  avx512: {
    fma: viaClang("return (f32x16)__builtin_ia32_vfmaddps512_mask(a, b, c, (unsigned short)-1, 4);"),
    sqrt: lanes("__builtin_sqrtf(a[l])"),
    tile: { rows: 8, vectors: 3 },
  },
  avx2: {
    fma: viaClang(
      "f32x8 r[2], x[2], y[2], z[2]; __builtin_memcpy(x, &a, 64); __builtin_memcpy(y, &b, 64); __builtin_memcpy(z, &c, 64);\n" +
        "  r[0] = (f32x8)__builtin_ia32_vfmaddps256(x[0], y[0], z[0]); r[1] = (f32x8)__builtin_ia32_vfmaddps256(x[1], y[1], z[1]);\n" +
        "  f32x16 out; __builtin_memcpy(&out, r, 64); return out;",
    ),
    sqrt: lanes("__builtin_sqrtf(a[l])"),
    tile: { rows: 6, vectors: 1 },
  },
  neon: { fma: viaClang(lanes("__builtin_fmaf(a[l], b[l], c[l])")), sqrt: lanes("__builtin_sqrtf(a[l])"), tile: { rows: 4, vectors: 1 } },
  plain: { fma: lanes("__builtin_fmaf(a[l], b[l], c[l])"), sqrt: lanes("__builtin_sqrtf(a[l])"), tile: { rows: 2, vectors: 1 } },
};

const types = `#include <stdint.h>
#include <string.h>
#define INLINE static inline __attribute__((always_inline, unused))
typedef float f32x16 __attribute__((vector_size(64)));
typedef float f32x8 __attribute__((vector_size(32)));
typedef float f32x16u __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t i32x16u __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
`;

const helpers = `INLINE f32x16 splat_f32(float x) { return (f32x16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
INLINE i32x16 splat_i32(int32_t x) { return (i32x16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
INLINE f32x16 select_f32(i32x16 mask, f32x16 a, f32x16 b) { return (f32x16)((mask & (i32x16)a) | (~mask & (i32x16)b)); }
INLINE i32x16 select_i32(i32x16 mask, i32x16 a, i32x16 b) { return (mask & a) | (~mask & b); }
INLINE f32x16 abs_f32(f32x16 a) { return (f32x16)((i32x16)a & splat_i32(0x7fffffff)); }
INLINE i32x16 abs_i32(i32x16 a) { return select_i32(a < splat_i32(0), -a, a); }
/* Towards zero, clamped to the int32 range; NaN becomes 0. */
INLINE i32x16 truncate_f32(f32x16 a) {
  const f32x16 low = splat_f32(-2147483648.0f), high = splat_f32(2147483520.0f);
  a = select_f32(a < low, low, select_f32(high < a, high, a));
  return __builtin_convertvector(select_f32(a == a, a, splat_f32(0)), i32x16);
}
INLINE f32x16 load_f32(const float *p) { return (f32x16)*(const f32x16u *)p; }
INLINE i32x16 load_i32(const int32_t *p) { return (i32x16)*(const i32x16u *)p; }
INLINE void store_f32(float *p, f32x16 v) { *(f32x16u *)p = (f32x16u)v; }
INLINE void store_i32(int32_t *p, i32x16 v) { *(i32x16u *)p = (i32x16u)v; }
/* The first count lanes; the others are zero, respectively left alone. */
INLINE f32x16 load_part_f32(const float *p, int64_t count) { f32x16 v = splat_f32(0); memcpy(&v, p, (size_t)count * 4); return v; }
INLINE i32x16 load_part_i32(const int32_t *p, int64_t count) { i32x16 v = splat_i32(0); memcpy(&v, p, (size_t)count * 4); return v; }
INLINE void store_part_f32(float *p, f32x16 v, int64_t count) { memcpy(p, &v, (size_t)count * 4); }
INLINE void store_part_i32(int32_t *p, i32x16 v, int64_t count) { memcpy(p, &v, (size_t)count * 4); }
INLINE f32x16 load_strided_f32(const float *p, int64_t stride, int64_t count) { f32x16 v = splat_f32(0); for (int64_t l = 0; l < count; l++) v[l] = p[l * stride]; return v; }
INLINE i32x16 load_strided_i32(const int32_t *p, int64_t stride, int64_t count) { i32x16 v = splat_i32(0); for (int64_t l = 0; l < count; l++) v[l] = p[l * stride]; return v; }
INLINE i32x16 lane_index(void) { return (i32x16){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }
/* Lanes from count on become fill. */
INLINE f32x16 keep_f32(f32x16 v, int64_t count, float fill) { return select_f32(lane_index() < splat_i32((int32_t)count), v, splat_f32(fill)); }
/* The fixed tree: lanes i and i + 8, then 4, 2, 1. */
INLINE float sum_lanes(f32x16 v) {
  float t[16]; memcpy(t, &v, 64);
  for (int w = 8; w > 0; w /= 2) for (int l = 0; l < w; l++) t[l] += t[l + w];
  return t[0];
}
INLINE f32x16 larger_f32(f32x16 a, f32x16 b) { return select_f32((b < a) | ~(a == a), a, b); }
INLINE float max_lanes(f32x16 v) {
  float t[16]; memcpy(t, &v, 64);
  for (int w = 8; w > 0; w /= 2) for (int l = 0; l < w; l++) t[l] = t[l + w] < t[l] || t[l] != t[l] ? t[l] : t[l + w];
  return t[0];
}
`;

function renderFunctions(): string {
  return functionDefinitions
    .map(({ name, parameters, body }) => {
      const lines: string[] = [];
      let count = 0;
      const emitter = new ScalarEmitter(
        (line) => lines.push(`  ${line}`),
        () => `t${count++}`,
      );
      const names = Array.from({ length: parameters }, (_, index) => `x${index}`);
      const result = emitter.emit(body(names.map((_, index) => argument("f32", index))), names);
      return `INLINE f32x16 ${name}_f32(${names.map((x) => `f32x16 ${x}`).join(", ")}) {\n${lines.join("\n")}\n  return ${result};\n}\n`;
    })
    .join("");
}

const cached = new Map<TargetIsa, string>();

/** The opening text for `isa`. */
export function prelude(isa: TargetIsa): string {
  let text = cached.get(isa);
  if (text === undefined) {
    const { fma, sqrt } = isaTable[isa];
    text = `${types}INLINE f32x16 fma_f32(f32x16 a, f32x16 b, f32x16 c) {\n${fma}\n}\n${helpers}INLINE f32x16 sqrt_f32(f32x16 a) { ${sqrt} }\n${renderFunctions()}\n`;
    cached.set(isa, text);
  }
  return text;
}
