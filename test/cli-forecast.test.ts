/** `tempograph forecast`: formats, flags, and what each mistake says. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { exampleCsv, runCli, temporaryFolder } from "./cli-harness.js";

interface Json {
  series: { id: string; variate: string; timestamps: string[]; mean: number[]; quantiles: Record<string, number[]>; paths?: number[][] }[];
  report?: object;
}

test("JSON: one entry per column, stamps go on, the file's stem is the id", async () => {
  const file = exampleCsv(temporaryFolder());
  const run = await runCli(["forecast", file, "--horizon", "3", "--format", "json", "--quantiles", "0.2,0.8"]);
  expect(run).toMatchObject({ code: 0, error: "" });
  const json = JSON.parse(run.out) as Json;
  expect(json.series.map(({ id, variate }) => [id, variate])).toEqual([
    ["plant", "load"],
    ["plant", "count"],
  ]);
  expect(json.series[0]?.timestamps).toEqual(["2024-01-04T00:00:00Z", "2024-01-04T01:00:00Z", "2024-01-04T02:00:00Z"]);
  expect(Object.keys(json.series[0]?.quantiles ?? {})).toEqual(["0.2", "0.8"]);
  expect(json.report).toBeDefined();
  expect(run.models.map((model) => model.disposed)).toEqual([1]);
});

test("--no-report: equal inputs give equal bytes, and only then is the report absent", async () => {
  const words = ["forecast", exampleCsv(temporaryFolder()), "--format", "json", "--no-report", "--paths", "--samples", "4"];
  const [first, second] = [await runCli(words), await runCli(words)];
  expect(first.out).toBe(second.out);
  expect(Object.keys(JSON.parse(first.out) as Json)).toEqual(["series"]);
  expect((JSON.parse(first.out) as Json).series[0]?.paths?.length).toBe(4);
});

test("settings reach the loader and the model", async () => {
  const run = await runCli(
    [
      "forecast",
      exampleCsv(temporaryFolder()),
      ...["--model", "bundled:x", "--device", "reference", "--mode", "eager", "--threads", "1", "--kv-cache", "none"],
      ...["--horizon", "2", "--samples", "3", "--seed", "9", "--context", "10", "--target", "load"],
    ],
    { environment: { TEMPOGRAPH_SEED: "4", TEMPOGRAPH_SAMPLES: "7" } },
  );
  expect(run.error).toBe("");
  expect(run.loads).toMatchObject([
    { reference: "bundled:x", options: { device: "reference", mode: "eager", threads: 1, kvCache: "none", weights: "f32" } },
  ]);
  expect(run.models[0]?.requests[0]).toMatchObject({ horizon: 2, samples: 3, seed: 9 });
  expect(run.models[0]?.requests[0]?.series.map((series) => series.values.map((row) => row.length))).toEqual([[10]]);
});

test("decoding flags reach a model that states quantiles", async () => {
  const folder = temporaryFolder();
  const flags = ["--decode-block-size", "96", "--decoding-preset", "forecast", "--imputation", "linear"];
  const run = await runCli(["forecast", exampleCsv(folder), "--format", "json", ...flags], { model: { knots: [0.1, 0.5, 0.9] } });
  expect(run).toMatchObject({ code: 0, error: "" });
  expect(run.models[0]?.requests[0]?.decoding).toEqual({ preset: "forecast", decodeBlockSize: 96, imputation: "linear" });
});

test("--joint makes columns variates of one series, --past makes covariates of them", async () => {
  const file = exampleCsv(temporaryFolder());
  const joint = await runCli(["forecast", file, "--horizon", "1", "--joint"]);
  expect(joint.models[0]?.requests[0]?.series.map((series) => series.values.length)).toEqual([2]);
  const past = await runCli(["forecast", file, "--horizon", "1", "--past", "count", "--format", "json"]);
  expect(past.models[0]?.requests[0]?.series.map((series) => series.values.length)).toEqual([2]);
  expect((JSON.parse(past.out) as Json).series.map((entry) => entry.variate)).toEqual(["load"]);
});

test("the horizon defaults to one season of the stamps", async () => {
  const run = await runCli(["forecast", exampleCsv(temporaryFolder()), "--target", "load"]);
  expect(run.models[0]?.requests[0]?.horizon).toBe(24);
});

test("CSV: long form, quoted where needed", async () => {
  const folder = temporaryFolder();
  const file = join(folder, "a, b.csv");
  writeFileSync(file, 'time,"x ""y"""\n2024-01-01,1\n2024-01-02,2\n');
  const run = await runCli(["forecast", file, "--horizon", "1", "--format", "csv", "--samples", "0"]);
  expect(run.out).toBe('id,variate,timestamp,mean\n"a, b","x ""y""",2024-01-03,2\n');
});

test("table and chart: report lines below, left out by --no-report; no escape codes, no line wider than the terminal", async () => {
  const file = exampleCsv(temporaryFolder());
  for (const format of ["table", "chart"]) {
    const run = await runCli(["forecast", file, "--horizon", "5", "--format", format, "--no-report"], {
      terminal: { columns: 60, colours: false },
    });
    expect(run.out).toContain("plant: load");
    expect(run.out).not.toContain("recompiles");
    expect(run.out).not.toContain("\u001b");
    expect(Math.max(...run.out.split("\n").map((line) => line.length))).toBeLessThanOrEqual(60);
    expect((await runCli(["forecast", file, "--format", format])).out).toContain("recompiles 0");
  }
  const coloured = await runCli(["forecast", file, "--format", "chart"], { terminal: { columns: 60, colours: true } });
  expect(coloured.out).toContain("\u001b[36m");
});

test("--output writes the whole file and nothing beside it; a file that is there is replaced", async () => {
  const folder = temporaryFolder();
  const file = exampleCsv(folder);
  const target = join(folder, "out.json");
  writeFileSync(target, "old");
  const run = await runCli(["forecast", file, "--format", "json", "--output", target]);
  expect(run).toMatchObject({ code: 0, out: "" });
  expect((JSON.parse(readFileSync(target, "utf8")) as Json).series.length).toBe(2);
  expect(readdirSync(folder).sort()).toEqual(["out.json", "plant.csv"]);
});

test("gaps are reported once, and not with --quiet", async () => {
  const file = join(temporaryFolder(), "holes.csv");
  const hours = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13];
  writeFileSync(file, `time,x\n${hours.map((hour) => `2024-01-01T${String(hour).padStart(2, "0")}:00:00Z,${hour}`).join("\n")}\n`);
  const words = ["forecast", file, "--horizon", "1"];
  expect((await runCli(words)).error.match(/gap/g)?.length).toBe(1);
  expect((await runCli([...words, "--quiet"])).error).toBe("");
  const filled = await runCli([...words, "--frequency", "1h"]);
  expect(filled.models[0]?.requests[0]?.series[0]?.values[0]?.length).toBe(14);
});

test("Ctrl-C: exit code 130, no output file", async () => {
  const folder = temporaryFolder();
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 20);
  const run = await runCli(["forecast", exampleCsv(folder), "--horizon", "4000", "--output", join(folder, "out.json")], {
    signal: controller.signal,
    model: { stepDelay: 2 },
  });
  expect(run).toMatchObject({ code: 130, out: "", error: "tempograph: interrupted\n" });
  expect(readdirSync(folder)).toEqual(["plant.csv"]);
  expect(run.models[0]?.disposed).toBe(1);
});

describe("mistakes: exit code 2, one sentence, nothing on stdout, nothing written, no model left behind", () => {
  const files: Record<string, string> = {
    "empty.csv": "",
    "header.csv": "time,x\n",
    "text.csv": "time,name\n2024-01-01,a\n2024-01-02,b\n",
    "cell.csv": "time,x\n2024-01-01,1\n2024-01-02,1\n2024-01-03,oops\n",
    "missing.csv": "time,x\n2024-01-01,\n2024-01-02,nan\n",
    "twice.csv": "time,x\n2024-01-01,1\n2024-01-01,2\n",
    "unsorted.csv": "time,x\n2024-01-02,1\n2024-01-01,2\n",
    "huge.csv": "time,x\n2024-01-01,1\n2024-01-02,1e39\n",
  };

  test.each<[string, string[], RegExp]>([
    ["missing file", ["nowhere.csv"], /nowhere\.csv/],
    ["folder", ["."], /folder/],
    ["empty file", ["empty.csv"], /empty\.csv is empty/],
    ["header only", ["header.csv"], /no rows/],
    ["no numeric column", ["text.csv"], /no numeric column/],
    ["non-numeric cell", ["cell.csv"], /cell\.csv, row 4, column "x": "oops"/],
    ["all missing", ["missing.csv"], /missing\.csv: "x" has no observed value/],
    ["duplicate stamps", ["twice.csv"], /occurs twice/],
    ["unsorted stamps", ["unsorted.csv"], /comes after/],
    ["beyond float32", ["huge.csv"], /huge\.csv, row 3, column "x": "1e39" is beyond the range of float32/],
    ["unknown target", ["plant.csv", "--target", "nope"], /no target column "nope"/],
    ["empty target name", ["plant.csv", "--target", "load,"], /--target "load," holds an empty name/],
    ["horizon 0", ["plant.csv", "--horizon", "0"], /--horizon: horizon "0" is not usable: expected a whole number, 1 or more/],
    ["horizon negative", ["plant.csv", "--horizon", "-4"], /horizon "-4"/],
    ["horizon a fraction", ["plant.csv", "--horizon", "1.5"], /horizon "1\.5"/],
    ["horizon a word", ["plant.csv", "--horizon", "ten"], /horizon "ten"/],
    ["horizon too large", ["plant.csv", "--horizon", "100000"], /at most 4096/],
    ["quantile 1", ["plant.csv", "--quantiles", "0.5,1"], /quantile "1"/],
    ["quantile a word", ["plant.csv", "--quantiles", "median"], /quantile "median"/],
    ["quantiles of a mean decode", ["plant.csv", "--samples", "0", "--quantiles", "0.5"], /no quantiles/],
    ["unknown device", ["plant.csv", "--device", "gpu"], /unknown device "gpu": expected auto, native, reference/],
    ["device to come", ["plant.csv", "--device", "wasm"], /"wasm" is not available/],
    ["unknown mode", ["plant.csv", "--mode", "fast"], /unknown mode "fast"/],
    [
      "unknown cache",
      ["plant.csv", "--kv-cache", "rolling"],
      /unknown kv-cache "rolling": expected none, growing, functional, static, dynamic, host, paged/,
    ],
    ["unknown format", ["plant.csv", "--format", "xml"], /--format xml is unknown/],
    ["bytes for a terminal", ["plant.csv", "--format", "parquet"], /binary: name a file/],
    ["temperature as text", ["plant.csv", "--temperature", "hot"], /--temperature "hot" is not a number/],
    ["temperature", ["plant.csv", "--temperature", "1"], /Kronos/],
    ["top-k", ["plant.csv", "--top-k", "1"], /Kronos/],
    ["top-p", ["plant.csv", "--top-p", "1"], /Kronos/],
    ["decoding options", ["plant.csv", "--decode-block-size", "96"], /Toto 2/],
    ["block size as text", ["plant.csv", "--decode-block-size", "two"], /--decode-block-size "two" is not a number/],
    ["known covariates missing", ["plant.csv", "--known", "x.csv"], /x\.csv: it does not exist/],
    ["last of nothing", ["plant.csv", "--last", "0"], /--last "0"/],
    ["last of too much", ["plant.csv", "--last", "3"], /72 steps are too few for --last 3 windows of 24 steps: 73 are needed/],
    ["paths in a table", ["plant.csv", "--paths"], /--format json/],
    ["unknown flag", ["plant.csv", "--horizn", "3"], /unknown option '--horizn'/],
    ["no file", [], /missing required argument/],
    ["two files", ["plant.csv", "plant.csv"], /too many arguments/],
    ["output a folder", ["plant.csv", "--output", "."], /is a folder/],
    ["output in no folder", ["plant.csv", "--output", "nowhere/out.json"], /no folder/],
  ])("%s", async (_, words, message) => {
    const folder = temporaryFolder();
    exampleCsv(folder);
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
    const before = readdirSync(folder);
    const inFolder = words.map((word) => (/^(\.|[\w/]+\.(csv|json))$/.test(word) ? join(folder, word) : word));
    const run = await runCli(["forecast", ...inFolder]);
    expect(run.error).toMatch(message);
    expect(run.error).toMatch(/^tempograph: [^\n]+\n$/);
    expect(run.error).not.toMatch(/\n\s+at |internal error/);
    expect(run).toMatchObject({ code: 2, out: "" });
    expect(readdirSync(folder)).toEqual(before);
    for (const model of run.models) expect(model.disposed).toBe(1);
  });

  test("unknown command and a loader that fails", async () => {
    expect(await runCli(["forcast"])).toMatchObject({ code: 2, out: "" });
    const run = await runCli(["forecast", exampleCsv(temporaryFolder())], { load: () => Promise.reject(new TypeError("boom")) });
    expect(run).toMatchObject({ code: 2, out: "", error: "tempograph: internal error, please report it: boom\n" });
  });
});

test("help and version: exit code 0, on stdout", async () => {
  const help = await runCli(["forecast", "--help"]);
  expect(help).toMatchObject({ code: 0, error: "" });
  expect(help.out).toContain("--kv-cache");
  expect((await runCli(["--version"])).out).toMatch(/^\d+\.\d+\.\d+\n$/);
  expect((await runCli([])).code).toBe(2);
});
