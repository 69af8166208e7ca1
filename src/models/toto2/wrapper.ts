/** What the published GluonTS wrapper does to series before decoding (model-spec B.8.1): context rule, left padding, imputation. Plain arrays. */
import { impute, type Imputation } from "./imputation.js";
import type { Entry, Range } from "./samples.js";

/** Samples of context that the wrapper feeds: as many as leave positions for the horizon within `contextLength`, in whole patches, at least one. */
export function wrapperPast(contextLength: number, horizon: number, patch: number): number {
  const ahead = (Math.ceil(horizon / patch) - 1) * patch;
  return Math.max(patch, Math.floor((contextLength - ahead) / patch) * patch);
}

export interface SeriesRows {
  /** [V][T] NaN = missing. */
  readonly target: readonly Float32Array[];
  /** [E][T + future] NaN = missing. */
  readonly known: readonly Float32Array[];
  /** [V][T] 1 = observed; absent: whatever is not NaN. */
  readonly mask?: readonly Uint8Array[];
  /** [V] range of the target rows whose values are all finite, where it is known beforehand. */
  readonly ranges?: readonly (Range | undefined)[];
  /** [V + E] series ids; absent: one group. */
  readonly groups?: Int32Array;
}

export interface EntryOptions {
  /** Samples of context, whole patches. Longer series are cut, shorter ones padded on the left with unobserved zeros. */
  readonly past: number;
  readonly patch: number;
  readonly futurePatches: number;
  readonly imputation: Imputation;
}

/** 1 = finite, and not masked. Most rows are, whole: they take one look at each sample. */
function seen(row: Float32Array, given?: Uint8Array): Uint8Array {
  const result = new Uint8Array(row.length).fill(1);
  // What is not finite less itself is NaN.
  for (let t = 0; t < row.length; t++) if ((row[t] as number) - (row[t] as number) !== 0) result[t] = 0;
  if (given) for (let t = 0; t < row.length; t++) if (given[t] === 0) result[t] = 0;
  return result;
}

let allSeen = new Uint8Array(0);

/** A row of ones, shared: masks are only read. */
function seenThroughout(length: number): Uint8Array {
  if (allSeen.length !== length) allSeen = new Uint8Array(length).fill(1);
  return allSeen;
}

/** One series as the decoder takes it. Targets are imputed after cutting and padding, covariates with zeros. */
export function wrapperEntry(
  { target, known, mask, groups, ranges }: SeriesRows,
  { past, patch, futurePatches, imputation }: EntryOptions,
): Entry {
  const length = (target[0] as Float32Array).length;
  // Nothing to cut, to pad or to fill: as most series are.
  if (length === past && known.length === 0 && ranges?.every(Boolean) && !mask?.some((row) => row.includes(0)))
    return {
      values: target.map((row) => row.slice()),
      mask: target.map((row) => seenThroughout(row.length)),
      ranges,
      patches: past / patch,
      groups: groups ?? new Int32Array(target.length),
      future: [],
      futureMask: [],
    };
  const future = futurePatches * patch;
  const window = <T extends Float32Array | Uint8Array>(row: T, make: (size: number) => T): T => {
    const result = make(past);
    const kept = row.subarray(Math.max(0, length - past), length);
    result.set(kept, past - kept.length);
    return result;
  };
  const [floats, bytes] = [(n: number) => new Float32Array(n), (n: number) => new Uint8Array(n)];
  const rows = [
    ...target.map((row, v) => ({ row, mask: seen(row, mask?.[v]), imputation })),
    ...known.map((row) => ({ row, mask: seen(row), imputation: "none" as const })),
  ];
  const masks = rows.map((each) => window(each.mask, bytes));
  const ahead = <T extends Float32Array | Uint8Array>(row: T, make: (size: number) => T): T => {
    const result = make(future);
    result.set(row.subarray(length, length + future));
    return result;
  };
  return {
    values: rows.map((each, v) => impute(window(each.row, floats), masks[v] as Uint8Array, each.imputation)),
    mask: masks,
    patches: past / patch,
    groups: groups ?? new Int32Array(rows.length),
    future: known.map((row) => {
      const part = ahead(row, floats);
      return impute(part, seen(part), "none");
    }),
    futureMask: known.map((row) => ahead(seen(row), bytes)),
  };
}
