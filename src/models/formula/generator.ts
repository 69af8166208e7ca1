/**
 * The weight formula: a tensor's values as a pure function of its name, a seed, a scale and an offset.
 * Knows nothing of models or layouts. All integer arithmetic is modulo 2^32; the bits are the same on every machine.
 */

/** Golden ratio in 32 bits: step of the element counter and offset of the seed. */
const counterStep = 0x9e3779b1;
const seedOffset = 0x9e3779b9;

/** FNV-1a hash of the UTF-8 bytes of `text`, as an unsigned 32-bit integer. */
export function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/** The 32-bit finaliser of MurmurHash3, a bijection that spreads every input bit over all output bits. */
export function mix(value: number): number {
  let bits = value | 0;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}

/** Stream constant of one tensor under one seed. */
export function streamOf(name: string, seed: number): number {
  return mix(fnv1a(name) ^ mix(seed + seedOffset));
}

/**
 * Fills `target` with elements first, first + 1, ... of a formula tensor: `float32(offset + scale * u)` with u an odd multiple of 2^-24 in (-1, 1).
 * The sum is evaluated in float64 and rounded once, by the store.
 */
export function fillFormula(target: Float32Array, stream: number, scale: number, offset: number, first = 0): void {
  const count = target.length;
  const key = stream | 0;
  // The counter advances by addition: one multiplication less per element than index * step.
  let counter = Math.imul(first, counterStep);
  for (let index = 0; index < count; index++) {
    let bits = counter ^ key;
    counter = (counter + counterStep) | 0;
    bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
    bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
    bits ^= bits >>> 16;
    target[index] = offset + scale * ((2 * (bits >>> 8) + 1) * 2 ** -24 - 1);
  }
}
