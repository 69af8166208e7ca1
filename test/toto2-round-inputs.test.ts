/** What a round of Toto 2.0 is told is kept between requests of one shape, and whole series take a short way into the decoder: neither may show. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { Tensor } from "../src/tensor/index.js";
import { Size } from "../src/trace/entry.js";
import type { LayoutOptions, Round } from "../src/models/toto2/layout.js";
import { SampleStore, type Entry, type SampleMemory } from "../src/models/toto2/samples.js";
import { RoundInputsCache } from "../src/models/toto2/round-inputs.js";
import { wrapperEntry } from "../src/models/toto2/wrapper.js";

const patch = 4;

/** Tensors as their sizes and numbers, so that equal ones compare equal. */
const plain = (value: unknown): unknown => {
  if (value instanceof Tensor) {
    if (value.content.kind !== "concrete") throw new Error("a traced tensor");
    const axes = value.content.axes.map((axis) => (axis instanceof Size ? `${axis.name}=${axis.value}` : axis));
    return { axes, dtype: value.dtype, values: [...value.content.array] };
  }
  if (value instanceof Int32Array) return [...value];
  if (typeof value === "object" && value !== null)
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
  return value;
};

interface Case {
  readonly entries: readonly Entry[];
  readonly options: LayoutOptions;
  readonly round: Round;
}

const flag = fc.boolean();
const shapes = fc.record({
  batch: fc.integer({ min: 1, max: 2 }),
  targets: fc.integer({ min: 1, max: 2 }),
  covariates: fc.integer({ min: 0, max: 1 }),
  futurePatches: fc.integer({ min: 1, max: 4 }),
  block: fc.integer({ min: 1, max: 3 }),
  doneRounds: fc.integer({ min: 0, max: 2 }),
  lengths: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 2, maxLength: 2 }),
  ids: fc.array(fc.integer({ min: 0, max: 1 }), { minLength: 6, maxLength: 6 }),
  /** Sequence whose first samples, and covariate whose future, are not observed; most have none. */
  gap: fc.constantFrom(-1, -1, 0, 1, 2),
  futureGap: fc.constantFrom(-1, -1, 0, 1),
  hasMissingValues: flag,
  stableCentre: flag,
  placedGroups: flag,
  everyToken: flag,
  reach: fc.constantFrom(10, 20),
});
type Shape = typeof shapes extends fc.Arbitrary<infer T> ? T : never;

function caseOf(shape: Shape): Case {
  const { batch, targets, covariates, futurePatches, block, lengths, ids, gap, futureGap, hasMissingValues, everyToken, reach } = shape;
  const variates = targets + covariates;
  const firstBlock = Math.min(block, futurePatches);
  const done = Math.min(shape.doneRounds, Math.ceil(futurePatches / firstBlock) - 1) * firstBlock;
  const entries = Array.from({ length: batch }, (_, e): Entry => {
    const mask = Array.from({ length: variates }, (_, v) =>
      new Uint8Array(lengths[e]! * patch).fill(1).fill(0, 0, e * variates + v === gap ? patch + 1 : 0),
    );
    return {
      values: mask.map((row) => new Float32Array(row.length)),
      mask,
      patches: lengths[e]!,
      groups: Int32Array.from(ids.slice(e * variates, (e + 1) * variates)),
      future: Array.from({ length: covariates }, () => new Float32Array(futurePatches * patch)),
      futureMask: Array.from({ length: covariates }, () => new Uint8Array(futurePatches * patch).fill(e === futureGap ? 0 : 1)),
    };
  });
  const corrections = { stableCentre: shape.stableCentre, placedGroups: shape.placedGroups };
  return {
    entries,
    options: { patch, variates, covariates, futurePatches, hasMissingValues, corrections, firstBlock, reach, everyToken },
    round: { done, block: Math.min(firstBlock, futurePatches - done), again: done === 0 ? 0 : firstBlock },
  };
}

/** One shape, those that differ from it in a single respect, and all of them again. */
const neighbours = fc.tuple(shapes, shapes).map(([shape, other]): Case[] => {
  const all = [shape, ...Object.keys(shape).map((key) => ({ ...shape, [key]: other[key as keyof Shape] }))].map(caseOf);
  return [...all, ...all];
});

test("inputs of a round are the same whatever was asked before", () => {
  let repeats = 0;
  fc.assert(
    fc.property(neighbours, (all) => {
      const cache = new RoundInputsCache();
      const seen = new Set<unknown>();
      for (const { entries, options, round } of all) {
        const store = new SampleStore(entries, options);
        const given = cache.of(store, options, round);
        if (seen.has(given)) repeats++;
        seen.add(given);
        expect(plain(given)).toEqual(plain(new RoundInputsCache().of(store, options, round)));
      }
    }),
    { numRuns: 60 },
  );
  expect(repeats).toBeGreaterThan(200);
});

test("a whole series becomes the entry that the general way makes", () => {
  const finite = fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: patch, maxLength: 3 * patch });
  fc.assert(
    fc.property(finite, fc.boolean(), fc.integer({ min: 0, max: 2 }), (numbers, isMasked, cut) => {
      const row = Float32Array.from(numbers);
      const past = Math.ceil(row.length / patch) * patch - (row.length > cut * patch ? cut * patch : 0);
      const options = { past, patch, futurePatches: 2, imputation: "ffill" } as const;
      const series = {
        target: [row, row.toReversed()],
        known: [],
        ...(isMasked ? { mask: [1, 1].map((one) => new Uint8Array(row.length).fill(one)) } : {}),
      };
      const ranges = series.target.map((values) => ({
        low: values.reduce((a, b) => (b < a ? b : a)),
        high: values.reduce((a, b) => (b > a ? b : a)),
      }));
      const [{ ranges: kept, ...quick }, general] = [wrapperEntry({ ...series, ranges }, options), wrapperEntry(series, options)];
      expect(quick).toEqual(general);
      expect(quick.values[0]).not.toBe(row);
      if (past === row.length) expect(kept).toBeDefined();
      const store = (entry: Entry, memory?: SampleMemory): SampleStore =>
        new SampleStore([entry], { patch, variates: 2, covariates: 0, futurePatches: 2 }, memory);
      const measured = store(general);
      // Memory of an earlier store, of this size or another.
      const samples = measured.values.length + cut;
      const used = { values: new Float32Array(samples).fill(7), mask: new Int32Array(samples).fill(1) };
      const known = store({ ...quick, ...(kept ? { ranges: kept } : {}) }, used);
      if (cut === 0) expect(known.values).toBe(used.values);
      for (const field of ["range", "values", "mask", "firstPatch", "structure"] as const) expect(known[field]).toEqual(measured[field]);
    }),
    { numRuns: 200 },
  );
});
