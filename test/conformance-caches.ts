/** Cases of caches that are values or pages: appending to a value, and attention over operands or through block tables. */
import { sizeVar } from "../src/ir/dim.js";
import { padded } from "../src/ir/ops/state.js";
import { exact, rowCounts, rows, withBound, type Cases, type ConformanceCase } from "./conformance-cases.js";
import { adversarial } from "./conformance-values.js";
import { CaseBuilder, noise, type Bound, type Fill } from "./graph-harness.js";

const heads = 3;
const pages = sizeVar("pages", 1, 64);
const tableBlocks = sizeVar("tableBlocks", 1, 64);
const attentionBound: Bound = { absolute: 4e-6, ulps: 4 };

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

/** Tokens of rows in disorder, some outside, onto a cache that grows or stays. */
const appended = (op: "appendedKeys" | "appendedValues"): ConformanceCase[] =>
  [undefined, 3].flatMap((extent) =>
    [1, 16, 20].map((d) =>
      build(`${op} of width ${d}${extent ? " into a larger cache" : ""}`, rowCounts, exact, (c) => {
        const isKeys = op === "appendedKeys";
        const old = c.f32(isKeys ? [3, heads, 2, d, 16] : [3, heads, 32, padded(d)], noise(4));
        const grown: Record<string, number> = extent === undefined ? {} : { extent: isKeys ? extent : 37 };
        const [row, slot] = [list(0, 1, 2, 2, 3, -1, 0), list(0, 15, 16, 17, 1, 2, 64, -1, 31)];
        c.output(c.add(op, [old, c.f32([rows, heads, d], adversarial(2)), c.i32([rows], row), c.i32([rows], slot)], grown));
      }),
    ),
  );

const lengths = list(0, 1, 15, 16, 17, 40, 48, 33, 100, -5, 31, 32);
const cacheRows = list(0, 1, 1, 1, 1, 2, 0, 0, 0, 0, 9, -1);
const prefixVectors = [list(0, 0, 0, 0, 1), list(0, 1, 9, 16, 17, 20, 5, 48, 70, -3, 64)];
const counts = [0, 1, 4, 12].map((count) => ({ rows: count }));

const overValues = (shared: boolean): ConformanceCase[] =>
  [16, 24].map((d) =>
    build(`attention ${d} over values${shared ? " and a shared prefix" : ""}`, counts, attentionBound, (c) => {
      const vectors = [cacheRows, lengths, ...(shared ? prefixVectors : [])].map((fill) => c.i32([rows], fill));
      // Values that fill their last block of keys in part.
      const own = [c.f32([3, heads, 3, d, 16], noise(5)), c.f32([3, heads, 41, padded(d)], noise(6))];
      const prefix = shared ? [c.state([2, heads, 4, d, 16], "f32", noise(7)), c.state([2, heads, 64, padded(d)], "f32", noise(8))] : [];
      c.output(
        c.add(
          "attention",
          [c.f32([rows, heads, d], noise(1, 2)), ...vectors, ...own],
          { scale: 0.3, valueWidth: d, cache: "values" },
          prefix,
        ),
      );
    }),
  );

/** Paths with keys of their own after a prefix that most of them share: as many groups as go together, some alone, and tokens of one row among them. */
const manyPaths = (): ConformanceCase[] =>
  [16, 72].map((d) =>
    build(
      `attention ${d} of many paths over one prefix`,
      [8, 16, 21, 40].map((count) => ({ rows: count })),
      attentionBound,
      (c) => {
        const paths: Fill = (count) => Int32Array.from({ length: count }, (_, token) => (token < 24 ? token : 24));
        const prefixRow: Fill = (count) => Int32Array.from({ length: count }, (_, token) => (token >= 16 && token < 20 ? 1 : 0));
        const prefixLength = list(37, 37, 37, 37, 37, 37, 37, 37, 64, 0, 16, 33);
        const length = list(38, 40, 41, 45, 50, 55, 60, 62, 65, 3, 20, 0);
        const own = [c.state([25, heads, 2, d, 16], "f32", noise(5)), c.state([25, heads, 32, padded(d)], "f32", noise(6))];
        const prefix = [c.state([2, heads, 4, d, 16], "f32", noise(7)), c.state([2, heads, 64, padded(d)], "f32", noise(8))];
        const vectors = [paths, length, prefixRow, prefixLength].map((fill) => c.i32([rows], fill));
        c.output(
          c.add("attention", [c.f32([rows, heads, d], noise(1, 2)), ...vectors], { scale: 0.3, valueWidth: d }, [...own, ...prefix]),
        );
      },
    ),
  );

const throughTables = (shared: boolean): ConformanceCase[] =>
  (
    [
      [16, 3],
      [20, 1],
    ] as const
  ).map(([d, keyHeads]) =>
    build(
      `attention ${d}, ${keyHeads} key heads, through block tables${shared ? " and a shared prefix" : ""}`,
      counts.map((sizes) => ({ ...sizes, tableBlocks: 3 })),
      attentionBound,
      (c) => {
        const pool = (seed: number): [ReturnType<typeof c.state>, ReturnType<typeof c.state>] => [
          c.state([pages, keyHeads, 1, d, 16], "f32", noise(seed, 1, 31)),
          c.state([pages, keyHeads, 16, padded(d)], "f32", noise(seed + 1)),
        ];
        const vectors = [cacheRows, lengths, ...(shared ? prefixVectors : [])].map((fill) => c.i32([rows], fill));
        // Pages out of order, used twice, and outside the pool.
        const tables = [
          c.i32([3, tableBlocks], list(4, 0, 6, 2, 2, 9, -1, 5)),
          ...(shared ? [c.i32([2, tableBlocks], list(3, 1, 0, 6, 5, 4))] : []),
        ];
        c.output(
          c.add(
            "attention",
            [c.f32([rows, heads, d], noise(1, 2)), ...vectors, ...tables],
            { scale: 0.25, valueWidth: d, cache: "paged" },
            shared ? [...pool(5), ...pool(9)] : pool(5),
          ),
        );
      },
      { pages: 7 },
    ),
  );

export const cacheCases: Readonly<Record<string, Cases>> = {
  appendedKeys: () => appended("appendedKeys"),
  appendedValues: () => appended("appendedValues"),
};

/** Forms of attention beside those over states. */
export const attentionForms: Cases = () => [
  ...overValues(false),
  ...overValues(true),
  ...throughTables(false),
  ...throughTables(true),
  ...manyPaths(),
];
