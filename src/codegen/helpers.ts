/**
 * The vector functions that generated C may call, in an order in which each uses only earlier ones. One record per instruction set where C has no portable word;
 * everything else is the same text for all of them. Sixteen virtual lanes everywhere, so every width gives the same bits.
 */
import { formOf, type Lanes } from "./c-scalar.js";
import { comparisons, helper, mathematicalFunctions, vectorFunctions, type Helper } from "./vector-functions.js";

export type TargetIsa = "avx512" | "avx2" | "neon" | "plain";

interface IsaRecord {
  /** Body of `fma_f32(a, b, c)`: a * b + c rounded once, lane by lane. */
  readonly fma: string;
  /** Compare in two halves: compilers take whole vectors apart, lane by lane and with a branch each, where no register holds one. */
  readonly comparesHalves: boolean;
  /** Rows and vectors of the accumulator tile that fits the register file; `lanes` of its vectors, 16 where the registers are as wide. */
  readonly tile: {
    readonly rows: number;
    readonly vectors: number;
    readonly lanes: Lanes;
    /** Constraint letter of a vector register where instructions can be given by name: the tile fills nearly all of them, and its sums and weights must stay where they are. */
    readonly register?: string;
    /** Steps of the inner axis in one turn of the loop: the fewer instructions beside the fmas, the better. */
    readonly unrolled: number;
  };
}

const fmaByLane = "  f32x16 r;\n  for (int l = 0; l < 16; l++) r[l] = __builtin_fmaf(a[l], b[l], c[l]);\n  return r;";
const viaClang = (gcc: string): string =>
  `#if defined(__clang__)\n  _Pragma("clang fp contract(fast)") return a * b + c;\n#else\n${gcc}\n#endif`;

export const isaTable: Record<TargetIsa, IsaRecord> = {
  avx512: {
    fma: viaClang("  return (f32x16)__builtin_ia32_vfmaddps512_mask(a, b, c, (unsigned short)-1, 4);"),
    comparesHalves: false,
    tile: { rows: 8, vectors: 3, lanes: 16, register: "v", unrolled: 4 },
  },
  avx2: {
    fma: viaClang(`  f32x8 x[2], y[2], z[2];
  memcpy(x, &a, 64), memcpy(y, &b, 64), memcpy(z, &c, 64);
  z[0] = (f32x8)__builtin_ia32_vfmaddps256(x[0], y[0], z[0]);
  z[1] = (f32x8)__builtin_ia32_vfmaddps256(x[1], y[1], z[1]);
  memcpy(&c, z, 64);
  return c;`),
    comparesHalves: true,
    tile: { rows: 6, vectors: 2, lanes: 8, register: "x", unrolled: 4 },
  },
  neon: {
    fma: viaClang(`  float32x4_t x[4], y[4], z[4];
  memcpy(x, &a, 64), memcpy(y, &b, 64), memcpy(z, &c, 64);
  for (int l = 0; l < 4; l++) z[l] = vfmaq_f32(z[l], x[l], y[l]);
  memcpy(&c, z, 64);
  return c;`),
    comparesHalves: false,
    tile: { rows: 8, vectors: 3, lanes: 4, unrolled: 1 },
  },
  plain: { fma: fmaByLane, comparesHalves: false, tile: { rows: 2, vectors: 1, lanes: 16, unrolled: 1 } },
};

/** What no width of vectors concerns. */
const scalarHelpers = [
  "/* An index outside 0 .. size - 1 is moved to the nearer end. */\nINLINE int64_t clamp_index(int64_t index, int64_t size) { index = index < size ? index : size - 1; return index < 0 ? 0 : index; }",
].map(helper);

/** C text of 16-bit words as 32-bit ones, zeros in the upper halves. GCC takes portable conversions of wide vectors apart, so it gets the instruction by name. */
function extended(isa: TargetIsa, lanes: Lanes): string {
  const portable = `return (f32x${lanes})(__builtin_convertvector((u16x${lanes})v, u32x${lanes}) << 16);`;
  const instruction = { avx512: "pmovzxwd512_mask(v, (i32x16){0}, (unsigned short)-1)", avx2: "pmovzxwd256(v)", neon: "", plain: "" }[isa];
  if (instruction === "") return `  ${portable}`;
  return `#if defined(__clang__)\n  ${portable}\n#else\n  return (f32x${lanes})((u32x${lanes})__builtin_ia32_${instruction} << 16);\n#endif`;
}

/** Stored bf16 as the f32 they stand for, a register's width of them. */
function widening(isa: TargetIsa): Helper {
  const { lanes } = isaTable[isa].tile;
  const suffix = formOf("f32", lanes);
  // The instructions take signed words.
  const word = isa === "avx512" || isa === "avx2" ? `i16x${lanes}` : `u16x${lanes}`;
  return helper(
    `INLINE f32x${lanes} widen_${suffix}(const uint16_t *p) {\n  ${word} v;\n  memcpy(&v, p, ${2 * lanes});\n${extended(isa, lanes)}\n}`,
  );
}

/** C text of a narrow fma; the accumulator comes last in each. */
const narrowFma = { 4: "vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b)", 8: "__builtin_ia32_vfmaddps256(a, b, c)" } as const;

/** A select by the instruction, which compilers do not find by themselves: masks are all ones or zeros in every lane. */
const blend = helper(
  "INLINE f32x8 select_f32x8(i32x8 mask, f32x8 a, f32x8 b) { return (f32x8)__builtin_ia32_blendvps256(b, a, (f32x8)mask); }",
);

/** Vectors as wide as the registers: compilers keep f32x16 in memory where no register holds it. */
const narrow = (lanes: 4 | 8): Helper[] => {
  const type = `f32x${lanes}`;
  const fma = `INLINE ${type} fma_${type}(${type} a, ${type} b, ${type} c) {\n${viaClang(`  return (${type})${narrowFma[lanes]};`)}\n}`;
  const functions = vectorFunctions(lanes).map((one) => (one.name === blend.name ? blend : one));
  return [...comparisons(lanes), ...functions, helper(fma), ...mathematicalFunctions(lanes)];
};

/** What keeps a tile's values in their registers. */
function kept({ lanes, register }: IsaRecord["tile"]): Helper[] {
  if (register === undefined) return [];
  const [type, form] = [`f32x${lanes}`, formOf("f32", lanes)];
  return [
    helper(
      `/* The same as fma_${form}, into the register of the sum: compilers take that of a factor as well, and then move sums about. */\nINLINE ${type} gained_${form}(${type} a, ${type} b, ${type} sum) { __asm__("vfmadd231ps %2, %1, %0" : "+${register}"(sum) : "${register}"(a), "${register}"(b)); return sum; }`,
    ),
  ];
}

const cached = new Map<TargetIsa, readonly Helper[]>();

/** All helpers of an instruction set. */
export function helpersOf(isa: TargetIsa): readonly Helper[] {
  let list = cached.get(isa);
  if (!list) {
    const fma = { name: "fma_f32", text: `INLINE f32x16 fma_f32(f32x16 a, f32x16 b, f32x16 c) {\n${isaTable[isa].fma}\n}` };
    const { comparesHalves, tile } = isaTable[isa];
    list = [
      ...scalarHelpers,
      ...comparisons(16, comparesHalves),
      ...vectorFunctions(16),
      fma,
      ...mathematicalFunctions(16),
      ...(tile.lanes === 16 ? [] : narrow(tile.lanes)),
      ...kept(tile),
      widening(isa),
    ];
    cached.set(isa, list);
  }
  return list;
}
