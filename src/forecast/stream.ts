/**
 * The random stream of a series: a hash of its id, so that a series draws the same numbers wherever it stands in a batch.
 */

/** 32-bit FNV-1a over the UTF-8 bytes of `id`; 0 without an id. */
export function seriesStream(id: string | undefined): number {
  if (id === undefined) return 0;
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(id)) {
    hash ^= byte;
    hash = Math.imul(hash, 0x01000193);
  }
  return hash >>> 0;
}
