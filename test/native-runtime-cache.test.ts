/**
 * The artifact cache and the compiler behind it: cold and warm, damaged entries, folders that must be refused, missing and failing compilers.
 */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ArtifactCache, cacheDirectory } from "../src/runtime/native/artifact-cache.js";
import { findCompiler } from "../src/runtime/native/compiler.js";
import type { KernelSource, NativeLibrary } from "../src/runtime/native/contract.js";
import { compilerFlags, coresOfQuota, selectCpu, usableCores } from "../src/runtime/native/cpu.js";
import { CompilerError, NativeError } from "../src/runtime/native/errors.js";
import { loadNativeLibrary } from "../src/runtime/native/library.js";

const compiler = findCompiler(process.env);
if (!compiler) console.log("skipped: no C compiler on this machine");

function kernel(name: string, body = ""): KernelSource {
  const text = `#include <stdint.h>
void ${name}(char *const *pointers, const int64_t *numbers, int64_t begin, int64_t end, char *scratch) {
  (void)pointers; (void)numbers; (void)begin; (void)end; (void)scratch; ${body}
}
`;
  return { name, symbols: [name], text };
}

function errorOf(action: () => unknown): Error {
  try {
    action();
  } catch (error) {
    if (error instanceof Error) return error;
  }
  throw new Error("nothing was thrown");
}

let folder: string;
let lines: string[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tempograph-cache-"));
  lines = [];
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

let loads = 0;
/** A fresh library on `cache`, as a new process would load it: the unused variable keeps the per-process memory apart. */
function freshLibrary(cache: string, environment: Record<string, string | undefined> = process.env): NativeLibrary {
  loads += 1;
  const searchPath = `${environment["PATH"] ?? ""}:/nonexistent/${loads}`;
  return loadNativeLibrary({ cacheDirectory: cache, environment: { ...environment, PATH: searchPath }, log: (line) => lines.push(line) });
}

function entriesOf(cache: string, stem: string): string[] {
  return readdirSync(cache)
    .filter((file) => file.startsWith(stem) && file.endsWith(".so"))
    .map((file) => join(cache, file));
}

/** An executable shell script, to stand in for a compiler. */
function script(name: string, body: string): string {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  return path;
}

describe.skipIf(!compiler)("artifact cache", { timeout: 60_000 }, () => {
  test("cold compiles, warm takes from the cache, and keys tell sources, flags and instruction sets apart", async () => {
    const cache = join(folder, "deep", "cache");
    const cold = freshLibrary(cache);
    expect(cold.counters).toMatchObject({ compiled: 1, cacheHits: 0 });
    expect(statSync(cache).mode & 0o777).toBe(0o700);
    const sources = [kernel("first"), kernel("second"), kernel("third")];
    await cold.build(sources);
    expect(cold.counters).toMatchObject({ compiled: 4, cacheHits: 0, cacheRebuilds: 0 });
    cold.buildSync(sources);
    await cold.build(sources);
    expect(cold.counters.compiled).toBe(4);

    const warm = freshLibrary(cache);
    expect(warm.buildSync(sources).size).toBe(3);
    expect(warm.counters).toMatchObject({ compiled: 0, cacheHits: 4, cacheRebuilds: 0 });
    await warm.build([kernel("first", "(void)1;")]);
    expect(warm.counters.compiled).toBe(1);
    if (warm.isa !== "plain") {
      const plain = loadNativeLibrary({ cacheDirectory: cache, isa: "plain" });
      await plain.build(sources);
      expect(plain.counters).toMatchObject({ compiled: 3, cacheHits: 1 });
    }
    // Nothing unfinished is left, and the source lies beside its library.
    expect(readdirSync(cache).filter((file) => file.includes(".tmp-"))).toEqual([]);
    expect(readdirSync(cache).some((file) => /^second-[0-9a-f]{16}\.c$/.test(file))).toBe(true);
  });

  test("equal sources asked for at the same time are compiled once", async () => {
    const library = freshLibrary(folder);
    const answers = await Promise.all(Array.from({ length: 5 }, () => library.build([kernel("once")])));
    expect(library.counters.compiled).toBe(2);
    expect(new Set(answers.map((answer) => answer.get("once"))).size).toBe(1);
  });

  test.each([
    ["truncated", (path: string) => replaceBytes(path, readFileSync(path).subarray(0, 1000))],
    ["empty", (path: string) => replaceBytes(path, new Uint8Array())],
    ["one bit flipped", (path: string) => flipBit(path)],
    ["replaced by text", (path: string) => replaceBytes(path, Buffer.from("not a library"))],
    ["writable by others", (path: string) => chmodSync(path, 0o777)],
    ["a link", (path: string) => linkTo(path)],
    ["a folder", (path: string) => replaceByFolder(path)],
  ])("a damaged entry is rebuilt: %s", (_, damage) => {
    freshLibrary(folder).buildSync([kernel("victim")]);
    const [entry = ""] = entriesOf(folder, "victim");
    damage(entry);
    const library = freshLibrary(folder);
    expect(library.buildSync([kernel("victim")]).get("victim")).toBeGreaterThan(0);
    expect(library.counters).toMatchObject({ compiled: 1, cacheHits: 1, cacheRebuilds: 1 });
    expect(lines.join("\n")).toMatch(/artifact cache: .*victim.* removed and built again/);
    const again = freshLibrary(folder);
    again.buildSync([kernel("victim")]);
    expect(again.counters).toMatchObject({ compiled: 0, cacheHits: 2, cacheRebuilds: 0 });
  });

  test("a whole entry that cannot be loaded is rebuilt", () => {
    freshLibrary(folder).buildSync([kernel("victim")]);
    const [entry = ""] = entriesOf(folder, "victim");
    const cache = ArtifactCache.open(folder, () => undefined);
    // The right checksum for the wrong bytes.
    const temporary = join(folder, "bytes");
    writeFileSync(temporary, "a text file under a right name");
    const parts = /(victim)-([0-9a-f]{16})-([0-9a-f]{8})-/.exec(entry);
    rmSync(entry);
    cache.add({ name: "victim", source: parts?.[2] ?? "", compiler: parts?.[3] ?? "" }, temporary);
    const library = freshLibrary(folder);
    library.buildSync([kernel("victim")]);
    expect(library.counters).toMatchObject({ compiled: 1, cacheRebuilds: 1 });
    expect(lines.join("\n")).toMatch(/cannot be loaded/);
  });

  test("a warm cache needs no compiler, whichever compiler filled it", () => {
    const wrapped = script("my-cc", `case "$1" in --version) echo "my compiler 1.0";; *) exec ${compiler?.path ?? ""} "$@";; esac`);
    const filled = freshLibrary(folder, { ...process.env, CC: wrapped });
    filled.buildSync([kernel("kept")]);
    expect(filled.compiler).toBe(`${wrapped}: my compiler 1.0`);
    const library = freshLibrary(folder, { PATH: "/nonexistent" });
    expect(library.buildSync([kernel("kept")]).size).toBe(1);
    expect(library.counters).toMatchObject({ compiled: 0, cacheHits: 2 });
    expect(library.compiler).toMatch(/none found/);
    const missing = errorOf(() => library.buildSync([kernel("never_built")]));
    expect(missing).toMatchObject({ code: "compiler-missing" });
    expect(missing.message).toMatch(/build "never_built".*no cc, gcc or clang is on PATH.*Install gcc or clang/);
    // Another compiler does not take that one's work for its own.
    const other = freshLibrary(folder);
    other.buildSync([kernel("kept")]);
    expect(other.counters).toMatchObject({ compiled: 2, cacheHits: 0 });
  });

  test("no compiler and no cache: an error that names the variable at fault", () => {
    const error = errorOf(() => freshLibrary(folder, { PATH: process.env["PATH"], CC: "/nonexistent/cc" }));
    expect(error).toMatchObject({ code: "compiler-missing" });
    expect(error.message).toContain('CC="/nonexistent/cc" is not an executable program');
  });

  test("a failing compiler: its own message, and the file kept", async () => {
    const library = freshLibrary(folder);
    const broken = { ...kernel("broken"), text: "int broken(void) { return no_such_name; }\n" };
    for (const error of [errorOf(() => library.buildSync([broken])), await library.build([broken]).catch((reason: unknown) => reason)]) {
      expect(error).toBeInstanceOf(CompilerError);
      const { message, sourcePath, output, code } = error as CompilerError;
      expect(code).toBe("compiler-failed");
      expect(message).toContain("'no_such_name' undeclared");
      expect(message).toContain(sourcePath);
      expect(output).toContain("error:");
      expect(readFileSync(sourcePath, "utf8")).toBe(broken.text);
    }
    // The library goes on working, and nothing unfinished stays.
    expect((await library.build([kernel("fine")])).size).toBe(1);
    expect(readdirSync(folder).filter((file) => file.includes(".tmp-") || /^broken.*\.so/.test(file))).toEqual([]);
  });

  test("a compiler that only fails: exit status, message and kept file", () => {
    const path = script("bad-cc", 'echo "disk of the compiler is full" >&2; exit 7');
    const error = errorOf(() => freshLibrary(join(folder, "cache"), { ...process.env, CC: path }));
    expect(error).toBeInstanceOf(CompilerError);
    expect(error.message).toMatch(/exit status 7[^]*disk of the compiler is full/);
    expect(existsSync((error as CompilerError).sourcePath)).toBe(true);
  });

  test("an undefined function, and a symbol the file does not export, are compiler errors too", () => {
    const library = freshLibrary(folder);
    const undefinedCall = kernel("calls_nothing", "extern void nowhere_to_be_found(void); nowhere_to_be_found();");
    expect(errorOf(() => library.buildSync([undefinedCall]))).toMatchObject({ code: "compiler-failed" });
    const absent = errorOf(() => library.buildSync([{ ...kernel("present"), symbols: ["absent"] }]));
    expect(absent).toBeInstanceOf(CompilerError);
    expect(absent.message).toContain('does not export "absent"');
  });

  test("a folder that others may write to is refused", () => {
    for (const mode of [0o777, 0o770, 0o722]) {
      chmodSync(folder, mode);
      const error = errorOf(() => freshLibrary(folder));
      expect(error).toBeInstanceOf(NativeError);
      expect(error).toMatchObject({ code: "cache-unsafe" });
      expect(error.message).toContain(`chmod go-w ${folder}`);
      expect(readdirSync(folder)).toEqual([]);
    }
  });

  test("a folder of another user is refused", (context) => {
    if (process.getuid?.() === 0) context.skip("root: every folder at hand is root's own");
    expect(errorOf(() => freshLibrary("/usr"))).toMatchObject({ code: "cache-unsafe" });
  });

  test("a folder that cannot be created or written names itself and the way out", () => {
    writeFileSync(join(folder, "file"), "");
    // Below /proc the system answers "no such file", at which Node's recursive mkdir goes on for ever.
    for (const place of [join(folder, "file"), join(folder, "file", "below"), "/proc/tempograph/below"]) {
      const error = errorOf(() => freshLibrary(place));
      expect(error).toMatchObject({ code: "cache-unwritable" });
      expect(error.message).toContain(place);
      expect(error.message).toContain("TEMPOGRAPH_CACHE_DIR");
    }
  });

  test("a read-only folder serves what it has and says so when it must write", (context) => {
    if (process.getuid?.() === 0) context.skip("root writes anywhere");
    freshLibrary(folder).buildSync([kernel("kept")]);
    chmodSync(folder, 0o500);
    const library = freshLibrary(folder);
    expect(library.buildSync([kernel("kept")]).size).toBe(1);
    expect(errorOf(() => library.buildSync([kernel("new_one")]))).toMatchObject({ code: "cache-unwritable" });
    chmodSync(folder, 0o700);
  });

  test("unfinished files of a killed process are removed once they are old", () => {
    const old = join(folder, "x.so.tmp-0000");
    const young = join(folder, "y.so.tmp-0001");
    for (const path of [old, young]) writeFileSync(path, "");
    const hoursAgo = Date.now() / 1000 - 7200;
    utimesSync(old, hoursAgo, hoursAgo);
    ArtifactCache.open(folder, () => undefined);
    expect(existsSync(old)).toBe(false);
    expect(existsSync(young)).toBe(true);
  });
});

describe("where and for what", () => {
  test("the folder follows its variables in order", () => {
    expect(cacheDirectory({ TEMPOGRAPH_CACHE_DIR: "/a", XDG_CACHE_HOME: "/b", HOME: "/c" })).toBe("/a");
    expect(cacheDirectory({ XDG_CACHE_HOME: "/b", HOME: "/c" })).toBe("/b/tempograph");
    expect(cacheDirectory({ HOME: "/c" })).toBe("/c/.cache/tempograph");
  });

  test("the widest instruction set whose features are all there", () => {
    const wide = new Set(["avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"]);
    expect(selectCpu(undefined, wide)).toEqual({ isa: "avx512", features: "avx2,avx512bw,avx512dq,avx512f,avx512vl,fma" });
    expect(selectCpu("", new Set(["avx2", "fma", "avx512f"])).isa).toBe("avx2");
    expect(selectCpu(undefined, new Set(["avx2"])).isa).toBe("plain");
    expect(selectCpu(undefined, new Set(["asimd"])).isa).toBe("neon");
    expect(selectCpu("plain", wide).isa).toBe("plain");
    expect(() => selectCpu("avx1024", wide)).toThrow(/"avx1024"; it must be one of avx512, avx2, neon, plain/);
    expect(() => selectCpu("avx512", new Set(["avx2", "fma"]))).toThrow(/lacks avx512bw.*widest it has is "avx2"/);
  });

  test("flags never trade accuracy for speed", () => {
    for (const isa of ["avx512", "avx2", "neon", "plain"] as const) {
      const flags = compilerFlags(isa);
      expect(flags).toContain("-ffp-contract=off");
      expect(flags).not.toContain("-ffast-math");
      expect(flags.filter((flag) => flag.startsWith("-march"))).toEqual([]);
    }
  });

  test("a container's limit bounds the threads", () => {
    expect(coresOfQuota("max 100000\n")).toBeUndefined();
    expect(coresOfQuota("200000 100000\n")).toBe(2);
    expect(coresOfQuota("150000 100000")).toBe(2);
    expect(coresOfQuota("1000 100000")).toBe(1);
    expect(coresOfQuota("")).toBeUndefined();
    expect(usableCores()).toBeGreaterThanOrEqual(1);
  });

  test("CC may be a path, a name, or a program with arguments", () => {
    const path = script("cc with space", "exit 0");
    const searchPath = process.env["PATH"];
    expect(findCompiler({ CC: path, PATH: searchPath })).toEqual({ path, leadingArguments: [] });
    const plain = script("my-cc", "exit 0");
    expect(findCompiler({ CC: "my-cc -m64", PATH: folder })).toEqual({ path: plain, leadingArguments: ["-m64"] });
    expect(findCompiler({ CC: folder, PATH: searchPath })).toBeUndefined();
    expect(findCompiler({ PATH: folder })).toBeUndefined();
    const gcc = script("gcc", "exit 0");
    script("clang", "exit 0");
    expect(findCompiler({ CC: " ", PATH: folder })?.path).toBe(gcc);
  });
});

// The entry may be mapped by this process, so damage goes to a new file under the old name, never into the old one.
function replaceBytes(path: string, bytes: Uint8Array): void {
  rmSync(path);
  writeFileSync(path, bytes, { mode: 0o700 });
}

function flipBit(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
  replaceBytes(path, bytes);
}

function linkTo(path: string): void {
  const elsewhere = join(folder, "elsewhere");
  writeFileSync(elsewhere, readFileSync(path));
  rmSync(path);
  symlinkSync(elsewhere, path);
}

function replaceByFolder(path: string): void {
  rmSync(path);
  mkdirSync(path);
}
