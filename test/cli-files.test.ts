/** File formats, covariates and windows of `tempograph forecast`: JSON Lines, Parquet, decimal commas, --known, --last, SVG, progress. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { describe, expect, test } from "vitest";
import { parseParquet, writeParquet } from "../src/io/parquet.js";
import { readSeriesTable } from "../src/io/table.js";
import { exampleCsv, runCli, temporaryFolder } from "./cli-harness.js";

interface Answer {
  series: { id: string; variate: string; timestamps: (string | number)[]; mean: number[] }[];
}

const json = async (words: readonly string[], changes = {}): Promise<Answer> => {
  const run = await runCli(["forecast", ...words, "--format", "json", "--no-report"], changes);
  expect(run).toMatchObject({ code: 0, error: "" });
  return JSON.parse(run.out) as Answer;
};

const hour = (step: number): string =>
  `2024-01-${String(1 + Math.floor(step / 24)).padStart(2, "0")}T${String(step % 24).padStart(2, "0")}:00:00Z`;

describe("JSON Lines", () => {
  const records = Array.from({ length: 30 }, (_, step) => JSON.stringify({ time: hour(step), load: step })).join("\n");

  test("records, by ending and from standard input", async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, "plant.jsonl"), `${records}\n\n`);
    const fromFile = await json([join(folder, "plant.jsonl"), "--horizon", "2"]);
    expect(fromFile.series[0]).toMatchObject({ id: "plant", variate: "load", timestamps: [hour(30), hour(31)] });
    const fromInput = await json(["-", "--horizon", "2"], { standardInput: () => Readable.from([Buffer.from(records)]) });
    expect(fromInput.series[0]?.timestamps).toEqual([hour(30), hour(31)]);
  });

  test("one series per line", async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, "many.ndjson"), '{"id":"a","values":[1,2,3]}\n{"id":"b","values":[4,5]}\n');
    const { series } = await json([join(folder, "many.ndjson"), "--horizon", "1"]);
    expect(series.map(({ id, timestamps }) => [id, timestamps])).toEqual([
      ["a", [3]],
      ["b", [2]],
    ]);
  });

  test("mistakes name the line", async () => {
    const path = join(temporaryFolder(), "bad.jsonl");
    writeFileSync(path, '{"load":1}\n{"load":\n');
    await expect(readSeriesTable(path)).rejects.toThrow(/bad\.jsonl, line 2, is not valid JSON/);
    writeFileSync(path, '{"load":1}\n[2]\n');
    await expect(readSeriesTable(path)).rejects.toThrow(/line 2: \[2\] is not an object/);
  });
});

describe("Parquet", () => {
  test("in: numbers, text, dates and nulls become cells", async () => {
    const bytes = await writeParquet([
      { name: "time", data: [hour(0), hour(1), hour(2)] },
      { name: "load", data: [1.5, Number.NaN, -2e-7] },
    ]);
    const table = await parseParquet(bytes, "x.parquet");
    expect(table.header).toEqual(["time", "load"]);
    expect(table.rows.map(({ cells }) => cells)).toEqual([
      [hour(0), "1.5"],
      [hour(1), ""],
      [hour(2), "-2e-7"],
    ]);
  });

  test("a forecast of a Parquet file into a Parquet file", async () => {
    const folder = temporaryFolder();
    const steps = Array.from({ length: 48 }, (_, step) => step);
    const bytes = await writeParquet([
      { name: "time", data: steps.map(hour) },
      { name: "load", data: steps.map((step) => Math.sin(step)) },
    ]);
    writeFileSync(join(folder, "plant.parquet"), bytes);
    const out = join(folder, "out.parquet");
    const run = await runCli(["forecast", join(folder, "plant.parquet"), "--horizon", "3", "--format", "parquet", "--output", out]);
    expect(run).toMatchObject({ code: 0, out: "", error: "" });
    const table = await parseParquet(readFileSync(out), "out.parquet");
    expect(table.header).toEqual(["id", "variate", "timestamp", "mean", "0.1", "0.5", "0.9"]);
    expect(table.rows.map(({ cells }) => cells.slice(0, 3))).toEqual([48, 49, 50].map((step) => ["plant", "load", hour(step)]));
    const csv = await runCli(["forecast", join(folder, "plant.parquet"), "--horizon", "3", "--format", "csv"]);
    expect(csv.out.trim().split("\n").slice(1)).toEqual(table.rows.map(({ cells }) => cells.join(",")));
  });

  test("damaged files are refused by name", async () => {
    const bytes = await writeParquet([{ name: "load", data: [1, 2, 3] }]);
    for (const damaged of [bytes.subarray(0, 20), bytes.subarray(10), new Uint8Array(30), Buffer.from("PAR1PAR1")]) {
      await expect(parseParquet(damaged, "x.parquet")).rejects.toMatchObject({ name: "InputError" });
    }
  });

  test("bytes into a pipe", async () => {
    const parts: Uint8Array[] = [];
    const file = exampleCsv(temporaryFolder());
    const run = await runCli(["forecast", file, "--horizon", "1", "--format", "parquet"], {
      writeBytes: (bytes) => void parts.push(bytes),
    });
    expect(run).toMatchObject({ code: 0, out: "" });
    expect(Buffer.from(parts[0] ?? []).toString("latin1")).toMatch(/^PAR1/);
  });
});

describe("decimal comma", () => {
  test("semicolons separate, commas are decimals", async () => {
    const path = join(temporaryFolder(), "de.csv");
    writeFileSync(path, "zeit;last\n2024-01-01;1,5\n2024-01-02;-,25\n2024-01-03;\n2024-01-04;3\n");
    const table = await readSeriesTable(path, { decimalComma: true });
    expect(Array.from(table.series[0]?.targets[0]?.values ?? [])).toEqual([1.5, -0.25, Number.NaN, 3]);
    const { series } = await json([path, "--decimal-comma", "--horizon", "1"]);
    expect(series[0]?.mean[0]).toBe(3);
  });

  test("a point is refused, and without the option the comma is", async () => {
    const path = join(temporaryFolder(), "de.csv");
    writeFileSync(path, "zeit;last\n2024-01-01;1.234,5\n2024-01-02;2,5\n2024-01-03;3,5\n");
    await expect(readSeriesTable(path, { decimalComma: true })).rejects.toThrow(/row 2, column "last": "1\.234,5" has a point/);
    await expect(readSeriesTable(path)).rejects.toThrow(/no numeric column/);
  });
});

describe("known covariates", () => {
  const files = (rows = 75): { folder: string; plant: string; known: string } => {
    const folder = temporaryFolder();
    const known = join(folder, "holidays.csv");
    writeFileSync(known, `time,holiday\n${Array.from({ length: rows }, (_, step) => `${hour(step)},${step % 7}`).join("\n")}\n`);
    return { folder, plant: exampleCsv(folder), known };
  };

  test("past and future values reach the model, aligned by time", async () => {
    const { plant, known } = files(90);
    const run = await runCli([
      "forecast",
      plant,
      "--target",
      "load",
      "--past",
      "count",
      "--known",
      known,
      "--horizon",
      "3",
      "--context",
      "5",
    ]);
    expect(run).toMatchObject({ code: 0, error: "" });
    const series = run.models[0]?.requests[0]?.series[0];
    expect(series?.values.length).toBe(3);
    expect(Array.from(series?.values[1] ?? [])).toEqual([67, 68, 69, 70, 71]);
    expect(Array.from(series?.values[2] ?? [])).toEqual([67, 68, 69, 70, 71].map((step) => step % 7));
    expect(Array.from(series?.knownFuture?.[0] ?? [])).toEqual([72, 73, 74].map((step) => step % 7));
  });

  test("a table without stamps is aligned by place", async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, "y.csv"), "load\n1\n2\n3\n");
    writeFileSync(join(folder, "x.csv"), "promo\n0\n1\n0\n5\n6\n");
    const run = await runCli(["forecast", join(folder, "y.csv"), "--known", join(folder, "x.csv"), "--horizon", "2"]);
    expect(Array.from(run.models[0]?.requests[0]?.series[0]?.knownFuture?.[0] ?? [])).toEqual([5, 6]);
  });

  test("a missing step is named with its time", async () => {
    const { plant, known } = files(74);
    const run = await runCli(["forecast", plant, "--known", known, "--horizon", "3"]);
    expect(run).toMatchObject({ code: 2, out: "" });
    expect(run.error).toContain(`no row for ${hour(74)}, a step ahead (horizon 3)`);
    expect(run.models[0]?.disposed).toBe(1);
  });
});

test("--last: windows at the end, one horizon apart, cut where they begin", async () => {
  const file = exampleCsv(temporaryFolder());
  const { series } = await json([file, "--target", "count", "--last", "2", "--horizon", "10"]);
  expect(series.map(({ id, timestamps, mean }) => [id, timestamps[0], mean[0]])).toEqual([
    [`plant@${hour(52)}`, hour(52), 51],
    [`plant@${hour(62)}`, hour(62), 61],
  ]);
});

test("a chart has two bands, as text and as SVG", async () => {
  const folder = temporaryFolder();
  const file = exampleCsv(folder);
  const text = await runCli(["forecast", file, "--target", "load", "--format", "chart"]);
  expect(text.out).toContain("░ 0.1 to 0.9, ▒ 0.25 to 0.75");
  expect(text.out).toContain("▒▒");
  const out = join(folder, "chart.svg");
  expect(await runCli(["forecast", file, "--format", "chart", "--output", out])).toMatchObject({ code: 0, out: "", error: "" });
  const drawing = readFileSync(out, "utf8");
  expect(drawing).toMatch(/^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg"[^]*<\/svg>\n$/);
  expect(drawing.match(/<polygon /g)?.length).toBe(4);
  expect(drawing).toContain(">plant: load<");
  expect(drawing).toContain(">2024-01-04 23:00<");
  expect(drawing).not.toContain("NaN");
});

test("SVG text is escaped", async () => {
  const folder = temporaryFolder();
  writeFileSync(join(folder, "y.csv"), "a<b&c\n1\n2\n3\n");
  await runCli(["forecast", join(folder, "y.csv"), "--format", "chart", "--output", join(folder, "y.svg")]);
  expect(readFileSync(join(folder, "y.svg"), "utf8")).toContain("y: a&lt;b&amp;c<");
});

test("progress: on a terminal after a second, removed at the end; never otherwise", async () => {
  const file = exampleCsv(temporaryFolder());
  const words = ["forecast", file, "--target", "load", "--horizon", "60", "--format", "json"];
  const slow = { model: { stepDelay: 25 } };
  const [terminal, piped] = await Promise.all([runCli(words, { ...slow, errorTerminal: true }), runCli(words, slow)]);
  expect(terminal.error).toMatch(/forecasting \[#+-*\] \d+%/);
  expect(terminal.error.endsWith("\r\u001b[K")).toBe(true);
  expect(piped.error).toBe("");
  expect((await runCli([...words, "--quiet"], { ...slow, errorTerminal: true })).error).toBe("");
});
