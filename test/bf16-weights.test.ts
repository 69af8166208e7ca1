/**
 * Weights stored as bf16: rounding to nearest even in both places that round, the same bits as f32 kernels on the rounded weights for every instruction set, mode and
 * number of threads, models that agree with the reference device, and reports that name what is stored how.
 */
import { describe, expect, it } from "vitest";
import { roundToBf16, widenBf16 } from "../src/ir/bf16.js";
import { sizeVar } from "../src/ir/dim.js";
import { Forecaster } from "../src/index.js";
import type { ForecastModel, ModelRequest, ModelSeriesAnswer } from "../src/models/model.js";
import type { CompiledGraph, Device } from "../src/runtime/device.js";
import { openDevice, type CompileReport, type Mode } from "../src/trace/entry.js";
import { CaseBuilder, compileTogether, differenceOf, nativeTargets, noise, runCase, runModes, type GraphCase } from "./graph-harness.js";
import { loadTiny, makeCandles } from "./kronos-harness.js";
import { loadToto1, makeSeries, relativeDistance } from "./toto1-harness.js";
import { everyNumber, loadToto2 } from "./toto2-harness.js";

const fromBits = (...words: number[]): Float32Array => new Float32Array(Uint32Array.from(words).buffer);

/** All signs, exponents and a spread of fractions: ties, neighbours of ties, subnormals, infinities and NaNs. */
function adversarial(): Float32Array {
  const fractions = [0, 1, 0x7fff, 0x8000, 0x8001, 0x10000, 0x17fff, 0x18000, 0x18001, 0x7f7fff, 0x7f8000, 0x7fffff, 0x400000, 0x3fffff];
  const words: number[] = [];
  for (let exponent = 0; exponent < 256; exponent++)
    for (const fraction of fractions) words.push((exponent << 23) | fraction, (0x80000000 | (exponent << 23) | fraction) >>> 0);
  return fromBits(...words);
}

/** The nearest of all bf16 that are not NaN, by trying both neighbours in f64; infinity stands for 2^128 there. */
function nearest(value: number): number {
  const size = (x: number): number => (Number.isFinite(x) ? x : Math.sign(x) * 2 ** 128);
  const [word] = new Uint32Array(Float32Array.of(value).buffer) as unknown as [number];
  const [low, high] = [word >>> 16, (word >>> 16) + 1].map((half) => fromBits(half << 16)[0] as number) as [number, number];
  const [below, above] = [Math.abs(value - size(low)), Math.abs(value - size(high))];
  if (below !== above) return below < above ? low : high;
  return (word >>> 16) % 2 === 0 ? low : high;
}

describe("rounding to bf16", () => {
  const values = adversarial();
  const rounded = widenBf16(roundToBf16(values));

  it("is to the nearest, ties to even, from subnormals to infinity; NaN stays NaN", () => {
    let ties = 0;
    values.forEach((value, i) => {
      const got = rounded[i] as number;
      if (Number.isNaN(value)) return expect(got).toBeNaN();
      const want = Number.isFinite(value) ? nearest(value) : value;
      const [word] = new Uint32Array(Float32Array.of(value).buffer) as unknown as [number];
      if ((word & 0xffff) === 0x8000 && Number.isFinite(value)) ties++;
      expect(Object.is(got, want), `${value} gave ${got}, expected ${want}`).toBe(true);
    });
    expect(ties).toBeGreaterThan(500);
    expect([...widenBf16(roundToBf16(fromBits(0x3f808000, 0x3f818000, 0x00008000, 0x00018000, 0x7f7fffff, 0xffffffff)))]).toEqual([
      1,
      1.015625,
      0,
      2 ** -132,
      Infinity,
      NaN,
    ]);
  });

  it("leaves every bf16 as it is", () => {
    const all = Uint16Array.from({ length: 65536 }, (_, bits) => bits);
    const again = roundToBf16(widenBf16(all));
    all.forEach((bits, i) => {
      const isNaN = (bits & 0x7f80) === 0x7f80 && (bits & 0x7f) !== 0;
      expect(again[i]).toBe(isNaN ? bits | 0x40 : bits);
    });
  });

  it.skipIf(nativeTargets().every(({ device }) => !device))("is the same where weights are packed", () => {
    const { device } = nativeTargets().find((one) => one.device) as { device: Device };
    const c = new CaseBuilder("packed");
    c.output(c.add("linear", [c.f32([1, 1], () => Float32Array.of(1))], {}, [c.weight(values.length, 1, () => values, "bf16")]));
    const one = c.finish([{}]);
    const [compiled] = compileTogether("packed_bf16", device, [one], ["default"]).get("default") as CompiledGraph[];
    const got = runCase(device, one, compiled as CompiledGraph, "one-call")[0]?.get("out0") as Float32Array;
    // 0 + 1 * -0 is 0: the chain starts from 0.
    rounded.forEach((want, i) => expect(Object.is(got[i], want === 0 ? 0 : want), `element ${i}: ${got[i]}, expected ${want}`).toBe(true));
  });
});

const rows = sizeVar("rows", 0, 1 << 20);

/** Widths around the panel's edges, several matrices on one x, a normalising prologue, a gate, a bias, a deep matrix, and f32 beside bf16. */
function cases(stored: "f32" | "bf16"): GraphCase[] {
  const fill: typeof noise = (seed, scale = 1) => {
    const values = noise(seed, scale);
    return (count, sizes) => {
      const made = values(count, sizes) as Float32Array;
      return stored === "f32" ? widenBf16(roundToBf16(made)) : made;
    };
  };
  const plain = [1, 47, 48, 49, 97].map((width) => {
    const c = new CaseBuilder(`width ${width}`);
    c.output(c.add("linear", [c.f32([rows, 33], noise(1))], {}, [c.weight(width, 33, fill(width), stored)]));
    return c;
  });
  const gate = new CaseBuilder("gate");
  const x = gate.f32([rows, 80], noise(2));
  const y = gate.add("rmsNorm", [x], { epsilon: 1e-6 });
  const project = (seed: number, width: number, of: typeof y, depth: number): typeof y =>
    gate.add("linear", [of, gate.table([width], noise(seed + 50))], {}, [gate.weight(width, depth, fill(seed), stored)]);
  const hidden = gate.add("mul", [gate.add("silu", [project(3, 112, y, 80)]), project(4, 112, y, 80)]);
  gate.output(gate.add("add", [project(5, 80, hidden, 112), x]));
  const deep = new CaseBuilder("deep");
  deep.output(deep.add("linear", [deep.f32([rows, 1700], noise(6))], {}, [deep.weight(60, 1700, fill(7), stored)]));
  const mixed = new CaseBuilder("f32 beside bf16");
  const z = mixed.f32([rows, 40], noise(8));
  const both = [
    mixed.add("linear", [z], {}, [mixed.weight(50, 40, noise(20))]),
    mixed.add("linear", [z], {}, [mixed.weight(50, 40, fill(21), stored)]),
  ];
  mixed.output(mixed.add("mul", both));
  return [...plain, gate, deep, mixed].map((c) => c.finish([0, 1, 3, 8, 9, 40].map((count) => ({ rows: count }))));
}

describe("contractions with bf16 weights", () => {
  const [halves, wholes] = [cases("bf16"), cases("f32")];
  const reference = openDevice("reference").device;
  for (const { target, device, reason } of nativeTargets(2)) {
    it.skipIf(!device)(
      `${target}: the bits of f32 kernels on the rounded weights, in every mode${device ? "" : ` (skipped: ${reason})`}`,
      () => {
        if (!device) return;
        const names = Object.keys(runModes) as (keyof typeof runModes)[];
        const made = compileTogether("bf16_linear", device, halves, names);
        const whole = compileTogether("f32_linear", device, wholes, ["default"]).get("default") as CompiledGraph[];
        const alone = openDevice("native", { target, threads: 1 }).device;
        halves.forEach((one, index) => {
          const want = runCase(device, wholes[index] as GraphCase, whole[index] as CompiledGraph, "one-call");
          for (const name of names) {
            const compiled = made.get(runModes[name].mode)?.[index] as CompiledGraph;
            for (const on of [device, alone])
              runCase(on, one, compiled, runModes[name].replay).forEach((got, binding) =>
                expect(differenceOf(got, want[binding] as typeof got), `${one.name}, ${name}, binding ${binding}`).toBeUndefined(),
              );
          }
        });
      },
    );
  }

  it("on the reference device: the values of f32 weights that were rounded before", () => {
    const made = compileTogether("bf16_linear", reference, halves, ["default"]).get("default") as CompiledGraph[];
    const whole = compileTogether("f32_linear", reference, wholes, ["default"]).get("default") as CompiledGraph[];
    halves.forEach((one, index) => {
      const want = runCase(reference, wholes[index] as GraphCase, whole[index] as CompiledGraph, "one-call");
      runCase(reference, one, made[index] as CompiledGraph, "one-call").forEach((got, binding) =>
        expect(differenceOf(got, want[binding] as typeof got), one.name).toBeUndefined(),
      );
    });
  });
});

const series = [
  makeSeries({ length: 75, variates: 2, seed: 61, stream: 1 }),
  makeSeries({ length: 130, variates: 2, seed: 62, stream: 2 }),
];

interface Choice {
  readonly weights?: "f32" | "bf16";
  readonly mode?: Mode;
  readonly device?: "native" | "reference";
  readonly threads?: number;
}

/** How each family is loaded and asked, and how far native f32 arithmetic may be from the reference device's f64 on the same bf16 weights. */
const families: Readonly<
  Record<
    string,
    { load: (choice: Choice) => ForecastModel & { programs: readonly { report(): CompileReport }[] }; request: ModelRequest; bound: number }
  >
> = {
  toto1: {
    load: ({ threads, ...choice }) => loadToto1({ ...choice, deviceOptions: threads === undefined ? {} : { threads } }),
    request: { series, horizon: 40, samples: 0, seed: 3 },
    bound: 2e-5,
  },
  toto2: {
    load: ({ threads, ...choice }) => loadToto2({ ...choice, deviceOptions: threads === undefined ? {} : { threads } }),
    request: { series, horizon: 40, samples: 0, seed: 3 },
    bound: 2e-5,
  },
  kronos: { load: loadTiny, request: { series: [makeCandles(5, 40, 4)], horizon: 4, samples: 0, seed: 3 }, bound: 2e-5 },
};

describe.each(Object.entries(families))("%s with bf16 weights", (family, { load, request, bound }) => {
  const numbers = async (choice: Choice): Promise<Float32Array> => {
    const model = load(choice);
    const answers: readonly ModelSeriesAnswer[] = await model.predict(request);
    model.dispose();
    return everyNumber(answers);
  };

  it("has the same bits in every mode and with any number of threads, and others than with f32 weights where numbers are predicted", async () => {
    const first = await numbers({ weights: "bf16" });
    for (const choice of [{ mode: "eager" }, { mode: "default" }, { threads: 1 }] as const)
      expect(
        Buffer.from((await numbers({ weights: "bf16", ...choice })).buffer).equals(Buffer.from(first.buffer)),
        JSON.stringify(choice),
      ).toBe(true);
    const whole = await numbers({});
    // Kronos predicts tokens, which may well be the same ones.
    if (family !== "kronos") expect(first).not.toEqual(whole);
    expect(relativeDistance(first, whole)).toBeLessThan(0.5);
  });

  it(`is within ${bound} of the reference device with the same weights`, async () => {
    const [native, exact] = [await numbers({ weights: "bf16" }), await numbers({ weights: "bf16", device: "reference" })];
    expect(relativeDistance(native, exact)).toBeLessThan(bound);
  });

  it("says so in its report, names every State's storage, and takes about half the memory", async () => {
    const bytes: Record<string, number> = {};
    for (const weights of ["f32", "bf16"] as const) {
      const model = load({ weights });
      await model.predict(request);
      expect(model.report().weights).toBe(weights);
      bytes[weights] = 0;
      for (const { name: program, specializations } of model.programs.map((one) => one.report())) {
        // A token is made of signs: its networks stay as they are.
        const expected = /^kronos\.(encode|decode)$/.test(program) ? "f32" : weights;
        const constant = specializations.flatMap(({ states }) => states).filter(({ kind }) => kind === "constant");
        const matrices = constant.filter(({ layout }) => layout === "panels");
        expect(matrices.length).toBeGreaterThan(4);
        for (const { name, layout, dtype } of constant) expect([name, dtype]).toEqual([name, layout === "panels" ? expected : "f32"]);
        if (expected === weights) bytes[weights] += matrices.reduce((sum, one) => sum + one.bytes, 0);
      }
      model.dispose();
    }
    expect((bytes["bf16"] as number) / (bytes["f32"] as number)).toBeLessThan(0.55);
  });
});

describe("the setting", () => {
  it("is f32 unless asked for, reaches the model, and is refused when unknown", async () => {
    const ask = async (options: Parameters<typeof Forecaster.load>[1]): Promise<string> => {
      const forecaster = await Forecaster.load("bundled:toto1-formula", options);
      const { report } = await forecaster.predict({ values: [1, 2, 3, 4, 5, 6, 7, 8] }, { horizon: 4, samples: 0 });
      forecaster.dispose();
      return report.weights;
    };
    expect(await ask({ device: "reference" })).toBe("f32");
    expect(await ask({ device: "reference", weights: "bf16" })).toBe("bf16");
    await expect(Forecaster.load("bundled:toto1-formula", { weights: "f16" as "f32" })).rejects.toThrow(
      'option weights: unknown weights "f16": expected f32, bf16',
    );
  });
});
