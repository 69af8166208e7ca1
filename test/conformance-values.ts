/** Values on which arithmetic goes wrong when it goes wrong, and fills made of them. */
import type { Fill } from "./graph-harness.js";
import { generator } from "./graph-harness.js";

const subnormal = 2 ** -149;
const largest = 3.4028234663852886e38;

/** Zeros of both signs, subnormals, the ends of the range, infinities, NaN, and the places where the functions change formula or overflow. */
export const specialFloats: readonly number[] = [
  0,
  -0,
  1,
  -1,
  0.5,
  -0.5,
  1.5,
  2,
  -2,
  3,
  20,
  20.000002,
  -20,
  NaN,
  Infinity,
  -Infinity,
  largest,
  -largest,
  subnormal,
  -subnormal,
  2 ** -126,
  -(2 ** -126),
  2 ** -127,
  1e-30,
  -1e-30,
  16777216,
  16777217,
  2147483648,
  -2147483648,
  2147483520,
  88.72283,
  88.72284,
  89.415985,
  -87.33655,
  -103.97,
  -104,
  90,
  -105,
  0.9999999,
  1.0000001,
  1e9,
  1e10,
  -0.99999994,
];

export const specialIntegers: readonly number[] = [
  0, 1, -1, 2, -2, 3, 7, -7, 65535, 65537, -65537, 2147483647, -2147483648, -2147483647, 123456789, 16777217,
];

/** Every special value in turn, then noise whose scale goes from 2^-140 to 2^120. */
export const adversarial =
  (seed: number): Fill =>
  (count) => {
    const random = generator(seed);
    return Float32Array.from({ length: count }, (_, index) => {
      const special = specialFloats[(index + seed * 7) % (2 * specialFloats.length)];
      return special ?? (random() * 2 - 1) * (random() < 0.5 ? 4 : 2 ** (random() * 260 - 140));
    });
  };

/** Element i of the first operand and element i of the second run through all pairs of special values. */
export const firstOfPairs: Fill = (count) =>
  Float32Array.from({ length: count }, (_, index) => specialFloats[index % specialFloats.length] as number);
export const secondOfPairs: Fill = (count) =>
  Float32Array.from(
    { length: count },
    (_, index) => specialFloats[Math.floor(index / specialFloats.length) % specialFloats.length] as number,
  );
export const firstIntegers: Fill = (count) =>
  Int32Array.from({ length: count }, (_, index) => specialIntegers[index % specialIntegers.length] as number);
export const secondIntegers: Fill = (count) =>
  Int32Array.from(
    { length: count },
    (_, index) => specialIntegers[Math.floor(index / specialIntegers.length) % specialIntegers.length] as number,
  );
