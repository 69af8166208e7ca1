/** docs/layout.md stays true: every file it names exists, and every line it quotes from a file is in that file, in that order. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const page = readFileSync(join(root, "docs/layout.md"), "utf8");

test("every file and folder it names exists", () => {
  const named = [...page.matchAll(/`((?:src|native|codegen|runtime)\/[\w./-]+)`/g)].map(([, path]) => path!);
  expect(named.length).toBeGreaterThan(15);
  expect(named.filter((path) => !existsSync(join(root, path)) && !existsSync(join(root, "src", path)))).toEqual([]);
});

test("its table has every folder of src", () => {
  const folders = readdirSync(join(root, "src")).filter((name) => statSync(join(root, "src", name)).isDirectory());
  const rows = [...page.matchAll(/^\| `(\w+)\/` \|/gm)].map(([, name]) => name!);
  expect(rows.sort()).toEqual(folders.sort());
});

test("every quoted line is in its file", () => {
  const quotes = [...page.matchAll(/```ts\n\/\/ (\S+)\n([^`]+)```/g)];
  expect(quotes.length).toBe(5);
  for (const [, path, text] of quotes) {
    const source = readFileSync(join(root, path!), "utf8");
    let from = 0;
    for (const line of text!.split("\n").map((part) => part.trim())) {
      const at = source.indexOf(line, from);
      expect(at, `${path}: ${line}`).toBeGreaterThanOrEqual(0);
      from = at;
    }
  }
});
