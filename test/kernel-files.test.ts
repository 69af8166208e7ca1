/** The text around kernels: only names that are used are declared, as the standard headers declare them; functions of the C library are found when a kernel is loaded. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { prelude } from "../src/codegen/prelude.js";
import { findCompiler } from "../src/runtime/native/compiler.js";
import type { KernelSource } from "../src/runtime/native/contract.js";
import { selectCpu } from "../src/runtime/native/cpu.js";
import { loadNativeLibrary } from "../src/runtime/native/library.js";

const compiler = findCompiler(process.env);
if (!compiler) console.log("skipped: no C compiler on this machine");

const folder = mkdtempSync(join(tmpdir(), "tempograph-files-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const { isa } = selectCpu(undefined);

function kernel(name: string, body: string): KernelSource {
  const text = `void ${name}(char *const *p, const int64_t *n, int64_t begin, int64_t end, char *scratch) {
  (void)p; (void)n; (void)begin; (void)end; (void)scratch;
  ${body}
}
`;
  return { name, symbols: [name], text: prelude(isa, text) + text };
}

describe("the opening text", () => {
  test("declares what the body uses and nothing else", () => {
    const plain = prelude("plain", "float one(float x) { return x; }");
    expect(plain).not.toMatch(/memcpy|memset|int64_t|int16_t|size_t|#include/);
    expect(plain).toContain("typedef __INT32_TYPE__ int32_t;");
    expect(prelude("plain", "memset(p, 0, (size_t)n);")).toMatch(/typedef __SIZE_TYPE__ size_t;[^]*void \*memset\(/);
    // A helper's own words count.
    expect(prelude("avx2", "f32x8 x = load_f32x8(p);")).toContain("void *memcpy(");
  });

  test.skipIf(!compiler)("agrees with the standard headers, before them and after them", () => {
    const path = join(folder, "both.c");
    const ours = prelude(isa, "int16_t int32_t int64_t uint16_t uint32_t uint64_t size_t memcpy memset");
    const headers = "#include <stdint.h>\n#include <stddef.h>\n#include <string.h>\n";
    for (const text of [`${headers}${ours}`, `${ours}${headers}`]) {
      writeFileSync(path, text);
      const { path: program, leadingArguments } = compiler as NonNullable<typeof compiler>;
      const flags = ["-std=gnu11", "-Wall", "-Wno-psabi", "-Werror", "-fsyntax-only"];
      expect(spawnSync(program, [...leadingArguments, ...flags, path], { encoding: "utf8" }).stderr).toBe("");
    }
  });
});

describe.skipIf(!compiler)("functions of the C library", () => {
  const library = (): ReturnType<typeof loadNativeLibrary> =>
    loadNativeLibrary({ cacheDirectory: join(folder, "cache"), log: () => undefined });

  test("are found in the process", async () => {
    const copies = kernel("copies", "memcpy(p[1], p[0], (size_t)n[0]); memset(p[1] + n[0], 7, (size_t)n[1]);");
    const entries = await library().build([copies]);
    expect(entries.get("copies")).toBeGreaterThan(0);
  });

  test("that are nowhere are said by name", async () => {
    const source = kernel("calls", "extern void nowhere_to_be_found(void); nowhere_to_be_found();");
    await expect(library().build([source])).rejects.toThrow(/calls-[0-9a-f]+\.c[^]*nowhere_to_be_found/);
  });
});
