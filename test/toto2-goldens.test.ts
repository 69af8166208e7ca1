/** Toto 2.0 against the published model: every golden case, both programs, on both devices; the bundled trained model against its own. */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { findGoldenCases } from "../src/diagnostics/golden/case.js";
import type { GoldenProgram } from "../src/diagnostics/golden/compare.js";
import { goldenFunctions } from "../src/diagnostics/golden/functions.js";
import { runGoldenCases } from "../src/diagnostics/golden/run.js";

const here = dirname(fileURLToPath(import.meta.url));
const cases = findGoldenCases([join(here, "goldens")]).filter((path) => /toto2-[^/\\]+$/.test(path));
const full = cases.filter((path) => path.includes("toto2-22m"));
const tiny = cases.filter((path) => !full.includes(path));
const bundled = findGoldenCases([join(here, "..", "models", "toto2-nano", "golden")]);

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

describe("Toto 2.0 goldens", () => {
  test("there are tiny, full-size and bundled cases", () => {
    expect([tiny.length > 20, full.length, bundled.length]).toEqual([true, 2, 2]);
  });
  for (const mode of ["eager", "default", "reduce-overhead", "max-autotune"])
    test(`tiny, native, ${mode}`, async () => expect(await failures(tiny, "native", mode)).toEqual([]));
  test("tiny, reference", async () => expect(await failures(tiny, "reference", "default")).toEqual([]));
  test("full size, native", async () => expect(await failures(full, "native", "reduce-overhead")).toEqual([]));
  test("full size, reference, the product", async () => expect(await failures(full, "reference", "default", ["product"])).toEqual([]));
  test("bundled, native and reference", async () => {
    expect(await failures(bundled, "native", "reduce-overhead")).toEqual([]);
    expect(await failures(bundled, "reference", "default", ["product"])).toEqual([]);
  });
});
