/** Toto 2.0 never recompiles: contexts, horizons, batches, masks, block sizes and options are data of one program per number of variates. */
import { afterEach, expect, test } from "vitest";
import { Forecaster, setStance } from "../src/index.js";
import type { ModelSeries } from "../src/models/model.js";
import { makeRandom, makeSeries } from "./toto1-harness.js";
import { faultOf, loadToto2, quantilesOf, requestOf } from "./toto2-harness.js";

afterEach(() => void setStance("default"));

const seed = 515;
const patch = 8;
const between = (random: () => number, low: number, high: number): number => low + Math.floor(random() * (high - low + 1));

test(`50 random requests (seed ${seed}): one compile, one foreign call per round`, async () => {
  const random = makeRandom(seed);
  const model = loadToto2();
  await model.predict(requestOf([makeSeries({ length: 20, seed })], 5));
  setStance("fail_on_recompile");
  let rounds = 1;
  for (let call = 0; call < 50; call++) {
    const series: ModelSeries[] = Array.from({ length: between(random, 1, 9) }, (_, index) =>
      makeSeries({
        length: between(random, 1, call === 7 ? 4096 : 400),
        seed: seed + 100 * call + index,
        missing: call % 3 === 0 ? 0.6 : 0.05,
      }),
    );
    const horizon = between(random, 1, 300);
    const decodeBlockSize = call % 2 === 0 ? 0 : patch * between(random, 1, 12);
    const decoding = {
      decodeBlockSize,
      hasMissingValues: random() < 0.5,
      scalerFallbackMinObs: between(random, 0, 9),
      quantileRealCapK: random() < 0.5 ? 0 : 1e4 * random(),
      placedGroups: random() < 0.5,
    };
    const values = quantilesOf(await model.predict(requestOf(series, horizon, decoding)));
    expect(values.length).toBe(series.length);
    if (decoding.quantileRealCapK > 0) expect(values.map((row) => faultOf(row, horizon)).filter(Boolean)).toEqual([]);
    rounds +=
      decodeBlockSize === 0 ? 1 : Math.ceil(Math.ceil(horizon / patch) / Math.min(decodeBlockSize / patch, Math.ceil(horizon / patch)));
  }
  expect(model.report()).toMatchObject({
    compiles: 1,
    recompiles: 0,
    graphBreaks: 0,
    fallbacks: 0,
    foreignCallsPerStep: 1,
    steps: rounds,
    capturedSteps: rounds,
    meanKind: "mean of the quantiles",
  });
  model.dispose();
});

test("through the forecaster: native quantiles, no recompile on a longer context", async () => {
  const forecaster = await Forecaster.load("bundled:toto2-nano", { device: "native" });
  expect(forecaster.trained).toBe(true);
  expect(forecaster.quantileLevels).toEqual([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]);
  for (const length of [40, 900, 5000]) {
    const forecast = await forecaster.predict({ values: [...makeSeries({ length, seed }).values[0]!] }, { horizon: 24, context: length });
    expect(forecast.report.recompiles).toBe(0);
    const [low, high] = [forecast.series[0]!.quantile(0.1), forecast.series[0]!.quantile(0.9)];
    expect(low.every((value, t) => value <= (high[t] as number))).toBe(true);
  }
  forecaster.dispose();
});
