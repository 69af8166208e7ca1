/**
 * The native runtime across isolates and processes: worker threads share one pool, processes share one cache, and a process leaves when told.
 * The sources are turned to JavaScript in a temporary folder, so that plain `node` runs them.
 */
import { spawn } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findCompiler } from "../src/runtime/native/compiler.js";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const compiler = findCompiler(process.env);
if (!compiler) console.log("skipped: no C compiler on this machine");

let folder: string;

interface Outcome {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a module beside the library in a process of its own; one that does not leave in time is killed, which the answer shows. */
function runModule(source: string, options: { environment?: NodeJS.ProcessEnv; through?: string[] } = {}): Promise<Outcome> {
  const path = join(folder, `main-${Math.random().toString(36).slice(2)}.mjs`);
  writeFileSync(path, source);
  const [program = "", ...leading] = [...(options.through ?? []), process.execPath];
  return new Promise((resolve, reject) => {
    const environment = options.environment ?? process.env;
    const child = spawn(program, [...leading, path], {
      env: { TEMPOGRAPH_CACHE_DIR: join(folder, "cache"), ...environment },
      timeout: 20_000,
      killSignal: "SIGKILL",
    });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (text: Buffer) => (stdout += text.toString()));
    child.stderr.on("data", (text: Buffer) => (stderr += text.toString()));
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

/** Loads the library and lays out a table of one kernel: y[i] = units - i after `delay` microseconds, `count` times over. */
const prelude = `
import { loadNativeLibrary } from "./src/runtime/native/library.js";
export const library = loadNativeLibrary({ maximumThreads: 4 });
const text = \`#include <stdint.h>
#include <time.h>
void shared(char *const *pointers, const int64_t *numbers, int64_t begin, int64_t end, char *scratch) {
  struct timespec start, now;
  clock_gettime(CLOCK_MONOTONIC, &start);
  do clock_gettime(CLOCK_MONOTONIC, &now);
  while ((now.tv_sec - start.tv_sec) * 1000000 + (now.tv_nsec - start.tv_nsec) / 1000 < numbers[0]);
  for (int64_t i = begin; i < end; i++) ((int64_t *)pointers[0])[i] += 1;
}
\`;
export const address = (await library.build([{ name: "shared", symbols: ["shared"], text }])).get("shared");
export function makeTable(count, units, delay) {
  const target = library.allocate(units * 8);
  const table = library.allocate(count * 64 + 16);
  const cells = new BigInt64Array(table.view);
  const base = table.address + count * 64;
  cells[count * 8] = BigInt(target.address);
  cells[count * 8 + 1] = BigInt(delay);
  for (let i = 0; i < count; i++) cells.set([address, base, base + 8, units, 1, 1, 0, 0].map(BigInt), i * 8);
  return { address: table.address, count, values: () => [...new BigInt64Array(target.view)].map(Number) };
}
export const options = { threads: 2, abortWord: 0, scratchBytes: 256, profile: false };
`;

describe.skipIf(!compiler)("native runtime across isolates", { timeout: 60_000 }, () => {
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "tempograph-isolation-"));
    const sources = join(root, "src/runtime/native");
    mkdirSync(join(folder, "src/runtime/native"), { recursive: true });
    for (const file of readdirSync(sources).filter((name) => name.endsWith(".ts"))) {
      const { outputText } = ts.transpileModule(readFileSync(join(sources, file), "utf8"), {
        compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
      });
      writeFileSync(join(folder, "src/runtime/native", file.replace(/\.ts$/, ".js")), outputText);
    }
    cpSync(join(root, "native"), join(folder, "native"), { recursive: true });
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
    writeFileSync(join(folder, "package.json"), '{"type":"module"}');
    writeFileSync(join(folder, "prelude.js"), prelude);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("processes that start together on an empty cache all get a working library", async () => {
    const source = `
      import { library, makeTable, options } from "./prelude.js";
      const table = makeTable(3, 10, 0);
      library.run(table.address, table.count, options);
      console.log(JSON.stringify(table.values()));`;
    const environment = { ...process.env, TEMPOGRAPH_CACHE_DIR: join(folder, "together") };
    const outcomes = await Promise.all([1, 2, 3, 4].map(() => runModule(source, { environment })));
    for (const { code, stdout, stderr } of outcomes) {
      expect(stderr).toBe("");
      expect(code).toBe(0);
      expect(JSON.parse(stdout)).toEqual(Array(10).fill(3));
    }
  });

  test("worker threads share the pool: run and submit from four isolates at once", async () => {
    const outcome = await runModule(`
      import { Worker, isMainThread, parentPort } from "node:worker_threads";
      import { fileURLToPath } from "node:url";
      import { readFileSync } from "node:fs";
      import { library, makeTable, options, address } from "./prelude.js";
      const table = makeTable(20, 64, 0);
      async function load() {
        for (let i = 0; i < 30; i++) {
          library.run(table.address, table.count, options);
          await Promise.all([library.submit(table.address, table.count, options), library.submit(table.address, table.count, { ...options, threads: 1 })]);
        }
        return { address, right: table.values().every((value) => value === 30 * 3 * 20) };
      }
      if (isMainThread) {
        const workers = [1, 2, 3].map(() => new Promise((resolve, reject) => {
          const worker = new Worker(fileURLToPath(import.meta.url));
          worker.once("message", resolve);
          worker.once("error", reject);
        }));
        const results = [await load(), ...(await Promise.all(workers))];
        const runtimes = new Set(readFileSync("/proc/self/maps", "utf8").match(/\\S+runtime-\\S+\\.so/g));
        console.log(JSON.stringify({ right: results.map((result) => result.right), addresses: new Set(results.map((result) => result.address)).size, runtimes: runtimes.size }));
      } else parentPort.postMessage(await load());`);
    expect(outcome.stderr).toBe("");
    expect(outcome.code).toBe(0);
    expect(JSON.parse(outcome.stdout)).toEqual({ right: [true, true, true, true], addresses: 1, runtimes: 1 });
  });

  test("process.exit does not wait for a running job, and a pending job keeps the process alive until it is done", async () => {
    const leaving = await runModule(`
      import { library, makeTable, options } from "./prelude.js";
      const hours = makeTable(1000, 2, 10_000_000);
      library.submit(hours.address, hours.count, options).then(() => console.log("settled"));
      library.submit(hours.address, hours.count, options).then(() => console.log("settled"));
      setTimeout(() => { console.log("leaving"); process.exit(3); }, 20);`);
    expect(leaving).toMatchObject({ code: 3, signal: null, stdout: "leaving\n" });
    const staying = await runModule(`
      import { library, makeTable, options } from "./prelude.js";
      const table = makeTable(5, 2, 10_000);
      library.submit(table.address, table.count, options).then((status) => console.log("settled", status));`);
    expect(staying).toMatchObject({ code: 0, signal: null, stdout: "settled 0\n" });
  });

  test("a worker that is terminated in the middle of a job leaves the pool usable", async () => {
    const outcome = await runModule(`
      import { Worker, isMainThread, parentPort } from "node:worker_threads";
      import { fileURLToPath } from "node:url";
      import { library, makeTable, options } from "./prelude.js";
      if (isMainThread) {
        for (const how of ["terminate", "exit"]) {
          const worker = new Worker(fileURLToPath(import.meta.url), { workerData: how, argv: [how] });
          await new Promise((resolve) => worker.once("message", resolve));
          if (how === "terminate") await worker.terminate();
          else await new Promise((resolve) => worker.once("exit", resolve));
        }
        const table = makeTable(4, 2, 0);
        const status = await library.submit(table.address, table.count, options);
        console.log(status, JSON.stringify(table.values()));
      } else {
        const table = makeTable(process.argv[2] === "exit" ? 100_000 : 20, 2, 10_000);
        void library.submit(table.address, table.count, options);
        parentPort.postMessage("started");
        if (process.argv[2] === "exit") setTimeout(() => process.exit(0), 20);
      }`);
    expect(outcome).toMatchObject({ code: 0, stdout: "0 [4,4]\n", stderr: "" });
  });

  test("the default environment decides: no compiler on PATH, warm cache", async () => {
    const source = `
      import { library } from "./prelude.js";
      console.log(library.counters.compiled, library.compiler);`;
    expect((await runModule(source)).code).toBe(0);
    const { stdout, stderr } = await runModule(source, { environment: { ...process.env, PATH: "/nonexistent" } });
    expect({ stdout, stderr }).toEqual({ stdout: "0 none found: artifacts come from the cache\n", stderr: "" });
  });

  test("a cache on a noexec file system is named as such", async (context) => {
    const mounted = join(folder, "noexec");
    mkdirSync(mounted);
    // A private mount namespace, gone with the process.
    const through = ["unshare", "-rm", "sh", "-c", `mount -t tmpfs -o noexec,mode=700 none ${mounted} && exec "$0" "$@"`];
    const source = `
      import { loadNativeLibrary } from "./src/runtime/native/library.js";
      try { loadNativeLibrary(); } catch (error) { console.log(error.code, error.message); }`;
    const environment = { ...process.env, TEMPOGRAPH_CACHE_DIR: mounted };
    const outcome = await runModule(source, { environment, through }).catch(() => undefined);
    if (!outcome || /unshare|mount/.test(outcome.stderr)) context.skip("this machine lets no test mount a file system");
    expect(outcome?.stdout).toMatch(
      /^cache-noexec The artifact cache .*noexec is on a file system that does not allow running code.*TEMPOGRAPH_CACHE_DIR/,
    );
  });
});
