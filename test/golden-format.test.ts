import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runGoldenCommand } from "../src/cli/golden.js";
import { checkGoldenOptions, findGoldenCases, goldenCheckpoint, goldenInput, loadGoldenCase } from "../src/diagnostics/golden/case.js";
import type { GoldenCase, GoldenExpectation } from "../src/diagnostics/golden/case.js";
import { compareCase, compareTensor, coordinates } from "../src/diagnostics/golden/compare.js";
import type { GoldenAnswer } from "../src/diagnostics/golden/compare.js";
import type { GoldenFunctions, GoldenReport } from "../src/diagnostics/golden/run.js";
import { InputError } from "../src/io/errors.js";

const goldens = join(dirname(fileURLToPath(import.meta.url)), "goldens");

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tempograph-golden-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function expectation(fields: Partial<GoldenExpectation> & Pick<GoldenExpectation, "data">): GoldenExpectation {
  return { name: "t", dtype: "F32", shape: [fields.data.length], meaning: "", compare: "close", atol: 0, rtol: 0, ...fields };
}

const floats = (...values: number[]): Float32Array => Float32Array.from(values);
const answer = (data: GoldenAnswer["data"], shape = [data.length]): GoldenAnswer => ({ data, shape });

/** The expected tensors of a case as if computed. */
function perfect(golden: GoldenCase): Map<string, GoldenAnswer> {
  return new Map(golden.expected.map(({ name, data, shape }) => [name, { data, shape }]));
}

describe("comparing tensors", () => {
  test("close: the tolerance is absolute plus relative, inclusive", () => {
    const wanted = expectation({ data: floats(0, 100), atol: 0.5, rtol: 0.25 });
    expect(compareTensor(wanted, answer(floats(0.5, 125.5)))).toMatchObject({ pass: true, maxAbs: 25.5, firstBad: null });
    expect(compareTensor(wanted, answer(floats(0.5, 125.6)))).toMatchObject({ pass: false, firstBad: { index: 1 } });
    expect(compareTensor(wanted, answer(floats(-0.6, 0))).firstBad).toEqual({ index: 0, got: Math.fround(-0.6), expected: 0 });
  });

  test("NaN never passes, on either side and in any comparison", () => {
    for (const compare of ["close", "equal", "bits"] as const) {
      for (const [got, wanted] of [
        [NaN, 1],
        [1, NaN],
        [NaN, NaN],
      ] as const) {
        const result = compareTensor(expectation({ data: floats(wanted), compare, atol: Infinity }), answer(floats(got)));
        expect(result).toMatchObject({ pass: false, maxAbs: null, maxUlp: null });
        expect(result.reason).toMatch(/NaN/);
      }
    }
  });

  test("equal infinities pass, unequal and finite ones do not, whatever the tolerance", () => {
    const wanted = expectation({ data: floats(Infinity, -Infinity), atol: 1, rtol: 1 });
    expect(compareTensor(wanted, answer(floats(Infinity, -Infinity)))).toMatchObject({ pass: true, maxAbs: 0, maxUlp: 0 });
    expect(compareTensor(wanted, answer(floats(Infinity, Infinity))).firstBad).toEqual({
      index: 1,
      got: "Infinity",
      expected: "-Infinity",
    });
    expect(compareTensor(wanted, answer(floats(3e38, -Infinity))).pass).toBe(false);
    expect(compareTensor(expectation({ data: floats(1), atol: 1 }), answer(floats(Infinity))).pass).toBe(false);
  });

  test("equal and bits: one unit in the last place, or a zero's sign, is a difference", () => {
    const next = new Float32Array(Uint32Array.of(0x3f800001).buffer)[0]!;
    for (const compare of ["equal", "bits"] as const) {
      expect(compareTensor(expectation({ data: floats(1, -0), compare }), answer(floats(1, -0)))).toMatchObject({ pass: true, maxUlp: 0 });
      expect(compareTensor(expectation({ data: floats(1), compare, rtol: 1 }), answer(floats(next)))).toMatchObject({
        pass: false,
        maxUlp: 1,
      });
      expect(compareTensor(expectation({ data: floats(0), compare }), answer(floats(-0))).firstBad).toEqual({
        index: 0,
        got: "-0",
        expected: 0,
      });
    }
  });

  test("units in the last place across zero and in float64", () => {
    const tiny = 2 ** -149;
    expect(compareTensor(expectation({ data: floats(-tiny), atol: 1 }), answer(floats(tiny))).maxUlp).toBe(2);
    const double = expectation({ data: Float64Array.of(1), dtype: "F64", atol: 1 });
    expect(compareTensor(double, answer(Float64Array.of(1 + 2 ** -52))).maxUlp).toBe(1);
  });

  test("integers of any array kind; masks", () => {
    const tokens = expectation({ data: BigInt64Array.of(3n, 511n), dtype: "I64", compare: "equal" });
    expect(compareTensor(tokens, answer(Int32Array.of(3, 511)))).toMatchObject({ pass: true, maxUlp: null });
    expect(compareTensor(tokens, answer([3, 510]))).toMatchObject({
      pass: false,
      maxAbs: 1,
      firstBad: { index: 1, got: 510, expected: 511 },
    });
    const mask = expectation({ data: Uint8Array.of(1, 0), dtype: "BOOL", compare: "equal" });
    expect(compareTensor(mask, answer(Uint8Array.of(1, 1))).pass).toBe(false);
  });

  test("atolBy gives one tolerance per index along its axes, in their order", () => {
    const shape = [2, 3, 2];
    const data = new Float32Array(12);
    const atol = [1, 2, 3, 4, 5, 6];
    // Axis 2 varies slowest here because it is named first.
    const wanted = expectation({ data, shape, atol: 100, atolBy: { axes: [2, 1], atol } });
    const exact = Float32Array.from(data, (_, i) => atol[(i % 2) * 3 + (Math.floor(i / 2) % 3)]!);
    expect(compareTensor(wanted, answer(exact, shape)).pass).toBe(true);
    for (let i = 0; i < 12; i++) {
      const over = Float32Array.from(exact);
      over[i]! += 0.5;
      expect(compareTensor(wanted, answer(over, shape)).firstBad?.index).toBe(i);
    }
  });

  test("missing tensors and wrong shapes fail", () => {
    const wanted = expectation({ data: floats(1, 2, 3, 4, 5, 6), shape: [2, 3] });
    expect(compareTensor(wanted, undefined)).toMatchObject({ pass: false, reason: "missing" });
    expect(compareTensor(wanted, answer(wanted.data, [3, 2])).reason).toMatch(/shape \[3, 2\] .* expected shape \[2, 3\]/);
    expect(compareTensor(wanted, answer(floats(1), [2, 3])).pass).toBe(false);
  });

  test("coordinates invert the row-major index", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 4 }), fc.nat(), (shape, seed) => {
        const index = seed % shape.reduce((a, b) => a * b, 1);
        const at = coordinates(index, shape);
        expect(at.reduce((position, value, axis) => position * shape[axis]! + value, 0)).toBe(index);
      }),
    );
  });
});

describe("stored cases", () => {
  const folders = findGoldenCases([goldens]);

  test("all are there, load, and their own values pass on both programs", () => {
    expect(folders.length).toBe(69);
    for (const path of folders) {
      const golden = loadGoldenCase(path);
      for (const program of ["taps", "product"] as const) {
        const results = compareCase(golden, perfect(golden), program);
        expect(results.length).toBe(golden.expected.length);
        expect(results.filter((result) => !result.pass)).toEqual([]);
      }
    }
  });

  test("every named checkpoint exists", () => {
    for (const path of folders) {
      const golden = loadGoldenCase(path);
      for (const role of Object.keys(golden.checkpoint)) expect(goldenCheckpoint(golden, role).source.names().length).toBeGreaterThan(0);
    }
  });

  test("a fault in any single tensor of any case is seen, and named", () => {
    for (const path of folders) {
      const golden = loadGoldenCase(path);
      for (const { name, data, shape, atol, atolBy, rtol, dtype } of golden.expected) {
        const last = data.length - 1;
        const faulty = Array.from(data as ArrayLike<number | bigint>, Number);
        const value = faulty[last]!;
        const step = Math.max(atol, ...(atolBy?.atol ?? [])) * 2 + Math.abs(value) * (2 * rtol + 1e-6) + 1e-30;
        faulty[last] = dtype === "BOOL" ? 1 - value : dtype === "I64" ? value + 1 : Number.isFinite(value) ? value + step : 0;
        const results = compareCase(golden, perfect(golden).set(name, { data: faulty, shape }));
        expect(results.filter((result) => !result.pass).map((result) => [result.name, result.firstBad?.index])).toEqual([[name, last]]);
      }
    }
  });

  test("each program misses what it must have", () => {
    for (const path of folders) {
      const golden = loadGoldenCase(path);
      expect(compareCase(golden, new Map(), "taps").every((result) => result.reason === "missing")).toBe(true);
      expect(compareCase(golden, new Map(), "product").filter((result) => result.reason === "missing").length).toBeGreaterThan(0);
      const last = golden.expected.at(-1)!;
      expect(compareCase(golden, new Map(), "product").map((result) => result.name)).toContain(last.name);
    }
    const decode = loadGoldenCase(join(goldens, "toto1-decode-cache"));
    expect(compareCase(decode, new Map(), "product").map((result) => result.name)).toEqual(["forecast"]);
  });

  test("a case alone, twice, and folders without cases", () => {
    const one = join(goldens, "toto1-head");
    expect(findGoldenCases([one, one])).toEqual([one]);
    expect(() => findGoldenCases([folder])).toThrow(/holds no golden case/);
    expect(() => findGoldenCases([join(folder, "absent")])).toThrow(InputError);
    expect(() => findGoldenCases([join(one, "case.json")])).toThrow(/not a folder/);
  });

  test("helpers name what is missing", () => {
    const golden = loadGoldenCase(join(goldens, "toto1-scaler-real"));
    expect(() => goldenCheckpoint(golden, "model")).toThrow(/toto1-scaler-real: no checkpoint for role "model"/);
    expect(() => goldenInput(golden, "ids")).toThrow(/no input tensor "ids"/);
    expect(goldenInput(golden, "mask").shape).toEqual([1, 2, 512]);
    expect(() => checkGoldenOptions(golden, ["patch", "prefix"])).toThrow(
      /knows no option "stabilizeWithGlobal", "scaleFactorExponent"; known: patch/,
    );
    checkGoldenOptions(golden, ["patch", "prefix", "stabilizeWithGlobal", "scaleFactorExponent", "more"]);
  });

  test.each([
    [{ format: 2 }, /format/],
    [{ expected: [] }, /expected/],
    [{ inputs: [{ name: "series", dtype: "F32", shape: [1, 2, 513] }] }, /"series" is F32 \[1, 2, 512\], case.json says F32 \[1, 2, 513\]/],
    [{ inputs: [{ name: "other", dtype: "F32", shape: [1] }] }, /no tensor "other", which case.json lists/],
    [{ expected: [{ name: "loc", dtype: "F32", shape: [1, 2, 8], compare: "near" }] }, /expected.0.compare/],
    [
      { expected: [{ name: "loc", dtype: "F32", shape: [1, 2, 8], compare: "close", atolBy: { axes: [1], atol: [1] } }] },
      /atolBy has 1 tolerances, its axes need 2/,
    ],
    [{ expected: [{ name: "loc", dtype: "F32", shape: [1, 2, 8], compare: "close", atolBy: { axes: [3], atol: [1] } }] }, /exceed shape/],
  ])("case.json with %j is refused", (change, message) => {
    const place = mkdtempSync(join(folder, "case-"));
    cpSync(join(goldens, "toto1-scaler-real"), place, { recursive: true });
    const description = JSON.parse(readFileSync(join(place, "case.json"), "utf8")) as object;
    writeFileSync(join(place, "case.json"), JSON.stringify({ ...description, ...change }));
    expect(() => loadGoldenCase(place)).toThrow(InputError);
    expect(() => loadGoldenCase(place)).toThrow(message);
  });
});

describe("the golden command", () => {
  const right: GoldenFunctions[string] = async (golden) => perfect(golden);
  const directories = ["toto1-head", "toto1-sanitise", "toto1-scaler-clamp"].map((name) => join(goldens, name));

  async function run(functions: GoldenFunctions, json: boolean): Promise<{ code: number; out: string; error: string }> {
    let out = "";
    let error = "";
    const context = {
      writeOut: (text: string): void => void (out += text),
      writeError: (text: string): void => void (error += text),
      signal: new AbortController().signal,
    };
    const code = await runGoldenCommand(directories, { device: "reference", mode: "default", json, functions }, context);
    return { code, out, error };
  }

  const all = { "toto1.head": right, "toto1.sanitise": right, "toto1.scaler": right };

  test("all pass: both programs are counted, exit 0", async () => {
    const { code, out, error } = await run(all, false);
    expect(code).toBe(0);
    expect(out.trimEnd().split("\n").at(-1)).toBe("6 passed, 0 failed");
    expect(out).toMatch(/^pass +toto1-head +taps +7 tensors +max 0/m);
    expect(error).toBe("");
  });

  test("a difference: exit 1, the tensor and the element are named", async () => {
    const wrong: GoldenFunctions[string] = async (golden, { program }) => {
      const got = perfect(golden);
      if (program === "product") got.set("mean", { data: new Float32Array(24).fill(1e9), shape: [24] });
      return got;
    };
    const { code, out } = await run({ ...all, "toto1.head": wrong }, false);
    expect(code).toBe(1);
    expect(out).toMatch(/^fail +toto1-head +product +mean: 24 of 24 elements, first at \[0\]: got 1000000000, expected/m);
    expect(out.trimEnd().split("\n").at(-1)).toBe("5 passed, 1 failed");
  });

  test("JSON: the report alone on stdout; unknown functions and throwing ones are errors, exit 2", async () => {
    const { code, out, error } = await run(
      {
        "toto1.head": right,
        "toto1.scaler": async (golden) => {
          checkGoldenOptions(golden, ["patch"]);
          return perfect(golden);
        },
      },
      true,
    );
    expect(code).toBe(2);
    const report = JSON.parse(out) as GoldenReport;
    expect(report).toMatchObject({ passed: 2, failed: 0, errors: 4 });
    expect(report.cases.map(({ name, program, status }) => [name, program, status])).toEqual([
      ["toto1-head", "taps", "pass"],
      ["toto1-head", "product", "pass"],
      ["toto1-sanitise", "taps", "error"],
      ["toto1-sanitise", "product", "error"],
      ["toto1-scaler-clamp", "taps", "error"],
      ["toto1-scaler-clamp", "product", "error"],
    ]);
    expect(report.cases[0]).toMatchObject({ function: "toto1.head", device: "reference", mode: "default" });
    expect(report.cases[0]?.tensors[0]).toEqual({ name: "df", compare: "close", pass: true, maxAbs: 0, maxUlp: 0, firstBad: null });
    expect(report.cases[2]?.reason).toMatch(/unknown function "toto1.sanitise"; known: toto1.head, toto1.scaler/);
    expect(report.cases[4]?.reason).toMatch(/knows no option .*"prefix"; known: patch/);
    expect(error).toMatch(/4 of 6 runs could not be measured\n2 passed, 0 failed\n$/);
  });

  test("a damaged case is an error, not a crash", async () => {
    const place = mkdtempSync(join(folder, "damaged-"));
    cpSync(join(goldens, "toto1-head"), place, { recursive: true });
    writeFileSync(join(place, "tensors.safetensors"), "short");
    let out = "";
    const code = await runGoldenCommand(
      [place],
      { device: "reference", mode: "eager", json: true, functions: all },
      { writeOut: (text) => void (out += text), writeError: () => undefined, signal: new AbortController().signal },
    );
    expect(code).toBe(2);
    expect((JSON.parse(out) as GoldenReport).cases[0]?.reason).toMatch(/5 bytes, too few/);
  });
});
