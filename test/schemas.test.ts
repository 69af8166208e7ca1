/** The published JSON Schemas: up to date with the code, and fitting what the commands write. */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Ajv2020 } from "ajv/dist/2020.js";
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

/** The published files, read by a validator that knows nothing of the code. */
function published(name: string): (answer: unknown) => unknown {
  const validate = new Ajv2020({ strict: true, allErrors: true }).compile(
    JSON.parse(readFileSync(`${folder}${name}.schema.json`, "utf8")) as object,
  );
  return (answer) => (validate(answer) ? [] : validate.errors);
}

test("real output fits the published schema files, and output with a field too many, too few or of another type does not", async () => {
  const file = exampleCsv(temporaryFolder());
  const forecastProblems = published("forecast");
  for (const words of [[], ["--no-report"], ["--paths", "--samples", "3"], ["--joint"], ["--samples", "0"]]) {
    const run = await runCli(["forecast", file, "--horizon", "2", "--format", "json", ...words]);
    const answer = JSON.parse(run.out) as { series: Record<string, unknown>[]; report?: Record<string, unknown> };
    expect(forecastProblems(answer), words.join(" ")).toEqual([]);
    const [first] = answer.series;
    expect(forecastProblems({ ...answer, extra: 1 })).not.toEqual([]);
    expect(forecastProblems({ ...answer, series: [{ ...first, mean: "1" }] })).not.toEqual([]);
    expect(forecastProblems({ ...answer, series: [{ ...first, id: undefined }] })).not.toEqual([]);
  }
  expect(published("analyze")(JSON.parse(JSON.stringify(analyzeLogText("nothing of note\n"))))).toEqual([]);
  const evaluated = await runCli(["evaluate", file, "--horizon", "4", "--windows", "2", "--json"]);
  expect(published("evaluate")(JSON.parse(evaluated.out))).toEqual([]);
});

test("the report has the fields of its description, in their order", async () => {
  const run = await runCli(["forecast", exampleCsv(temporaryFolder()), "--horizon", "2", "--format", "json"]);
  const { report } = JSON.parse(run.out) as { report: Record<string, object> };
  const listed =
    "device, mode, kvCache, threads, compiles, recompiles, graphBreaks, fallbacks, capturedSteps, steps, foreignCallsPerStep, waits, milliseconds, peakBytes, meanKind";
  const isListed = (name: string): boolean => listed.split(", ").includes(name);
  expect(Object.keys(report).filter(isListed).join(", ")).toBe(listed);
  expect(Object.keys(report["milliseconds"] ?? {}).slice(0, 4)).toEqual(["load", "compile", "first", "total"]);
});

test("a log analysis fits its schema", () => {
  expect(logAnalysisSchema.parse(JSON.parse(JSON.stringify(analyzeLogText("nothing of note\n")))).unrecognisedLines).toBe(1);
});
