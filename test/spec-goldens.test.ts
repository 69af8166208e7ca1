/**
 * Golden cases of configurations that the recorded ones leave out, computed by an implementation of the published formulas that shares nothing with ours: layer orders,
 * head widths, options and defaults. Each runs as taps and as product.
 */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { findGoldenCases } from "../src/diagnostics/golden/case.js";
import { goldenFunctions } from "../src/diagnostics/golden/functions.js";
import { runGoldenCases } from "../src/diagnostics/golden/run.js";
import { findCompiler } from "../src/runtime/native/compiler.js";

const folders = findGoldenCases([join(dirname(fileURLToPath(import.meta.url)), "goldens-spec")]);

async function failures(device: string, mode: string): Promise<string[]> {
  const report = await runGoldenCases(folders, { device, mode, functions: goldenFunctions });
  expect(report.cases.length).toBe(2 * folders.length);
  return report.cases.flatMap(({ name, program, status, reason, tensors }) =>
    status === "pass" && tensors.length > 0 ? [] : [`${name} ${program}: ${status} ${reason ?? "nothing compared"}`],
  );
}

test("they are there", () => expect(folders.length).toBe(13));
test.skipIf(!findCompiler(process.env))("native (needs a C compiler)", async () =>
  expect(await failures("native", "reduce-overhead")).toEqual([]),
);
test("reference", async () => expect(await failures("reference", "default")).toEqual([]));
