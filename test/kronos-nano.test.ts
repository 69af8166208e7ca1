/** The bundled trained Kronos against the outputs recorded when it was trained. */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { Forecaster } from "../src/index.js";
import { openCheckpoint } from "../src/io/checkpoint.js";
import { openSafetensors } from "../src/io/safetensors.js";
import { KronosCodec } from "../src/models/kronos/codec.js";
import { parseKronosModelConfig, parseKronosTokenizerConfig } from "../src/models/kronos/config.js";
import { KronosGenerator } from "../src/models/kronos/generate.js";
import { loadKronosModelWeights, loadKronosTokenizerWeights } from "../src/models/kronos/weights.js";
import type { Tensor } from "../src/tensor/index.js";
import { openDevice } from "../src/trace/entry.js";

const models = join(dirname(fileURLToPath(import.meta.url)), "..", "models");

interface Recorded {
  readonly read: (name: string) => number[];
  readonly tolerance: (name: string) => number;
  readonly close: () => void;
}

function recorded(model: string, name: string): Recorded {
  const folder = join(models, model, "golden", name);
  const { expected } = JSON.parse(readFileSync(join(folder, "case.json"), "utf8")) as { expected: { name: string; atol?: number }[] };
  const file = openSafetensors(join(folder, "tensors.safetensors"));
  return {
    read: (tensor) => Array.from(file.read(tensor) as ArrayLike<number | bigint>, Number),
    tolerance: (tensor) => expected.find((entry) => entry.name === tensor)?.atol ?? 0,
    close: () => file.close(),
  };
}

/** Largest distance, NaN if anything is. */
const distance = (got: ArrayLike<number>, wanted: readonly number[]): number =>
  got.length === wanted.length ? wanted.reduce((most, value, index) => Math.max(most, Math.abs((got[index] as number) - value)), 0) : NaN;

describe.each(["native", "reference"])("%s", (name) => {
  const { device } = openDevice(name);
  const tokenizer = openCheckpoint(join(models, "kronos-tokenizer-nano"));
  const config = parseKronosTokenizerConfig(tokenizer.config);
  const weights = loadKronosTokenizerWeights(tokenizer.source, config, device);
  const codec = new KronosCodec(config, weights, { device, mode: "reduce-overhead", taps: false });
  const parts = (values: readonly number[], count: number): number[][] =>
    Array.from({ length: count }, (_, part) => values.slice((part * values.length) / count, ((part + 1) * values.length) / count));

  test("tokens and their decoding", async () => {
    const golden = recorded("kronos-tokenizer-nano", "tokens");
    const tokens = await codec.encode(parts(golden.read("x"), 2).map((x) => ({ candles: Float32Array.from(x) })));
    const different = (part: "coarse" | "fine", name: string): number => {
      const wanted = golden.read(name);
      return tokens.flatMap((entry) => Array.from(entry[part])).filter((token, index) => token !== wanted[index]).length;
    };
    // The thresholds of this encoder are so steep that a candle right at one falls to either side by rounding.
    expect(different("coarse", "s1")).toBeLessThanOrEqual(3);
    expect(different("fine", "s2")).toBeLessThanOrEqual(3);
    const [coarse, fine] = [parts(golden.read("s1"), 2), parts(golden.read("s2"), 2)];
    const exact = coarse.map((row, index) => ({ coarse: Int32Array.from(row), fine: Int32Array.from(fine[index] as number[]) }));
    const nothing = { coarse: new Int32Array(0), fine: new Int32Array(0) };
    const decoded = await codec.decode(
      exact.map(() => nothing),
      exact.map((entry, source) => ({ ...entry, source })),
    );
    expect(distance(decoded, golden.read("reconstruction"))).toBeLessThanOrEqual(golden.tolerance("reconstruction") * 4);
    golden.close();
  });

  test("the likeliest candles", async () => {
    const golden = recorded("kronos-nano", "greedy");
    const checkpoint = openCheckpoint(join(models, "kronos-nano"));
    const modelConfig = parseKronosModelConfig(checkpoint.config);
    const modelWeights = loadKronosModelWeights(checkpoint.source, modelConfig, device, { fold: true });
    checkpoint.source.close();
    expect(modelConfig.maximumContext).toBe(192);
    const [coarse, fine] = [parts(golden.read("contextS1"), 2), parts(golden.read("contextS2"), 2)];
    const given = coarse.map((row, index) => ({ coarse: Int32Array.from(row), fine: Int32Array.from(fine[index] as number[]) }));
    // The recorded context, because the encoder's edges would decide it.
    const fixed = {
      encode: () => Promise.resolve(given),
      decode: (...parameters: Parameters<typeof codec.decode>) => codec.decode(...parameters),
    } as unknown as KronosCodec;
    const generator = new KronosGenerator(modelConfig, modelWeights, fixed, {
      device,
      mode: "reduce-overhead",
      cached: true,
      sharePrefix: true,
      taps: true,
    });
    const [x, stamps, future] = ["x", "stamps", "futureStamps"].map((tensor) => parts(golden.read(tensor), 2)) as [
      number[][],
      number[][],
      number[][],
    ];
    const taps: ReadonlyMap<string, Tensor>[] = [];
    const { tokens, values } = await generator.generate({
      entries: x.map((candles, b) => ({
        candles: Float32Array.from(candles),
        stamps: Int32Array.from(stamps[b] as number[]),
        futureStamps: Int32Array.from(future[b] as number[]),
        paths: 1,
      })),
      steps: 8,
      window: 192,
      keys: new Int32Array(4),
      seed: 0,
      temperature: 1,
      topK: 1,
      topP: 1,
      onStep: (_, step) => taps.push(step),
    });
    for (const logits of ["s1Logits", "s2Logits"])
      expect(distance(taps[0]?.get(`candle.${logits}`)?.data() as Float32Array, golden.read(logits)), logits).toBeLessThanOrEqual(
        golden.tolerance(logits) * 4,
      );
    expect(tokens.flatMap(({ coarse }) => Array.from(coarse))).toEqual(golden.read("generatedS1"));
    expect(tokens.flatMap(({ fine }) => Array.from(fine))).toEqual(golden.read("generatedS2"));
    expect(distance(values, golden.read("prediction"))).toBeLessThanOrEqual(golden.tolerance("prediction") * 4);
    generator.dispose();
    modelWeights.dispose();
    golden.close();
  });
});

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
