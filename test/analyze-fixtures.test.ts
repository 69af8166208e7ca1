/**
 * The log analyser against real PyTorch logs whose true counts the programs themselves took while they ran (`*.expected.json`).
 */
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { analyzeLogs, analyzeLogText } from "../src/diagnostics/logs/analyze.js";
import { logAnalysisSchema } from "../src/diagnostics/logs/answer.js";
import { cutReason } from "../src/diagnostics/logs/guard-reason.js";

const FOLDER = new URL("./torch-logs/", import.meta.url).pathname;

interface Truth {
  readonly recompiles?: {
    total: number;
    by_function: Record<string, number>;
    by_code: Record<string, number>;
    by_first_reason: Record<string, number>;
  };
  readonly recompile_limit_hits: {
    total: number;
    by_limit: Record<string, number>;
    by_function: Record<string, number>;
    last_reasons: (string | { reason: string })[];
  };
  readonly graph_breaks?: { logged: number; logged_by_type: Record<string, number>; logged_by_location: Record<string, number> };
  readonly cudagraph_skips: { logged?: number; total?: number; by_cause?: Record<string, number> };
  readonly cudagraph_partitions?: number;
  readonly overwritten_output_errors?: number;
  readonly shown?: { recompiles: boolean; graph_breaks: boolean };
}

const NAMES = readdirSync(FOLDER)
  .filter((file) => file.endsWith(".expected.json"))
  .map((file) => file.slice(0, -".expected.json".length));

function truthOf(name: string): Truth {
  return JSON.parse(readFileSync(join(FOLDER, `${name}.expected.json`), "utf8")) as Truth;
}

function logOf(name: string): string {
  return join(FOLDER, name.endsWith("-trace") ? `${name}.trace.log` : `${name}.log`);
}

/** Counts by key after `key` has been changed by `cut`. */
function recount(counts: Record<string, number>, cut: (key: string) => string): Record<string, number> {
  const result: Record<string, number> = {};
  for (const [key, count] of Object.entries(counts)) result[cut(key)] = (result[cut(key)] ?? 0) + count;
  return result;
}

describe("true counts", () => {
  it("finds all fixtures", () => expect(NAMES.length).toBe(18));

  it.each(NAMES)("%s", async (name) => {
    const truth = truthOf(name);
    const analysis = await analyzeLogs([logOf(name)]);
    if (truth.recompiles !== undefined && truth.shown?.recompiles === true) {
      expect(analysis.recompiles.total).toBe(truth.recompiles.total);
      expect(analysis.recompiles.byFunction).toEqual(truth.recompiles.by_function);
      expect(analysis.recompiles.byReason).toEqual(recount(truth.recompiles.by_first_reason, cutReason));
      expect(analysis.recompiles.byLocation).toEqual(recount(truth.recompiles.by_code, (code) => code.slice(code.indexOf(" /") + 1)));
    } else expect(analysis.recompiles.total).toBe(0);

    const limits = truth.recompile_limit_hits;
    expect(analysis.recompileLimitHits.total).toBe(limits.total);
    expect(analysis.recompileLimitHits.byFunction).toEqual(limits.by_function);
    expect(analysis.recompileLimitHits.byLimit).toEqual(limits.total > 0 ? { "8": limits.total } : {});
    expect(analysis.recompileLimitHits.lastReasons).toEqual(
      limits.last_reasons.map((reason) => cutReason(typeof reason === "string" ? reason : reason.reason)),
    );

    if (truth.graph_breaks !== undefined && truth.shown?.graph_breaks === true) {
      expect(analysis.graphBreaks.total).toBe(truth.graph_breaks.logged);
      expect(analysis.graphBreaks.byReason).toEqual(truth.graph_breaks.logged_by_type);
      expect(analysis.graphBreaks.byLocation).toEqual(truth.graph_breaks.logged_by_location);
    } else expect(analysis.graphBreaks.total).toBe(0);

    expect(analysis.cudagraphSkips.total).toBe(truth.cudagraph_skips.total ?? truth.cudagraph_skips.logged ?? 0);
    expect(analysis.cudagraphSkips.byCause).toEqual(truth.cudagraph_skips.by_cause ?? {});
    expect(analysis.cudagraphPartitions).toBe(truth.cudagraph_partitions ?? 0);
    expect(analysis.overwrittenOutputs).toBe(truth.overwritten_output_errors ?? 0);
    expect(analysis.trace.damagedPayloads).toBe(0);
    expect(analysis.missingCompileIds).toEqual([]);
    expect(logAnalysisSchema.parse(analysis)).toEqual(analysis);
  });
});

describe("root cause first", () => {
  const FIRST: Readonly<Record<string, { cause: string; kind?: string; severity: string; location?: RegExp } | null>> = {
    "big-dynamic": { cause: "dynamic-size", severity: "bad", location: /p06_bigdynamic\.py:14$/ },
    clean: null,
    "graph-breaks": { cause: "explicit-break", severity: "investigate", location: /p04_breaks\.py:20$/ },
    // One size that changed once is what automatic dynamic shapes are for: nothing to do.
    "item-capture": { cause: "dynamic-size", severity: "good" },
    "item-nocapture": { cause: "device-scalar-read", severity: "bad", location: /p03_item\.py:9$/ },
    "item-nocapture-trace": { cause: "device-scalar-read", severity: "bad", location: /p03_item\.py:9$/ },
    "kvcache-listidx-12layers": { cause: "python-value-guard", kind: "cache-index", severity: "bad", location: /p02_listidx12\.py:23$/ },
    "kvcache-listidx-12layers-quiet": {
      cause: "python-value-guard",
      kind: "cache-index",
      severity: "bad",
      location: /p02_listidx12\.py:23$/,
    },
    "mark-dynamic-violation": { cause: "mark-dynamic-violation", severity: "bad", location: /p07_markdynamic\.py:[45]$/ },
    "quoted-cudagraph-item": { cause: "device-scalar-read", severity: "bad", location: /util_compile_friendly\.py:217$/ },
    "quoted-recompile-limit": { cause: "python-value-guard", kind: "cache-index", severity: "bad", location: /attention\.py:105$/ },
    "small-trace": { cause: "python-value-guard", kind: "cache-index", severity: "bad" },
    "small-trace-log": { cause: "python-value-guard", kind: "cache-index", severity: "bad" },
    "stance-fail-on-recompile": { cause: "stance-violation", severity: "bad", location: /p08_stance\.py:4$/ },
    "stance-trace": { cause: "dynamic-size", severity: "investigate" },
    "toto1-kvcache-repeat": { cause: "device-scalar-read", severity: "bad", location: /util\.py:168$/ },
    "toto1-kvcache-repeat-quiet": { cause: "device-scalar-read", severity: "bad", location: /util\.py:168$/ },
    "toto1-kvcache-upstream": { cause: "device-scalar-read", severity: "bad", location: /util\.py:171$/ },
  };

  it.each(NAMES)("%s", async (name) => {
    const expected = FIRST[name];
    const { rootCauses } = await analyzeLogs([logOf(name)]);
    if (expected === null) {
      expect(rootCauses).toEqual([]);
      return;
    }
    expect(rootCauses[0]).toMatchObject({
      cause: expected?.cause,
      severity: expected?.severity,
      ...(expected?.kind && { kind: expected.kind }),
    });
    if (expected?.location !== undefined) expect(rootCauses[0]?.location).toMatch(expected.location);
    for (const cause of rootCauses) {
      expect(cause.evidence.length).toBeGreaterThan(0);
      expect(cause.fix.length).toBeGreaterThan(20);
      expect(cause.example.length).toBeGreaterThan(10);
    }
  });

  it("treats values read by .item() and guarded later as one cause with the read", async () => {
    const { rootCauses } = await analyzeLogs([logOf("item-nocapture")]);
    expect(rootCauses.map((cause) => cause.cause)).toEqual(["device-scalar-read", "dynamic-size"]);
    expect(rootCauses[0]?.evidence.join("\n")).toContain("___stack0 ==");
  });

  it("a structured trace and a text log of the same program lead to the same diagnosis", async () => {
    const [trace, text] = await Promise.all([analyzeLogs([logOf("small-trace")]), analyzeLogs([logOf("small-trace-log")])]);
    expect(trace.rootCauses.map(({ cause, kind, severity, occurrences }) => ({ cause, kind, severity, occurrences }))).toEqual(
      text.rootCauses.map(({ cause, kind, severity, occurrences }) => ({ cause, kind, severity, occurrences })),
    );
    expect(trace.recompiles).toEqual(text.recompiles);
    expect(trace.compileSeconds?.total).toBeGreaterThan(0);
    expect(text.compileSeconds).toBeNull();
  });
});

describe("small programs", () => {
  const causes = JSON.parse(readFileSync(join(FOLDER, "small", "causes.json"), "utf8")) as Record<string, { cause: string; kind: string }>;
  it.each(Object.keys(causes))("%s", (name) => {
    const { rootCauses } = analyzeLogText(readFileSync(join(FOLDER, "small", `${name}.log`), "utf8"));
    expect(rootCauses[0]).toMatchObject(causes[name] ?? {});
    expect(rootCauses[0]?.location).toMatch(/programs\.py:\d+$|^$/);
  });
});

describe("what else a log shows", () => {
  it("values seen by guard", async () => {
    const { valuesSeen } = await analyzeLogs([logOf("stance-fail-on-recompile")]);
    expect(valuesSeen).toContainEqual({
      function: "score",
      location: "/srv/app/programs/p08_stance.py:4",
      guard: "tensor 'x' size mismatch at index 0. expected *, actual *",
      count: 2,
      values: ["4", "6"],
    });
  });

  it("symbolic shapes and performance hints", async () => {
    const analysis = await analyzeLogs([logOf("big-dynamic")]);
    expect(analysis.symbolicShapes.symbols).toBeGreaterThan(10);
    expect(analysis.symbolicShapes.guards).toBeGreaterThan(analysis.symbolicShapes.symbols);
    expect(Object.keys(analysis.performanceHints)).toContain("Skip comprehensive padding on CPU");
  });

  it("cache misses and compile time of a trace", async () => {
    const analysis = await analyzeLogs([logOf("stance-trace")]);
    expect(analysis.cache).toEqual({ hits: 0, misses: 8, bypasses: 0 });
    expect(analysis.compileSeconds?.byFunction["score"]).toBeCloseTo(7.626953 + 0.787564 + 0.73266 + 0.758764, 5);
  });

  it("compile ids that a cut log has lost", () => {
    const lines = readFileSync(logOf("small-trace-log"), "utf8").split("\n");
    const cut = lines.filter((line) => !/\[0\/[34]\] \[__recompiles\]/.test(line)).join("\n");
    const analysis = analyzeLogText(cut);
    expect(analysis.missingCompileIds).toEqual(["0/3", "0/4"]);
    expect(analysis.recompiles.total).toBe(13);
    expect(analysis.notes.join()).toContain("2 recompiles are missing");
  });

  it("counts one event once when its process wrote it to a text log and to a trace", () => {
    const trace = readFileSync(logOf("small-trace"), "utf8");
    // The two fixtures are two runs: give them one process id.
    const text = readFileSync(logOf("small-trace-log"), "utf8").replaceAll(" 4674 ", " 4433 ");
    const both = analyzeLogText(`${text}\n${trace}`);
    expect(both.recompiles.total).toBe(15);
    expect(both.graphBreaks.total).toBe(8);
    expect(both.recompileLimitHits.total).toBe(1);
  });
});
