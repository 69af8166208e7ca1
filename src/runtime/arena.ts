/** Packs buffers with known lifetimes into one arena: the largest first, each at the lowest offset where nothing alive at the same time lies. */

export interface ArenaBuffer {
  readonly bytes: number;
  /** First and last launch that touch it, inclusive. */
  readonly first: number;
  readonly last: number;
}

const alignment = 64;
const aligned = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;

/** Offsets in bytes, aligned to 64, and the arena's size. With `reuse` off every buffer has a place of its own. */
export function packArena(buffers: readonly ArenaBuffer[], reuse: boolean): { offsets: number[]; bytes: number } {
  const offsets = new Array<number>(buffers.length).fill(0);
  let bytes = 0;
  if (!reuse) {
    buffers.forEach((buffer, index) => {
      offsets[index] = bytes;
      bytes += aligned(buffer.bytes);
    });
    return { offsets, bytes };
  }
  const placed: { start: number; end: number; first: number; last: number }[] = [];
  const order = buffers
    .map((_, index) => index)
    .sort((a, b) => (buffers[b] as ArenaBuffer).bytes - (buffers[a] as ArenaBuffer).bytes || a - b);
  for (const index of order) {
    const buffer = buffers[index] as ArenaBuffer;
    const size = aligned(buffer.bytes);
    let start = 0;
    for (const other of placed) {
      if (other.first > buffer.last || other.last < buffer.first) continue;
      if (start + size <= other.start) break;
      start = Math.max(start, other.end);
    }
    offsets[index] = start;
    bytes = Math.max(bytes, start + size);
    const entry = { start, end: start + size, first: buffer.first, last: buffer.last };
    const at = placed.findIndex((other) => other.start > start);
    placed.splice(at < 0 ? placed.length : at, 0, entry);
  }
  return { offsets, bytes };
}
