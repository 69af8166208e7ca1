/** The executable as a process: exit codes, Ctrl-C, broken pipes, full disks, standard input. Runs the build in dist/. */
import { spawn } from "node:child_process";
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";

const executable = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
const built = existsSync(executable);

interface Ended {
  readonly code: number | null;
  readonly signal: string | null;
  readonly out: string;
  readonly error: string;
}

function start(
  words: readonly string[],
  environment: NodeJS.ProcessEnv = process.env,
): { child: ReturnType<typeof spawn>; ended: Promise<Ended> } {
  const child = spawn(process.execPath, [executable, ...words], { stdio: ["pipe", "pipe", "pipe"], env: environment });
  let out = "";
  let error = "";
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (error += chunk.toString()));
  // A child that ends early closes its end of the pipe; that is not this test's failure.
  child.stdin.on("error", () => undefined);
  const ended = new Promise<Ended>((resolve) => child.on("close", (code, signal) => resolve({ code, signal, out, error })));
  return { child, ended };
}

test.skipIf(!built)("a wrong command line: exit code 2 and one sentence (needs dist/, made by npm run build)", async () => {
  const { ended } = start(["forecast", "no-such-file.csv"]);
  expect(await ended).toMatchObject({ code: 2, out: "", error: expect.stringMatching(/^tempograph: .*no-such-file\.csv.*\n$/) as string });
});

test.skipIf(!built)("standard input is read, and an empty one is named (needs dist/)", async () => {
  const { child, ended } = start(["forecast", "-"]);
  child.stdin?.end();
  expect(await ended).toMatchObject({ code: 2, error: expect.stringContaining("standard input is empty") as string });
});

test.skipIf(!built)("Ctrl-C while reading: exit code 130 and one word (needs dist/)", async () => {
  const { child, ended } = start(["forecast", "-"]);
  // More than a pipe holds: once it is all taken, the child is reading, so its handler is in place.
  await new Promise<void>((resolve) => child.stdin?.write(`x\n${"1\n".repeat(200_000)}`, () => resolve()));
  child.kill("SIGINT");
  expect(await ended).toMatchObject({ code: 130, signal: null, out: "", error: "tempograph: interrupted\n" });
});

test.skipIf(!built)("a reader that goes away: no stack trace, exit code 0 (needs dist/)", async () => {
  const { child, ended } = start(["config"]);
  child.stdout?.destroy();
  expect(await ended).toMatchObject({ code: 0, error: "" });
});

test.skipIf(!built)("the demo without a C compiler: the reference device, and one line that says why (needs dist/)", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tempograph-demo-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const environment = {
    PATH: folder,
    CC: "/nonexistent",
    TEMPOGRAPH_CACHE_DIR: join(folder, "cache"),
    TEMPOGRAPH_MODEL: "bundled:toto1-formula",
  };
  const run = await start(["demo"], environment).ended;
  expect(run).toMatchObject({ code: 0, error: expect.stringMatching(/^tempograph: the native device cannot be used .*\n$/) as string });
  expect(run.out).toContain("device reference");
  expect(run.out).toContain("recompiles 0, graph breaks 0, fallbacks 1");
});

/** A folder with a short series, removed after the test. */
function seriesFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "tempograph-process-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, "a.csv"), `x\n${Array.from({ length: 40 }, (_, step) => Math.sin(step)).join("\n")}\n`);
  return folder;
}

test.skipIf(!built)("Ctrl-C in mid-run: exit code 130, one word, nothing written (needs dist/)", async () => {
  const folder = seriesFolder();
  const words = ["forecast", join(folder, "a.csv"), "--model", "bundled:toto1-formula", "--device", "reference"];
  const { child, ended } = start([...words, "--horizon", "8000", "--samples", "32", "--output", join(folder, "out.csv")]);
  // Long after the start, long before the end: 1,000 steps of 32 paths take far longer on the interpreter.
  await new Promise((resolve) => setTimeout(resolve, 2500));
  child.kill("SIGINT");
  expect(await ended).toMatchObject({ code: 130, signal: null, out: "", error: "tempograph: interrupted\n" });
  expect(readdirSync(folder)).toEqual(["a.csv"]);
});

const full = existsSync("/dev/full") && statSync("/dev/full").isCharacterDevice();
test.skipIf(!built || !full)("standard output on a full disk: exit code 2 and one sentence (needs dist/ and /dev/full)", async () => {
  const device = openSync("/dev/full", "w");
  onTestFinished(() => closeSync(device));
  const child = spawn(process.execPath, [executable, "config"], { stdio: ["ignore", device, "pipe"] });
  let error = "";
  child.stderr?.on("data", (chunk: Buffer) => (error += chunk.toString()));
  expect(await new Promise((resolve) => child.on("close", resolve))).toBe(2);
  expect(error).toMatch(/^tempograph: cannot write standard output: .*ENOSPC.*\n$/);
});

test.skipIf(!built || process.platform === "win32")(
  "a disk that fills up in mid-file: exit code 2, nothing left, what was there stays (needs dist/)",
  async () => {
    const folder = seriesFolder();
    writeFileSync(join(folder, "out.csv"), "before");
    const words = [
      "forecast",
      join(folder, "a.csv"),
      "--device",
      "reference",
      "--horizon",
      "64",
      "--format",
      "csv",
      "--output",
      join(folder, "out.csv"),
    ];
    // A limit of 1 KiB per file stands in for the disk; the answer has 6.
    const child = spawn("sh", ["-c", 'ulimit -f 1; exec "$0" "$@"', process.execPath, executable, ...words], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let error = "";
    child.stderr.on("data", (chunk: Buffer) => (error += chunk.toString()));
    expect(await new Promise((resolve) => child.on("close", resolve))).toBe(2);
    expect(error).toMatch(/^tempograph: cannot write .*out\.csv: .*\n$/);
    expect(readdirSync(folder).sort()).toEqual(["a.csv", "out.csv"]);
    expect(statSync(join(folder, "out.csv")).size).toBe("before".length);
  },
);

test.skipIf(!built)(
  "a reader that takes the first lines of a long answer: exit code 0, nothing on standard error (needs dist/)",
  async () => {
    const folder = seriesFolder();
    const { child, ended } = start(["forecast", join(folder, "a.csv"), "--device", "reference", "--horizon", "2000", "--format", "csv"]);
    child.stdout?.once("data", () => child.stdout?.destroy());
    expect(await ended).toMatchObject({ code: 0, error: "" });
  },
);
