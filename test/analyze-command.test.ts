/**
 * `tempograph analyze`: formats, output files, exit codes. What the analysis says is tested elsewhere.
 */
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runAnalyzeCommand } from "../src/cli/analyze.js";
import type { AnalyzeCommandOptions } from "../src/cli/analyze.js";

const LOGS = new URL("./torch-logs/", import.meta.url).pathname;

describe("tempograph analyze", () => {
  let folder = "";
  beforeAll(() => (folder = mkdtempSync(join(tmpdir(), "tempograph-analyze-"))));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const run = async (files: readonly string[], options: AnalyzeCommandOptions = {}): Promise<{ code: number; out: string }> => {
    let out = "";
    const context = { writeOut: (text: string) => void (out += text), folder, terminal: { columns: 100, colours: false } };
    return { code: await runAnalyzeCommand(files, options, context), out };
  };

  it("JSON has the fields scripts rely on", async () => {
    const { code, out } = await run([join(LOGS, "item-nocapture.log")], { json: true });
    const answer = JSON.parse(out) as Record<string, Record<string, unknown>>;
    expect(code).toBe(1);
    expect(Object.keys(answer).slice(0, 7)).toEqual([
      "recompiles",
      "recompileLimitHits",
      "graphBreaks",
      "cudagraphSkips",
      "cudagraphPartitions",
      "rootCauses",
      "unrecognisedLines",
    ]);
    expect(Object.keys(answer["recompiles"] ?? {})).toEqual(["total", "byFunction", "byReason", "byLocation"]);
    expect(Object.keys(answer["recompileLimitHits"] ?? {})).toEqual(["total", "byFunction", "byLimit", "lastReasons"]);
    expect(Object.keys(answer["graphBreaks"] ?? {})).toEqual(["total", "byReason", "byLocation"]);
    expect(Object.keys(answer["cudagraphSkips"] ?? {})).toEqual(["total", "byCause"]);
    const [first] = answer["rootCauses"] as unknown as Record<string, unknown>[];
    expect(first).toMatchObject({ cause: "device-scalar-read", severity: "bad", function: "forward" });
    for (const field of ["location", "fix"]) expect(typeof first?.[field]).toBe("string");
    expect(Array.isArray(first?.["evidence"])).toBe(true);
  });

  it("exit codes follow severity and --fail-on", async () => {
    const log = (name: string): string[] => [join(LOGS, `${name}.log`)];
    expect((await run(log("clean"))).code).toBe(0);
    expect((await run(log("clean"), { failOn: "good" })).code).toBe(0);
    expect((await run(log("item-capture"))).code).toBe(0);
    expect((await run(log("item-capture"), { failOn: "good" })).code).toBe(1);
    expect((await run(log("graph-breaks"))).code).toBe(0);
    expect((await run(log("graph-breaks"), { failOn: "investigate" })).code).toBe(1);
    expect((await run(log("quoted-recompile-limit"))).code).toBe(1);
  });

  it("terminal text says what, where and what to change", async () => {
    const { out } = await run([join(LOGS, "kvcache-listidx-12layers.log")]);
    expect(out).toContain("recompiles 30");
    expect(out).toContain("1. A Python index or position of a KV cache is guarded by its value  [python-value-guard, bad]");
    expect(out).toContain("p02_listidx12.py:23 in positional_embedding");
    expect(out).toContain("docs/patterns.md#kv-cache-index");
    expect(out).not.toContain("\u001b");
    expect((await run([join(LOGS, "clean.log")])).out).toContain("Nothing to change.");
  });

  it("Markdown goes to a file that appears whole, and nothing else does", async () => {
    const { out } = await run([join(LOGS, "toto1-kvcache-upstream.log"), join(LOGS, "clean.log")], {
      format: "markdown",
      output: "report.md",
    });
    expect(out).toBe("");
    expect(readdirSync(folder)).toEqual(["report.md"]);
    const report = readFileSync(join(folder, "report.md"), "utf8");
    expect(report).toContain("## Root causes");
    expect(report).toContain("| 17 | `/srv/app/vendor/toto/toto/model/util.py:171` |");
    expect(report).toContain("```python");
  });

  it("refuses what it cannot use before it writes", async () => {
    const clean = join(LOGS, "clean.log");
    writeFileSync(join(folder, "empty.log"), "");
    const cases: readonly (readonly [readonly string[], AnalyzeCommandOptions, RegExp])[] = [
      [[], {}, /name at least one log file/],
      [["missing.log"], { output: "x.md" }, /there is no file missing\.log/],
      [[clean, "empty.log"], { output: "x.md" }, /empty\.log is empty/],
      [[folder], { output: "x.md" }, /is a folder/],
      [[clean], { format: "html" }, /--format is html: expected one of terminal, markdown, json/],
      [[clean], { failOn: "worst" }, /--fail-on is worst/],
      [[clean], { json: true, format: "markdown" }, /exclude each other/],
      [[clean], { output: join(folder, "nowhere", "x.md") }, /there is no folder/],
      [[clean], { output: folder }, /is a folder: name a file/],
    ];
    for (const [files, options, message] of cases) await expect(run(files, options)).rejects.toThrow(message);
    expect(existsSync(join(folder, "x.md"))).toBe(false);
  });
});
