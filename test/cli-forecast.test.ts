import { expect, test } from "vitest";
import { exampleCsv, runCli, temporaryFolder } from "./cli-harness.js";

test("x", async () => {
  const file = exampleCsv(temporaryFolder());
  for (const f of ["table", "chart", "csv", "json"]) {
    const run = await runCli(["forecast", file, "--horizon", "6", "--format", f]);
    console.log(run.out, run.error);
    expect(run.code).toBe(0);
  }
});
