/** The filter of the native draws against its definition in whole numbers: the same tokens kept, the same probabilities, the same token drawn, to the last bit. */
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { compile, drawToken, philox, Tensor, tokenProbabilities, uniform } from "../src/tensor/index.js";
import { tokenSites } from "../src/ir/ops/tokens.js";
import { bitsOf, nativeTargets } from "./graph-harness.js";

const rows = 3;
const seed = [20260101, -5] as const;

type Settings = readonly [temperature: number, topK: number, topP: number];

interface Expected {
  readonly tokens: number[];
  readonly probabilities: Float32Array;
}

/** Scaled logits of every row, and how far they lie below the largest, in the arithmetic of f32. */
function scaledRows(logits: Float32Array, count: number, temperature: number): { scaled: Float32Array; below: Float32Array } {
  const scaled = logits.map((value) => value / temperature + 0);
  const largest = Array.from({ length: rows }, (_, row) =>
    scaled.subarray(row * count, (row + 1) * count).reduce((a, b) => Math.max(a, b), -Infinity),
  );
  const below = scaled.map((value, at) => {
    return value - (largest[Math.floor(at / count)] as number);
  });
  return { scaled, below };
}

/** Tokens that are kept: those before which the threshold is not reached, in the order of the scaled logits, the lower index first; top-k also all equal ones. */
function keptTokens(scaled: Float32Array, weights: readonly number[], topK: number, topP: number): Set<number> {
  const order = Array.from(scaled.keys()).sort((a, b) => (scaled[b] as number) - (scaled[a] as number) || a - b);
  if (topK > 0) {
    const smallest = scaled[order[Math.min(topK, order.length) - 1] as number] as number;
    return new Set(order.filter((token) => (scaled[token] as number) >= smallest));
  }
  if (!(topP < 1)) return new Set(order);
  const total = weights.reduce((a, b) => a + b, 0);
  let cumulated = 0;
  return new Set(
    order.filter((token) => {
      const keep = !(Math.fround(cumulated / total) > topP);
      cumulated += weights[token] as number;
      return keep;
    }),
  );
}

function expectedOf(logits: Float32Array, powers: Float32Array, count: number, [temperature, topK, topP]: Settings): Expected {
  const { scaled } = scaledRows(logits, count, temperature);
  const probabilities = new Float32Array(rows * count);
  const tokens = Array.from({ length: rows }, (_, row) => {
    const own = powers.subarray(row * count, (row + 1) * count);
    // Sums of these stay below 2^53, so they are exact in any order.
    const weights = Array.from(own, (power) => Math.floor(power * 2 ** 40));
    const kept = keptTokens(scaled.subarray(row * count, (row + 1) * count), weights, topK, topP);
    const total = own.reduce((sum, power, token) => sum + (kept.has(token) ? power : 0), 0);
    own.forEach((power, token) => (probabilities[row * count + token] = (kept.has(token) ? power : 0) / total));
    const [word] = philox([row, 7, row + 3, tokenSites.fine], [seed[0], seed[1]]);
    const target = uniform(word) * weights.reduce((sum, weight, token) => sum + (kept.has(token) ? weight : 0), 0);
    let cumulated = 0;
    return Math.max(
      0,
      weights.findIndex((weight, token) => kept.has(token) && (cumulated += weight) > target),
    );
  });
  return { tokens, probabilities };
}

/** Rows of logits that are hard to tell apart, or of which hardly any matters. */
const shapes: Readonly<Record<string, (noise: number, token: number, spread: number) => number>> = {
  spread: (noise, _, spread) => noise * spread,
  equal: () => 1.5,
  "equal in groups": (noise, _, spread) => Math.round(noise * spread),
  "a few units in the last place apart": (noise) => 3 + Math.round(noise * 50) * 2 ** -22,
  "one far above the others": (noise, token) => (token === 2 ? 40 : noise),
  "some minus infinity": (noise, _, spread) => (noise < 0.3 ? -Infinity : noise * spread),
  "of all magnitudes": (noise, token) => Math.sign(noise - 0.5) * 2 ** (((token * 37) % 60) - 54 + noise),
  "zeros of both signs": (noise) => (noise < 0.4 ? -0 : noise < 0.8 ? 0 : -1),
};

/** Numbers in [0, 1) that a seed decides. */
function noiseOf(from: number, at: number): number {
  const mixed = Math.imul((from ^ Math.imul(at + 1, 0x9e3779b1)) >>> 0, 0x85ebca6b);
  return (Math.imul(mixed ^ (mixed >>> 15), 0xc2b2ae35) >>> 0) / 2 ** 32;
}

const disposals: (() => void)[] = [];
afterAll(() => disposals.forEach((dispose) => dispose()));

describe.each(nativeTargets(1))("$target", ({ device, reason }) => {
  test.skipIf(!device).each([1, 37, 128, 1000])(`a row of %i${device ? "" : ` (skipped: ${reason})`}`, (count) => {
    if (!device) return;
    const run = compile(
      (logits: Tensor, below: Tensor, source: Tensor, keys: Tensor, step: Tensor, settings: Tensor, seeds: Tensor) => ({
        tokens: drawToken(logits, source, { keys, step, seed: seeds, settings }, "fine"),
        probabilities: tokenProbabilities(logits, settings),
        powers: below.exp(),
      }),
      { device, name: "filter" },
    );
    disposals.push(() => run.dispose());
    const vectors = [
      Tensor.from(
        Int32Array.from({ length: rows }, (_, row) => row),
        [rows],
      ),
      Tensor.from(
        Int32Array.from({ length: 2 * rows }, (_, at) => (at % 2 === 0 ? at / 2 : 7)),
        [rows, 2],
      ),
      Tensor.from(
        Int32Array.from({ length: rows }, (_, row) => row + 3),
        [rows],
      ),
    ] as const;
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.keys(shapes)),
        fc.integer({ min: 0, max: 2 ** 30 }),
        fc.constantFrom(0.05, 1, 6, 40),
        fc.constantFrom(1, 0.5, 0.7, 3),
        fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.constantFrom(1, 2, 50, count, 5000)),
        fc.oneof({ weight: 3, arbitrary: fc.constantFrom(0.9, 0.99) }, fc.constantFrom(1, 0.5, 0, 1e-6, 1 - 2 ** -24)),
        (shape, from, spread, temperature, topK, topP) => {
          const settings: Settings = [Math.fround(temperature), topK, Math.fround(topP)];
          const value = shapes[shape] as (typeof shapes)[string];
          const logits = Float32Array.from({ length: rows * count }, (_, at) => value(noiseOf(from, at), at % count, spread));
          const answer = run(
            Tensor.from(logits, [rows, count]),
            Tensor.from(scaledRows(logits, count, settings[0]).below, [rows, count]),
            ...vectors,
            Tensor.from(Float32Array.from(settings), [3]),
            Tensor.from(Int32Array.from(seed), [2]),
          );
          const { tokens, probabilities } = expectedOf(logits, answer.powers.data() as Float32Array, count, settings);
          expect(Array.from(answer.tokens.data())).toEqual(tokens);
          expect(bitsOf(answer.probabilities.data())).toEqual(bitsOf(probabilities));
        },
      ),
      { seed: 20261126, numRuns: count < 500 ? 60 : 40 },
    );
  });

  test.skipIf(!device)("rows whose weights cannot be told answer token 0 and no probabilities", () => {
    if (!device) return;
    const run = compile(
      (logits: Tensor, source: Tensor, keys: Tensor, step: Tensor, settings: Tensor, seeds: Tensor) => ({
        tokens: drawToken(logits, source, { keys, step, seed: seeds, settings }, "fine"),
        probabilities: tokenProbabilities(logits, settings),
      }),
      { device, name: "filter" },
    );
    disposals.push(() => run.dispose());
    const odd = [
      [1, NaN, 2],
      [1, Infinity, 2],
      [-Infinity, -Infinity, -Infinity],
    ];
    for (const settings of [
      [1, 0, 0.9],
      [1, 2, 1],
      [1, 0, 1],
    ]) {
      const answer = run(
        Tensor.from(Float32Array.from(odd.flat()), [3, 3]),
        Tensor.from(Int32Array.of(0, 1, 2), [3]),
        Tensor.from(new Int32Array(6), [3, 2]),
        Tensor.from(new Int32Array(3), [3]),
        Tensor.from(Float32Array.from(settings), [3]),
        Tensor.from(Int32Array.from(seed), [2]),
      );
      expect(Array.from(answer.tokens.data())).toEqual([0, 0, 0]);
      expect(Array.from(answer.probabilities.data()).every(Number.isNaN)).toBe(true);
    }
  });
});
