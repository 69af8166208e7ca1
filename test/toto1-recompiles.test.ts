/**
 * Toto 1.0 never recompiles inside its bounds: contexts, horizons, batches and sample counts are data. Beyond the bound it is one recompile that is counted and
 * named, or an error under the stance that forbids it.
 */
import { afterEach, describe, expect, test, vi } from "vitest";
import { Forecaster, onEvent, RecompileError, setStance, type CompileEvent } from "../src/index.js";
import { firstDifference, loadToto1, makeRandom, makeSeries, numbersOf } from "./toto1-harness.js";

afterEach(() => void setStance("default"));

const patch = 32;
const seed = 1606;

/** A whole number from low to high, both possible. */
const between = (random: () => number, low: number, high: number): number => low + Math.floor(random() * (high - low + 1));

describe(`30 forecasts with random sizes (seed ${seed})`, () => {
  for (const [kind, most] of [
    ["sampled", 48],
    ["mean", 0],
  ] as const) {
    test(`${kind}: one compile for prefill, one for decode, one foreign call per step`, async () => {
      const random = makeRandom(seed);
      const model = loadToto1({ preset: "toto1-formula" });
      const forecaster = Forecaster.fromModel(model);
      let steps = 0;
      const shapes = new Set<string>();
      for (let call = 0; call < 30; call++) {
        const batch = between(random, 1, 6);
        const samples = most === 0 ? 0 : between(random, 1, most);
        // The first forecast already needs a decode step, so that both programs exist from then on.
        const horizon = between(random, call === 0 ? patch + 1 : 1, 200);
        const series = Array.from({ length: batch }, (_, index) => {
          const length = call === 1 ? 64 : call === 2 ? 4096 : between(random, 64, 4096);
          return { id: `s${index}`, values: [...makeSeries({ length, seed: seed + 31 * call + index }).values[0]!] };
        });
        const forecast = await forecaster.predict(series, { horizon, samples, seed: call });
        steps += Math.ceil(horizon / patch);
        shapes.add(
          `${batch} ${samples} ${Math.ceil(horizon / patch)} ${series.map(({ values }) => Math.ceil(values.length / patch)).join()}`,
        );
        expect(forecast.report.recompiles).toBe(0);
        expect(forecast.report.compiles).toBe(call === 0 ? 2 : 0);
        expect(forecast.report.foreignCallsPerStep).toBe(1);
      }
      expect(shapes.size).toBeGreaterThan(25);
      expect(forecaster.report()).toMatchObject({
        compiles: 2,
        recompiles: 0,
        graphBreaks: 0,
        fallbacks: 0,
        foreignCallsPerStep: 1,
        steps,
        capturedSteps: steps,
      });
      expect(forecaster.report().waits).toBeLessThanOrEqual(steps);
      const reports = model.programs.map((program) => program.report());
      expect(reports.map(({ name, compiles, specializations }) => [name, compiles, specializations.length])).toEqual([
        ["toto1.prefill", 1, 1],
        ["toto1.decode", 1, 1],
      ]);
      for (const { calls, foreignCalls } of reports) expect(foreignCalls).toBe(calls);
      expect(reports[0]!.calls + reports[1]!.calls).toBe(steps);
      forecaster.dispose();
    });
  }

  test("the same figures without replay: kernel by kernel, many foreign calls, still no recompile", async () => {
    const model = loadToto1({ preset: "toto1-formula", mode: "default" });
    for (const length of [64, 900, 70]) await model.predict({ series: [makeSeries({ length, seed })], horizon: 70, samples: 3, seed });
    expect(model.report()).toMatchObject({ compiles: 2, recompiles: 0, capturedSteps: 0 });
    expect(model.report().foreignCallsPerStep).toBeGreaterThan(5);
    model.dispose();
  });
});

test("512 cache lengths: one program for the prefill and one for every step", async () => {
  const model = loadToto1({ deviceOptions: { threads: 1 } });
  const onProgress = vi.fn();
  const [answer] = await model.predict({ series: [makeSeries({ length: 40, seed })], horizon: 513 * 8, samples: 0, seed, onProgress });
  expect(answer!.mean[0]!.length).toBe(513 * 8);
  expect(onProgress).toHaveBeenCalledTimes(513);
  expect(model.report()).toMatchObject({
    compiles: 2,
    recompiles: 0,
    graphBreaks: 0,
    steps: 513,
    capturedSteps: 513,
    foreignCallsPerStep: 1,
  });
  model.dispose();
});

describe("a context beyond the maximum", () => {
  const long = (length: number) => ({ series: [makeSeries({ length, seed })], horizon: 2 * patch, samples: 2, seed: 1 });

  test("is exactly one recompile, counted and explained; then both lengths run without another", async () => {
    const model = loadToto1({ preset: "toto1-formula" });
    const events: CompileEvent[] = [];
    const stop = onEvent((event) => events.push(event));
    try {
      const [before] = await model.predict(long(4096));
      expect(model.report()).toMatchObject({ compiles: 2, recompiles: 0 });
      const [beyond] = await model.predict(long(4097));
      expect(model.report()).toMatchObject({ compiles: 3, recompiles: 1, graphBreaks: 0, fallbacks: 0 });
      await model.predict(long(8192));
      const [after] = await model.predict(long(4096));
      expect(model.report()).toMatchObject({ compiles: 3, recompiles: 1 });
      expect(firstDifference(numbersOf([after!]), numbersOf([before!]))).toBeUndefined();
      await model.predict(long(8193));
      expect(model.report()).toMatchObject({ compiles: 4, recompiles: 2 });

      const recompiles = events.filter(({ stream }) => stream === "recompiles");
      expect(recompiles.length).toBe(2);
      expect(JSON.stringify(recompiles[0])).toMatch(/toto1\.prefill.*contextBound.*at most 128 patches.*at most 256 patches/);

      const other = loadToto1({ preset: "toto1-formula" });
      const [fresh] = await other.predict(long(4097));
      expect(other.report().recompiles).toBe(0);
      expect(firstDifference(numbersOf([fresh!]), numbersOf([beyond!]))).toBeUndefined();
      other.dispose();
    } finally {
      stop();
      model.dispose();
    }
  });

  test("is an error under fail_on_recompile, and the model goes on working", async () => {
    const forecaster = Forecaster.fromModel(loadToto1({ preset: "toto1-formula" }));
    const values = [...makeSeries({ length: 5000, seed }).values[0]!];
    const options = { horizon: 2 * patch, samples: 2, seed: 1, report: false };
    const cut = JSON.stringify(await forecaster.predict({ values }, options));
    setStance("fail_on_recompile");
    await expect(forecaster.predict({ values }, { ...options, context: 5000 })).rejects.toThrow(RecompileError);
    await expect(forecaster.predict({ values }, { ...options, context: 5000 })).rejects.toThrow(
      /contextBound.*at most 128 patches.*fail_on_recompile/,
    );
    expect(JSON.stringify(await forecaster.predict({ values }, options))).toBe(cut);
    setStance("default");
    expect(JSON.stringify(await forecaster.predict({ values }, { ...options, context: 5000 }))).not.toBe(cut);
    expect(forecaster.report().recompiles).toBe(1);
    forecaster.dispose();
  });
});
