/** The mean of rows, for answers that are a mean of sample paths or of quantiles. */

/** [length] of [rows * length]: sums in f64, rows ascending, rounded to f32 once. */
export function averageRows(values: Float32Array, rows: number, length: number): Float32Array {
  const result = new Float32Array(length);
  for (let index = 0; index < length; index++) {
    let sum = 0;
    for (let row = 0; row < rows; row++) sum += values[row * length + index] as number;
    result[index] = sum / rows;
  }
  return result;
}
