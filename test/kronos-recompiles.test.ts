/** Any context, horizon, number of samples and batch runs the programs that were compiled once, many candles per call. */
import { describe, expect, test } from "vitest";
import { loadTiny, makeCandles, randomNumbers, request } from "./kronos-harness.js";

const seed = Number(process.env["TEST_SEED"] ?? 20260101);

describe(`seed ${seed}`, () => {
  test("50 random requests recompile nothing", async () => {
    const random = randomNumbers(seed);
    const between = (low: number, high: number): number => low + Math.floor(random() * (high - low + 1));
    const model = loadTiny();
    // Warm-up: prefill, one step, encode and decode; then a window that slides.
    await model.predict(request([makeCandles(1, 8, 2)], 2, 2));
    expect(model.report().compiles).toBe(4);
    await model.predict(request([makeCandles(1, 64, 2)], 2, 2));
    expect(model.report().compiles).toBe(5);
    for (let index = 0; index < 50; index++) {
      const horizon = between(1, 20);
      const series = Array.from({ length: between(1, 4) }, (_, part) => makeCandles(index * 10 + part, between(2, 90), horizon));
      const sampling = { temperature: 0.2 + random(), topK: between(0, 9), topP: 0.05 + 0.95 * random(), maxContext: between(20, 70) };
      const answers = await model.predict(request(series, horizon, between(0, 9), sampling));
      expect(answers.every(({ mean }) => mean.length === 6 && mean.every((column) => column.every(Number.isFinite)))).toBe(true);
    }
    const report = model.report();
    expect([report.compiles, report.recompiles, report.graphBreaks, report.fallbacks]).toEqual([5, 0, 0, 0]);
    model.dispose();
  });

  test("thirty-two candles are one foreign call for all paths and series while windows hold", async () => {
    const model = loadTiny();
    const series = [makeCandles(1, 30, 19), makeCandles(2, 40, 19), makeCandles(3, 9, 19)];
    const counts = (): number[] => {
      const reports = model.programs.map((program) => program.report()).filter(({ name }) => /prefill|step/.test(name));
      const { steps, capturedSteps } = model.report();
      return [steps, capturedSteps, reports.reduce((sum, { foreignCalls }) => sum + foreignCalls, 0)];
    };
    await model.predict(request(series, 19, 5));
    // The prefill, and the step that is compiled, are calls of their own.
    expect(counts()).toEqual([19, 19, 1 + 1 + 1]);
    await model.predict(request(series, 19, 5));
    expect(counts()).toEqual([38, 38, 3 + 1 + 1]);
    model.dispose();
  });

  test("candles go one by one once a window slides, and in the other modes", async () => {
    const model = loadTiny();
    await model.predict(request([makeCandles(1, 10, 12), makeCandles(2, 60, 12)], 12, 2));
    const step = model.programs.map((program) => program.report()).find(({ name }) => name === "kronos.step");
    // Windows hold 64 tokens: steps 1 to 4 of both series together, then 7 of one alone.
    expect([step?.calls, step?.foreignCalls]).toEqual([11, 1 + 1 + 7]);
    model.dispose();
    const other = loadTiny({ mode: "default" });
    await other.predict(request([makeCandles(1, 10, 12)], 12, 2));
    const slow = other.programs.map((program) => program.report()).find(({ name }) => name === "kronos.step");
    expect(slow?.foreignCalls).toBe((slow?.calls as number) * (slow?.specializations[0]?.launches as number));
    other.dispose();
  });

  test("the work of a step does not grow: one program, one token per path", async () => {
    const model = loadTiny();
    await model.predict(request([makeCandles(1, 10, 40)], 40, 2));
    const step = model.programs[3]?.report();
    expect([step?.calls, step?.compiles, step?.foreignCalls]).toEqual([39, 1, 1 + 2]);
    const prefill = model.programs[2]?.report();
    expect(prefill?.calls).toBe(1);
    model.dispose();
  });

  test("a candle of sliding windows is one call, which computes what paths have in common once", async () => {
    const callsOf = async (samples: number): Promise<(number | undefined)[]> => {
      const model = loadTiny();
      await model.predict(request([makeCandles(1, 64, 6), makeCandles(2, 70, 6)], 6, samples));
      const reports = model.programs.map((program) => program.report());
      const calls = ["prefill", "step", "window"].map((name) => reports.find((report) => report.name === `kronos.${name}`)?.calls);
      expect(model.report().foreignCallsPerStep).toBe(1);
      model.dispose();
      return calls;
    };
    expect(await callsOf(3)).toEqual([1, undefined, 5]);
    expect(await callsOf(1)).toEqual([6, undefined, undefined]);
  });

  test("a context beyond the tables costs one counted recompile per program that reads them", async () => {
    const model = loadTiny();
    await model.predict(request([makeCandles(1, 8, 2)], 2, 1));
    await model.predict(request([makeCandles(1, 4200, 2)], 2, 1));
    expect(model.report().recompiles).toBe(2); // encode and decode
    model.dispose();
  });
});
