/**
 * Rolling a running process back: the file that TEMPOGRAPH_ENV_FILE names is looked at before each request, the disable variables beat
 * everything, and setStance() does the same in code. The forecast never changes by a bit.
 */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Forecaster, setStance, type ForecastReport, type PredictOptions, type SeriesInput } from "../src/index.js";

const folder = mkdtempSync(join(tmpdir(), "tempograph-rollback-"));
const file = join(folder, "settings");
const values = Array.from({ length: 70 }, (_, t) => 10 + Math.sin(t / 3));
const candles = {
  open: values,
  high: values.map((value) => value + 1),
  low: values.map((value) => value - 1),
  close: values.map((value) => value + 0.5),
};

const timestamps = values.map((_, hour) => new Date(Date.UTC(2024, 0, 1, hour)).toISOString());

/** Each family, with a request; compiled kernels of one are enough. */
interface Case {
  readonly name: string;
  readonly device: "auto" | "reference";
  readonly series: SeriesInput;
  readonly options: PredictOptions;
}

const models: readonly Case[] = [
  { name: "bundled:toto1-formula", device: "auto", series: { values }, options: { horizon: 70, samples: 2 } },
  { name: "bundled:toto2-nano", device: "reference", series: { values }, options: { horizon: 40 } },
  { name: "bundled:kronos-formula", device: "reference", series: { columns: candles, timestamps }, options: { horizon: 3, samples: 2 } },
];

interface Run {
  readonly means: readonly (readonly number[])[];
  readonly report: ForecastReport;
}

async function ask(forecaster: Forecaster, { series, options }: Case): Promise<Run> {
  const forecast = await forecaster.predict(series, options);
  return { means: forecast.series.map(({ mean }) => [...mean]), report: forecast.report };
}

beforeEach(() => {
  writeFileSync(file, "# nothing yet\n");
  process.env["TEMPOGRAPH_ENV_FILE"] = file;
});

afterEach(() => {
  delete process.env["TEMPOGRAPH_ENV_FILE"];
  delete process.env["TOTO_DISABLE_COMPILE"];
  setStance("default");
});

describe.each(models)("$name", (model) => {
  test("goes eager when the file disables compiling, and back, without a recompile", async () => {
    const forecaster = await Forecaster.load(model.name, { device: model.device, mode: "reduce-overhead" });
    try {
      const isReference = forecaster.report().device.includes("reference");
      const before = await ask(forecaster, model);
      expect(before.report.mode).toBe("reduce-overhead");
      writeFileSync(file, "export TOTO_DISABLE_COMPILE=1\n");
      const during = await ask(forecaster, model);
      expect(during.report.mode).toBe("eager");
      if (!isReference) {
        expect(before.report.capturedSteps).toBeGreaterThan(0);
        expect(during.report.capturedSteps).toBe(0);
        expect(during.report.foreignCallsPerStep).toBeGreaterThan(before.report.foreignCallsPerStep);
      }
      writeFileSync(file, "export TOTO_DISABLE_COMPILE=0\n");
      const after = await ask(forecaster, model);
      expect(after.report.mode).toBe("reduce-overhead");
      expect(after.report).toMatchObject({ compiles: 0, foreignCallsPerStep: before.report.foreignCallsPerStep });
      expect(during.means).toEqual(before.means);
      expect(after.means).toEqual(before.means);
      expect(forecaster.report().recompiles).toBe(0);
    } finally {
      forecaster.dispose();
    }
  });
});

describe("which says so", () => {
  const model: Case = { name: "bundled:toto1-formula", device: "reference", series: { values }, options: { horizon: 40, samples: 2 } };
  const { device } = model;

  test("a mode in the file rolls back a forecaster loaded without one, but not an option object; a disable variable beats both", async () => {
    const [plain, chosen] = [await Forecaster.load(model.name, { device }), await Forecaster.load(model.name, { device, mode: "default" })];
    try {
      writeFileSync(file, "TEMPOGRAPH_MODE=eager\n");
      expect((await ask(plain, model)).report.mode).toBe("eager");
      expect((await ask(chosen, model)).report.mode).toBe("default");
      process.env["TOTO_DISABLE_COMPILE"] = "yes";
      expect((await ask(chosen, model)).report.mode).toBe("eager");
    } finally {
      plain.dispose();
      chosen.dispose();
    }
  });

  test("a process that starts disabled compiles once it is enabled", async () => {
    process.env["TOTO_DISABLE_COMPILE"] = "1";
    const forecaster = await Forecaster.load(model.name, { device, mode: "reduce-overhead" });
    try {
      const disabled = await ask(forecaster, model);
      expect(disabled.report.mode).toBe("eager");
      delete process.env["TOTO_DISABLE_COMPILE"];
      const enabled = await ask(forecaster, model);
      expect(enabled.report.mode).toBe("reduce-overhead");
      expect(enabled.means).toEqual(disabled.means);
    } finally {
      forecaster.dispose();
    }
  });

  test("setStance in code: force_eager runs op by op with the same bits, fail_on_recompile lets known shapes run", async () => {
    const forecaster = await Forecaster.load(model.name, { device });
    try {
      const before = await ask(forecaster, model);
      expect(setStance("force_eager")).toBe("default");
      const forced = await ask(forecaster, model);
      expect(forced.report.mode).toBe("eager");
      expect(forced.means).toEqual(before.means);
      setStance("fail_on_recompile");
      expect((await ask(forecaster, model)).means).toEqual(before.means);
      await expect(forecaster.predict({ values: new Array<number>(6000).fill(1) }, { ...model.options, context: 6000 })).rejects.toThrow(
        /would recompile/,
      );
    } finally {
      forecaster.dispose();
    }
  });
});
