/**
 * TEMPOGRAPH_CHECK=bits: clean runs of the three models pass and say how much was compared, a planted fault is named by label, op, kernel and element, States end as
 * one run would leave them, and a check that compares nothing says so. Faults are planted by replacing the code generator's module for this file alone.
 */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type * as Program from "../src/codegen/program.js";
import type { CheckReport, Mode } from "../src/trace/entry.js";
import { BitDifferenceError, onEvent, openDevice, size, State, type CompileEvent } from "../src/trace/entry.js";
import { compile, readState, rmsNorm, Tensor, writeRows } from "../src/tensor/index.js";
import type { CliContext } from "../src/cli/context.js";
import { Forecaster } from "../src/index.js";
import { exampleCsv, runCli, temporaryFolder } from "./cli-harness.js";
import { loadTiny, makeCandles } from "./kronos-harness.js";
import { loadToto1, makeSeries, numbersOf } from "./toto1-harness.js";
import { loadToto2 } from "./toto2-harness.js";

/** What the compiled program alone gets wrong: in launches whose label matches, one text for another. */
interface Plant {
  label?: RegExp;
  from?: string;
  to?: string;
  used: number;
}
const plant = vi.hoisted((): Plant => ({ used: 0 }));

vi.mock("../src/codegen/program.js", async (load) => {
  const real = await load<typeof Program>();
  const buildProgram: typeof real.buildProgram = (kernels, target) => {
    const program = real.buildProgram(kernels, target);
    const { label, from = "", to = "" } = plant;
    if (!label || !(kernels as { fuse?: boolean }).fuse) return program;
    const sources = [...program.sources];
    const launches = program.launches.map((launch) => {
      const source = program.sources.find(({ symbols }) => symbols.includes(launch.symbol));
      if (!label.test(launch.label) || !source?.text.includes(from)) return launch;
      plant.used++;
      const symbol = `${launch.symbol}_faulty`;
      const text = source.text.replaceAll(from, to).replaceAll(launch.symbol, symbol);
      sources.push({ name: symbol, symbols: [symbol], text });
      return { ...launch, symbol };
    });
    return { ...program, launches, sources };
  };
  return { ...real, buildProgram };
});

beforeEach(() => {
  vi.stubEnv("TEMPOGRAPH_CHECK", "bits");
  for (const key of ["label", "from", "to"] as const) delete plant[key];
  plant.used = 0;
});
afterEach(() => void vi.unstubAllEnvs());

/** Of every norm of Toto 1.0. */
const epsilon = Math.fround(1e-8);
const compiledModes: readonly Mode[] = ["default", "reduce-overhead", "max-autotune"];
const series = [
  makeSeries({ length: 75, variates: 2, seed: 61, stream: 1 }),
  makeSeries({ length: 130, variates: 2, seed: 62, stream: 2 }),
];
const request = { series, horizon: 40, samples: 3, seed: 3 };

const everything = (check: CheckReport | undefined): void => {
  expect(check).toBeDefined();
  for (const field of ["runs", "values", "outputs", "states"] as const) expect(check?.[field], field).toBeGreaterThan(0);
  expect(check?.elements).toBeGreaterThan(1000);
};

describe("clean runs", () => {
  test.each(compiledModes)("toto1, %s: passes, says what was compared, and changes no number", async (mode) => {
    const model = loadToto1({ mode });
    const checked = numbersOf(await model.predict(request));
    everything(model.report().check);
    model.dispose();
    vi.stubEnv("TEMPOGRAPH_CHECK", "");
    const plain = loadToto1({ mode });
    expect(Buffer.from(checked.buffer).equals(Buffer.from(numbersOf(await plain.predict(request)).buffer))).toBe(true);
    expect(plain.report().check).toBeUndefined();
    plain.dispose();
  });

  test.each(compiledModes)("toto2, %s", async (mode) => {
    const model = loadToto2({ mode });
    await model.predict({ ...request, samples: 0 });
    everything(model.report().check);
    model.dispose();
  });

  test.each(compiledModes)("kronos, %s", async (mode) => {
    const model = loadTiny({ mode });
    await model.predict({ series: [makeCandles(5, 40, 4)], horizon: 4, samples: 2, seed: 1 });
    everything(model.report().check);
    model.dispose();
  });

  test("on the reference device, where modes differ by the passes alone", async () => {
    const model = loadToto2({ device: "reference", mode: "default" });
    await model.predict({ series: [makeSeries({ length: 40, seed: 1 })], horizon: 8, samples: 0, seed: 1 });
    everything(model.report().check);
    model.dispose();
  });
});

describe("a planted fault", () => {
  const message = async (fault: Omit<Plant, "used">): Promise<BitDifferenceError> => {
    Object.assign(plant, fault);
    const model = loadToto1();
    const error: unknown = await model.predict(request).catch((reason: unknown) => reason);
    model.dispose();
    expect(plant.used, "the fault was planted").toBeGreaterThan(0);
    expect(error).toBeInstanceOf(BitDifferenceError);
    return error as BitDifferenceError;
  };
  test("in a middle layer's contraction is named there, not where it shows later", async () => {
    const error = await message({ label: /^layer2\b.*/, from: `${epsilon}f`, to: "0.01f" });
    expect(error.label).toMatch(/^layer2\b/);
    expect(error.message).toMatch(
      /^toto1\.prefill: the bits of .*layer2.* \(op \w+, kernel \w*_faulty\) differ in mode reduce-overhead: element \d+ \[[\d, ]+\] of f32\[[\d, ]+\] is \S+ \(0x[0-9a-f]{8}\), op by op it is \S+ \(0x[0-9a-f]{8}\)/,
    );
  });

  test("in what a middle layer writes to its cache names the State", async () => {
    const error = await message({ label: /^layer1\b.*/, from: "if (place2)", to: "if (0)" });
    expect(error.message).toMatch(/the bits of state \S*1\.values after layer1\S* \(op appendValues, kernel \w*_faulty\)/);
  });

  test("ends the command with exit code 1 and one sentence", async () => {
    Object.assign(plant, { label: /^layer1\b/, from: `${epsilon}f`, to: "0.01f" });
    const words = ["forecast", exampleCsv(temporaryFolder()), "--horizon", "4", "--model", "bundled:toto1-formula", "--samples", "0"];
    const { code, error } = await runCli(words, { load: (reference, options) => Forecaster.load(reference, options) });
    expect(plant.used).toBeGreaterThan(0);
    expect(code).toBe(1);
    expect(error).toMatch(/^tempograph: toto1\.prefill: the bits of .* differ/m);
  });
});

describe("States", () => {
  test("end as one run leaves them, also after a difference", async () => {
    const { device } = openDevice("native");
    const counter = new State(device, "counter", [1, 16], "f32");
    const step = compile(
      (x: Tensor) => {
        const next = readState(counter).add(x);
        writeRows(counter, next, x.sum().convert("i32").reshape([1]).mul(0));
        return rmsNorm(next, undefined, 1e-6);
      },
      { device, mode: "reduce-overhead", name: "count" },
    );
    const one = Tensor.from(new Float32Array(16).fill(1), [1, 16]);
    for (let run = 1; run <= 3; run++) {
      step(one);
      expect([...new Set(counter.read())]).toEqual([run]);
    }
    await step.run([one]);
    expect([...new Set(counter.read())]).toEqual([4]);
    expect(step.report().check).toEqual({
      runs: 4,
      values: expect.any(Number) as number,
      outputs: 4,
      states: 4,
      elements: expect.any(Number) as number,
    });
    step.dispose();
    counter.dispose();
  });
});

describe("what was compared", () => {
  test("is an event for each run", () => {
    const heard: CompileEvent[] = [];
    const stop = onEvent((event) => heard.push(event));
    const step = compile((x: Tensor) => rmsNorm(x.add(1), undefined, 1e-6), { device: "native", name: "heard", dynamic: { rows: [1, 8] } });
    step(Tensor.from(new Float32Array(32), [size("rows", 2), 16]));
    stop();
    expect(heard.filter(({ stream }) => stream === "check")).toEqual([
      { stream: "check", function: "heard", fields: { mode: "default", values: 1, outputs: 1, states: 0, elements: 64 } },
    ]);
    step.dispose();
  });

  test("is nothing in mode eager, and the report says so", async () => {
    const model = loadToto1({ mode: "eager" });
    await model.predict(request);
    expect(model.report().check).toEqual({ runs: 0, values: 0, outputs: 0, states: 0, elements: 0 });
    model.dispose();
    const words = ["forecast", exampleCsv(temporaryFolder()), "--horizon", "4", "--model", "bundled:toto1-formula", "--samples", "0"];
    const load: CliContext["load"] = (reference, options) => Forecaster.load(reference, options);
    expect((await runCli([...words, "--mode", "eager"], { load })).out).toContain("check bits: nothing was compared");
    expect((await runCli(words, { load })).out).toMatch(/check bits: \d+ values, \d+ outputs and \d+ states of \d+ runs/);
  });

  test("an unknown check is refused, in code and on the command line", async () => {
    vi.stubEnv("TEMPOGRAPH_CHECK", "bit");
    expect(() => compile((x: Tensor) => x, { device: "native" })).toThrow('TEMPOGRAPH_CHECK: unknown check "bit"; there are: bits, off');
    const { code, error } = await runCli(["config"], { environment: { TEMPOGRAPH_CHECK: "bit" } });
    expect([code, error]).toEqual([2, expect.stringContaining('unknown check "bit"')]);
  });
});
