/** Conversion of stored floating-point formats to float32. Exact for F16 and BF16, rounded once for F64. */

import type { StoredData, StoredDtype } from "../models/tensor-source.js";

/** Converts `stored` into `target` (equal lengths); returns false when `dtype` is not a floating-point format. */
export function floatsFromStored(dtype: StoredDtype, stored: StoredData, target: Float32Array): boolean {
  if (stored instanceof Uint16Array) {
    const bits = new Uint32Array(target.buffer, target.byteOffset, target.length);
    const isBrainFloat = dtype === "BF16";
    for (let index = 0; index < bits.length; index++) {
      const half = stored[index]!;
      bits[index] = isBrainFloat ? half << 16 : singleBitsOfHalf(half);
    }
    return true;
  }
  if (stored instanceof Float32Array || stored instanceof Float64Array) {
    target.set(stored);
    return true;
  }
  return false;
}

/** Float32 bit pattern of an IEEE half: sign 1, exponent 5 (bias 15), fraction 10. Keeps NaN payloads and signed zeros. */
export function singleBitsOfHalf(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return (sign | 0x7f800000 | (fraction << 13)) >>> 0;
  if (exponent !== 0) return (sign | ((exponent + 112) << 23) | (fraction << 13)) >>> 0;
  if (fraction === 0) return sign >>> 0;
  // Subnormal: value fraction * 2^-24. Shift the leading one into place; each shift lowers the exponent by one.
  const shift = Math.clz32(fraction) - 21;
  return (sign | ((113 - shift) << 23) | (((fraction << shift) & 0x3ff) << 13)) >>> 0;
}
