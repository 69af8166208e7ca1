/** `tempograph forecast` on candle files with the formula model: columns found, table, chart, JSON, mistakes. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Forecaster } from "../src/index.js";
import { runCli, temporaryFolder, type CliRun } from "./cli-harness.js";

function candleFile(folder: string, header = "Date,Open,High,Low,Close,Volume", rows = 60): string {
  const lines = Array.from({ length: rows }, (_, step) => {
    const [open, close] = [100 + Math.sin(step / 5) * 4, 100 + Math.sin((step + 1) / 5) * 4];
    const stamp = new Date(Date.UTC(2024, 0, 1, step)).toISOString();
    const values = [open, Math.max(open, close) + 1, Math.min(open, close) - 1, close, 1000 + step];
    return [stamp, ...values.map((value) => value.toFixed(3))].join(",");
  });
  const path = join(folder, "candles.csv");
  writeFileSync(path, `${header}\n${lines.join("\n")}\n`);
  return path;
}

const run = (...words: string[]): Promise<CliRun> =>
  runCli(["forecast", candleFile(temporaryFolder()), "--model", "bundled:kronos-formula", "--horizon", "4", "--samples", "4", ...words], {
    load: (reference, options) => Forecaster.load(reference, options),
  });

describe("candle files", () => {
  test("one table per series with all columns and the close's quantiles", async () => {
    const { code, out, error } = await run("--no-report");
    expect([code, error]).toEqual([0, ""]);
    const lines = out.trimEnd().split("\n");
    expect(lines[0]).toBe("candles");
    expect(lines[1]?.split(/\s+/).join(" ")).toBe("time open high low close volume amount close 0.1 close 0.5 close 0.9");
    expect(lines.length).toBe(3 + 4);
    expect(lines[3]).toMatch(/^2024-01-03 12:00/);
  });
  test("candles are drawn within the terminal's width", async () => {
    const { code, out } = await run("--format", "chart", "--no-report", "--consistent");
    expect(code).toBe(0);
    expect(out).toMatch(/█/);
    expect(out).toMatch(/known ┊ mean candles/);
    expect(Math.max(...out.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
  });
  test("JSON: one entry per column; equal inputs give equal bytes", async () => {
    const words = ["--format", "json", "--no-report", "--paths", "--temperature", "0.7", "--top-k", "5"];
    const [first, second] = [await run(...words), await run(...words)];
    const { series } = JSON.parse(first.out) as { series: { variate: string; paths: number[][] }[] };
    expect(series.map(({ variate }) => variate)).toEqual(["open", "high", "low", "close", "volume", "amount"]);
    expect(series[0]?.paths.length).toBe(4);
    expect(second.out).toBe(first.out);
  });
  test("mistakes end with code 2 and one sentence", async () => {
    for (const [words, message] of [
      [["--top-p", "1.2"], /topP must be a share above 0 and at most 1; got 1.2/],
      [["--temperature", "0"], /temperature must be a number above 0/],
      [["--temperature", "warm"], /--temperature "warm" is not a number/],
      [["--tokenizer", "no/such/folder"], /no\/such\/folder/],
      [["--time-zone", "Nowhere"], /"Nowhere" is no time zone/],
    ] as const) {
      const { code, out, error } = await run(...words);
      expect([code, out]).toEqual([2, ""]);
      expect(error).toMatch(message);
      expect(error).toMatch(/^tempograph: [^\n]+\n$/);
    }
  });
});
