/**
 * Toto 1.0 from loading to disposal: what does not load and how that is said, aborting, disposing, several models at once, memory.
 */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AbortedError, Forecaster, InputError } from "../src/index.js";
import { writeSafetensors } from "../src/io/safetensors.js";
import { formulaCheckpoint } from "../src/models/formula/checkpoint.js";
import { openDevice } from "../src/trace/entry.js";
import { firstDifference, isAlive, loadToto1, makeSeries, numbersOf, predictOnce } from "./toto1-harness.js";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tempograph-toto1-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Floats = Map<string, { shape: readonly number[]; values: Float32Array }>;

/** Writes the tiny formula checkpoint as a model folder, after a change. */
function modelFolder(change: (tensors: Floats, config: Record<string, unknown>) => void = () => undefined): string {
  const place = mkdtempSync(join(folder, "model-"));
  const { config, source } = formulaCheckpoint("toto1-tiny", { seed: 3 });
  const tensors: Floats = new Map(source.names().map((name) => [name, { shape: source.info(name)!.shape, values: source.read(name) }]));
  const fields = { ...config };
  change(tensors, fields);
  writeFileSync(join(place, "config.json"), JSON.stringify(fields));
  writeSafetensors(
    join(place, "model.safetensors"),
    [...tensors].map(([name, { shape, values }]) => ({ name, dtype: "F32" as const, shape, data: values })),
  );
  return place;
}

/** The one sentence that loading fails with; anything but an InputError fails the test. */
async function refusal(reference: string): Promise<string> {
  const error: unknown = await Forecaster.load(reference, { device: "native" }).then(
    (forecaster) => {
      forecaster.dispose();
      return undefined;
    },
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(InputError);
  const { message } = error as InputError;
  expect(message).not.toMatch(/\n\s+at /);
  return message;
}

const request = { series: [makeSeries({ length: 100, variates: 2, seed: 1 })], horizon: 60, samples: 3, seed: 2 };

describe("loading", () => {
  test("a folder gives the bits of the formula it was written from", async () => {
    const place = modelFolder();
    const forecaster = await Forecaster.load(place, { device: "native" });
    const own = Forecaster.fromModel(loadToto1({ seed: 3 }));
    const values = [...makeSeries({ length: 90, seed: 5 }).values[0]!];
    const options = { horizon: 20, samples: 4, report: false };
    expect(JSON.stringify(await forecaster.predict({ values }, options))).toBe(JSON.stringify(await own.predict({ values }, options)));
    forecaster.dispose();
    own.dispose();
  });

  test("wrong places", async () => {
    expect(await refusal(join(folder, "absent"))).toMatch(/absent" does not exist.*config\.json/);
    const empty = mkdtempSync(join(folder, "empty-"));
    expect(await refusal(empty)).toMatch(/no config\.json \(it is empty\)/);
    writeFileSync(join(empty, "config.json"), "{}");
    expect(await refusal(empty)).toMatch(/no model\.safetensors/);
    expect(await refusal(join(empty, "config.json"))).toMatch(/is a file; a model is a folder/);
    expect(await refusal("bundled:nothing")).toMatch(/no bundled model "bundled:nothing"; there are: .*bundled:toto1-formula/);
    writeFileSync(join(empty, "model.safetensors"), readFileSync(join(modelFolder(), "model.safetensors")));
    expect(await refusal(empty)).toMatch(/fits none of the known models/);
    writeFileSync(join(empty, "config.json"), '{"embed_dim": 32,');
    expect(await refusal(empty)).toMatch(/config\.json is not valid JSON/);
  });

  test("every missing, unknown and misshapen tensor is named", async () => {
    const message = await refusal(
      modelFolder((tensors) => {
        tensors.delete("model.transformer.layers.2.attention.wO.bias");
        tensors.delete("model.unembed.weight");
        tensors.set("model.transformer.layers.4.norm1.scale", { shape: [32], values: new Float32Array(32) });
        tensors.set("model.patch_embed.projection.weight", { shape: [8, 32], values: new Float32Array(256) });
      }),
    );
    expect(message).toContain("missing model.transformer.layers.2.attention.wO.bias [32]");
    expect(message).toContain("missing model.unembed.weight [256, 32]");
    expect(message).toContain("unknown model.transformer.layers.4.norm1.scale");
    expect(message).toContain("model.patch_embed.projection.weight has shape [8, 32], expected [32, 8]");
    expect(message).toContain("model.safetensors");
  });

  test("one label without the other, and weights saved under other names", async () => {
    expect(
      await refusal(
        modelFolder((tensors) => void tensors.set("model.target_variate_label", { shape: [32], values: new Float32Array(32).fill(1) })),
      ),
    ).toContain("missing model.exogenous_variate_label [32]");
    const renamed = await refusal(
      modelFolder((tensors) => {
        for (const [name, tensor] of [...tensors]) {
          tensors.delete(name);
          tensors.set(`_orig_mod.${name}`, tensor);
        }
      }),
    );
    expect(renamed).toMatch(/missing model\..*and \d+ more/);
  });

  test.each([
    ["patch_size", 0, /"patch_size" is 0, expected a whole number from 1 to 1048576/],
    ["patch_size", "8", /"patch_size" is "8"/],
    ["stride", 4, /"stride" is 4 but "patch_size" 8/],
    ["embed_dim", 33, /"embed_dim" 33 over "num_heads" 4/],
    ["embed_dim", 1e9, /"embed_dim" is 1000000000/],
    ["num_heads", 5, /"embed_dim" 32 over "num_heads" 5/],
    ["num_layers", -1, /"num_layers" is -1/],
    ["num_layers", 5, /"num_layers" 5 is no multiple of "spacewise_every_n_layers" 4/],
    ["num_layers", undefined, /"num_layers" is missing/],
    ["mlp_hidden_dim", 1.5, /"mlp_hidden_dim" is 1\.5/],
    ["spacewise_every_n_layers", null, /"spacewise_every_n_layers" is null/],
    ["scaler_cls", "<class 'StdMeanScaler'>", /scaler_cls.*only CausalPatchStdMeanScaler/],
    ["output_distribution_classes", ["Gaussian"], /output_distribution_classes.*a Student-t or a mixture/],
    ["output_distribution_kwargs", { k_components: 0 }, /"k_components" is 0/],
    ["scale_factor_exponent", "high", /"scale_factor_exponent" is "high"/],
  ])("config.json with %s %j", async (field, value, message) => {
    expect(await refusal(modelFolder((_, config) => void (config[field] = value)))).toMatch(message);
  });

  test("a truncated, an overlapping and an integer weights file; nothing stays allocated", async () => {
    const { device } = openDevice("native");
    const baseline = device.allocatedBytes;
    const place = modelFolder();
    const path = join(place, "model.safetensors");
    const whole = readFileSync(path);
    for (const bytes of [0, 5, 60, whole.length - 1]) {
      truncateSync(path, bytes);
      expect(await refusal(place)).toMatch(/model\.safetensors.*(truncated|too few|header)/);
      writeFileSync(path, whole);
    }
    const header = 8 + Number(whole.readBigUInt64LE(0));
    const text = whole.subarray(8, header).toString();
    const overlapping = text.replace(/"data_offsets":\[(\d+),(\d+)\]/g, (_, begin: string, end: string) => {
      return `"data_offsets":[0,${Number(end) - Number(begin)}]`;
    });
    const padded = overlapping.padEnd(text.length, " ").slice(0, Math.max(text.length, overlapping.length));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(padded.length));
    writeFileSync(path, Buffer.concat([length, Buffer.from(padded), whole.subarray(header)]));
    expect(await refusal(place)).toMatch(/model\.safetensors/);
    writeFileSync(path, Buffer.concat([whole.subarray(0, 8), Buffer.from(text.replace('"F32"', '"I32"')), whole.subarray(header)]));
    expect(await refusal(place)).toMatch(/dtype I32, expected a float type/);
    expect(device.allocatedBytes).toBe(baseline);
  });
});

describe("ending a run", () => {
  const long = { series: [makeSeries({ length: 400, variates: 3, seed: 4 })], horizon: 800, samples: 8, seed: 1 };

  for (const [mode, device] of [
    ["reduce-overhead", "native"],
    ["default", "native"],
    ["reduce-overhead", "reference"],
  ] as const) {
    test(`abort in mid-decode, then the same bits as ever: ${device}, ${mode}`, async () => {
      const short = device === "reference" ? { ...request, horizon: 24 } : long;
      const expected = numbersOf(await predictOnce({ mode, device }, short));
      const model = loadToto1({ mode, device });
      const forecaster = Forecaster.fromModel(model);
      const controller = new AbortController();
      const reason = new Error("enough");
      let steps = 0;
      const onProgress = (): void => {
        if (++steps === 2) controller.abort(reason);
      };
      await expect(model.predict({ ...short, signal: controller.signal, onProgress })).rejects.toThrow(AbortedError);
      expect(steps).toBe(2);
      expect(firstDifference(numbersOf(await model.predict(short)), expected)).toBeUndefined();

      const values = [...short.series[0]!.values[0]!];
      const second = new AbortController();
      const rejected = forecaster.predict(
        { values },
        { horizon: 24, samples: 2, signal: second.signal, onProgress: () => second.abort(reason) },
      );
      await expect(rejected).rejects.toBe(reason);
      expect(firstDifference(numbersOf(await model.predict(short)), expected)).toBeUndefined();
      await expect(model.predict({ ...short, signal: controller.signal })).rejects.toThrow(AbortedError);
      forecaster.dispose();
    });
  }

  test("abort while a step is running", async () => {
    const expected = numbersOf(await predictOnce({}, long));
    const model = loadToto1();
    for (const delay of [0, 1, 3, 7]) {
      const controller = new AbortController();
      setTimeout(() => controller.abort(), delay);
      await model.predict({ ...long, horizon: 8000, signal: controller.signal }).then(
        () => expect.fail("it was not aborted"),
        (error: unknown) => expect(error).toBeInstanceOf(AbortedError),
      );
      expect(firstDifference(numbersOf(await model.predict(long)), expected)).toBeUndefined();
    }
    model.dispose();
  });

  test.each(["reduce-overhead", "default", "eager"] as const)(
    "dispose while it runs: the run rejects, memory is freed afterwards (%s)",
    async (mode) => {
      const { device } = openDevice("native");
      await predictOnce({ mode }, request);
      const baseline = device.allocatedBytes;
      for (const when of ["between steps", "at once", "within a step"]) {
        const model = loadToto1({ mode });
        const forecaster = Forecaster.fromModel(model);
        const values = [...long.series[0]!.values[0]!];
        // Kernels may still be running: nothing that they touch may go yet.
        const freed: number[] = [];
        const dispose = (): void => {
          const before = device.allocatedBytes;
          forecaster.dispose();
          freed.push(before - device.allocatedBytes);
        };
        let later: NodeJS.Timeout | undefined;
        const onProgress = (): void => {
          if (when === "between steps") dispose();
          if (when === "within a step") later ??= setTimeout(dispose, 1);
        };
        const running = forecaster.predict({ values }, { horizon: 8000, samples: 64, onProgress });
        const waiting = forecaster.predict({ values }, { horizon: 8, samples: 2 });
        const outcomes = Promise.allSettled([running, waiting]);
        if (when === "at once") dispose();
        for (const outcome of await outcomes) {
          expect(outcome.status).toBe("rejected");
          expect((outcome as PromiseRejectedResult).reason).toMatchObject({ code: "disposed" });
        }
        forecaster.dispose();
        model.dispose();
        if (when !== "at once") expect(freed, when).toEqual([0]);
        expect(device.allocatedBytes, when).toBe(baseline);
        await expect(forecaster.predict({ values })).rejects.toThrow(/disposed/);
        await expect(model.predict(request)).rejects.toThrow(InputError);
      }
    },
  );
});

describe("several models", () => {
  test("two at once, and two requests at once on one, give the bits each gives alone", async () => {
    const other = { ...request, series: [makeSeries({ length: 333, variates: 3, seed: 9 })], horizon: 100 };
    const choices = [{ seed: 1 }, { seed: 2 }, { preset: "toto1-formula", seed: 1 }];
    const alone: Float32Array[] = [];
    for (const choice of choices) for (const each of [request, other]) alone.push(numbersOf(await predictOnce(choice, each)));
    expect(alone.every(isAlive)).toBe(true);
    expect(firstDifference(alone[0]!, alone[2]!)).toBeDefined();
    const models = choices.map((choice) => loadToto1(choice));
    const together = await Promise.all(models.flatMap((model) => [model.predict(request), model.predict(other)]));
    together.forEach((answers, index) => expect(firstDifference(numbersOf(answers), alone[index]!)).toBeUndefined());
    models[0]!.dispose();
    expect(firstDifference(numbersOf(await models[1]!.predict(request)), alone[2]!)).toBeUndefined();
    for (const model of models) model.dispose();
  });

  test("memory returns to where it was after dispose, also the second time, and answers stay valid", async () => {
    const { device } = openDevice("native");
    for (const choice of [{}, { mode: "eager" }, { sharePrefix: false }, { kvCache: "none" }] as const) {
      const baseline = device.allocatedBytes;
      const model = loadToto1(choice);
      expect(device.allocatedBytes).toBeGreaterThan(baseline);
      const first = await model.predict(request);
      const kept = numbersOf(first);
      await model.predict({ ...request, series: [makeSeries({ length: 900, seed: 8 })], samples: 70 });
      expect(model.report().peakBytes).toBeGreaterThan(baseline);
      model.dispose();
      model.dispose();
      expect(device.allocatedBytes, JSON.stringify(choice)).toBe(baseline);
      expect(firstDifference(numbersOf(first), kept)).toBeUndefined();
    }
  });
});
