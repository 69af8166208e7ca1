/**
 * Planted faults: a wrong weight, a wrong cache row, a wrong kernel. The goldens must fail and name the first tensor that is wrong, and the bitwise comparisons
 * must differ. The faults are planted by replacing modules for this file alone; the product has no hooks for them.
 */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type * as Program from "../src/codegen/program.js";
import type { GoldenProgram } from "../src/diagnostics/golden/compare.js";
import { goldenFunctions } from "../src/diagnostics/golden/functions.js";
import { runGoldenCases, type CaseResult } from "../src/diagnostics/golden/run.js";
import type * as Formula from "../src/models/formula/checkpoint.js";
import type { TensorSource } from "../src/models/tensor-source.js";
import type * as Layout from "../src/models/toto1/layout.js";
import type * as RotaryModule from "../src/nn/rotary.js";
import { Tensor } from "../src/tensor/index.js";
import { selectCpu } from "../src/runtime/native/cpu.js";
import { size } from "../src/trace/entry.js";
import { firstDifference, isAlive, makeSeries, numbersOf, predictOnce, type ModelChoice } from "./toto1-harness.js";

/** What is wrong at the moment; nothing at the start of each test. */
interface Plant {
  weight?: { readonly name: string; readonly change: (values: Float32Array) => void };
  decode?: (vectors: ReturnType<typeof Layout.decodeVectors>, shared: boolean) => ReturnType<typeof Layout.decodeVectors>;
  prefill?: (vectors: ReturnType<Layout.PrefillLayout["timeVectors"]>) => ReturnType<Layout.PrefillLayout["timeVectors"]>;
  kernel?: { readonly from: string; readonly to: string; readonly target?: string };
  noDecay?: boolean;
  /** How often the fault was in effect: a fault that was never planted proves nothing. */
  used: number;
}
const plant = vi.hoisted((): Plant => ({ used: 0 }));

beforeEach(() => {
  for (const key of Object.keys(plant) as (keyof Plant)[]) delete (plant as Partial<Plant>)[key];
  plant.used = 0;
});
afterEach(() => void vi.restoreAllMocks());

vi.mock("../src/models/formula/checkpoint.js", async (load) => {
  const real = await load<typeof Formula>();
  const faulty = (source: TensorSource): TensorSource => {
    /** All values of a tensor, so that a fault at one place is in every part that is read. */
    const read = (name: string): Float32Array => {
      const values = source.read(name);
      if (plant.weight?.name === name) {
        plant.weight.change(values);
        plant.used++;
      }
      return values;
    };
    return {
      label: source.label,
      names: () => source.names(),
      info: (name) => source.info(name),
      read,
      readInto: (name, target) => target.set(read(name)),
      readRange: (name, first, target) => target.set(read(name).subarray(first, first + target.length)),
      readStored: (name) => source.readStored(name),
      close: () => source.close(),
    };
  };
  const formulaCheckpoint: typeof real.formulaCheckpoint = (...request) => {
    const { config, source } = real.formulaCheckpoint(...request);
    return { config, source: faulty(source) };
  };
  return { ...real, formulaCheckpoint };
});

vi.mock("../src/models/toto1/layout.js", async (load) => {
  const real = await load<typeof Layout>();
  class FaultyLayout extends real.PrefillLayout {
    override timeVectors(): ReturnType<Layout.PrefillLayout["timeVectors"]> {
      const vectors = super.timeVectors();
      if (!plant.prefill) return vectors;
      plant.used++;
      return plant.prefill(vectors);
    }
  }
  const decodeVectors: typeof real.decodeVectors = (layout, options, step, shared) => {
    const vectors = real.decodeVectors(layout, options, step, shared);
    if (!plant.decode) return vectors;
    plant.used++;
    return plant.decode(vectors, shared);
  };
  return { ...real, PrefillLayout: FaultyLayout, decodeVectors };
});

vi.mock("../src/codegen/program.js", async (load) => {
  const real = await load<typeof Program>();
  const buildProgram: typeof real.buildProgram = (kernels, target) => {
    const program = real.buildProgram(kernels, target);
    const { kernel } = plant;
    if (!kernel || (kernel.target !== undefined && kernel.target !== target)) return program;
    const sources = program.sources.map((source) => {
      if (!source.text.includes(kernel.from)) return source;
      plant.used++;
      return { ...source, text: source.text.replaceAll(kernel.from, kernel.to) };
    });
    return { ...program, sources };
  };
  return { ...real, buildProgram };
});

vi.mock("../src/nn/rotary.js", async (load) => {
  const real = await load<typeof RotaryModule>();
  const decayTable: typeof real.decayTable = (...parts) => {
    const state = real.decayTable(...parts);
    if (plant.noDecay) {
      state.write(new Float32Array(state.shape.reduce((a, b) => a * b, 1)).fill(1));
      plant.used++;
    }
    return state;
  };
  return { ...real, decayTable };
});

/** A vector whose every element is changed. */
const changed = (vector: Tensor, axis: string, change: (value: number, index: number, length: number) => number): Tensor => {
  const values = Int32Array.from(vector.data());
  return Tensor.from(
    values.map((value, index) => change(value, index, values.length)),
    [size(axis, values.length)],
  );
};

/** The next float32 after x > 0. */
const nextFloat = (x: number): number => {
  const bits = new Int32Array(Float32Array.of(x).buffer);
  bits[0]!++;
  return new Float32Array(bits.buffer)[0]!;
};

/** Swaps the query and key rows of a stored wQKV of width D. */
const swapQueryAndKey = (values: Float32Array): void => {
  const part = values.length / 3;
  const query = values.slice(0, part);
  values.copyWithin(0, part, 2 * part);
  values.set(query, part);
};

const attentionScale = Math.fround(1 / Math.sqrt(8));
const normEpsilon = Math.fround(1e-8);

const goldens = join(dirname(fileURLToPath(import.meta.url)), "goldens");

async function runCase(name: string, program: GoldenProgram): Promise<CaseResult> {
  const options = { device: "native", mode: "reduce-overhead", functions: goldenFunctions, programs: [program] };
  return (await runGoldenCases([join(goldens, name)], options)).cases[0]!;
}

/** The keys of a decode hold every step's, so they fail first; these say where the fault began. */
interface Around {
  readonly passes: string;
  readonly fails: string;
}

/** Fault, case, and the first tensor that must be named: with taps, and of the product. */
const faults: Readonly<Record<string, readonly [fault: Partial<Plant>, golden: string, taps: string, product: string, around?: Around]>> = {
  "one element of an MLP weight": [
    { weight: { name: "model.transformer.layers.1.mlp.0.w12.weight", change: (values) => void (values[700]! += 0.05) } },
    "toto1-forward-v3-groups",
    "layer1.out",
    "mean",
  ],
  "one element of an MLP weight, in a decode": [
    { weight: { name: "model.transformer.layers.1.mlp.0.w12.weight", change: (values) => void (values[700]! += 0.05) } },
    "toto1-decode-cache",
    "layer0.keys",
    "forecast",
    { passes: "prefill.layer0.last", fails: "prefill.layer1.last" },
  ],
  "one element of the unembedding": [
    { weight: { name: "model.unembed.weight", change: (values) => void (values[33]! += 0.05) } },
    "toto1-forward-v1",
    "unembed",
    "mean",
  ],
  "one bias of the mixture weights": [
    { weight: { name: "model.output_distribution.mixture_weights.bias", change: (values) => void (values[2]! += 0.01) } },
    "toto1-forward-v1",
    "head.weights",
    "mean",
  ],
  "query and key weights exchanged": [
    { weight: { name: "model.transformer.layers.0.attention.wQKV.weight", change: swapQueryAndKey } },
    "toto1-forward-v1",
    "layer0.q",
    "mean",
  ],
  "prefix row off by one": [
    {
      decode: (vectors) => ({
        ...vectors,
        prefix: { ...vectors.prefix, row: changed(vectors.prefix.row, "rows", (row, _, length) => (row + 1) % length) },
      }),
    },
    "toto1-decode-cache",
    "layer0.keys",
    "forecast",
    { passes: "prefill.layer3.last", fails: "steps.lastHidden" },
  ],
  "cache rows of the prefill off by one": [
    { prefill: (vectors) => ({ ...vectors, row: changed(vectors.row, "patches", (row) => row + 1) }) },
    "toto1-decode-cache",
    "layer0.keys",
    "forecast",
    { passes: "prefill.layer3.last", fails: "steps.lastHidden" },
  ],
  "cache slot off by one": [
    { decode: (vectors) => ({ ...vectors, time: { ...vectors.time, slot: changed(vectors.time.slot, "rows", (slot) => slot + 1) } }) },
    "toto1-decode-cache",
    "layer0.keys",
    "forecast",
    { passes: "prefill.layer3.last", fails: "steps.lastHidden" },
  ],
  "one key too few": [
    {
      decode: (vectors) => ({
        ...vectors,
        time: { ...vectors.time, length: changed(vectors.time.length, "rows", (length) => length - 1) },
      }),
    },
    "toto1-decode-long-cache",
    "layer0.keys",
    "forecast",
    { passes: "prefill.layer3.last", fails: "steps.lastHidden" },
  ],
  "position off by one": [
    {
      decode: (vectors) => ({ ...vectors, time: { ...vectors.time, position: changed(vectors.time.position, "rows", (at) => at + 1) } }),
    },
    "toto1-decode-cache",
    "layer0.keys",
    "forecast",
  ],
  "attention kernel with another scale": [
    { kernel: { from: `${attentionScale}f`, to: "0.36f" } },
    "toto1-forward-v1",
    "layer0.out",
    "mean",
  ],
  "norm kernel with another epsilon": [{ kernel: { from: `${normEpsilon}f`, to: "0.01f" } }, "toto1-forward-v1", "layer0.q", "mean"],
  "scaler kernel with another variance floor": [
    {
      kernel: {
        from: "__builtin_sqrt(square / (n - 1 > 1 ? n - 1 : 1) + 0.1)",
        to: "__builtin_sqrt(square / (n - 1 > 1 ? n - 1 : 1) + 0.2)",
      },
    },
    "toto1-forward-v1",
    "scale",
    "mean",
  ],
  "draw and head kernels with another softplus": [
    { kernel: { from: "less_f32(splat_f32(20.0f), x)", to: "splat_f32(-20.0f) < x" } },
    "toto1-samples-cache",
    "drawn.df",
    "samples",
  ],
  "no xPos decay": [{ noDecay: true }, "toto1-forward-v1", "layer0.q", "mean"],
};

describe("a planted fault fails the goldens and is named", () => {
  test("without a fault all these cases pass", async () => {
    for (const name of new Set(Object.values(faults).map(([, golden]) => golden)))
      for (const program of ["taps", "product"] as const) expect(await runCase(name, program)).toMatchObject({ status: "pass" });
    expect(plant.used).toBe(0);
  });

  test.each(Object.entries(faults))("%s", async (_name, [fault, golden, taps, product, around]) => {
    Object.assign(plant, fault);
    for (const [program, tensor] of [
      ["taps", taps],
      ["product", product],
    ] as const) {
      plant.used = 0;
      const result = await runCase(golden, program);
      expect(plant.used, "the fault was planted").toBeGreaterThan(0);
      expect(result.status).toBe("fail");
      expect(result.reason).toMatch(/got .*, expected /);
      expect(result.tensors.find(({ pass }) => !pass)?.name).toBe(tensor);
      expect(result.reason!.startsWith(`${tensor}: `)).toBe(true);
      if (!around || program === "product") continue;
      const passed = new Map(result.tensors.map(({ name, pass }) => [name, pass]));
      expect([passed.get(around.passes), passed.get(around.fails)]).toEqual([true, false]);
    }
  });
});

describe("a planted fault changes bits, and the comparison says where", () => {
  const request = {
    series: [20, 75, 130].map((length, index) => makeSeries({ length, variates: 2, seed: 60 + index, stream: index })),
    horizon: 60,
    samples: 4,
    seed: 3,
  };
  const predict = async (choice: ModelChoice = {}, fault: Partial<Plant> = {}): Promise<Float32Array> => {
    Object.assign(plant, fault);
    plant.used = 0;
    const numbers = numbersOf(await predictOnce(choice, request));
    if (Object.keys(fault).length > 0) expect(plant.used, "the fault was planted").toBeGreaterThan(0);
    for (const key of Object.keys(fault)) delete (plant as Partial<Plant>)[key as keyof Plant];
    expect(isAlive(numbers)).toBe(true);
    return numbers;
  };
  const seen = (a: Float32Array, b: Float32Array): void => expect(firstDifference(a, b)).toMatch(/^number \d+ of \d+: /);

  test("one unit in the last place of one weight or bias", async () => {
    const right = await predict();
    for (const name of [
      "model.transformer.layers.0.attention.wO.bias",
      "model.patch_embed.projection.weight",
      "model.output_distribution.scale_proj.weight",
    ]) {
      const change = (values: Float32Array): void => {
        const index = values.findIndex((value) => value > 0.01);
        values[index] = nextFloat(values[index]!);
      };
      seen(await predict({}, { weight: { name, change } }), right);
    }
    expect(firstDifference(await predict(), right)).toBeUndefined();
  });

  test("mode against mode: one unit in the last place of a kernel's scale, in the fused mode alone", async () => {
    const eager = await predict({ mode: "eager" });
    const kernel = { from: `${attentionScale}f`, to: `${nextFloat(attentionScale)}f` };
    for (const mode of ["default", "reduce-overhead"] as const) seen(await predict({ mode }, { kernel }), eager);
  });

  test("shared against copied prefix: the copy's rows off by one", async () => {
    const shared = await predict({ sharePrefix: true });
    const decode: NonNullable<Plant["decode"]> = (vectors) => ({
      ...vectors,
      time: { ...vectors.time, row: changed(vectors.time.row, "rows", (row, _, length) => (row + 1) % length) },
    });
    seen(await predict({ sharePrefix: false }, { decode }), shared);
  });

  test("alone against in a batch: every row reads the first series' prefix", async () => {
    const decode: NonNullable<Plant["decode"]> = (vectors) => ({
      ...vectors,
      prefix: { ...vectors.prefix, row: changed(vectors.prefix.row, "rows", (row) => row % 2) },
    });
    Object.assign(plant, { decode });
    const together = await predictOnce({}, request);
    const alone = await Promise.all(request.series.map((series) => predictOnce({}, { ...request, series: [series] })));
    const differences = alone.map(([answer], index) => firstDifference(numbersOf([answer!]), numbersOf([together[index]!])));
    expect(differences.map((difference) => difference !== undefined)).toEqual([false, true, true]);
  });

  const host = selectCpu(undefined).isa;
  test.runIf(host !== "plain")("instruction set against instruction set: a fault in plain C alone", async () => {
    const right = await predict();
    const kernel = { from: `${attentionScale}f`, to: `${nextFloat(attentionScale)}f`, target: "plain" };
    seen(await predict({ deviceOptions: { target: "plain" } }, { kernel }), right);
    expect(firstDifference(await predict({ deviceOptions: { target: "plain" } }), right)).toBeUndefined();
  });
});
