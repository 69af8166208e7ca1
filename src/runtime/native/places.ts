/** Where the inputs and outputs of a run lie in native memory, as arrays over it. Must not know what computes them. */
import { evaluateDim, type Dim, type SizeBindings } from "../../ir/dim.js";
import { dtypes, viewAs, type DType, type HostArray } from "../../ir/dtype.js";
import type { RunRequest, RunResult } from "../device.js";

/** An input or output: an array over the memory where kernels find or leave it. */
export interface Place {
  readonly name: string;
  readonly values: HostArray;
}

/** What a program says of an input or output. */
interface Described {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly Dim[];
}

const elementsOf = ({ shape }: Described, sizes: SizeBindings): number =>
  shape.reduce<number>((total, dim) => total * evaluateDim(dim, sizes), 1);

export const bytesOf = (described: Described, sizes: SizeBindings): number => elementsOf(described, sizes) * dtypes[described.dtype].bytes;

export const placeAt = (described: Described, sizes: SizeBindings, memory: ArrayBuffer, offset: number): Place => ({
  name: described.name,
  values: viewAs(described.dtype, memory, offset, elementsOf(described, sizes)),
});

/** Copies a request's inputs to their places. Throws an Error for one that is missing or of another size. */
export function fillPlaces(places: readonly Place[], { inputs }: RunRequest, program: string): void {
  for (const { name, values } of places) {
    const given = inputs.get(name);
    if (!given) throw new Error(`input "${name}" of ${program} is missing`);
    if (given.length !== values.length)
      throw new Error(`input "${name}" of ${program} has ${given.length} values, expected ${values.length}`);
    values.set(given);
  }
}

/** Copies of outputs, which belong to the caller. */
export function copyPlaces(places: readonly Place[]): RunResult {
  const results: RunResult = new Map();
  for (const { name, values } of places) results.set(name, values.slice());
  return results;
}
