/** Cases of the token ops: sign bits, and draws from filtered logits. */
import { exact, rowCounts, rows, withBound, type Cases, type ConformanceCase } from "./conformance-cases.js";
import { adversarial } from "./conformance-values.js";
import { CaseBuilder, integers, noise, type Bound, type Fill } from "./graph-harness.js";

function one(name: string, bound: Bound, build: (c: CaseBuilder) => void): ConformanceCase {
  const c = new CaseBuilder(name);
  build(c);
  return withBound(c.finish(rowCounts), bound);
}

const values =
  (...list: number[]): Fill =>
  () =>
    Float32Array.from(list);

/** Temperature, top-k, top-p: nothing filtered, each filter, both, and each at its end. */
const settings = [
  [1, 0, 1],
  [0.5, 5, 1],
  [2, 1, 0.9],
  [1, 1000, 1],
  [1, 0, 0.8],
  [0.7, 0, 1e-6],
] as const;

/** Equal logits, so that the order among them shows. */
const tied: Fill = (count) => Float32Array.from({ length: count }, (_, index) => Math.floor((index * 7) % 5));

/** A hundred logits to the row, a unit in the last place apart: only the last bits tell which of them a filter keeps. */
const close: Fill = (count) => Float32Array.from({ length: count }, (_, index) => 3 + ((index * 37) % 100) * 2 ** -22);

const closeSettings = [
  [1, 7, 1],
  [1, 0, 0.805],
] as const;

function draws(): ConformanceCase[] {
  return settings.flatMap((setting) =>
    [1, 17, 100].map((tokens) =>
      one(`drawToken of ${tokens} with ${setting.join(", ")}`, exact, (c) => {
        const logits = c.f32([4, tokens], tokens === 17 ? tied : noise(tokens, 4));
        const [source, keys, step] = [
          c.i32([rows], integers(1, -1, 5)),
          c.i32([rows, 2], integers(2, 0, 9)),
          c.i32([rows], integers(3, 0, 99)),
        ];
        c.output(
          c.add("drawToken", [logits, source, keys, step, c.i32([2], integers(4, -9, 9)), c.f32([3], values(...setting))], { site: 1 }),
        );
      }),
    ),
  );
}

export const tokenCases: Readonly<Record<string, Cases>> = {
  drawToken: () => [
    ...draws(),
    one("drawToken that is forced", exact, (c) => {
      const forced = c.i32([rows], integers(5, 0, 9));
      const vectors = [
        c.i32([rows], integers(1, 0, 3)),
        c.i32([rows, 2], integers(2, 0, 9)),
        c.i32([rows], integers(3, 0, 99)),
        c.i32([2], integers(4, -9, 9)),
      ];
      c.output(c.add("drawToken", [c.f32([4, 10], noise(1)), ...vectors, c.f32([3], values(1, 0, 1)), forced], { site: 2 }));
    }),
  ],
  tokenProbabilities: () => [
    ...closeSettings.map((setting) =>
      one(`tokenProbabilities of close logits with ${setting.join(", ")}`, { ulps: 64, absolute: 1e-37 }, (c) =>
        c.output(c.add("tokenProbabilities", [c.f32([rows, 100], close), c.f32([3], values(...setting))])),
      ),
    ),
    ...settings.flatMap((setting) =>
      [1, 17, 100].map((tokens) =>
        one(`tokenProbabilities of ${tokens} with ${setting.join(", ")}`, { ulps: 64, absolute: 1e-37 }, (c) =>
          c.output(
            c.add("tokenProbabilities", [c.f32([rows, tokens], tokens === 17 ? tied : noise(tokens, 4)), c.f32([3], values(...setting))]),
          ),
        ),
      ),
    ),
  ],
  packSigns: () => [
    one("packSigns of special values", exact, (c) =>
      c.output(c.add("packSigns", [c.f32([rows, 47], adversarial(1))], { start: 3, count: 30 })),
    ),
    one("packSigns of one column", exact, (c) => c.output(c.add("packSigns", [c.f32([rows, 1], adversarial(2))], { start: 0, count: 1 }))),
  ],
  expandBits: () => [
    one("expandBits", exact, (c) =>
      c.output(
        c.add("expandBits", [c.i32([rows], integers(1, 0, 1023)), c.i32([rows], integers(2, 0, 511))], {
          coarseBits: 10,
          fineBits: 9,
          scale: 0.3,
        }),
      ),
    ),
  ],
};
