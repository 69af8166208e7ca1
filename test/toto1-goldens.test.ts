/** Toto 1.0 against the published model: every golden case, both programs, every mode and device; the bundled trained model against its own. */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { findGoldenCases } from "../src/diagnostics/golden/case.js";
import type { GoldenProgram } from "../src/diagnostics/golden/compare.js";
import { goldenFunctions } from "../src/diagnostics/golden/functions.js";
import { runGoldenCases } from "../src/diagnostics/golden/run.js";

const folder = join(dirname(fileURLToPath(import.meta.url)), "goldens");
const cases = findGoldenCases([folder]).filter((path) => /toto1-[^/\\]+$/.test(path));
const full = cases.filter((path) => path.endsWith("toto1-base-btc"));
const bundled = findGoldenCases([join(dirname(fileURLToPath(import.meta.url)), "..", "models", "toto1-nano", "golden")]);
const tiny = cases.filter((path) => !full.includes(path));

/** Runs that did not pass, with their reasons. */
async function failures(
  folders: readonly string[],
  device: string,
  mode: string,
  programs: readonly GoldenProgram[] = ["taps", "product"],
): Promise<string[]> {
  const report = await runGoldenCases(folders, { device, mode, functions: goldenFunctions, programs });
  expect(report.cases.length).toBe(folders.length * programs.length);
  const named = report.cases.map(({ name, program, status, reason, tensors }) =>
    status === "pass" && tensors.length > 0 ? "" : `${name} ${program}: ${status} ${reason ?? "nothing compared"}`,
  );
  return named.filter((text) => text !== "");
}

describe("golden cases", () => {
  test("25 small cases and one of full size are there", () => {
    expect([tiny.length, full.length]).toEqual([25, 1]);
  });

  for (const mode of ["eager", "default", "reduce-overhead"]) {
    test(`small, native, ${mode}`, async () => {
      expect(await failures(tiny, "native", mode)).toEqual([]);
    });
    test(`small, reference, ${mode}`, async () => {
      expect(await failures(tiny, "reference", mode)).toEqual([]);
    });
  }
  for (const mode of ["eager", "reduce-overhead"]) {
    test(`full size, native, ${mode}`, async () => {
      expect(await failures(full, "native", mode)).toEqual([]);
    });
  }
  test("bundled, native and reference", async () => {
    expect(bundled.length).toBe(1);
    expect(await failures(bundled, "native", "reduce-overhead")).toEqual([]);
    expect(await failures(bundled, "reference", "default", ["product"])).toEqual([]);
  });
  test("full size, reference, the product", async () => {
    expect(await failures(full, "reference", "reduce-overhead", ["product"])).toEqual([]);
  });
});
