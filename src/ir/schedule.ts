/**
 * The vocabulary of schedules: how a kernel's work is cut up, never what it computes. Every schedule gives the same bits, because each output stays one chain of
 * fused multiply-adds with the inner axis ascending. The width of a weight panel is no choice: packing depends on it. Must not know how kernels are rendered.
 */

export interface ContractionSchedule {
  readonly kind: "contraction";
  /** Whether rows computed for x are computed by the contraction, once per thread and block, or by a kernel of their own before it. */
  readonly prologue: "fused" | "separate";
  /** Most rows of a block. A unit of work is a block times a panel. */
  readonly blockRows: number;
  /** What a thread's successive units go through first: the panels of one block, or the blocks of one panel. */
  readonly inner: "panels" | "rows";
  /** Units that one thread gets at least, and boundaries between threads are multiples of. */
  readonly grain: number;
  /** Rows and columns of the accumulator tile; the columns divide a panel. */
  readonly tileRows: number;
  readonly tileColumns: number;
  /**
   * Bytes of weights fetched ahead of their use while the first tile of a panel is computed; 0 = none. In pieces only whether it is 0 counts: up to three rows then take
   * two panels side by side and fetch nothing.
   */
  readonly prefetchBytes: number;
  /** Depth of the pieces in which a block takes up the inner axis, its sums stored between them; 0 = in one piece. */
  readonly chunkDepth: number;
  /** Panels whose sums are kept while the inner axis advances; from 2 on each piece of x is copied for them, where x lies in memory. */
  readonly panelsTogether: number;
}

export interface RowSchedule {
  readonly kind: "rows";
  /** Rows that one thread gets at least. */
  readonly grain: number;
}

export type KernelSchedule = ContractionSchedule | RowSchedule;

type Choice<T> = { readonly [Field in keyof T]: (value: T[Field]) => boolean };

const from =
  (low: number, high: number) =>
  (value: number): boolean =>
    Number.isInteger(value) && value >= low && value <= high;

/** What each field may be; nothing outside can be rendered. */
const contractionChoices: Choice<ContractionSchedule> = {
  kind: (value) => value === "contraction",
  prologue: (value) => value === "fused" || value === "separate",
  blockRows: from(1, 4096),
  inner: (value) => value === "panels" || value === "rows",
  grain: from(1, 1 << 20),
  tileRows: from(1, 28),
  tileColumns: (value) => [8, 12, 16, 24, 48].includes(value),
  prefetchBytes: from(0, 1 << 20),
  chunkDepth: (value) => value === 0 || (from(64, 1 << 16)(value) && value % 16 === 0),
  panelsTogether: from(1, 64),
};

const rowChoices: Choice<RowSchedule> = { kind: (value) => value === "rows", grain: from(1, 1 << 20) };

function inside<T extends object>(choices: Choice<T>, schedule: T): boolean {
  const names = Object.keys(choices) as (keyof T)[];
  return Object.keys(schedule).length === names.length && names.every((name) => choices[name](schedule[name]));
}

/** Whether a value, read from a file for example, is a schedule of this vocabulary. */
export function isSchedule(value: unknown): value is KernelSchedule {
  if (typeof value !== "object" || value === null) return false;
  const schedule = value as KernelSchedule;
  return schedule.kind === "rows" ? inside(rowChoices, schedule) : inside(contractionChoices, schedule);
}

/** The fields in which a schedule differs from another, as `blockRows=128 inner=rows`; empty when in none. */
export function scheduleDifference(schedule: KernelSchedule, usual: KernelSchedule): string {
  const before = new Map(Object.entries(usual));
  return Object.entries(schedule)
    .filter(([field, value]) => before.get(field) !== value)
    .map(([field, value]) => `${field}=${value}`)
    .join(" ");
}
