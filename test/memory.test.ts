/**
 * Memory of many lives: 200 times load, predict and dispose, over all three families. What the device allocated is gone after each, and the process does not
 * grow. Loading needs the packed weights and one matrix, not the file a second time.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, test } from "vitest";
import { formulaCheckpoint } from "../src/models/formula/checkpoint.js";
import { KronosModel } from "../src/models/kronos/model.js";
import type { ForecastModel, ModelRequest } from "../src/models/model.js";
import type { TensorSource } from "../src/models/tensor-source.js";
import { findCompiler } from "../src/runtime/native/compiler.js";
import { openDevice } from "../src/trace/entry.js";
import { makeCandles } from "./kronos-harness.js";
import { loadToto1, makeSeries } from "./toto1-harness.js";
import { loadToto2 } from "./toto2-harness.js";

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

const cycles = 200;
const steps = 10;

/** The smallest model of each family that still has every part. */
const small = {
  toto1: { num_layers: 2, spacewise_every_n_layers: 2 },
  toto2: { num_layers: 2, layer_group_size: 2 },
  kronos: { n_layers: 1 },
  tokenizer: { n_enc_layers: 2, n_dec_layers: 2 },
};

function loadKronos(): KronosModel {
  const named = (name: string, set: Readonly<Record<string, unknown>>) => ({ name, checkpoint: formulaCheckpoint(name, { set }) });
  return KronosModel.load(named("kronos-tiny", small.kronos), named("kronos-tokenizer-tiny", small.tokenizer), openDevice("native"), {
    mode: "reduce-overhead",
    kvCache: "static",
  });
}

const series = makeSeries({ length: 60, seed: 5 });
const lives: readonly { readonly load: () => ForecastModel; readonly request: ModelRequest }[] = [
  { load: () => loadToto1({ set: small.toto1 }), request: { series: [series], horizon: steps, samples: 3, seed: 1 } },
  { load: () => loadToto2({ set: small.toto2 }), request: { series: [series], horizon: steps, samples: 0, seed: 1 } },
  { load: loadKronos, request: { series: [makeCandles(5, 20, 3)], horizon: 3, samples: 2, seed: 1 } },
];

async function live(cycle: number): Promise<void> {
  const { load, request } = lives[cycle % lives.length] as (typeof lives)[0];
  const model = load();
  await model.predict(request);
  model.dispose();
}

function residentBytes(): number {
  collectGarbage();
  collectGarbage();
  return process.memoryUsage().rss;
}

describe.skipIf(!findCompiler(process.env))("the native device (needs a C compiler)", () => {
  test(`${cycles} lives leave nothing behind`, async () => {
    const { device } = openDevice("native");
    // Each thread's scratch stays, as large as any model needed it.
    for (let cycle = 0; cycle < lives.length; cycle++) await live(cycle);
    const before = device.allocatedBytes;
    const resident: number[] = [];
    for (let cycle = 0; cycle < cycles; cycle++) {
      await live(cycle);
      expect(device.allocatedBytes, `after cycle ${cycle}`).toBe(before);
      // A collector that is seldom asked keeps pools that swing by 15 MB.
      if (cycle % 5 === 4) resident.push(residentBytes());
    }
    // The first quarter fills pools and caches that stay. Later cycles of a leak of one model's weights alone would add 15 MB.
    const growth = Math.min(...resident.slice(-10)) - Math.min(...resident.slice(10, 20));
    console.info(`resident memory over ${cycles} lives: ${resident.map((bytes) => (bytes / 1e6).toFixed(1)).join(", ")} MB`);
    expect(growth).toBeLessThan(10e6);
  });

  test("the unembedding, most of a Toto 1.0 file, is never whole in memory", () => {
    const set = { patch_size: 64, stride: 64, embed_dim: 256, num_layers: 1, spacewise_every_n_layers: -1 };
    const { config, source } = formulaCheckpoint("toto1-tiny", { set });
    const name = "model.unembed.weight";
    const whole = source.info(name)?.shape.reduce((a, b) => a * b, 1) as number;
    let largest = 0;
    const note = (tensor: string, elements: number): void => {
      if (tensor === name) largest = Math.max(largest, elements);
    };
    const watched: TensorSource = {
      label: source.label,
      names: () => source.names(),
      info: (tensor) => source.info(tensor),
      read: (tensor) => (note(tensor, whole), source.read(tensor)),
      readInto: (tensor, target) => (note(tensor, target.length), source.readInto(tensor, target)),
      readRange: (tensor, first, target) => (note(tensor, target.length), source.readRange(tensor, first, target)),
      readStored: (tensor) => source.readStored(tensor),
      close: () => source.close(),
    };
    loadToto1({ checkpoint: { config, source: watched } }).dispose();
    expect(largest).toBeGreaterThan(0);
    expect(largest).toBeLessThanOrEqual(whole / 64);
  });
});
