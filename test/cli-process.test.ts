/** The executable as a process: exit codes, Ctrl-C, broken pipes, standard input. Runs the build in dist/. */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
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
