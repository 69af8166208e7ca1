/** The bf16 storage format: the upper half of an f32. Rounding to it, and widening back, which is exact. Must not know who stores what. */
import type { DType, HostArray } from "./dtype.js";

const wordsOf = (values: Float32Array): Uint32Array => new Uint32Array(values.buffer, values.byteOffset, values.length);

/** Nearest bf16 of each value as its 16 bits, ties to even; beyond the largest finite one it is infinity. A NaN stays one, made quiet. */
export function roundToBf16(values: Float32Array): Uint16Array {
  const words = wordsOf(values);
  const result = new Uint16Array(values.length);
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as number;
    result[i] = (word & 0x7fffffff) > 0x7f800000 ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return result;
}

/** The f32 that has the same value as each bf16. */
export function widenBf16(bits: Uint16Array): Float32Array {
  const result = new Float32Array(bits.length);
  const words = wordsOf(result);
  for (let i = 0; i < words.length; i++) words[i] = (bits[i] as number) << 16;
  return result;
}

/** Values as a buffer of `dtype` holds them: f32 values are rounded for bf16, everything else is taken as it is. */
export const asStored = (dtype: DType, values: HostArray): HostArray =>
  dtype === "bf16" && values instanceof Float32Array ? roundToBf16(values) : values;

/** The inverse: stored bf16 as the f32 values they stand for, everything else as it is. */
export const asRead = (values: HostArray): Exclude<HostArray, Uint16Array> => (values instanceof Uint16Array ? widenBf16(values) : values);
