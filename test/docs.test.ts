/** The guides: their code type-checks and runs, their commands run, and their lists are those of the code. Running needs dist/ (npm run build). */
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import ts from "typescript";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("../", import.meta.url));
const built = existsSync(`${root}dist/index.js`);
const run = promisify(execFile);
const guides = readdirSync(`${root}docs`).filter((name) => name.endsWith(".md"));
const textOf = (name: string): string => readFileSync(`${root}docs/${name}`, "utf8");

const programs = guides.flatMap((name) =>
  [...textOf(name).matchAll(/```js\n([^]*?)```/g)]
    .map((match) => match[1] ?? "")
    .filter((code) => code.includes('from "tempograph"'))
    .map((code, index) => [`${name.replace(".md", "")}-${index + 1}.ts`, code] as const),
);
const commands = guides.flatMap((name) =>
  [...textOf(name).matchAll(/^npx tempograph (.*?)(?: +#.*)?$/gm)].map((match) => [name, match[1] ?? ""] as const),
);

describe.skipIf(!built)("programs of the guides (needs dist/)", () => {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "tempograph-docs-"));
    mkdirSync(join(folder, "node_modules"));
    symlinkSync(root, join(folder, "node_modules", "tempograph"));
    symlinkSync(join(root, "node_modules", "@types"), join(folder, "node_modules", "@types"));
    writeFileSync(join(folder, "package.json"), '{"type":"module"}');
    for (const [name, code] of programs) writeFileSync(join(folder, name), code);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("they fit the types of the package, and become programs", () => {
    const program = ts.createProgram(
      programs.map(([name]) => join(folder, name)),
      {
        target: ts.ScriptTarget.ES2022,
        lib: ["lib.es2023.d.ts", "lib.esnext.disposable.d.ts"],
        module: ts.ModuleKind.NodeNext,
        moduleResolution: ts.ModuleResolutionKind.NodeNext,
        types: ["node"],
        typeRoots: [join(root, "node_modules", "@types")],
        strict: true,
        skipLibCheck: true,
        outDir: folder,
      },
    );
    const problems = ts
      .getPreEmitDiagnostics(program)
      .map(({ file, messageText }) => `${file?.fileName ?? ""}: ${ts.flattenDiagnosticMessageText(messageText, " ")}`);
    expect(problems).toEqual([]);
    expect(program.emit().emitSkipped).toBe(false);
  });

  test.each(programs.map(([name]) => name))("%s runs", async (name) => {
    const { stdout } = await run(process.execPath, [join(folder, name.replace(/\.ts$/, ".js"))], { cwd: folder, timeout: 240_000 });
    expect(stdout.trim()).not.toBe("");
    expect(stdout).not.toMatch(/\b(NaN|undefined)$/m);
  });
});

test.skipIf(!built).each(commands)("%s: tempograph %s (needs dist/)", async (_, line) => {
  const folder = mkdtempSync(join(tmpdir(), "tempograph-docs-"));
  try {
    const words = line.split(/\s+/).map((word) => (word.startsWith("examples/") ? root + word : word));
    const { stdout } = await run(process.execPath, [`${root}dist/cli/main.js`, ...words], { cwd: folder, timeout: 240_000 });
    const output = words.indexOf("--output");
    if (output >= 0) expect(existsSync(join(folder, words[output + 1] ?? ""))).toBe(true);
    else expect(stdout.trim()).not.toBe("");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("the guides hold programs and commands", () => {
  expect(programs.length).toBeGreaterThan(4);
  expect(commands.length).toBeGreaterThan(4);
});

test("docs/errors.md lists every code there is, and no other", () => {
  const sources = readdirSync(`${root}src`, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => readFileSync(`${root}src/${name}`, "utf8"))
    .join("\n");
  const found = new Set<string>();
  for (const [, code = ""] of sources.matchAll(/\bInputError\(\s*"([a-z0-9-]+)"/g)) found.add(code);
  for (const [, code = ""] of sources.matchAll(/\bfail\(\s*"(safetensors-[a-z]+)"/g)) found.add(code);
  for (const [, what = ""] of sources.matchAll(/oneOf\(text, source, "([\w-]+)"/g)) found.add(`unknown-${what}`);
  for (const [, what = ""] of sources.matchAll(/wholeNumber\(text, source, "([\w-]+)"/g)) found.add(`bad-${what}`);
  const union = /type NativeErrorCode =([^;]*);/.exec(sources)?.[1] ?? "";
  for (const [, code = ""] of union.matchAll(/"([a-z-]+)"/g)) found.add(code);
  for (const [, code = ""] of sources.matchAll(/readonly code = "([a-z-]+)"/g)) found.add(code);
  const listed = [...(textOf("errors.md").split("## Codes")[1] ?? "").matchAll(/`([a-z0-9]+(?:-[a-z0-9]+)*)`/g)].map(
    ([, code = ""]) => code,
  );
  expect([...new Set(listed)].filter((code) => code !== "auto").sort()).toEqual([...found].sort());
});

test("docs/api is what the comments in the code say (npm run docs writes it)", async () => {
  const { apiReference, writtenReference } = (await import(new URL("../scripts/api-reference.mjs", import.meta.url).href)) as {
    apiReference: () => Map<string, string>;
    writtenReference: () => Map<string, string>;
  };
  const expected = apiReference();
  expect(writtenReference()).toEqual(expected);
  for (const text of expected.values()) {
    expect(text.match(/^## /gm)?.length).toBeGreaterThan(1);
    // Every public name has a comment that says what it is.
    expect([...text.matchAll(/^## (\w+)\n\n```/gm)].map(([, name]) => name)).toEqual([]);
  }
});
