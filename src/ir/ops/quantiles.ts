/** Routines of quantile models: statistics of short series, and the finish of a quantile forecast. */
import { sameDim, type Dim } from "../dim.js";
import type { Node } from "../graph.js";
import type { Evaluation, OpSpec, Value } from "../ops.js";
import { refuse } from "./shapes.js";

/** Smallest scale that statistics of a short series may have. */
export const shortScaleFloor = 1e-6;

function evaluateBackfill({ inputs, output }: Evaluation): void {
  const [values, mask, statistics, first, count, needed] = inputs as [Value, Value, Value, Value, Value, Value];
  const patch = values.shape[1] as number;
  const need = needed.data[0] as number;
  for (let s = 0; s < first.data.length; s++) {
    const [from, to] = [(first.data[s] as number) * patch, ((first.data[s] as number) + (count.data[s] as number)) * patch];
    const found: number[] = [];
    for (let i = from; i < to && found.length < need; i++) if (mask.data[i]) found.push(values.data[i] as number);
    const mean = found.reduce((a, b) => a + b, 0) / Math.max(found.length, 1);
    const spread = found.reduce((sum, x) => sum + (x - mean) * (x - mean), 0);
    const scale = Math.max(Math.sqrt(spread / Math.max(found.length - 1, 1)), shortScaleFloor);
    let seen = 0;
    for (let token = from / patch; token < to / patch; token++) {
      for (let i = token * patch; i < (token + 1) * patch; i++) seen += mask.data[i] ? 1 : 0;
      output[2 * token] = seen < need ? mean : (statistics.data[2 * token] as number);
      output[2 * token + 1] = seen < need ? scale : (statistics.data[2 * token + 1] as number);
    }
  }
}

/** Ascending, NaN last. */
const before = (a: number, b: number): number =>
  Number.isNaN(a) ? (Number.isNaN(b) ? 0 : 1) : Number.isNaN(b) ? -1 : a < b ? -1 : a > b ? 1 : 0;

function evaluateFinish({ inputs, shape, output }: Evaluation): void {
  const [x, limits] = inputs as [Value, Value];
  const [rows, levels, patch] = shape as [number, number, number];
  for (let r = 0; r < rows; r++) {
    const [low, high] = [limits.data[2 * r] as number, limits.data[2 * r + 1] as number];
    const tidy = Array.from({ length: levels }, (_, level) => {
      const line = Array.from({ length: patch }, (_, p) => x.data[(r * patch + p) * levels + level] as number);
      const finite = line.filter(Number.isFinite);
      const [most, least] = [finite.reduce((a, b) => Math.max(a, b), -Infinity), finite.reduce((a, b) => Math.min(a, b), Infinity)];
      return line
        .map((value) => (value === Infinity ? most : value === -Infinity ? least : value))
        .map((value) => (value < low ? low : value))
        .map((value) => (value > high ? high : value));
    });
    for (let p = 0; p < patch; p++) {
      const column = tidy.map((line) => line[p] as number).sort(before);
      column.forEach((value, level) => (output[(r * levels + level) * patch + p] = value));
    }
  }
}

export const quantileOps: readonly OpSpec[] = [
  {
    /**
     * Statistics where few samples were seen yet: for every patch of a sequence through whose end fewer than `needed` samples are observed, location and scale
     * (at least 1e-6) of the sequence's first `needed` observed samples, else those given. Operands: values f32 and mask i32 [patches, P], statistics f32
     * [patches, 2], first and count i32 [sequences], needed i32 [1]; 0 or less leaves the statistics as they are.
     */
    name: "backfillStatistics",
    class: "routine",
    shape(inputs, _attributes, _states, label) {
      const [values, mask, statistics, first, count, needed] = inputs as [Node, Node, Node, Node, Node, Node];
      if (inputs.length !== 6 || values.dtype !== "f32" || mask.dtype !== "i32" || values.shape.length !== 2 || mask.shape.length !== 2)
        refuse("backfillStatistics", label, inputs, "values must be f32 and mask i32 [patches, P]");
      const vectors = [first, count];
      if (!vectors.every(({ dtype, shape }) => dtype === "i32" && shape.length === 1 && sameDim(shape[0] as Dim, first.shape[0] as Dim)))
        refuse("backfillStatistics", label, inputs, "first and count must be i32 [sequences]");
      if (statistics.dtype !== "f32" || statistics.shape[1] !== 2 || !sameDim(statistics.shape[0] as Dim, values.shape[0] as Dim))
        refuse("backfillStatistics", label, inputs, "the statistics must be f32 [patches, 2]");
      if (needed.dtype !== "i32" || needed.shape.length !== 1 || needed.shape[0] !== 1)
        refuse("backfillStatistics", label, inputs, "needed must be i32 [1]");
      return statistics.shape;
    },
    dtype: () => "f32",
    evaluate: evaluateBackfill,
  },
  {
    /**
     * From crossing quantiles to a forecast, [rows, levels, P]: in each row and level +inf becomes the largest finite value of the patch and -inf the smallest
     * (with no finite value, +inf becomes -inf and -inf +inf), then values are limited to limits[row] = (low, high), then the levels of each sample are
     * sorted, NaN last. Operands: x f32 [rows, P, levels], limits f32 [rows, 2].
     */
    name: "finishQuantiles",
    class: "routine",
    shape(inputs, _attributes, _states, label) {
      const [x, limits] = inputs as [Node, Node];
      const [rows, patch, levels] = x.shape as [Dim, Dim, Dim];
      if (x.dtype !== "f32" || x.shape.length !== 3 || typeof patch !== "number" || typeof levels !== "number")
        refuse("finishQuantiles", label, inputs, "x must be f32 [rows, P, levels]");
      if (limits?.dtype !== "f32" || limits.shape[1] !== 2 || !sameDim(limits.shape[0] as Dim, rows))
        refuse("finishQuantiles", label, inputs, "limits must be f32 [rows, 2]");
      return [rows, levels, patch];
    },
    dtype: () => "f32",
    evaluate: evaluateFinish,
  },
];
