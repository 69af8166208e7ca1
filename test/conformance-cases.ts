/** Cases of every op that row kernels compute: elementwise, reductions, row ops, views and copies. */
import { sizeVar } from "../src/ir/dim.js";
import type { Attributes } from "../src/ir/graph.js";
import { adversarial, firstIntegers, firstOfPairs, secondIntegers, secondOfPairs } from "./conformance-values.js";
import { CaseBuilder, integers, noise, type Bound, type Fill, type GraphCase } from "./graph-harness.js";

export interface ConformanceCase extends GraphCase {
  readonly bound: Bound;
}

/** What an op's cases are made by; called once. */
export type Cases = () => ConformanceCase[];

export const rows = sizeVar("rows", 0, 4096);
export const widths = [1, 15, 16, 17, 47, 48, 49];
export const rowCounts = [0, 1, 8, 9].map((count) => ({ rows: count }));
/** The same bits as the reference: operations that round once. */
export const exact: Bound = {};

export const withBound = (graphCase: GraphCase, bound: Bound): ConformanceCase => ({ ...graphCase, bound });

function unary(
  op: string,
  bound: Bound,
  options: { readonly attributes?: Attributes; readonly integer?: boolean } = {},
): ConformanceCase[] {
  const make = (title: string, shape: readonly (number | typeof rows)[], counts: readonly number[]): ConformanceCase => {
    const c = new CaseBuilder(`${op} ${title}`);
    const x = options.integer ? c.i32(shape, firstIntegers) : c.f32(shape, adversarial(1));
    c.output(c.add(op, [x], options.attributes ?? {}));
    return withBound(c.finish(counts.map((count) => ({ rows: count }))), bound);
  };
  const kind = options.integer ? "i32 " : "";
  return [make(`${kind}[rows]`, [rows], [0, 1, 15, 16, 17, 300]), make(`${kind}[rows, 49]`, [rows, 49], [0, 1, 9])];
}

function binary(op: string, integer: boolean): ConformanceCase[] {
  const first = integer ? firstIntegers : firstOfPairs;
  const second = integer ? secondIntegers : secondOfPairs;
  const c = new CaseBuilder(`${op} all pairs of special ${integer ? "integers" : "floats"}`);
  const dtype = integer ? "i32" : "f32";
  c.output(c.add(op, [c.input([rows, 49], dtype, first), c.input([rows, 49], dtype, second)]));
  return [withBound(c.finish([{ rows: 0 }, { rows: 1 }, { rows: 36 }]), exact)];
}

/** Operands of every broadcast shape, in one graph each. */
function broadcasts(): ConformanceCase[] {
  const pairs: [string, readonly (number | typeof rows)[], readonly (number | typeof rows)[]][] = [
    ["column", [rows, 17], [rows, 1]],
    ["row", [rows, 17], [17]],
    ["scalar", [rows, 17], []],
    ["both ways", [rows, 1], [1, 17]],
    ["middle", [3, 1, 5], [1, 4, 1]],
    ["to a last axis that is data", [3, 1], [3, rows]],
    ["from a vector that is data", [rows], [3, rows]],
    ["two scalars", [], []],
    ["fixed vector", [5], [5]],
  ];
  return pairs.map(([title, a, b]) => {
    const c = new CaseBuilder(`sub broadcast: ${title}`);
    c.output(c.add("sub", [c.f32(a, noise(1)), c.f32(b, noise(2))]));
    return withBound(c.finish(rowCounts), exact);
  });
}

function reductions(op: string, bound: Bound, attributes: Attributes = {}, fill: Fill = noise(5, 1, 7)): ConformanceCase[] {
  return widths.flatMap((width) => {
    const c = new CaseBuilder(`${op} of width ${width}`);
    c.output(c.add(op, [c.f32([rows, width], fill)], attributes));
    return withBound(c.finish(rowCounts), bound);
  });
}

/** Rows that are special as a whole: NaN or infinities inside, all equal, all -inf, huge, subnormal, negative zero. */
function specialRows(op: string, attributes: Attributes = {}): ConformanceCase {
  const kinds: ((i: number) => number)[] = [
    (i) => (i === 17 ? NaN : i),
    (i) => (i === 3 ? Infinity : i),
    (i) => (i === 18 ? -Infinity : i),
    () => -Infinity,
    () => 7,
    (i) => (i % 2 === 0 ? 1e18 : -1e18),
    () => 2 ** -149,
    () => -0,
    (i) => (i === 5 ? 88 : -88),
  ];
  const c = new CaseBuilder(`${op} of special rows`);
  c.output(
    c.add(
      op,
      [
        c.f32([kinds.length, 19], (count) =>
          Float32Array.from({ length: count }, (_, i) => (kinds[Math.floor(i / 19)] as (at: number) => number)(i % 19)),
        ),
      ],
      attributes,
    ),
  );
  return withBound(c.finish([{}]), { ulps: 8, absolute: 1e-37, ofMagnitude: 40 });
}

function single(name: string, build: (c: CaseBuilder) => void, sizes = rowCounts, bound: Bound = exact): ConformanceCase {
  const c = new CaseBuilder(name);
  build(c);
  return withBound(c.finish(sizes), bound);
}

const emptyRow = (op: string, attributes: Attributes = {}): ConformanceCase =>
  single(`${op} of width 0`, (c) => c.output(c.add(op, [c.f32([rows, 0], noise(1))], attributes)));

function selections(): ConformanceCase[] {
  return [
    single("select by mask", (c) =>
      c.output(c.add("select", [c.i32([rows, 17], integers(3, 0, 1)), c.f32([rows, 17], adversarial(2)), c.f32([17], adversarial(3))])),
    ),
    single("select by any integer", (c) =>
      c.output(c.add("select", [c.i32([rows, 1], integers(3, -2, 2)), c.i32([rows, 5], firstIntegers), c.i32([], secondIntegers)])),
    ),
  ];
}

function constants(): ConformanceCase[] {
  return [NaN, Infinity, -Infinity, -0, 0.1, 1e-45, 3.4028234663852886e38].map((value) =>
    single(`constant ${Object.is(value, -0) ? "-0" : value}`, (c) => {
      c.output(c.add("constant", [], { value, dtype: "f32" }));
      c.output(c.add("add", [c.f32([rows, 3], adversarial(4)), c.add("constant", [], { value, dtype: "f32" })]));
      c.output(c.add("broadcast", [c.add("constant", [], { value, dtype: "f32" })], { shape: [2, 3] }));
    }),
  );
}

function views(): Record<string, Cases> {
  const x = (c: CaseBuilder): ReturnType<CaseBuilder["f32"]> => c.f32([rows, 3, 6], adversarial(6));
  return {
    reshape: () => [
      single("reshape of rows", (c) => c.output(c.add("reshape", [x(c)], { shape: [rows, 18] }))),
      single("reshape that no strides express", (c) => {
        const turned = c.add("permute", [c.f32([4, 3, 6], noise(2))], { order: [2, 0, 1] });
        c.output(c.add("neg", [c.add("reshape", [turned], { shape: [8, 9] })]));
      }),
      single("reshape of a strided value into its parts", (c) => {
        const cut = c.add("slice", [c.f32([rows, 12], noise(3))], { axis: 1, start: 2, length: 8 });
        c.output(c.add("neg", [c.add("reshape", [cut], { shape: [rows, 2, 4] })]));
      }),
      single("reshape to and from a scalar", (c) =>
        c.output(c.add("reshape", [c.add("reshape", [c.f32([1, 1], noise(1))], { shape: [] })], { shape: [1] })),
      ),
    ],
    slice: () => [
      single("slice of the last axis", (c) => c.output(c.add("slice", [x(c)], { axis: 2, start: 1, length: 4 }))),
      single("slice of a middle axis, used", (c) => c.output(c.add("neg", [c.add("slice", [x(c)], { axis: 1, start: 2, length: 1 })]))),
      single("slice of nothing", (c) => c.output(c.add("slice", [x(c)], { axis: 2, start: 6, length: 0 }))),
      single("slice of slices", (c) => {
        const inner = c.add("slice", [c.f32([9, 20], noise(8))], { axis: 1, start: 3, length: 17 });
        c.output(c.add("max", [c.add("slice", [inner], { axis: 0, start: 4, length: 5 })]));
      }),
    ],
    permute: () => [
      single("permute", (c) => c.output(c.add("permute", [x(c)], { order: [2, 0, 1] }))),
      single(
        "transpose, reduced",
        (c) => c.output(c.add("softmax", [c.add("permute", [c.f32([17, 9], noise(3))], { order: [1, 0] })])),
        [{ rows: 0 }],
        { ulps: 16 },
      ),
    ],
    broadcast: () => [
      single("broadcast of rows and columns", (c) => c.output(c.add("broadcast", [c.f32([rows, 1], noise(4))], { shape: [2, rows, 5] }))),
      single("broadcast of a vector that is data", (c) =>
        c.output(c.add("neg", [c.add("broadcast", [c.f32([rows], noise(4))], { shape: [3, rows] })])),
      ),
    ],
  };
}

function gathers(): ConformanceCase[] {
  const wild = integers(9, -3, 12);
  return [
    single("gatherRows, indices beyond both ends", (c) => c.output(c.add("gatherRows", [c.f32([7, 17], noise(1)), c.i32([rows], wild)]))),
    single("gatherRows with a second source", (c) =>
      c.output(c.add("gatherRows", [c.f32([7, 2, 3], noise(1)), c.i32([rows], wild), c.f32([2, 6], noise(2))])),
    ),
    single("gatherRows by a fixed index", (c) => c.output(c.add("gatherRows", [c.f32([7, 5], noise(1)), c.i32([4], wild)]))),
    single("gatherRows of single elements", (c) => c.output(c.add("gatherRows", [c.f32([7], noise(1)), c.i32([5], wild)]))),
    single("gatherRows of single elements that are data", (c) =>
      c.output(c.add("gatherRows", [c.i32([7], firstIntegers), c.i32([rows], wild)])),
    ),
    single("gatherRows of rows whose width is data", (c) => c.output(c.add("gatherRows", [c.f32([3, rows], noise(1)), c.i32([4], wild)]))),
    single("gatherRows of a slice", (c) =>
      c.output(c.add("gatherRows", [c.add("slice", [c.f32([9, 8], noise(1))], { axis: 1, start: 2, length: 5 }), c.i32([rows], wild)])),
    ),
    single("gatherRows, then used", (c) => {
      const picked = c.add("gatherRows", [c.f32([7, 3, 4], noise(1)), c.i32([rows], wild)]);
      c.output(c.add("mul", [picked, c.f32([rows, 3, 1], noise(2))]));
      c.output(c.add("max", [picked]));
    }),
    single("gatherRows, broadcast over more rows", (c) =>
      c.output(c.add("add", [c.add("gatherRows", [c.f32([5, 4], noise(1)), c.i32([6], wild)]), c.f32([rows, 6, 4], noise(2))])),
    ),
  ];
}

function concats(): ConformanceCase[] {
  return [
    single("concat of columns", (c) =>
      c.output(
        c.add("concat", [
          c.f32([rows, 15], adversarial(1)),
          c.f32([rows, 1], noise(2)),
          c.f32([rows, 0], noise(2)),
          c.f32([rows, 17], noise(3)),
        ]),
      ),
    ),
    single("concat of vectors", (c) => c.output(c.add("concat", [c.i32([3], firstIntegers), c.i32([rows], secondIntegers)]))),
    single("concat of views", (c) => {
      const x = c.f32([rows, 6], noise(1));
      c.output(
        c.add("concat", [c.add("slice", [x], { axis: 1, start: 3, length: 3 }), c.add("slice", [x], { axis: 1, start: 0, length: 3 })]),
      );
    }),
  ];
}

const unaryBounds: Readonly<Record<string, Bound>> = {
  copy: exact,
  neg: exact,
  abs: exact,
  sqrt: exact,
  exp: { ulps: 2 },
  log: { ulps: 2 },
  log1p: { ulps: 2 },
  asinh: { ulps: 2 },
  sinh: { ulps: 2 },
  // Beyond the f32 range of e^x the exact result is subnormal, ours zero.
  sigmoid: { ulps: 4, absolute: 2 ** -126 },
  silu: { ulps: 4, absolute: 2 ** -119 },
  softplus: { ulps: 4 },
};

const binaryOps = ["add", "sub", "mul", "div", "maximum", "minimum", "less", "lessEqual", "equal"];

export const rowCases: Readonly<Record<string, Cases>> = {
  ...Object.fromEntries(Object.entries(unaryBounds).map(([op, bound]) => [op, () => unary(op, bound)])),
  ...Object.fromEntries(
    binaryOps.map((op) => [op, () => [...binary(op, false), ...binary(op, true), ...(op === "sub" ? broadcasts() : [])]]),
  ),
  neg: () => [...unary("neg", exact), ...unary("neg", exact, { integer: true })],
  abs: () => [...unary("abs", exact), ...unary("abs", exact, { integer: true })],
  copy: () => [...unary("copy", exact), ...unary("copy", exact, { integer: true })],
  convert: () => [
    ...unary("convert", exact, { attributes: { dtype: "i32" } }),
    ...unary("convert", exact, { attributes: { dtype: "f32" }, integer: true }),
  ],
  constant: constants,
  select: selections,
  sum: () => [...reductions("sum", { ofMagnitude: 8, ulps: 1 }), specialRows("sum"), emptyRow("sum")],
  max: () => [...reductions("max", exact), specialRows("max"), emptyRow("max")],
  rmsNorm: () => [
    ...reductions("rmsNorm", { ulps: 12 }, { epsilon: 1e-6 }),
    specialRows("rmsNorm", { epsilon: 1e-8 }),
    single(
      "rmsNorm with a weight",
      (c) => c.output(c.add("rmsNorm", [c.f32([rows, 49], noise(2, 3)), c.f32([49], noise(3))], { epsilon: 1e-6 })),
      rowCounts,
      { ulps: 12 },
    ),
  ],
  softmax: () => [...reductions("softmax", { ulps: 64, absolute: 1e-37 }, {}, noise(5, 3, 7)), specialRows("softmax"), emptyRow("softmax")],
  ...views(),
  gatherRows: gathers,
  concat: concats,
};
