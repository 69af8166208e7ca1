/** The schedule that a kernel has unless another is asked for: constants measured on AVX-512, tiles that fit each instruction set's registers. */
import type { ContractionSchedule, KernelSchedule, RowSchedule } from "../ir/schedule.js";
import { isaTable, type TargetIsa } from "./helpers.js";

/** Rows of one block: so many that a panel's cost of being loaded vanishes, so few that their part of x stays in the second-level cache. */
const blockRows = 256;
/** Most bytes of scratch for a block of x that a prologue computes. */
const prologueBytes = 1 << 20;
/** Depth from which a contraction is cut along k, so that a block's part of x stays in the second-level cache while all panels pass. */
const deep = 1536;
/**
 * Depth of the pieces of a panel that stay in the first-level cache beside the rows that pass. All tiles then share the fetching of what comes next: left to the first
 * tile of a panel, it is what the others wait for (measured on AVX-512: 64 rows with weights from memory take 0.8 of the time, 16 rows 0.7).
 */
const firstLevelDepth: Partial<Record<TargetIsa, number>> = { avx512: 96, avx2: 96 };

/**
 * How far ahead a panel's first tile asks for weights. In pieces it is 0 that counts, and only for the least rows: two panels are then taken up side by side and
 * nothing is asked for. So where vectors are narrow, which was measured on Zen 3: any prefetch instruction slows down what the processor fetches by itself, by a tenth
 * with two threads and by a third with one. On AVX-512 panels taken up together, some lines of each asked for by turns, are never slower.
 */
const aheadBytes: Record<TargetIsa, number> = { avx512: 8192, avx2: 0, neon: 8192, plain: 8192 };

/** About `near`, so that all pieces of an inner axis are alike. */
const evenPieces = (depth: number, near: number): number => Math.ceil(depth / Math.max(1, Math.round(depth / near)) / 16) * 16;

/** Most rows per block, a multiple of 8; fewer when deep rows are written to scratch. */
const largestBlock = (depth: number, copied: boolean): number =>
  copied ? Math.max(8, Math.min(blockRows, Math.floor(prologueBytes / (depth * 4) / 8) * 8)) : blockRows;

/** `copied`: x is computed or gathered into scratch, block by block. */
export function usualContractionSchedule(depth: number, copied: boolean, isa: TargetIsa): ContractionSchedule {
  const { rows, vectors, lanes } = isaTable[isa].tile;
  const near = firstLevelDepth[isa];
  return {
    kind: "contraction",
    prologue: "fused",
    blockRows: largestBlock(depth, copied || near !== undefined),
    inner: "panels",
    grain: 1,
    tileRows: rows,
    tileColumns: vectors * lanes,
    prefetchBytes: aheadBytes[isa],
    chunkDepth: near ? Math.max(64, evenPieces(depth, near)) : depth >= deep && !copied ? 512 : 0,
    panelsTogether: near ? 1 : 8,
  };
}

export const usualRowSchedule: RowSchedule = { kind: "rows", grain: 1 };

/** Whether an instruction set has vectors for a schedule's tile. */
export const fitsTarget = (schedule: KernelSchedule, isa: TargetIsa): boolean =>
  schedule.kind === "rows" || schedule.tileColumns % isaTable[isa].tile.lanes === 0;
