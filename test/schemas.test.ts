/** The published JSON Schemas: up to date with the code, and fitting what the commands write. */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { schemaFiles } from "../src/cli/schemas.js";
import { logAnalysisSchema } from "../src/diagnostics/logs/answer.js";
import { forecastSchema } from "../src/forecast/schema.js";
import { analyzeLogText } from "../src/index.js";
import { exampleCsv, runCli, temporaryFolder } from "./cli-harness.js";

const folder = fileURLToPath(new URL("../schemas/", import.meta.url));

test("schemas/ holds exactly what the code describes (npm run schemas writes it)", () => {
  const expected = schemaFiles();
  expect(readdirSync(folder).sort()).toEqual([...expected.keys()].sort());
  for (const [name, text] of expected) expect(readFileSync(folder + name, "utf8"), name).toBe(text);
});

test("a forecast's JSON fits its schema, with and without report and paths", async () => {
  const file = exampleCsv(temporaryFolder());
  for (const flags of [[], ["--no-report"], ["--paths"]]) {
    const run = await runCli(["forecast", file, "--horizon", "2", "--format", "json", ...flags]);
    expect(run.code).toBe(0);
    expect(forecastSchema.parse(JSON.parse(run.out)).series.length).toBe(2);
  }
});

test("a log analysis fits its schema", () => {
  expect(logAnalysisSchema.parse(JSON.parse(JSON.stringify(analyzeLogText("nothing of note\n")))).unrecognisedLines).toBe(1);
});
