/** Text that opens every generated C file: vector types and those of the helper functions that the file uses. */
import { helpersOf, type TargetIsa } from "./helpers.js";

/** Names of the standard headers, by the word that needs them. Declared one by one: to read the headers takes a third of what a small kernel takes. */
const standard: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    ["int16_t", "int32_t", "int64_t", "uint16_t", "uint32_t", "uint64_t", "size_t"].map((name) => [
      name,
      `typedef __${name.slice(0, -2).toUpperCase()}_TYPE__ ${name};\n`,
    ]),
  ),
  memcpy: "void *memcpy(void *to, const void *from, __SIZE_TYPE__ bytes);\n",
  memset: "void *memset(void *to, int byte, __SIZE_TYPE__ bytes);\n",
};

const types = `#define INLINE static inline __attribute__((always_inline, unused))
#define OUTLINE static __attribute__((noinline, unused))
typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef float f32x16u __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t i32x16u __attribute__((vector_size(64), aligned(4), may_alias));
`;

/** What few files need: by the word that needs it. */
const rare: Readonly<Record<string, string>> = {
  f32x4: "typedef float f32x4 __attribute__((vector_size(16)));\n",
  f32x8: "typedef float f32x8 __attribute__((vector_size(32)));\n",
  i32x4: "typedef int32_t i32x4 __attribute__((vector_size(16)));\n",
  i32x8: "typedef int32_t i32x8 __attribute__((vector_size(32)));\n",
  u32x4: "typedef uint32_t u32x4 __attribute__((vector_size(16)));\n",
  u32x8: "typedef uint32_t u32x8 __attribute__((vector_size(32)));\n",
  u64x2: "typedef uint64_t u64x2 __attribute__((vector_size(16)));\n",
  u64x4: "typedef uint64_t u64x4 __attribute__((vector_size(32)));\n",
  u64x8: "typedef uint64_t u64x8 __attribute__((vector_size(64)));\n",
  i16x8: "typedef int16_t i16x8 __attribute__((vector_size(16)));\n",
  i16x16: "typedef int16_t i16x16 __attribute__((vector_size(32)));\n",
  u16x4: "typedef uint16_t u16x4 __attribute__((vector_size(8)));\n",
  u16x8: "typedef uint16_t u16x8 __attribute__((vector_size(16)));\n",
  u16x16: "typedef uint16_t u16x16 __attribute__((vector_size(32)));\n",
  vfmaq_f32: "#include <arm_neon.h>\n",
};

const words = (text: string): string[] => text.match(/[A-Za-z_]\w*/g) ?? [];

/** The opening text for a file that goes on with `body`. Equal bodies give equal text. */
export function prelude(isa: TargetIsa, body: string): string {
  const used = new Set([...words(body), ...words(types)]);
  const kept: string[] = [];
  for (const { name, text } of [...helpersOf(isa)].reverse()) {
    if (!used.has(name)) continue;
    kept.unshift(text);
    for (const word of words(text)) used.add(word);
  }
  const needed = (texts: Readonly<Record<string, string>>): string =>
    Object.entries(texts)
      .map(([name, text]) => (used.has(name) ? text : ""))
      .join("");
  const few = needed(rare);
  for (const word of words(few)) used.add(word);
  return `${needed(standard)}${types}${few}${kept.join("\n")}\n`;
}
