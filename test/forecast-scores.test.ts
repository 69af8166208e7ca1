/** Quantiles, metrics, baselines and rolling windows against values worked out by hand or by definition. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { drift, naive, seasonalNaive } from "../src/forecast/baselines.js";
import { meanDefined, scoreWindow, WQL_LEVELS, type ScorableForecast } from "../src/forecast/metrics.js";
import { normalQuantile } from "../src/forecast/normal.js";
import { quantileOfKnots, quantileOfPaths } from "../src/forecast/quantiles.js";
import { evaluateRolling, rollingWindows } from "../src/forecast/rolling.js";

test("sample quantiles are type 7: known values", () => {
  // Four paths, two steps; path-major.
  const paths = Float32Array.of(4, 10, 1, 10, 3, 10, 2, 10);
  expect(Array.from(quantileOfPaths(paths, 2, 0.5))).toEqual([2.5, 10]);
  expect(quantileOfPaths(paths, 2, 0.1)[0]).toBeCloseTo(1.3, 12);
  expect(quantileOfPaths(Float32Array.of(7), 1, 0.9)[0]).toBe(7);
  expect(quantileOfPaths(Float32Array.of(1, Number.NaN), 1, 0.5)[0]).toBeNaN();
});

test("sample quantiles: within the sample, rising with the level, blind to the order of paths", () => {
  fc.assert(
    fc.property(
      fc.float32Array({ minLength: 1, maxLength: 40, noNaN: true, noDefaultInfinity: true }),
      fc.double({ min: 0.01, max: 0.49, noNaN: true }),
      (draws, level) => {
        const at = (sample: Float32Array, where: number): number => quantileOfPaths(sample, 1, where)[0] ?? Number.NaN;
        const low = at(draws, level);
        const high = at(draws, 1 - level);
        return (
          low >= Math.min(...draws) && high <= Math.max(...draws) && low <= high && Object.is(at(draws.toReversed(), level) + 0, low + 0)
        );
      },
    ),
    { verbose: true },
  );
});

test("knots: exact at a knot, linear between, refused outside", () => {
  const values = Float32Array.of(1, 2, 5, 6);
  expect(Array.from(quantileOfKnots([0.1, 0.9], values, 2, 0.1))).toEqual([1, 2]);
  expect(Array.from(quantileOfKnots([0.1, 0.9], values, 2, 0.9))).toEqual([5, 6]);
  expect(quantileOfKnots([0.1, 0.9], values, 2, 0.5)[0]).toBeCloseTo(3, 12);
  expect(() => quantileOfKnots([0.1, 0.9], values, 2, 0.95)).toThrow(/0\.1 to 0\.9/);
});

const point = (...values: number[]): ScorableForecast => ({ mean: values, quantile: () => values });

test("scores of a point forecast by hand", () => {
  // Past differences at lag 2: |3-1|, |5-2| -> 2.5 on average; squared: 6.5.
  const scores = scoreWindow(point(6, 6), [5, 8], [1, 2, 3, 5], 2);
  expect(scores.mase).toBeCloseTo(1.5 / 2.5, 12);
  expect(scores.rmsse).toBeCloseTo(Math.sqrt(2.5 / 6.5), 12);
  expect(scores.smape).toBeCloseTo((2 / 11 + 4 / 14) / 2, 12);
  // A point forecast loses |error| at every pair of mirrored levels: mean loss = sum of |error|.
  expect(scores.wql).toBeCloseTo(3 / 13, 12);
  expect(scores.coverage80).toBe(0);
  expect(scores.msis).toBeCloseTo((10 * 1.5) / 2.5, 12);
});

test("a perfect forecast scores zero, with full coverage", () => {
  expect(scoreWindow(point(1, 2), [1, 2], [3, 1, 4], 1)).toMatchObject({ mase: 0, wql: 0, smape: 0, coverage80: 1, msis: 0, rmsse: 0 });
});

test("undefined scores are NaN, and means leave them out and count them", () => {
  const constant = scoreWindow(point(1), [2], [5, 5, 5], 1);
  expect(constant.mase).toBeNaN();
  expect(constant.msis).toBeNaN();
  expect(constant.rmsse).toBeNaN();
  expect(scoreWindow(point(1), [0], [1, 2], 1).wql).toBeNaN();
  expect(scoreWindow(point(0), [0], [1, 2], 1).smape).toBe(0);
  expect(scoreWindow(point(1), [2], [5], 1).mase).toBeNaN();
  expect(meanDefined([1, Number.NaN, 3])).toEqual({ mean: 2, undefinedCount: 1 });
  expect(meanDefined([Number.NaN]).mean).toBeNaN();
});

test("missing actual values are left out", () => {
  const past = [1, 2, 4, 3];
  expect(scoreWindow(point(6, 0), [5, Number.NaN], past, 1)).toEqual(scoreWindow(point(6), [5], past, 1));
});

test("normal quantiles: tabulated values, symmetry", () => {
  expect(normalQuantile(0.975)).toBeCloseTo(1.959963984540054, 8);
  expect(normalQuantile(0.9)).toBeCloseTo(1.2815515655446004, 8);
  expect(normalQuantile(0.001)).toBeCloseTo(-3.090232306167813, 7);
  expect(normalQuantile(0.5)).toBeCloseTo(0, 12);
  expect(normalQuantile(0)).toBeNaN();
});

test("baselines: points", () => {
  expect(Array.from(naive([1, 2, Number.NaN], 2, 1).mean)).toEqual([2, 2]);
  expect(Array.from(seasonalNaive([1, 2, 3, 4, 5, 6], 5, 3).mean)).toEqual([4, 5, 6, 4, 5]);
  expect(Array.from(seasonalNaive([1, 2, 3, 4, Number.NaN, 6], 3, 3).mean)).toEqual([4, 2, 6]);
  expect(Array.from(seasonalNaive([1, 2], 2, 24).mean)).toEqual([2, 2]);
  expect(Array.from(drift([0, 1, 5, 6], 3, 1).mean)).toEqual([8, 10, 12]);
  expect(Array.from(drift([7], 2, 1).mean)).toEqual([7, 7]);
});

test("baselines: the median is the mean, bands widen with the horizon, a constant past has none", () => {
  const past = [3, 1, 4, 1, 5, 9, 2, 6];
  for (const baseline of [naive, seasonalNaive, drift]) {
    const forecast = baseline(past, 9, 3);
    const width = Array.from({ length: 9 }, (_, step) => (forecast.quantile(0.9)[step] ?? 0) - (forecast.quantile(0.1)[step] ?? 0));
    expect(Array.from(forecast.quantile(0.5))).toEqual(Array.from(forecast.mean));
    expect(width.every((value, step) => value > 0 && (step === 0 || value >= (width[step - 1] ?? 0)))).toBe(true);
    expect(width[8]).toBeGreaterThan(width[0] ?? 0);
  }
  expect(naive([2, 2, 2], 1, 1).quantile(0.9)[0]).toBe(2);
});

test("naive coverage on random walks is near 80%", () => {
  // A seeded walk: the normal band is the truth here, so 400 windows put coverage within a few percent.
  let state = 12345;
  const uniform = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  let covered = 0;
  for (let window = 0; window < 400; window += 1) {
    let at = 0;
    const walk = Array.from({ length: 110 }, () => (at += normal()));
    covered += scoreWindow(naive(walk.slice(0, 100), 10, 1), walk.slice(100), walk.slice(0, 100), 1).coverage80 / 400;
  }
  expect(covered).toBeGreaterThan(0.74);
  expect(covered).toBeLessThan(0.86);
});

test("rolling windows: the last origins, never overlapping the future", () => {
  const values = Array.from({ length: 20 }, (_, step) => step);
  const windows = rollingWindows(values, 3, 4);
  expect(windows.map((window) => window.origin)).toEqual([8, 11, 14, 17]);
  for (const window of windows) expect(window.actual[0]).toBe((window.past.at(-1) ?? 0) + 1);
  expect(rollingWindows(values, 8, 5).length).toBe(1);
  expect(() => rollingWindows([1, 2, 3], 2, 1)).toThrow(/too few/);
});

test("skill is 1 for a perfect model, 0 for the baseline itself, negative for a worse one", async () => {
  const values = Float64Array.from({ length: 60 }, (_, step) => 10 + (step % 6) + Math.sin(step));
  const windows = rollingWindows(values, 6, 3);
  const perfect = await evaluateRolling(windows, 6, () => Promise.resolve(windows.map((window) => point(...window.actual))));
  expect(perfect.skill.naive).toEqual({ mase: 1, wql: 1 });
  const same = await evaluateRolling(windows, 6, (pasts, horizon) => Promise.resolve(pasts.map((past) => seasonalNaive(past, horizon, 6))));
  expect(same.skill.seasonalNaive).toEqual({ mase: 0, wql: 0 });
  const bad = await evaluateRolling(windows, 6, (pasts, horizon) =>
    Promise.resolve(pasts.map(() => point(...new Array<number>(horizon).fill(1000)))),
  );
  expect(bad.skill.seasonalNaive.wql).toBeLessThan(0);
  expect(WQL_LEVELS.length).toBe(9);
});
