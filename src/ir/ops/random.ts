/** Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011) and the draws made of them. The C runtime renders the same integers. */

const multiplier0 = 0xd2511f53;
const multiplier1 = 0xcd9e8d57;
const key0 = 0x9e3779b9;
const key1 = 0xbb67ae85;

function multiplyHighLow(a: number, b: number): [number, number] {
  const [aHigh, aLow, bHigh, bLow] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const low = aLow * bLow;
  const middle1 = aHigh * bLow + (low >>> 16);
  const middle2 = aLow * bHigh + (middle1 & 0xffff);
  const high = aHigh * bHigh + Math.floor(middle1 / 65536) + Math.floor(middle2 / 65536);
  return [high >>> 0, Math.imul(a, b) >>> 0];
}

/** Four 32-bit words of the stream at one counter. */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter.map((word) => word >>> 0) as [number, number, number, number];
  let [k0, k1] = [key[0] >>> 0, key[1] >>> 0];
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = multiplyHighLow(multiplier0, c0);
    const [high1, low1] = multiplyHighLow(multiplier1, c2);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + key0) >>> 0;
    k1 = (k1 + key1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** Uniform in (0, 1): the midpoint of one of 2^32 equal intervals, so neither 0 nor 1 occurs. */
export const uniform = (word: number): number => (word + 0.5) * 2 ** -32;

/** Student-t by the rejection-free polar form (Bailey 1994): sqrt(df (u^(-2/df) - 1)) cos(2 pi v). */
export function studentT(u: number, v: number, degrees: number): number {
  return Math.sqrt(degrees * Math.expm1((-2 / degrees) * Math.log(u))) * Math.cos(2 * Math.PI * v);
}
