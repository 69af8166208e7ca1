/** Help that works: every example of every command runs on files of the names it uses; flags in the original tools' spellings; completion of it all. */
import { copyFileSync, cpSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { HELP_EXAMPLES } from "../src/cli/help-examples.js";
import { buildProgram } from "../src/cli/program.js";
import { Forecaster } from "../src/index.js";
import { exampleCsv, runCli, temporaryFolder } from "./cli-harness.js";

const root = fileURLToPath(new URL("../", import.meta.url));
let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tempograph-help-"));
  copyFileSync(join(root, "examples/data/hourly.csv"), join(folder, "load.csv"));
  copyFileSync(join(root, "examples/data/AAPL-1d.csv"), join(folder, "candles.csv"));
  copyFileSync(
    join(
      root,
      "test/torch-logs",
      readdirSync(join(root, "test/torch-logs"))
        .filter((name) => name.endsWith(".log"))
        .sort()[0] ?? "",
    ),
    join(folder, "train.log"),
  );
  const cases = join(root, "test/goldens");
  const first =
    readdirSync(cases)
      .sort()
      .find((name) => existsSync(join(cases, name, "case.json"))) ?? "";
  cpSync(join(cases, first), join(folder, "cases", first), { recursive: true });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const lines = Object.entries(HELP_EXAMPLES).flatMap(([command, examples]) => examples.map(([line]) => [command, line] as const));

test.each(lines)("the example of %s: tempograph %s", async (command, line) => {
  const help = await runCli([...command.split(" "), "--help"]);
  expect(help).toMatchObject({ code: 0, error: "" });
  expect(help.out).toContain(`$ tempograph ${line}\n`);
  const inFolder = (word: string): string =>
    /^(load|candles|train|forecast|report|cases|bundle)\b(?!:)/.test(word) ? join(folder, word) : word;
  const [name = "", ...words] = line.split(" ");
  const run = await runCli([name, ...words.map(inFolder)], {
    environment: { TEMPOGRAPH_CACHE_DIR: join(folder, "cache") },
    folder,
    load: (reference, options) => Forecaster.load(reference, options),
  });
  // 1: the log of `analyze` holds something bad, which is its point.
  expect([0, name === "analyze" ? 1 : 0], run.error).toContain(run.code);
  if (!line.includes("--output") && !/^(compile|cache clear)/.test(line)) expect(run.out.trim()).not.toBe("");
});

test("every command has an example", () => {
  const program = buildProgram(
    {
      writeOut: () => undefined,
      writeError: () => undefined,
      standardInput: () => process.stdin,
      environment: {},
      folder,
      terminal: { columns: 80, colours: false },
      signal: new AbortController().signal,
      load: () => Promise.reject(new Error("not here")),
    },
    () => undefined,
  );
  expect(program.commands.map((command) => command.name()).filter((name) => HELP_EXAMPLES[name] === undefined)).toEqual([]);
});

test.each([
  [["--prediction-length", "3", "--num-samples", "5"]],
  [["--prediction_length=3", "--num_samples=5"]],
  [["--pred-len", "3", "--sample-count", "5"]],
  [["--pred_len", "3", "--sample_count", "5"]],
])("flags as the original tools spell them: %j", async (words) => {
  const run = await runCli(["forecast", exampleCsv(temporaryFolder()), ...words]);
  expect(run.error).toBe("");
  expect(run.models[0]?.requests[0]).toMatchObject({ horizon: 3, samples: 5 });
});

test("the same flag under two names is a mistake, even with equal values", async () => {
  const run = await runCli(["forecast", exampleCsv(temporaryFolder()), "--horizon", "3", "--pred_len", "3"]);
  expect(run).toMatchObject({ code: 2, out: "", error: "tempograph: --horizon and --pred_len mean the same: give one of them\n" });
});
