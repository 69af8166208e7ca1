/** The bundled trained Kronos against the outputs recorded when it was trained, and through the forecaster. */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { goldenFunctions } from "../src/diagnostics/golden/functions.js";
import { runGoldenCases } from "../src/diagnostics/golden/run.js";
import { Forecaster } from "../src/index.js";

const models = join(dirname(fileURLToPath(import.meta.url)), "..", "models");
const folders = [join(models, "kronos-nano", "golden", "greedy"), join(models, "kronos-tokenizer-nano", "golden", "tokens")];

for (const device of ["native", "reference"]) {
  test(`recorded outputs, ${device}`, async () => {
    const report = await runGoldenCases(folders, {
      device,
      mode: "reduce-overhead",
      functions: goldenFunctions,
      programs: ["taps", "product"],
    });
    expect(report.cases.map(({ name, reason }) => reason && `${name}: ${reason}`)).toEqual([undefined, undefined, undefined, undefined]);
    expect(report.passed).toBe(4);
  });
}

test("the bundled model forecasts with its own tokenizer", async () => {
  const forecaster = await Forecaster.load("bundled:kronos-nano");
  const length = 64;
  const wave = Array.from({ length }, (_, row) => 100 + 5 * Math.sin(row / 4));
  const timestamps = wave.map((_, row) => new Date(Date.UTC(2024, 0, 1) + row * 3_600_000));
  const columns = { open: wave, high: wave.map((value) => value + 1), low: wave.map((value) => value - 1), close: wave };
  const forecast = await forecaster.predict({ columns, timestamps }, { horizon: 6, samples: 8 });
  expect(forecaster.trained).toBe(true);
  expect(forecast.series[3]?.mean.every((value) => value > 80 && value < 120)).toBe(true);
  forecaster.dispose();
});
