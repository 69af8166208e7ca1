/** Kronos against the published model: every golden case, both programs, every mode and device. */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { findGoldenCases } from "../src/diagnostics/golden/case.js";
import type { GoldenProgram } from "../src/diagnostics/golden/compare.js";
import { goldenFunctions } from "../src/diagnostics/golden/functions.js";
import { runGoldenCases } from "../src/diagnostics/golden/run.js";

const folder = join(dirname(fileURLToPath(import.meta.url)), "goldens");
const cases = findGoldenCases([folder]).filter((path) => /kronos-[^/\\]+$/.test(path));
const full = cases.filter((path) => path.endsWith("kronos-small-600977"));
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
  return report.cases
    .map(({ name, program, status, reason, tensors }) =>
      status === "pass" && tensors.length > 0 ? "" : `${name} ${program}: ${status} ${reason ?? "nothing compared"}`,
    )
    .filter((text) => text !== "");
}

describe("golden cases", () => {
  test("15 small cases and one of full size are there", () => {
    expect([tiny.length, full.length]).toEqual([15, 1]);
  });
  for (const mode of ["eager", "default", "reduce-overhead"]) {
    test(`small, native, ${mode}`, async () => {
      expect(await failures(tiny, "native", mode)).toEqual([]);
    });
  }
  test("small, reference", async () => {
    expect(await failures(tiny, "reference", "reduce-overhead")).toEqual([]);
  });
  test("full size, native", async () => {
    expect(await failures(full, "native", "reduce-overhead")).toEqual([]);
  });
  test("an unknown option is an error, not ignored", async () => {
    const options = { device: "native", mode: "default", functions: goldenFunctions };
    const known = goldenFunctions["kronos.generate"];
    const report = await runGoldenCases([join(folder, "kronos-greedy")], {
      ...options,
      functions: {
        "kronos.generate": (golden, context) =>
          (known as NonNullable<typeof known>)({ ...golden, options: { ...golden.options, beams: 4 } }, context),
      },
    });
    expect(report.errors).toBe(2);
    expect(report.cases[0]?.reason).toContain('"beams"');
  });
});
