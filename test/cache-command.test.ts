/** `tempograph cache list|clear`, and how the folder of compiled kernels keeps within its bound: least recently used first, nothing but its own files. */
import { existsSync, readdirSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ArtifactCache, cacheBound, sha256 } from "../src/runtime/native/artifact-cache.js";
import { cacheEntries, markUsed, parseSize, pruneCache } from "../src/runtime/native/cache-maintenance.js";
import { runCli, temporaryFolder } from "./cli-harness.js";

const hour = 60 * 60 * 1000;

/** A made-up kernel of `bytes` bytes beside a C file of 100, last used `age` ms ago. */
function addKernel(folder: string, name: string, bytes: number, age: number): void {
  const stem = `${name}-${sha256(name).slice(0, 16)}`;
  const when = new Date(Date.now() - age);
  for (const [file, size] of [
    [`${stem}-0123abcd-${sha256(name, "so").slice(0, 32)}.so`, bytes],
    [`${stem}.c`, 100],
  ] as const) {
    writeFileSync(join(folder, file), Buffer.alloc(size), { mode: 0o600 });
    utimesSync(join(folder, file), when, when);
  }
}

function filled(): string {
  const folder = temporaryFolder();
  addKernel(folder, "linear_64x64", 10_000, 3 * hour);
  addKernel(folder, "attention_4x16", 20_000, 2 * hour);
  addKernel(folder, "softmax", 30_000, hour);
  writeFileSync(join(folder, "compiler-0123456789abcdef.txt"), "cc 12");
  writeFileSync(join(folder, "thesis.docx"), "years of work");
  writeFileSync(join(folder, "main.c"), "int main;");
  return folder;
}

const namesOf = (folder: string): string[] => cacheEntries(folder).map(({ name }) => name.replace(/-[0-9a-f]{16}$/, ""));

describe("cache list", () => {
  test("sizes and last use, most recent first", async () => {
    const folder = filled();
    const run = await runCli(["cache", "list"], { environment: { TEMPOGRAPH_CACHE_DIR: folder } });
    expect(run.code).toBe(0);
    const [first, , , ...rows] = run.out.trimEnd().split("\n");
    expect(first).toBe(`${folder}: 3 kernels, 60.3 kB`);
    expect(rows.map((row) => row.split("-")[0])).toEqual(["softmax", "attention_4x16", "linear_64x64"]);
    expect(rows[0]).toMatch(/30\.1 kB {2}\d{4}-\d\d-\d\d \d\d:\d\d$/);
  });

  test("as JSON, and of a folder that is not there", async () => {
    const folder = filled();
    const answer = JSON.parse((await runCli(["cache", "list", "--json"], { environment: { TEMPOGRAPH_CACHE_DIR: folder } })).out) as {
      bytes: number;
      entries: { name: string; files: string[]; bytes: number; used: string }[];
    };
    expect(answer.bytes).toBe(60_300);
    expect(answer.entries.map(({ files, bytes }) => [files.length, bytes])).toEqual([
      [2, 30_100],
      [2, 20_100],
      [2, 10_100],
    ]);
    const missing = join(folder, "none");
    const run = await runCli(["cache", "list"], { environment: { TEMPOGRAPH_CACHE_DIR: missing } });
    expect(run).toMatchObject({ code: 0, out: `${missing}: 0 kernels, 0 B\n` });
    expect(existsSync(missing)).toBe(false);
  });

  test("twenty of many", async () => {
    const folder = temporaryFolder();
    for (let kernel = 0; kernel < 23; kernel++) addKernel(folder, `kernel${kernel}`, 10, kernel * hour);
    const environment = { TEMPOGRAPH_CACHE_DIR: folder };
    expect((await runCli(["cache", "list"], { environment })).out).toContain("and 3 more: --all shows them");
    expect((await runCli(["cache", "list", "--all"], { environment })).out.match(/^kernel\d+-/gm)).toHaveLength(23);
  });
});

describe("cache clear", () => {
  test("removes its own files and nothing else", async () => {
    const folder = filled();
    const run = await runCli(["cache", "clear"], { environment: { TEMPOGRAPH_CACHE_DIR: folder } });
    expect(run).toMatchObject({ code: 0, out: "", error: `tempograph: ${folder}: removed 3 kernels, 60.3 kB\n` });
    expect(readdirSync(folder).sort()).toEqual(["main.c", "thesis.docx"]);
  });

  test("--keep leaves the most recently used that fit", async () => {
    const folder = filled();
    const environment = { TEMPOGRAPH_CACHE_DIR: folder };
    expect((await runCli(["cache", "clear", "--keep", "1MB", "--quiet"], { environment })).error).toBe("");
    expect(namesOf(folder)).toEqual(["linear_64x64", "attention_4x16", "softmax"]);
    await runCli(["cache", "clear", "--keep", "50.2 kB"], { environment });
    expect(namesOf(folder)).toEqual(["attention_4x16", "softmax"]);
    await runCli(["cache", "clear", "--keep", "50199"], { environment });
    expect(namesOf(folder)).toEqual(["softmax"]);
    expect(await runCli(["cache", "clear", "--keep", "lots"], { environment })).toMatchObject({
      code: 2,
      error: 'tempograph: --keep "lots" is no size: write it like 500MB or 2GB\n',
    });
  });
});

describe("the bound", () => {
  test("adding prunes to below it, and spares what was just used", () => {
    const folder = temporaryFolder();
    const lines: string[] = [];
    addKernel(folder, "old", 50_000, 5 * hour);
    addKernel(folder, "older", 50_000, 6 * hour);
    addKernel(folder, "young", 50_000, 1000);
    const cache = ArtifactCache.open(folder, (line) => lines.push(line), 60_000);
    const key = { name: "new", source: sha256("new"), compiler: sha256("cc") };
    const temporary = cache.temporaryPath(key);
    writeFileSync(temporary, Buffer.alloc(5000));
    const path = cache.add(key, temporary);
    expect(statSync(path).size).toBe(5000);
    // 48 kB would be the aim; what is young stays all the same.
    expect(namesOf(folder)).toEqual(["young", "new"]);
    expect(lines).toEqual([expect.stringMatching(/removed 2 kernels \(100200 bytes\).*bound is 60000 bytes/)]);
    expect(cache.find(key)).toMatchObject({ path, damaged: false });
  });

  test("use counts: a kernel that is taken from the cache is not the oldest any more", () => {
    const folder = temporaryFolder();
    const cache = ArtifactCache.open(folder, () => undefined);
    const key = { name: "used", source: sha256("used"), compiler: sha256("cc") };
    const temporary = cache.temporaryPath(key);
    writeFileSync(temporary, Buffer.alloc(1000));
    const path = cache.add(key, temporary);
    const old = new Date(Date.now() - 100 * hour);
    utimesSync(path, old, old);
    addKernel(folder, "other", 1000, 50 * hour);
    expect(namesOf(folder)).toEqual(["used", "other"]);
    expect(cache.find(key).path).toBe(path);
    expect(namesOf(folder)).toEqual(["other", "used"]);
    pruneCache(folder, 1000);
    expect(namesOf(folder)).toEqual(["used"]);
    // Once a day is enough.
    const marked = statSync(path).atimeMs;
    markUsed(path, marked + 10 * hour);
    expect(statSync(path).atimeMs).toBe(marked);
  });

  test("sizes as people write them", () => {
    for (const [text, bytes] of [
      ["1000", 1000],
      ["2GB", 2e9],
      ["1.5 mb", 1.5e6],
      ["3k", 3000],
      ["", undefined],
      ["-1", undefined],
      ["2 parsecs", undefined],
    ] as const)
      expect(parseSize(text), text).toBe(bytes);
    expect(cacheBound({ TEMPOGRAPH_CACHE_SIZE: "5MB" })).toBe(5e6);
    expect(cacheBound({})).toBe(2e9);
  });
});
