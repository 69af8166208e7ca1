/**
 * The same bits from Toto 1.0 however it is run: mode, batch, threads, number of paths, chunks, prefix, instruction set. A difference in any bit of any number
 * fails, and every comparison is also shown to be able to fail.
 */
import { availableParallelism } from "node:os";
import { describe, expect, test } from "vitest";
import { Forecaster } from "../src/index.js";
import type { ModelRequest, ModelSeries } from "../src/models/model.js";
import { cpuFeatures, selectCpu } from "../src/runtime/native/cpu.js";
import { firstDifference, isAlive, loadToto1, makeRandom, makeSeries, numbersOf, predictOnce, type ModelChoice } from "./toto1-harness.js";

const seed = 411;
const modes = ["eager", "default", "reduce-overhead", "max-autotune"] as const;

/** The smallest model that has everything, and one whose widths fill the vector tiles. */
const models: Readonly<Record<string, ModelChoice>> = {
  tiny: { preset: "toto1-tiny" },
  formula: { preset: "toto1-formula", seed: 1 },
};

/** Ragged series: lengths of 1 sample to many patches, on and beside patch and block edges, some with gaps. */
const ragged = (count: number, variates: number, longest: number): ModelSeries[] => {
  const random = makeRandom(seed);
  const edges = [1, 7, 8, 9, 127, 128, 129, 512];
  return Array.from({ length: count }, (_, index) =>
    makeSeries({
      length: edges[index] ?? 1 + Math.floor(random() * longest),
      variates,
      seed: seed + index,
      stream: index,
      missing: index % 3 === 0 ? 0.2 : 0,
      ...(variates > 1 && index % 2 === 0 ? { groups: Array.from({ length: variates }, (_, v) => v % 2) } : {}),
    }),
  );
};

const requests: Readonly<Record<string, ModelRequest>> = {
  mean: { series: ragged(5, 1, 300), horizon: 70, samples: 0, seed: 3 },
  "mean, 3 variates": { series: ragged(4, 3, 200), horizon: 70, samples: 0, seed: 3 },
  "9 paths": { series: ragged(4, 2, 300), horizon: 70, samples: 9, seed: 3 },
};

describe.each(Object.entries(models))(`%s model (series seed ${seed})`, (_name, choice) => {
  test.each(Object.entries(requests))("all modes alike: %s", async (_what, request) => {
    const answers = [];
    for (const mode of modes) answers.push(numbersOf(await predictOnce({ ...choice, mode }, request)));
    const [eager, ...others] = answers as [Float32Array, ...Float32Array[]];
    expect(isAlive(eager)).toBe(true);
    expect(others.map((other) => firstDifference(other, eager))).toEqual([undefined, undefined, undefined]);
  });

  test.each([1, 3])("alone and inside a ragged batch of 32, %i variates", async (variates) => {
    const series = ragged(32, variates, 400);
    const model = loadToto1(choice);
    try {
      for (const samples of [0, 3]) {
        const together = await model.predict({ series, horizon: 45, samples, seed: 8 });
        for (const [index, single] of series.entries()) {
          const [alone] = await model.predict({ series: [single], horizon: 45, samples, seed: 8 });
          expect(
            firstDifference(numbersOf([alone!]), numbersOf([together[index]!])),
            `series ${index}, ${samples} samples`,
          ).toBeUndefined();
        }
      }
    } finally {
      model.dispose();
    }
  });

  test.runIf(availableParallelism() >= 2)("1 thread and 2 threads", async () => {
    for (const request of Object.values(requests)) {
      const one = numbersOf(await predictOnce({ ...choice, deviceOptions: { threads: 1 } }, request));
      const two = numbersOf(await predictOnce({ ...choice, deviceOptions: { threads: 2 } }, request));
      expect(isAlive(one)).toBe(true);
      expect(firstDifference(two, one)).toBeUndefined();
    }
  });

  test("path j of 16 and path j of 256, of 4,100 in chunks, and in a batch", async () => {
    const [series] = ragged(1, 2, 100) as [ModelSeries];
    const longer = { ...makeSeries({ length: 203, variates: 2, seed: 5 }), stream: 9 };
    const model = loadToto1(choice);
    try {
      const horizon = 40;
      const first = (answer: readonly Float32Array[] | undefined, variate: number): Float32Array =>
        answer![variate]!.subarray(0, 16 * horizon);
      const [few] = await model.predict({ series: [longer], horizon, samples: 16, seed: 1 });
      for (const [samples, list] of [
        [256, [longer]],
        [2100, [longer]],
        [64, [series, longer]],
      ] as const) {
        const many = (await model.predict({ series: list, horizon, samples, seed: 1 })).at(-1);
        for (const variate of [0, 1])
          expect(firstDifference(first(many?.paths, variate), few!.paths![variate]!), `${samples} samples`).toBeUndefined();
        expect(new Set(many!.paths![0]!).size).toBeGreaterThan(0.9 * many!.paths![0]!.length);
      }
    } finally {
      model.dispose();
    }
  });

  test("a shared and a copied prefix, and no cache for the first patch", async () => {
    for (const context of [1, 15 * 8, 16 * 8, 17 * 8, 500]) {
      const request = {
        series: [
          makeSeries({ length: context, variates: 2, seed, stream: 4 }),
          makeSeries({ length: 77, variates: 2, seed: 2, stream: 5 }),
        ],
        horizon: 150,
        samples: 5,
        seed: 6,
      };
      const shared = numbersOf(await predictOnce({ ...choice, sharePrefix: true }, request));
      const copied = numbersOf(await predictOnce({ ...choice, sharePrefix: false }, request));
      expect(isAlive(shared)).toBe(true);
      expect(firstDifference(copied, shared), `context ${context}`).toBeUndefined();
    }
  });

  test("series with and without known futures, together and apart", async () => {
    const known = { variates: 1, horizon: 50 };
    const series = [
      makeSeries({ length: 90, variates: 3, seed: 1, known }),
      makeSeries({ length: 90, variates: 3, seed: 2 }),
      makeSeries({ length: 61, variates: 3, seed: 3, known: { variates: 2, horizon: 50 } }),
    ];
    for (const labels of [false, true]) {
      const model = loadToto1({ ...choice, set: { labels } });
      try {
        const together = await model.predict({ series, horizon: 50, samples: 2, seed: 0 });
        for (const [index, single] of series.entries()) {
          const [alone] = await model.predict({ series: [single], horizon: 50, samples: 2, seed: 0 });
          expect(firstDifference(numbersOf([alone!]), numbersOf([together[index]!])), `series ${index}, labels ${labels}`).toBeUndefined();
        }
        const answer = together[0]!.paths![2]!;
        expect([...answer.subarray(0, 50)]).toEqual([...series[0]!.knownFuture![0]!]);
      } finally {
        model.dispose();
      }
    }
  });

  test("variates of different groups do not see each other; of the same group they do", async () => {
    const joint = makeSeries({ length: 100, variates: 2, seed, groups: [0, 1] });
    const model = loadToto1(choice);
    try {
      const ask = async (series: ModelSeries): Promise<readonly Float32Array[]> =>
        (await model.predict({ series: [series], horizon: 40, samples: 0, seed: 0 }))[0]!.mean;
      const split = await ask(joint);
      for (const variate of [0, 1]) {
        const other = joint.values.map((values, v) => (v === variate ? values : values.map((x) => 1 - 3 * x)));
        expect(firstDifference((await ask({ ...joint, values: other }))[variate]!, split[variate]!)).toBeUndefined();
        const together = { ...joint, groups: Int32Array.of(4, 4) };
        const changed = await ask({ ...together, values: other });
        expect(firstDifference(changed[variate]!, (await ask(together))[variate]!)).toBeDefined();
      }
    } finally {
      model.dispose();
    }
  });

  test("same seed, same bits; another seed or stream, other bits; the order of a batch does not matter", async () => {
    const series = ragged(3, 1, 200);
    const model = loadToto1(choice);
    try {
      const ask = async (list: readonly ModelSeries[], ofSeed: number): Promise<Float32Array[]> =>
        (await model.predict({ series: list, horizon: 33, samples: 4, seed: ofSeed })).map((answer) => numbersOf([answer]));
      const first = await ask(series, 21);
      const again = await ask([...series].reverse(), 21);
      for (const [index, numbers] of first.entries()) expect(firstDifference(again[2 - index]!, numbers)).toBeUndefined();
      const changed = [
        await ask(series, 22),
        await ask(series, 21 + 2 ** 32),
        await ask(
          series.map((entry) => ({ ...entry, stream: entry.stream + 100 })),
          21,
        ),
      ];
      for (const others of changed)
        for (const [index, numbers] of others.entries()) expect(firstDifference(numbers, first[index]!)).toBeDefined();
    } finally {
      model.dispose();
    }
  });
});

/** Instruction sets this CPU can run, the widest first. */
const available = (["avx512", "avx2", "neon", "plain"] as const).filter((isa) => {
  try {
    return selectCpu(isa, cpuFeatures()).isa === isa;
  } catch {
    return false;
  }
});

describe(`instruction sets: ${available.join(", ")}`, () => {
  test.runIf(available.length > 1).each(Object.entries(models))("all give one answer: %s", async (_name, choice) => {
    const request = requests["9 paths"]!;
    const widest = numbersOf(await predictOnce({ ...choice, deviceOptions: { target: available[0]! } }, request));
    expect(isAlive(widest)).toBe(true);
    for (const target of available.slice(1))
      expect(
        firstDifference(numbersOf(await predictOnce({ ...choice, deviceOptions: { target } }, request)), widest),
        target,
      ).toBeUndefined();
  });
});

describe("through the forecaster", () => {
  const history = (length: number, from: number): number[] =>
    Array.from({ length }, (_, t) => 50 + 10 * Math.sin((t + from) / 5) + ((t * 7919 + from) % 13));

  test("modes, threads, batches and repeats", async () => {
    const batch = Array.from({ length: 6 }, (_, index) => ({ id: `series ${index}`, values: history(40 + 61 * index, index) }));
    const options = { horizon: 40, samples: 20, seed: 7, paths: true, report: false };
    const texts = new Map<string, string[]>();
    for (const settings of [...modes.map((mode) => ({ mode })), { threads: 1 }]) {
      const forecaster = await Forecaster.load("bundled:toto1-formula", { device: "native", ...settings });
      const together = await forecaster.predict(batch, options);
      const alone = await Promise.all(batch.map((series) => forecaster.predict(series, options)));
      const entries = (together.toJSON() as { series: unknown[] }).series.map((entry) => JSON.stringify(entry));
      expect(alone.map((forecast) => JSON.stringify((forecast.toJSON() as { series: unknown[] }).series[0]))).toEqual(entries);
      texts.set(JSON.stringify(settings), entries);
      forecaster.dispose();
    }
    const [first, ...others] = [...texts.values()];
    for (const other of others) expect(other).toEqual(first);
    expect(first!.length).toBe(6);
    expect(first![0]).toContain('"paths"');
  });
});
