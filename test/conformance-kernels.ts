/** Cases of the ops with templates of their own: contractions, attention, states and routines. */
import { sizeVar } from "../src/ir/dim.js";
import type { StateDeclaration } from "../src/ir/graph.js";
import { padded } from "../src/ir/ops/state.js";
import { exact, rowCounts, rows, withBound, type Cases, type ConformanceCase } from "./conformance-cases.js";
import { adversarial, firstIntegers } from "./conformance-values.js";
import { CaseBuilder, generator, integers, noise, type Bound, type Fill } from "./graph-harness.js";

const counted = (counts: readonly number[]): { rows: number }[] => counts.map((count) => ({ rows: count }));

/** One chain of `depth` fma against the exact sum. */
const contractionBound = (depth: number): Bound => ({ ulps: 1, ofMagnitude: depth + 2 });

function linears(): ConformanceCase[] {
  const shapes = [
    [1, 1],
    [15, 47],
    [16, 48],
    [17, 49],
    [48, 16],
    [49, 15],
    [33, 97],
    [64, 144],
  ] as const;
  const plain = shapes.map(([depth, out]) => {
    const c = new CaseBuilder(`linear ${depth} -> ${out}`);
    c.output(
      c.add("linear", [c.f32([rows, depth], noise(depth, 1, 11)), c.table([out], noise(4))], {}, [c.weight(out, depth, noise(3, 1, 13))]),
    );
    return withBound(c.finish(counted([0, 1, 7, 8, 9, 17, 70])), contractionBound(depth));
  });
  return [
    ...plain,
    one("linear over the end of a block of rows", counted([255, 256, 265]), contractionBound(8), (c) =>
      c.output(c.add("linear", [c.f32([rows, 8], noise(1))], {}, [c.weight(5, 8, noise(2))])),
    ),
    one("linear so deep that it is cut along k", counted([1, 8, 17, 40, 270]), contractionBound(1600), (c) => {
      const y = c.add("linear", [c.f32([rows, 1600], noise(1)), c.table([50], noise(3))], {}, [c.weight(50, 1600, noise(2, 0.02))]);
      c.output(c.add("maximum", [y, c.f32([rows, 50], noise(5))]));
    }),
    one("linear so deep and wide that panels are taken in turns", counted([3, 20]), contractionBound(1537), (c) =>
      c.output(c.add("linear", [c.f32([rows, 1537], noise(1))], {}, [c.weight(400, 1537, noise(2, 0.02))])),
    ),
    one("linear with weights stored as bf16", counted([1, 8, 17, 40]), contractionBound(1600), (c) => {
      const y = c.add("linear", [c.f32([rows, 1600], noise(1))], {}, [c.weight(70, 1600, noise(2, 0.02), "bf16")]);
      c.output(c.add("linear", [c.add("silu", [y])], {}, [c.weight(49, 70, noise(3), "bf16")]));
    }),
    one("linear of a vector", [{}], contractionBound(20), (c) =>
      c.output(c.add("linear", [c.f32([20], noise(1))], {}, [c.weight(30, 20, noise(2))])),
    ),
    one("linear of depth 0", rowCounts, exact, (c) =>
      c.output(c.add("linear", [c.f32([rows, 0], noise(1)), c.table([5], noise(2))], {}, [c.weight(5, 0, noise(2))])),
    ),
    one("linear of one row for all", rowCounts, contractionBound(12), (c) =>
      c.output(c.add("linear", [c.add("broadcast", [c.f32([12], noise(1))], { shape: [rows, 12] })], {}, [c.weight(7, 12, noise(2))])),
    ),
    one("linear of a strided operand", rowCounts, contractionBound(6), (c) => {
      const x = c.add("permute", [c.f32([rows, 6, 3], noise(1))], { order: [0, 2, 1] });
      c.output(c.add("linear", [x], {}, [c.weight(7, 6, noise(2))]));
    }),
    one("linear of a slice", rowCounts, contractionBound(6), (c) =>
      c.output(
        c.add("linear", [c.add("slice", [c.f32([rows, 16], noise(1))], { axis: 1, start: 5, length: 6 })], {}, [c.weight(7, 6, noise(2))]),
      ),
    ),
    one("linear of special values", [{}], { ulps: 1 }, (c) =>
      c.output(c.add("linear", [c.f32([60, 1], adversarial(1))], {}, [c.weight(60, 1, adversarial(5))])),
    ),
    one("linear with NaN and infinities inside", [{}], { ulps: 4, ofMagnitude: 40 }, (c) =>
      c.output(
        c.add(
          "linear",
          [
            c.f32(
              [9, 21],
              (count) =>
                noise(1)(count, {}).map((x: number, i: number) =>
                  i === 25 ? NaN : i === 90 ? Infinity : i === 130 ? -Infinity : x,
                ) as Float32Array,
            ),
          ],
          {},
          [c.weight(50, 21, noise(2))],
        ),
      ),
    ),
  ];
}

function one(
  name: string,
  sizes: readonly Record<string, number>[],
  bound: Bound,
  build: (c: CaseBuilder) => void,
  stateSizes: Record<string, number> = {},
): ConformanceCase {
  const c = new CaseBuilder(name, stateSizes);
  build(c);
  return withBound(c.finish(sizes), bound);
}

function matmuls(): ConformanceCase[] {
  const shapes = [
    [1, 1],
    [16, 47],
    [17, 48],
    [5, 100],
  ] as const;
  return [
    ...shapes.map(([depth, columns]) =>
      one(`matmul ${depth} x ${columns}`, counted([0, 1, 8, 9]), contractionBound(depth), (c) =>
        c.output(c.add("matmul", [c.f32([rows, depth], noise(1, 1, 9)), c.f32([depth, columns], noise(2))])),
      ),
    ),
    one("matmul of transposed operands", [{}], contractionBound(9), (c) => {
      const turn = (x: ReturnType<typeof c.f32>): typeof x => c.add("permute", [x], { order: [1, 0] });
      c.output(c.add("matmul", [turn(c.f32([9, 20], noise(1))), turn(c.f32([50, 9], noise(2)))]));
    }),
  ];
}

const heads = 3;
const blocks = sizeVar("blocks", 1, 64);
const slots = sizeVar("slots", 16, 1024);

interface Cache {
  readonly keys: StateDeclaration;
  readonly values: StateDeclaration;
}

function cache(c: CaseBuilder, rowCount: number, keyHeads: number, d: number, valueWidth: number, seed: number): Cache {
  return {
    keys: c.state([rowCount, keyHeads, blocks, d, 16], "f32", noise(seed, 1, 31)),
    values: c.state([rowCount, keyHeads, slots, padded(valueWidth)], "f32", noise(seed + 1)),
  };
}

const list =
  (...values: number[]): Fill =>
  (count) =>
    Int32Array.from({ length: count }, (_, index) => values[index % values.length] as number);

/** Lengths at the edges of blocks, beyond the capacity and below zero; rows beyond the cache. */
const lengths = list(0, 1, 15, 16, 17, 40, 64, 33, 100, -5, 31, 32);
const cacheRows = list(0, 1, 1, 1, 1, 2, 0, 0, 0, 0, 9, -1);

function attentions(): ConformanceCase[] {
  const bound: Bound = { absolute: 4e-6, ulps: 4 };
  const capacity = { blocks: 4, slots: 64 };
  const sized = counted([0, 1, 4, 12]);
  return (
    [
      [16, 16, 3],
      [20, 24, 1],
      [64, 64, 3],
      [8, 40, 1],
    ] as const
  ).flatMap(([d, valueWidth, keyHeads]) => [
    one(
      `attention ${d} -> ${valueWidth}, ${keyHeads} key heads`,
      sized,
      bound,
      (c) => {
        const own = cache(c, 3, keyHeads, d, valueWidth, 5);
        const q = c.f32([rows, heads, d], noise(1, 2));
        c.output(
          c.add("attention", [q, c.i32([rows], cacheRows), c.i32([rows], lengths)], { scale: 1 / Math.sqrt(d), valueWidth }, [
            own.keys,
            own.values,
          ]),
        );
      },
      capacity,
    ),
    one(
      `attention ${d} -> ${valueWidth} over a shared prefix`,
      sized,
      bound,
      (c) => {
        const [own, prefix] = [cache(c, 3, keyHeads, d, valueWidth, 5), cache(c, 2, keyHeads, d, valueWidth, 8)];
        const vectors = [cacheRows, lengths, list(0, 0, 0, 0, 1), list(0, 1, 9, 16, 17, 20, 5, 48, 70, -3, 64)].map((fill) =>
          c.i32([rows], fill),
        );
        c.output(
          c.add("attention", [c.f32([rows, heads, d], noise(1, 2)), ...vectors], { scale: 0.3, valueWidth }, [
            own.keys,
            own.values,
            prefix.keys,
            prefix.values,
          ]),
        );
      },
      capacity,
    ),
  ]);
}

function groupAttentions(): ConformanceCase[] {
  return [1, 5, 16, 17, 35].map((variates) =>
    one(`groupAttention among ${variates}`, [{ rows: variates }, { rows: 2 * variates }], { absolute: 4e-6, ulps: 4 }, (c) => {
      const x = (seed: number): ReturnType<typeof c.f32> => c.f32([rows, 2, 20], noise(seed, 2));
      const first: Fill = (count) => Int32Array.from({ length: count }, (_, token) => Math.floor(token / variates) * variates);
      c.output(
        c.add("groupAttention", [x(1), x(2), x(3), c.i32([rows], first), c.i32([rows], list(1)), c.i32([rows], integers(4, 0, 2))], {
          scale: 0.25,
          variates,
        }),
      );
    }),
  );
}

function ropes(): ConformanceCase[] {
  const position = integers(7, -2, 12);
  const table =
    (seed: number, d: number, width: number): Fill =>
    (count) =>
      (noise(seed)(count, {}) as Float32Array).map((x, i) => (i % d < width ? x : seed === 1 ? 1 : 0));
  return (
    [
      ["interleaved", 16, 16],
      ["half", 16, 16],
      ["interleaved", 20, 12],
      ["half", 49, 34],
      ["half", 8, 0],
      // Pairs whose other element lies sixteen or more lanes away, or in the same vector, of all columns and of some.
      ["half", 64, 64],
      ["half", 56, 32],
      ["interleaved", 40, 32],
      ["interleaved", 24, 24],
    ] as const
  ).flatMap(([pairing, d, width]) =>
    [false, true].map((decayed) =>
      one(`rope ${pairing} ${width} of ${d}${decayed ? " with decay" : ""}`, rowCounts, { ulps: 1, absolute: 1e-6 }, (c) => {
        const x = c.f32([rows, 2, d], noise(3));
        const inputs = [x, c.i32([rows], position), c.table([11, d], table(1, d, width)), c.table([11, d], table(2, d, width))];
        if (decayed) inputs.push(c.table([6, d], noise(4)), c.i32([rows], position));
        c.output(c.add("rope", inputs, { width, pairing }));
      }),
    ),
  );
}

/** Every row once, in an order of its own, with some outside. */
const scattered: Fill = (count) =>
  Int32Array.from({ length: count }, (_, index) => (index % 4 === 3 ? (index % 8 === 3 ? -1 : 99) : (index * 5) % 13));

function states(): Record<string, Cases> {
  const appends = (op: string): ConformanceCase[] =>
    [1, 15, 16, 20].map((d) =>
      one(
        `${op} of width ${d}`,
        rowCounts,
        exact,
        (c) => {
          const own = cache(c, 3, heads, d, d, 5);
          const [row, slot] = [list(0, 1, 2, 2, 3, -1, 0), list(0, 15, 16, 17, 1, 2, 64, -1, 63)];
          c.add(op, [c.f32([rows, heads, d], adversarial(2)), c.i32([rows], row), c.i32([rows], slot)], {}, [
            op === "appendKeys" ? own.keys : own.values,
          ]);
        },
        { blocks: 4, slots: 64 },
      ),
    );
  return {
    read: () => [
      one("read of a constant state", [{}], exact, (c) => c.output(c.table([5, 3], adversarial(1)))),
      one("read of a mutable state", [{}], exact, (c) =>
        c.output(c.add("read", [], { dtype: "i32" }, [c.state([5, 17], "i32", firstIntegers)])),
      ),
      one("read before and after a write", rowCounts, exact, (c) => {
        const state = c.state([13, 3], "f32", noise(1));
        const read = (): ReturnType<typeof c.f32> => c.add("read", [], { dtype: "f32" }, [state]);
        const before = read();
        c.add("writeRows", [c.f32([rows, 3], noise(2)), c.i32([rows], scattered)], {}, [state]);
        c.output(c.add("sub", [read(), before]));
      }),
    ],
    writeRows: () => [
      one(
        "writeRows",
        rowCounts,
        exact,
        (c) =>
          void c.add("writeRows", [c.f32([rows, 17], adversarial(1)), c.i32([rows], scattered)], {}, [c.state([13, 17], "f32", noise(2))]),
      ),
      one(
        "writeRows of parts",
        rowCounts,
        exact,
        (c) => void c.add("writeRows", [c.f32([rows, 2, 3], noise(1)), c.i32([rows], scattered)], {}, [c.state([13, 6], "f32", noise(2))]),
      ),
      one(
        "writeRows of single elements",
        rowCounts,
        exact,
        (c) =>
          void c.add("writeRows", [c.i32([rows], firstIntegers), c.i32([rows], scattered)], {}, [c.state([13], "i32", integers(2, 0, 9))]),
      ),
      one(
        "writeRows of a fixed vector",
        [{}],
        exact,
        (c) => void c.add("writeRows", [c.f32([3], noise(1)), c.i32([3], scattered)], {}, [c.state([13], "f32", noise(2))]),
      ),
      one("writeRows of a state's own rows, moved", [{}], exact, (c) => {
        const state = c.state([13, 17], "f32", noise(2));
        c.add(
          "writeRows",
          [
            c.add("read", [], { dtype: "f32" }, [state]),
            c.i32([13], (count) => Int32Array.from({ length: count }, (_, index) => (index + 1) % 13)),
          ],
          {},
          [state],
        );
      }),
    ],
    copyRows: () => [
      one(
        "copyRows of equal rows",
        counted([0, 1, 5, 20]),
        exact,
        (c) =>
          void c.add("copyRows", [c.i32([rows], integers(2, -1, 9))], {}, [
            c.state([6, 5], "f32", noise(1)),
            c.state([7, 5], "f32", noise(2)),
          ]),
      ),
      one(
        "copyRows between caches of different capacity",
        counted([0, 1, 5]),
        exact,
        (c) =>
          void c.add("copyRows", [c.i32([rows], integers(2, -1, 9))], {}, [
            c.state([6, 2, blocks, 4, 16], "f32", noise(1)),
            c.state([3, 2, 2, 4, 16], "f32", noise(2)),
          ]),
        { blocks: 3, slots: 48 },
      ),
    ],
    appendKeys: () => appends("appendKeys"),
    appendValues: () => appends("appendValues"),
  };
}

function scalers(): ConformanceCase[] {
  const sequences = [
    { first: 0, count: 3, prefix: 2, row: 1 },
    { first: 3, count: 4, prefix: 4, row: 0 },
    { first: 7, count: 0, prefix: 0, row: 3 },
    { first: 7, count: 2, prefix: 1, row: 2 },
  ];
  const column =
    (field: "first" | "count" | "prefix" | "row"): Fill =>
    () =>
      Int32Array.from(sequences, (sequence) => sequence[field]);
  const options = { addedVariance: 1e-6, minimumScale: 0.1, clamp: true, lowFactor: 0.1, highFactor: 3 };
  const variants = [
    { fresh: true },
    { fresh: false },
    { fresh: true, clamp: false },
    { fresh: true, clamp: false, minimumScale: 0, addedVariance: 0, highFactor: Infinity },
  ];
  return variants.map((variant) =>
    one(`causalScaler ${JSON.stringify(variant)}`, [{}], { ulps: 1 }, (c) => {
      const moments = c.state([4, 6], "f64", (count) => {
        const random = generator(3);
        return Float64Array.from({ length: count }, (_, index) => (index % 6 === 0 ? 5 : 1 + random()));
      });
      const vectors = (["first", "count", "prefix", "row"] as const).map((field) => c.i32([sequences.length], column(field)));
      c.output(
        c.add("causalScaler", [c.f32([9, 5], noise(2, 3, 6)), c.i32([9, 5], integers(1, 0, 1)), ...vectors], { ...options, ...variant }, [
          moments,
        ]),
      );
    }),
  );
}

function draws(): ConformanceCase[] {
  return (
    [
      [1, false],
      [1, true],
      [5, false],
      [24, false],
      [24, true],
    ] as const
  ).map(([components, injected]) =>
    // A t value of large magnitude carries the rounding of df, hence the relative part.
    one(`mixtureDraw of ${components}${injected ? " with injected draws" : ""}`, rowCounts, { ulps: 64, absolute: 1e-4 }, (c) => {
      const width = components === 1 ? 3 : 4 * components;
      const inputs = [
        c.f32([4, 6, width], noise(2, 3)),
        c.i32([rows], integers(3, 0, 3)),
        c.i32([rows, 3], integers(4, 0, 1000)),
        c.i32([rows], integers(5, 0, 100000)),
        c.i32([2], integers(6, -2147483648, 2147483647)),
      ];
      if (injected)
        inputs.push(
          c.i32([rows, 6], integers(7, 0, components - 1)),
          c.f32([rows, 6], noise(8, 2)),
          c.f32([rows, 6], (count) => (noise(9)(count, {}) as Float32Array).map((x) => Math.abs(x) * 5 + 0.1)),
        );
      c.output(c.add("mixtureDraw", inputs, { components }));
    }),
  );
}

export const kernelCases: Readonly<Record<string, Cases>> = {
  linear: linears,
  matmul: matmuls,
  attention: attentions,
  groupAttention: groupAttentions,
  rope: ropes,
  ...states(),
  causalScaler: scalers,
  mixtureDraw: draws,
};
