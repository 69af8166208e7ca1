/** Filling missing samples before decoding (model-spec B.8.1). Filled samples stay unobserved, so it only matters in the last context patch. Plain arrays. */

export type Imputation = "none" | "ffill" | "linear";

/**
 * Missing samples (mask 0) filled in f32: none = 0; ffill = the last observed one; linear = on the line between its neighbours. Leading gaps become 0. Gives the values
 * themselves when none is missing.
 */
export function impute(values: Float32Array, mask: Uint8Array, imputation: Imputation): Float32Array {
  if (!mask.includes(0)) return values;
  const result = values.slice();
  let last = -1;
  for (let t = 0; t < values.length; t++) {
    if (mask[t] !== 1) {
      result[t] = imputation === "none" || last < 0 ? 0 : (values[last] as number);
      continue;
    }
    if (imputation === "linear" && last >= 0) fillLine(result, last, t);
    last = t;
  }
  return result;
}

/** Samples between two observed ones. */
function fillLine(values: Float32Array, from: number, to: number): void {
  const [start, end] = [values[from] as number, values[to] as number];
  for (let t = from + 1; t < to; t++) values[t] = start + ((end - start) * (t - from)) / (to - from);
}
