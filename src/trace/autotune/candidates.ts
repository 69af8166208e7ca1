/**
 * The schedules worth trying for a kernel at given sizes: the usual one with one decision changed each, a handful per family. Only what changes the work that is
 * really done is proposed. Must not know how candidates are measured.
 */
import { usualContractionSchedule } from "../../codegen/schedule.js";
import { pairRows, panelsOf } from "../../codegen/tiles.js";
import { evaluateDim, productOf, type SizeBindings } from "../../ir/dim.js";
import type { ContractionKernel, Kernel, RowKernel } from "../../ir/kernel.js";
import type { ContractionSchedule, KernelSchedule, RowSchedule } from "../../ir/schedule.js";
import { hasPrologue } from "../../passes/schedule-kernels.js";
import type { Device } from "../../runtime/device.js";
import { classBound } from "./families.js";

export interface Setting {
  readonly sizes: SizeBindings;
  readonly threads: number;
  readonly target: Device["target"];
}

/** Tiles whose sums and weights fit the registers, beside the usual one. Few of them, because tiles are what takes time to compile. */
const tiles: Record<Device["target"], readonly (readonly [rows: number, columns: number])[]> = {
  avx512: [
    [9, 48],
    [6, 48],
  ],
  avx2: [[4, 24]],
  neon: [[6, 16]],
  plain: [[4, 16]],
};
/** Rows up to which a contraction waits for its weights rather than for its arithmetic. */
const fewRows = 16;
/** Most bytes of x that a thread keeps in scratch. */
const scratchBytes = 4 << 20;

type Changes = Partial<ContractionSchedule>;

/** Changed decisions for rows that are all in one block: where weights stream from, and how. */
function streamingChanges(usual: ContractionSchedule, rows: number): Changes[] {
  const cut = usual.chunkDepth > 0 && usual.panelsTogether === 1;
  // Tiles of a cut block share the fetching of what comes next; a distance is only what the least rows go by, or not.
  if (rows > (cut ? pairRows : fewRows)) return [];
  const distances = cut ? [usual.prefetchBytes === 0 ? 8192 : 0] : [0, 2048, 8192, 16384];
  return distances.filter((bytes) => bytes !== usual.prefetchBytes).map((prefetchBytes) => ({ prefetchBytes }));
}

/** Tiles that do other work than the usual one on this many rows. */
function tileChanges(usual: ContractionSchedule, rows: number, target: Device["target"]): Changes[] {
  const effect = (tileRows: number, tileColumns: number): string => `${Math.min(tileRows, rows)}x${tileColumns}`;
  const seen = new Set([effect(usual.tileRows, usual.tileColumns)]);
  if (rows <= fewRows) return [];
  return tiles[target].flatMap(([tileRows, tileColumns]) => {
    const what = effect(tileRows, tileColumns);
    if (seen.has(what)) return [];
    seen.add(what);
    // Blocks of whole tiles: a tile cut off at every block's end would be what is measured.
    const blockRows = Math.max(tileRows, Math.floor(usual.blockRows / tileRows) * tileRows);
    return [{ tileRows, tileColumns, blockRows: rows <= usual.blockRows ? usual.blockRows : blockRows }];
  });
}

/** Heights of a block, and the order in which blocks and panels are gone through. */
function blockChanges(kernel: ContractionKernel, usual: ContractionSchedule, rows: number, threads: number): Changes[] {
  const panels = kernel.segments.reduce((sum, segment) => sum + panelsOf(segment.width), 0);
  const inScratch = hasPrologue(kernel);
  const even = Math.ceil(classBound(rows) / threads / 8) * 8;
  const blocks = (height: number): number => Math.ceil(rows / height);
  const heights = [even, 32, 64, 128, 512, 1024].filter(
    (height, index, all) =>
      blocks(height) !== blocks(usual.blockRows) &&
      all.findIndex((other) => blocks(other) === blocks(height)) === index &&
      (!inScratch || height * kernel.depth * 4 <= scratchBytes),
  );
  const other: Changes[] = heights.map((blockRows) => ({ blockRows }));
  // A thread that gets whole blocks computes their prologue alone; one that gets single panels needs that of every block.
  const byRows: Changes[] =
    threads > 1 && even < rows && even * kernel.depth * 4 <= scratchBytes ? [{ blockRows: even, grain: panels }] : [];
  const rowsFirst: Changes[] =
    !inScratch && (usual.chunkDepth === 0 || usual.panelsTogether === 1) && rows > 64
      ? [{ inner: "rows" }, { inner: "rows", blockRows: 64 }]
      : [];
  return [...other, ...byRows, ...rowsFirst].slice(0, 8);
}

/** How the inner axis is taken up in pieces, where x can be cut. */
function depthChanges(usual: ContractionSchedule, rows: number, depth: number): Changes[] {
  if (usual.chunkDepth === 0 || rows <= fewRows) return [];
  if (usual.panelsTogether === 1) {
    const pieces = [64, 128, 256].filter((piece) => piece < depth && piece !== usual.chunkDepth).map((chunkDepth) => ({ chunkDepth }));
    return depth > 1024 ? [...pieces, { chunkDepth: 512, panelsTogether: 8 }] : pieces;
  }
  const chunks = [0, 256, 1024].filter((chunk) => chunk < depth).map((chunkDepth) => ({ chunkDepth }));
  return [...chunks, { panelsTogether: 4 }, { panelsTogether: 16 }];
}

function contractionCandidates(
  kernel: ContractionKernel,
  usual: ContractionSchedule,
  { sizes, threads, target }: Setting,
): KernelSchedule[] {
  const rows = evaluateDim(productOf(kernel.x.shape.slice(0, -1)), sizes);
  if (rows === 0) return [];
  const apart: Changes[] = hasPrologue(kernel) ? [{ ...usualContractionSchedule(kernel.depth, false, target), prologue: "separate" }] : [];
  return [
    ...streamingChanges(usual, rows),
    ...tileChanges(usual, rows, target),
    ...apart,
    ...depthChanges(usual, rows, kernel.depth),
    ...(rows > fewRows ? blockChanges(kernel, usual, rows, threads) : []),
  ].map((changes) => ({ ...usual, ...changes }));
}

function rowCandidates(kernel: RowKernel, usual: RowSchedule, { sizes, threads }: Setting): KernelSchedule[] {
  const rows = evaluateDim(productOf(kernel.rowShape), sizes);
  if (threads === 1 || rows < 2) return [];
  // One thread alone, and borders between threads on whole lines of the caches.
  return [classBound(rows), 16]
    .filter((grain, index, all) => (index === 0 || grain < rows) && all.indexOf(grain) === index)
    .map((grain) => ({ ...usual, grain }));
}

/** Candidates beside the usual schedule; none for a kernel with nothing to choose, or without rows. */
export function candidatesOf(kernel: Kernel, usual: KernelSchedule, setting: Setting): KernelSchedule[] {
  if (kernel.kind === "contraction" && usual.kind === "contraction") return contractionCandidates(kernel, usual, setting);
  if (kernel.kind === "rows" && usual.kind === "rows") return rowCandidates(kernel, usual, setting);
  return [];
}

/** The changes of several winners together; a later one wins where both decide the same. */
export function combined(usual: KernelSchedule, winners: readonly KernelSchedule[]): KernelSchedule {
  const changes = winners.map((winner) =>
    Object.entries(winner).filter(([field, value]) => value !== usual[field as keyof KernelSchedule]),
  );
  return { ...usual, ...Object.fromEntries(changes.flat()) } as KernelSchedule;
}
