/** Cases of the quantile models' ops: attention with key groups, statistics of short series, the finish of a quantile forecast. */
import { sizeVar } from "../src/ir/dim.js";
import { padded } from "../src/ir/ops/state.js";
import { exact, rows, withBound, type Cases, type ConformanceCase } from "./conformance-cases.js";
import { adversarial } from "./conformance-values.js";
import { CaseBuilder, integers, noise, type Bound, type Fill } from "./graph-harness.js";

const heads = 4;
const blocks = sizeVar("blocks", 1, 64);
const slots = sizeVar("slots", 16, 1024);
const groupSlots = sizeVar("groupSlots", 16, 1024);

const list =
  (...values: number[]): Fill =>
  (count) =>
    Int32Array.from({ length: count }, (_, index) => values[index % values.length] as number);

const build = (
  name: string,
  bindings: Parameters<CaseBuilder["finish"]>[0],
  bound: Bound,
  body: (c: CaseBuilder) => void,
  stateSizes: Record<string, number> = {},
): ConformanceCase => {
  const c = new CaseBuilder(name, stateSizes);
  body(c);
  return withBound(c.finish(bindings), bound);
};

/** Lengths at the edges of blocks and beyond the capacity; rows beyond the cache; queries of one group in a row, and mixed. */
const lengths = list(1, 15, 16, 17, 30, 31, 32, 33, 64, 100, -5, 48);
const cacheRows = list(0, 0, 0, 0, 1, 1, 1, 1, 2, 9, -1, 0);
const groups = list(1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 5);

const maskedAttentions = (): ConformanceCase[] =>
  (
    [
      [16, 16, 4, list(1)],
      [64, 64, 2, integers(4, 0, 2)],
      [20, 24, 1, integers(5, 0, 2)],
      [8, 40, 4, list(1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0)],
    ] as const
  ).map(([d, valueWidth, keyHeads, keyGroups]) =>
    build(
      `maskedAttention ${d} -> ${valueWidth}, ${keyHeads} key heads`,
      [0, 1, 4, 12].map((count) => ({ rows: count, groupSlots: 64 })),
      { absolute: 4e-6, ulps: 4 },
      (c) => {
        const keys = c.state([3, keyHeads, blocks, d, 16], "f32", noise(5, 1, 31));
        const values = c.state([3, keyHeads, slots, padded(valueWidth)], "f32", noise(6));
        const vectors = [c.i32([rows], cacheRows), c.i32([rows], lengths), c.i32([3, groupSlots], keyGroups), c.i32([rows], groups)];
        c.output(c.add("maskedAttention", [c.f32([rows, heads, d], noise(1, 2)), ...vectors], { scale: 0.3, valueWidth }, [keys, values]));
      },
      { blocks: 4, slots: 64 },
    ),
  );

/** Three sequences of a few patches each: all observed, some, none. */
const backfills = (): ConformanceCase[] =>
  [0, 1, 3, 8, 1000].map((needed) =>
    build(`backfillStatistics until ${needed}`, [{}], { ulps: 1 }, (c) => {
      const mask: Fill = (count) => Int32Array.from({ length: count }, (_, i) => (i < 10 ? 1 : i < 25 ? Number(i % 3 === 0) : 0));
      const given = [c.f32([8, 5], noise(1)), c.i32([8, 5], mask), c.f32([8, 2], noise(2))];
      c.output(c.add("backfillStatistics", [...given, c.i32([3], list(0, 2, 5)), c.i32([3], list(2, 3, 3)), c.i32([1], list(needed))]));
    }),
  );

const finishes = (): ConformanceCase[] =>
  (
    [
      [5, 9, [-Infinity, Infinity]],
      [32, 9, [-1, 2]],
      [7, 4, [3, -3]],
      [16, 1, [0, 0]],
    ] as const
  ).flatMap(([patch, levels, [low, high]]) =>
    [noise(3, 4), adversarial(3)].map((values, index) =>
      build(
        `finishQuantiles ${levels} of ${patch}, ${index === 0 ? "noise" : "special values"}`,
        [{ rows: 0 }, { rows: 1 }, { rows: 6 }],
        exact,
        (c) => {
          const limits: Fill = (count) => Float32Array.from({ length: count }, (_, i) => (i % 2 === 0 ? low : high));
          c.output(c.add("finishQuantiles", [c.f32([rows, patch, levels], values), c.f32([rows, 2], limits)]));
        },
      ),
    ),
  );

/** groupAttention with fewer key heads than query heads and another value width. */
export const groupedVariates = (): ConformanceCase[] =>
  [1, 5, 17].map((variates) =>
    build(
      `groupAttention among ${variates}, grouped queries`,
      [{ rows: variates }, { rows: 2 * variates }],
      { absolute: 4e-6, ulps: 4 },
      (c) => {
        const first: Fill = (count) => Int32Array.from({ length: count }, (_, token) => Math.floor(token / variates) * variates);
        const [q, k, v] = [c.f32([rows, 4, 20], noise(1, 2)), c.f32([rows, 2, 20], noise(2, 2)), c.f32([rows, 2, 24], noise(3, 2))];
        const vectors = [c.i32([rows], first), c.i32([rows], list(1)), c.i32([rows], integers(4, 0, 2))];
        c.output(c.add("groupAttention", [q, k, v, ...vectors], { scale: 0.25, variates }));
      },
    ),
  );

export const quantileCases: Readonly<Record<string, Cases>> = {
  maskedAttention: maskedAttentions,
  backfillStatistics: backfills,
  finishQuantiles: finishes,
};
