/**
 * The log analyser on damaged logs and on inputs that are none: it never crashes and never counts more than there is.
 */
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { analyzeLogs, analyzeLogText } from "../src/diagnostics/logs/analyze.js";
import { renderMarkdown, renderTerminal } from "../src/diagnostics/logs/render.js";
import { InputError } from "../src/io/errors.js";

const FOLDER = new URL("./torch-logs/", import.meta.url).pathname;
const LOGS = readdirSync(FOLDER)
  .filter((file) => file.endsWith(".log"))
  .map((file) => readFileSync(join(FOLDER, file), "utf8").split("\n"));
const OWN = [
  '[tempograph] recompiles: function=decodeStep location=src/a.ts:9 guard="position == 3" was=3 now=4 count=4',
  '[tempograph] recompile_limit: function=decodeStep limit=8 last="position == 7" location=src/a.ts:9',
  '[tempograph] graph_breaks: function=f reason="value read in traced code" location=src/a.ts:4',
];

/** Seeded numbers in [0, 1). */
function numbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Pieces of real logs, cut, repeated, shuffled, joined and with characters changed. */
function damaged(random: () => number): string {
  const below = (limit: number): number => Math.floor(random() * limit);
  const lines: string[] = [];
  for (let piece = 0; piece < 1 + below(4); piece += 1) {
    const log = LOGS[below(LOGS.length)] ?? OWN;
    const start = below(log.length);
    lines.push(...log.slice(start, start + below(120)), ...(random() < 0.2 ? OWN : []));
  }
  for (let change = 0; change < below(12); change += 1) {
    const at = below(lines.length);
    const line = lines[at] ?? "";
    const mutations: readonly (() => void)[] = [
      () => lines.splice(at, 1 + below(5)),
      () => lines.splice(at, 0, line, line),
      () => (lines[at] = line.slice(0, below(line.length + 1))),
      () => (lines[at] = line.slice(below(line.length + 1))),
      () => (lines[at] = line.replace(/\d+/g, String(below(2 ** 31)))),
      () => (lines[at] = `${line}${lines[at + 1] ?? ""}`),
      () =>
        (lines[at] = line.replaceAll(
          line[below(line.length)] ?? "x",
          ["\u0000", "\t", "[", "]", '"', "\\", "\ud800", "(", ""][below(9)] ?? "",
        )),
      () => (lines[at] = `\u001b[3${below(8)}m${line}\u001b[0m\r`),
      () => lines.push(...lines.splice(0, below(lines.length))),
      () =>
        lines.splice(
          at,
          0,
          "\tpayload of nothing",
          "{",
          '{"artifact": {"name": "recompile_reasons"}, "has_payload": "0"}',
          "\t[",
          '\t"0/0: x"',
        ),
    ];
    mutations[below(mutations.length)]?.();
  }
  const text = lines.join(random() < 0.1 ? "\r\n" : "\n");
  return text.slice(below(200), text.length - below(200));
}

const sum = (counts: Record<string, number>): number => Object.values(counts).reduce((a, b) => a + b, 0);

describe("damaged logs", () => {
  it("1,000 mutated and spliced logs", () => {
    for (let seed = 1; seed <= 1000; seed += 1) {
      const text = damaged(numbers(seed));
      const analysis = analyzeLogText(text);
      const lines = text.split("\n");
      const having = (pattern: RegExp): number => lines.filter((line) => pattern.test(line)).length;
      const where = `seed ${seed}`;
      expect(analysis.lines, where).toBeLessThanOrEqual(lines.length);
      expect(analysis.unrecognisedLines, where).toBeLessThanOrEqual(analysis.lines);
      expect(analysis.recompiles.total, where).toBeLessThanOrEqual(having(/Recompiling function|recompile_reasons|recompiles:/));
      expect(analysis.recompileLimitHits.total, where).toBeLessThanOrEqual(having(/hit config\.|compilation_metrics|recompile_limit:/));
      expect(analysis.graphBreaks.total, where).toBeLessThanOrEqual(having(/Graph break|graph_breaks:/));
      expect(analysis.overwrittenOutputs, where).toBeLessThanOrEqual(having(/overwritten/));
      expect(analysis.cudagraphPartitions, where).toBeLessThanOrEqual(having(/partition|reason=/));
      for (const { total, ...groups } of [analysis.recompiles, analysis.graphBreaks, analysis.cudagraphSkips]) {
        for (const counts of Object.values(groups) as Record<string, number>[]) expect(sum(counts), where).toBeLessThanOrEqual(total);
      }
      for (const cause of analysis.rootCauses) expect(cause.occurrences, where).toBeLessThanOrEqual(lines.length);
      expect(renderTerminal(analysis).length + renderMarkdown(analysis).length + JSON.stringify(analysis).length, where).toBeGreaterThan(0);
    }
  });

  it("the same log in other clothes has the same counts", async () => {
    const text = readFileSync(join(FOLDER, "kvcache-listidx-12layers.log"), "utf8");
    const plain = analyzeLogText(text);
    const colour = (line: string): string => (line === "" ? line : `\u001b[1;31m${line.slice(0, 1)}\u001b[0m${line.slice(1)}\u001b[K`);
    const dressed: readonly (readonly [string, Buffer])[] = [
      ["CRLF", Buffer.from(text.replaceAll("\n", "\r\n"))],
      ["ANSI colours", Buffer.from(text.split("\n").map(colour).join("\n"))],
      ["gzip", gzipSync(text)],
      ["gzip in two members", Buffer.concat([gzipSync(text.slice(0, 5000)), gzipSync(text.slice(5000))])],
      ["UTF-16 with a mark", Buffer.from(`\ufeff${text}`, "utf16le")],
      ["UTF-8 with a mark", Buffer.from(`\ufeff${text}`)],
    ];
    for (const [name, bytes] of dressed) {
      for (const size of [bytes.length, 1000, 7]) {
        const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
          bytes.subarray(index * size, (index + 1) * size),
        );
        const analysis = await analyzeLogs([{ name: "text", stream: Readable.from(chunks) }]);
        expect({ name, size, ...analysis, notes: [] }).toEqual({ name, size, ...plain, notes: [] });
      }
    }
  });

  it("cut at both ends, also inside a gzip file", async () => {
    const text = readFileSync(join(FOLDER, "toto1-kvcache-upstream.log"), "utf8");
    const cut = analyzeLogText(text.slice(60_123, 180_321));
    expect(cut.recompiles.total).toBeGreaterThan(5);
    expect(cut.rootCauses[0]?.cause).toBe("device-scalar-read");
    const zipped = gzipSync(text);
    const half = await analyzeLogs([{ name: "half.gz", stream: Readable.from([zipped.subarray(0, zipped.length >> 1)]) }]);
    expect(half.recompiles.total).toBeGreaterThan(5);
    expect(half.recompiles.total).toBeLessThan(41);
  });

  it("a line of 64 MB in bounded memory, and what follows it", async () => {
    const megabyte = Buffer.alloc(1 << 20, "x");
    const chunks = function* (): Generator<Buffer, void, void> {
      for (let count = 0; count < 64; count += 1) yield megabyte;
      yield Buffer.from(`\n${OWN[0] ?? ""}\n`);
    };
    const analysis = await analyzeLogs([{ name: "long", stream: Readable.from(chunks()) }]);
    expect(analysis.lines).toBe(2);
    expect(analysis.recompiles.total).toBe(1);
  });

  it("names the payloads of a trace that were edited", () => {
    const text = readFileSync(join(FOLDER, "small-trace.trace.log"), "utf8");
    const analysis = analyzeLogText(text.replace("cache._current_idx[3] == 0", "cache._current_idx[3] == 1"));
    expect(analysis.trace.damagedPayloads).toBe(1);
    expect(analysis.notes.join()).toContain("checksum");
  });
});

describe("inputs that are no logs", () => {
  let folder = "";
  beforeAll(() => (folder = mkdtempSync(join(tmpdir(), "tempograph-logs-"))));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const file = (name: string, bytes: Uint8Array | string): string => {
    const path = join(folder, name);
    writeFileSync(path, bytes);
    return path;
  };
  const failure = async (input: string): Promise<InputError> => {
    const error = await analyzeLogs([input]).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(InputError);
    return error as InputError;
  };

  it("missing, folder, empty, empty gzip", async () => {
    expect((await failure(join(folder, "nothing.log"))).message).toMatch(/there is no file .*nothing\.log/);
    expect((await failure(folder)).message).toMatch(/is a folder: name the log files in it/);
    expect((await failure(file("empty.log", ""))).message).toMatch(/is empty/);
    expect((await failure(file("empty.gz", gzipSync("")))).message).toMatch(/is empty/);
  });

  it("binary, also inside gzip; gzip that is none", async () => {
    const random = numbers(7);
    const noise = Uint8Array.from({ length: 20_000 }, () => Math.floor(random() * 256));
    noise[0] = 0x7f;
    expect((await failure(file("noise.bin", noise))).message).toMatch(/is not text/);
    expect((await failure(file("noise.gz", gzipSync(noise)))).message).toMatch(/is not text/);
    expect((await failure(file("fake.gz", Uint8Array.of(0x1f, 0x8b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)))).message).toMatch(
      /cannot read .*fake\.gz/,
    );
  });

  it("text without compiler lines is a clean log with a note", async () => {
    const analysis = await analyzeLogs([file("app.log", "started\nforecast done in 3 s\nGrüße, 価格 ✓\n")]);
    expect(analysis.rootCauses).toEqual([]);
    expect(analysis.unrecognisedLines).toBe(3);
    expect(analysis.notes.join()).toContain("no compiler lines found");
  });
});
