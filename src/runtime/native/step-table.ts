/** Step tables in native memory: a row per launch, of one run or of several runs that follow each other, each with addresses of its own. Must not know what runs them. */
import { evaluateDim, type SizeBindings } from "../../ir/dim.js";
import type { BufferReference, KernelLaunch, Units } from "../../ir/kernel.js";
import { stepFlags, stepLayout, type NativeBuffer, type NativeLibrary } from "./contract.js";

/** Where a run finds what its kernels read and write. */
export type AddressOf = (reference: BufferReference) => number;

const unitsOf = ({ dim, divide, times }: Units, sizes: SizeBindings): number =>
  Math.ceil(evaluateDim(dim, sizes) / divide) * evaluateDim(times, sizes);

/** Lists that rows of a table point to, behind its rows; equal ones of a launch lie there once. */
class Lists {
  readonly words: number[] = [];
  readonly #places = new Map<string, number>();

  constructor(private readonly start: number) {}

  /** Word of the table at which `list` begins. */
  place(list: readonly number[]): number {
    const key = list.join();
    const known = this.#places.get(key);
    if (known !== undefined) return known;
    const place = this.start + this.words.length;
    this.words.push(...list);
    this.#places.set(key, place);
    return place;
  }
}

/** The table of `runs.length` runs of `launches`, run after run; a prefix of it is the table of fewer. */
export function writeStepTable(
  library: NativeLibrary,
  launches: readonly KernelLaunch[],
  entries: ReadonlyMap<string, number>,
  sizes: SizeBindings,
  runs: readonly AddressOf[],
): NativeBuffer {
  const rowWords = stepLayout.bytes / 8;
  const count = launches.length * runs.length;
  const rows = new BigInt64Array(count * rowWords);
  const lists = new Lists(rows.length);
  const pointers: number[] = [];
  const numbers: number[] = [];
  launches.forEach((launch, index) => {
    const entry = entries.get(launch.symbol);
    if (entry === undefined) throw new Error(`kernel ${launch.symbol} was not built`);
    const sizesAt = lists.place(launch.numbers.map((dim) => evaluateDim(dim, sizes)));
    const units = BigInt(unitsOf(launch.units, sizes));
    runs.forEach((address, run) => {
      const row = run * launches.length + index;
      const base = row * rowWords;
      pointers[row] = lists.place(launch.pointers.map(address));
      numbers[row] = sizesAt;
      rows[base + stepLayout.entry / 8] = BigInt(entry);
      rows[base + stepLayout.units / 8] = units;
      rows[base + stepLayout.grain / 8] = BigInt(launch.grain);
      rows[base + stepLayout.flags / 8] = BigInt((row === 0 ? 0 : stepFlags.barrier) | (launch.divisible ? stepFlags.divisible : 0));
    });
  });
  const table = library.allocate(Math.max(64, (rows.length + lists.words.length) * 8));
  for (let row = 0; row < count; row++) {
    rows[row * rowWords + stepLayout.pointers / 8] = BigInt(table.address + (pointers[row] as number) * 8);
    rows[row * rowWords + stepLayout.numbers / 8] = BigInt(table.address + (numbers[row] as number) * 8);
  }
  const view = new BigInt64Array(table.view, 0, rows.length + lists.words.length);
  view.set(rows);
  lists.words.forEach((word, index) => (view[rows.length + index] = BigInt(word)));
  return table;
}
