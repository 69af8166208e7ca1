/**
 * Ahead-of-time bundles: made once, then loaded where there is no compiler and no artifact cache; the wrong machine, damage and another model are told apart and said.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync, chmodSync, cpSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Forecaster, InputError, type LoadOptions } from "../src/index.js";
import { formulaCheckpoint } from "../src/models/formula/checkpoint.js";
import type { TensorInfo } from "../src/models/tensor-source.js";
import { readProgramJson, printProgramJson } from "../src/ir/serialise.js";
import { Bundle, type BundleManifest } from "../src/runtime/native/bundle.js";
import { findCompiler } from "../src/runtime/native/compiler.js";
import { NativeError } from "../src/runtime/native/errors.js";
import { openDevice } from "../src/trace/entry.js";
import { runCli } from "./cli-harness.js";

const compiler = findCompiler(process.env);
if (!compiler) console.log("skipped: no C compiler on this machine");

const usual = process.env["TEMPOGRAPH_CACHE_DIR"];
const before = { ...process.env };
let folder: string;
let model: string;
let bundle: string;

/** A tiny Toto 1.0 of formula weights as files. */
function writeModel(path: string, seed = 3): void {
  const { config, source } = formulaCheckpoint("toto1-tiny", { seed });
  mkdirSync(path, { recursive: true });
  writeFileSync(join(path, "config.json"), JSON.stringify(config));
  const names = source.names();
  const header: Record<string, unknown> = {};
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const name of names) {
    const { dtype, shape } = source.info(name) as TensorInfo;
    const data = source.readStored(name);
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    header[name] = { dtype, shape, data_offsets: [at, at + bytes.length] };
    parts.push(bytes);
    at += bytes.length;
  }
  const text = JSON.stringify(header);
  const head = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(head.length));
  writeFileSync(join(path, "model.safetensors"), Buffer.concat([size, head, ...parts]));
}

const series = { values: Array.from({ length: 90 }, (_, t) => 5 + Math.sin(t / 3) + (t % 7) / 10), id: "s" };
const load = (reference: string, options: LoadOptions): Promise<Forecaster> => Forecaster.load(reference, options);

async function forecastOf(
  reference: string,
  samples: number,
  options: LoadOptions = {},
): Promise<{ text: string; report: Record<string, unknown> }> {
  const forecaster = await Forecaster.load(reference, options);
  try {
    const forecast = await forecaster.predict(series, { horizon: 40, samples, seed: 4, paths: samples > 0 });
    return { text: JSON.stringify(forecast.toJSON().series), report: { ...forecaster.report() } };
  } finally {
    forecaster.dispose();
  }
}

/** Runs `body` as on a machine without a compiler and with an empty cache; answers what the cache then holds. */
async function bare<T>(body: () => Promise<T>): Promise<{ result: T; cached: string[] }> {
  const cache = mkdtempSync(join(folder, "empty-"));
  Object.assign(process.env, { PATH: "/nonexistent", TEMPOGRAPH_CACHE_DIR: cache });
  delete process.env["CC"];
  try {
    return { result: await body(), cached: readdirSync(cache) };
  } finally {
    process.env["PATH"] = before["PATH"];
    process.env["TEMPOGRAPH_CACHE_DIR"] = before["TEMPOGRAPH_CACHE_DIR"];
    if (before["CC"] !== undefined) process.env["CC"] = before["CC"];
  }
}

const manifestOf = (path: string): BundleManifest => JSON.parse(readFileSync(join(path, "bundle.json"), "utf8")) as BundleManifest;

/** A copy of the bundle that a test may harm. */
function copyOf(name: string, change?: (manifest: { -readonly [Field in keyof BundleManifest]: BundleManifest[Field] }) => void): string {
  const path = join(folder, name);
  cpSync(bundle, path, { recursive: true });
  if (change) {
    const manifest = manifestOf(path) as Parameters<typeof change>[0];
    change(manifest);
    writeFileSync(join(path, "bundle.json"), JSON.stringify(manifest));
  }
  return path;
}

describe.skipIf(!compiler)("bundles", () => {
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "tempograph-bundle-"));
    // A cache of its own: one that others fill may drop the libraries of the bundle while it is made.
    process.env["TEMPOGRAPH_CACHE_DIR"] = before["TEMPOGRAPH_CACHE_DIR"] = join(folder, "cache");
    model = join(folder, "weights");
    bundle = join(folder, "bundle");
    writeModel(model);
    const run = await runCli(["compile", model, "--out", bundle, "--horizon", "24", "--context", "64"], { load });
    expect(run.error).toMatch(/\d+ programs for \w+; load it with --model/);
    expect(run.code).toBe(0);
  });
  afterAll(() => {
    if (usual === undefined) delete process.env["TEMPOGRAPH_CACHE_DIR"];
    else process.env["TEMPOGRAPH_CACHE_DIR"] = usual;
    rmSync(folder, { recursive: true, force: true });
  });

  test("is plain data and libraries, and names its machine and its weights", () => {
    const manifest = manifestOf(bundle);
    expect(manifest).toMatchObject({
      format: "tempograph-bundle-1",
      machine: { platform: process.platform, arch: process.arch },
      about: { family: "toto1", model: "../weights", mode: "reduce-overhead", kvCache: "static" },
    });
    expect(manifest.programs.map(({ name }) => name)).toEqual(expect.arrayContaining(["toto1.prefill", "toto1.decode"]));
    expect(manifest.libraries[0]?.name).toBe("runtime");
    expect(readdirSync(bundle).sort()).toEqual(["bundle.json", "libraries", "programs"]);
    for (const { file } of manifest.programs) {
      const text = readFileSync(join(bundle, file), "utf8");
      expect(printProgramJson(readProgramJson(text))).toBe(text);
    }
  });

  test.each([0, 3])("loads without compiler and cache, the same bits: %i samples", async (samples) => {
    const expected = await forecastOf(model, samples);
    const { result, cached } = await bare(() => forecastOf(bundle, samples));
    expect(result.text).toBe(expected.text);
    expect(result.report).toMatchObject({ recompiles: 0, fallbacks: 0, graphBreaks: 0 });
    expect(result.report["device"]).toContain(bundle);
    expect(cached).toEqual([]);
  });

  test("without the bundle that machine cannot run the model natively", async () => {
    const { result } = await bare(() => forecastOf(model, 0, { device: "native", threads: 1 }).catch((error: unknown) => error));
    expect(result).toMatchObject({ code: "compiler-missing" });
  });

  test("a program it does not hold is named, with the bundle", async () => {
    const { result } = await bare(() => forecastOf(bundle, 0, { kvCache: "paged", device: "native" }).catch((error: unknown) => error));
    expect(result).toMatchObject({ code: "compiler-missing" });
    expect((result as Error).message).toContain(`not in the bundle ${bundle}, nor in the artifact cache`);
  });

  test("with --with-weights it runs where the model is not", async () => {
    const whole = join(folder, "whole");
    const run = await runCli(["compile", model, "--out", whole, "--horizon", "24", "--context", "64", "--with-weights", "--quiet"], {
      load,
    });
    expect(run).toMatchObject({ code: 0, error: "" });
    const moved = join(folder, "elsewhere", "whole");
    cpSync(whole, moved, { recursive: true });
    const expected = await forecastOf(model, 2);
    expect((await bare(() => forecastOf(moved, 2))).result.text).toBe(expected.text);
  });

  describe("refuses", () => {
    const failing = async (path: string, options: LoadOptions = {}): Promise<{ code: string; message: string }> => {
      const error: unknown = await forecastOf(path, 0, options).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(error instanceof NativeError || error instanceof InputError).toBe(true);
      return error as NativeError;
    };

    test("a CPU without the features it needs, by name", () => {
      const path = copyOf("future", (manifest) => (manifest.machine = { ...manifest.machine, features: ["fma", "avx1024f"] }));
      expect(() => Bundle.open(path, new Set(["fma"]))).toThrow(
        /needs the CPU features fma, avx1024f; this CPU lacks avx1024f\..*TEMPOGRAPH_ISA/,
      );
      expect(() => Bundle.open(path, new Set(["fma", "avx1024f"]))).not.toThrow();
    });

    test("the same when it is loaded as a model, even with device auto", async () => {
      const path = copyOf("future-model", (manifest) => (manifest.machine = { ...manifest.machine, features: ["avx1024f"] }));
      expect(await failing(path)).toMatchObject({ code: "bundle-machine", message: expect.stringContaining("lacks avx1024f") as string });
    });

    test("another platform, another format", async () => {
      const other = copyOf("other", (manifest) => (manifest.machine = { ...manifest.machine, arch: "s390x" as never }));
      expect(await failing(other)).toMatchObject({
        code: "bundle-machine",
        message: expect.stringContaining("on s390x; this machine is") as string,
      });
      const old = copyOf("old", (manifest) => (manifest.format = "tempograph-bundle-0"));
      expect((await failing(old)).message).toMatch(/is of format tempograph-bundle-0.*this version reads tempograph-bundle-1/);
    });

    test("damage, file by file", async () => {
      for (const [name, pick] of [
        ["library", (m: BundleManifest) => m.libraries.map(({ file }) => file)],
        ["program", (m: BundleManifest) => m.programs.map(({ file }) => file)],
      ] as const) {
        const path = copyOf(`damaged-${name}`);
        for (const file of pick(manifestOf(path))) {
          const bytes = readFileSync(join(path, file));
          bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1;
          writeFileSync(join(path, file), bytes);
        }
        const { code, message } = await failing(path, { device: "native" });
        expect(code).toBe("bundle-damaged");
        expect(message).toMatch(
          name === "library" ? /libraries\/runtime-\w+\.so: its checksum differs/ : /programs\/toto1\.\w+-\w+\.json: its checksum differs/,
        );
      }
      const path = copyOf("no-manifest");
      writeFileSync(join(path, "bundle.json"), "{");
      expect(await failing(path)).toMatchObject({ code: "bundle-damaged" });
    });

    test("a folder that others may write to", async () => {
      const path = copyOf("open");
      chmodSync(path, 0o777);
      expect(await failing(path)).toMatchObject({ code: "cache-unsafe" });
    });

    test("another model behind its reference, and another device", async () => {
      const path = copyOf("moved", (manifest) => (manifest.about = { ...manifest.about, model: "../other-weights" }));
      writeModel(join(folder, "other-weights"));
      writeFileSync(join(folder, "other-weights", "config.json"), `${readFileSync(join(model, "config.json"), "utf8")} `);
      expect(await failing(path)).toMatchObject({ code: "bundle-model" });
      expect(await failing(bundle, { device: "reference" })).toMatchObject({ code: "bundle-device" });
    });
  });

  test("bad command lines write nothing", async () => {
    for (const [words, message] of [
      [["compile", model], /name the folder of the bundle: --out DIR/],
      [["compile", model, "--out", bundle], /exists already/],
      [["compile", join(folder, "nothing"), "--out", join(folder, "x")], /is no folder/],
      [["compile", model, "--out", join(folder, "x"), "--variates", "0"], /--variates "0" is not usable/],
    ] as const) {
      const run = await runCli(words, { load });
      expect(run.code).toBe(2);
      expect(run.error).toMatch(message);
    }
    expect(existsSync(join(folder, "x"))).toBe(false);
    expect(readdirSync(folder).filter((name) => name.includes("partial"))).toEqual([]);
    expect(openDevice("native").device.name).toBe("native");
  });
});
