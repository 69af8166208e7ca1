/** The words that quantile models add: attention with key groups, statistics of short series, and the finish of a forecast. */
import type { KeyValueState } from "./functional.js";
import { apply, type Tensor } from "./tensor.js";

/** Groups of cached keys i32 [cache rows, slots], slots a multiple of 16, and of each query i32 [tokens]: a query sees keys of its own group only. */
export interface KeyGroups {
  readonly keys: Tensor;
  readonly queries: Tensor;
}

/** Attention of q [tokens, heads, d] over those of the keys 0 .. length[n] - 1 of row[n] that are in the query's group. */
export function maskedAttention(
  q: Tensor,
  cache: KeyValueState,
  row: Tensor,
  length: Tensor,
  groups: KeyGroups,
  options: { readonly scale: number; readonly valueWidth: number },
): Tensor {
  return apply("maskedAttention", [q, row, length, groups.keys, groups.queries], { scale: options.scale, valueWidth: options.valueWidth }, [
    { state: cache.keys, writes: false },
    { state: cache.values, writes: false },
  ]);
}

/** Statistics f32 [patches, 2] with those of patches that saw fewer than needed [1] samples replaced; see the op. */
export const backfillStatistics = (
  values: Tensor,
  mask: Tensor,
  statistics: Tensor,
  sequences: { readonly first: Tensor; readonly count: Tensor },
  needed: Tensor,
): Tensor => apply("backfillStatistics", [values, mask, statistics, sequences.first, sequences.count, needed]);

/** Quantiles [rows, levels, P], cleaned, limited and sorted, of crossing ones [rows, P, levels]; limits [rows, 2]. */
export const finishQuantiles = (quantiles: Tensor, limits: Tensor): Tensor => apply("finishQuantiles", [quantiles, limits]);
