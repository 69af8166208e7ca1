/** Every file in examples/ runs to its end and prints something; so do the code and the commands of the README. Needs dist/ (npm run build). */
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";

const root = fileURLToPath(new URL("../", import.meta.url));
const built = existsSync(`${root}dist/index.js`);
const run = promisify(execFile);

const examples = readdirSync(`${root}examples`).filter((name) => name.endsWith(".mjs"));

test.skipIf(!built).each(examples)("examples/%s runs (needs dist/)", async (name) => {
  const { stdout } = await run(process.execPath, [`${root}examples/${name}`], { timeout: 240_000 });
  expect(stdout.trim()).not.toBe("");
  expect(stdout).not.toMatch(/NaN|undefined|bits: false|recompiles:? [1-9]/);
});

const readme = readFileSync(`${root}README.md`, "utf8");

test.skipIf(!built)("the README's code runs as it stands (needs dist/)", async () => {
  const code = /```(?:js|ts)\n([^]*?)```/.exec(readme)?.[1] ?? "";
  expect(code).toContain('from "tempograph"');
  const folder = mkdtempSync(join(tmpdir(), "tempograph-readme-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  mkdirSync(join(folder, "node_modules"));
  symlinkSync(root, join(folder, "node_modules", "tempograph"));
  writeFileSync(join(folder, "readme.mjs"), code);
  const { stdout } = await run(process.execPath, [join(folder, "readme.mjs")], { timeout: 240_000 });
  expect(stdout.trim()).not.toBe("");
});

const commands = [...readme.matchAll(/^npx tempograph (.*?)(?: *#.*)?$/gm)].map((match) => match[1] ?? "");

test.skipIf(!built).each(commands)("the README's command runs: tempograph %s (needs dist/)", async (line) => {
  const folder = mkdtempSync(join(tmpdir(), "tempograph-readme-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const words = line.split(/\s+/).map((word) => (word.startsWith("examples/") ? root + word : word));
  const { stdout } = await run(process.execPath, [`${root}dist/cli/main.js`, ...words], { cwd: folder, timeout: 240_000 });
  if (words.includes("--output")) expect(existsSync(join(folder, words[words.indexOf("--output") + 1] ?? ""))).toBe(true);
  else expect(stdout.trim()).not.toBe("");
});

test("the README names commands and code", () => expect(commands.length).toBeGreaterThan(4));
