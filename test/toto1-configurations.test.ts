/**
 * Configurations of Toto 1.0 that no stored golden case has: the native device is held against the reference device, mode against mode, and the first patch with
 * a cache against the one without.
 */
import { describe, expect, test } from "vitest";
import type { ModelRequest, ModelSeriesAnswer } from "../src/models/model.js";
import { firstDifference, isAlive, makeSeries, numbersOf, predictOnce, relativeDistance, type ModelChoice } from "./toto1-harness.js";

/** Configurations that the stored cases leave out; every one must load, run, and mean the same on both devices. */
const configurations: Readonly<Record<string, ModelChoice>> = {
  "no space layer": { set: { spacewise_every_n_layers: -1 } },
  "no space layer, by 0": { set: { spacewise_every_n_layers: 0 } },
  "space layers first of two": { set: { spacewise_every_n_layers: 2, spacewise_first: true } },
  "space layers last of two": { set: { spacewise_every_n_layers: 2, spacewise_first: false } },
  "space layers only": { set: { num_layers: 2, spacewise_every_n_layers: 1 } },
  "one time layer": { set: { num_layers: 1, spacewise_every_n_layers: -1 } },
  "one space layer": { set: { num_layers: 1, spacewise_every_n_layers: 1 } },
  "plain names and rotary entries": { set: { mlp: "plain", rotary: true } },
  "labels, alternating layers": { preset: "toto1-tiny-alt", set: { labels: true } },
  "labels without a space layer": { preset: "toto1-tiny-ev", set: { spacewise_every_n_layers: -1 } },
  "one component of a mixture": { set: { output_distribution_kwargs: { k_components: 1 } } },
  "3 components": { set: { output_distribution_kwargs: { k_components: 3 } } },
  "17 components": { set: { output_distribution_kwargs: { k_components: 17 } } },
  "one Student-t": {
    set: { output_distribution_classes: ["<class 'model.distribution.StudentTOutput'>"], output_distribution_kwargs: {} },
  },
  "heads of width 10, hidden 50": { set: { embed_dim: 40, mlp_hidden_dim: 50 } },
  "heads of width 2": { set: { embed_dim: 12, num_heads: 6, mlp_hidden_dim: 7 } },
  "heads of width 36": { set: { embed_dim: 72, num_heads: 2, mlp_hidden_dim: 49 } },
  "one head of width 64": { set: { embed_dim: 64, num_heads: 1 } },
  "patches of 5": { set: { patch_size: 5, stride: 5 } },
  "patches of 1": { set: { patch_size: 1, stride: 1 } },
  "no global clamp": { set: { stabilize_with_global: false } },
  "a tight global clamp": { set: { scale_factor_exponent: 0.2 } },
};

/** Largest distance of native and reference, relative to the forecast's root mean square; 8 times the largest measured when this was written. */
const deviceBound = 8 * 6.4e-6;

const seed = 20250611;
const request = (choice: ModelChoice, variates: number, samples: number): ModelRequest => {
  const { set = {} } = choice;
  const patch = Number(set["patch_size"] ?? 8);
  const horizon = 4 * patch + Math.floor(patch / 2);
  const labels = choice.preset === "toto1-tiny-ev" || set["labels"] === true;
  const series = [3, 41, 20].map((length, index) =>
    makeSeries({
      length: Math.max(1, Math.round((length * patch) / 8)),
      variates,
      seed: seed + index,
      missing: 0.1,
      stream: index,
      ...(labels && variates > 1 ? { known: { variates: 1, horizon } } : {}),
    }),
  );
  return { series, horizon, samples, seed: 5 };
};

/** The first patch of every variate (and path) of every series. */
function firstPatches(answers: readonly ModelSeriesAnswer[], horizon: number, patch: number): Float32Array {
  const rows = answers.flatMap(({ mean, paths }) => paths ?? mean);
  return Float32Array.from(
    rows.flatMap((row) =>
      Array.from({ length: row.length / horizon }, (_, path) => [...row.subarray(path * horizon, path * horizon + patch)]).flat(),
    ),
  );
}

describe(`configurations without a stored case (series seed ${seed})`, () => {
  test.each(Object.entries(configurations))("%s", async (_name, choice) => {
    for (const variates of [1, 3]) {
      const mean = request(choice, variates, 0);
      const native = await predictOnce(choice, mean);
      expect(isAlive(numbersOf(native))).toBe(true);
      const uncached = await predictOnce({ ...choice, kvCache: "none" }, mean);
      const patch = Number(choice.set?.["patch_size"] ?? 8);
      expect(firstDifference(firstPatches(uncached, mean.horizon, patch), firstPatches(native, mean.horizon, patch))).toBeUndefined();
      for (const [kvCache, own] of [
        ["static", native],
        ["none", uncached],
      ] as const) {
        const reference = await predictOnce({ ...choice, kvCache, device: "reference" }, mean);
        expect(relativeDistance(numbersOf(own), numbersOf(reference))).toBeLessThanOrEqual(deviceBound);
      }

      const sampled = request(choice, variates, 3);
      const paths = await predictOnce(choice, sampled);
      expect(isAlive(numbersOf(paths))).toBe(true);
      for (const mode of ["eager", "default"] as const)
        expect(firstDifference(numbersOf(await predictOnce({ ...choice, mode }, sampled)), numbersOf(paths))).toBeUndefined();
    }
  });
});
