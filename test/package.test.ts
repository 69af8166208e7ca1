/**
 * The package as it is published: what is in it, how large it is, and a scratch project that installs the tarball without running install scripts and
 * then runs the README's program, the command line and an import check with nothing but Node on PATH. Needs dist/ (npm run build).
 */
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("../", import.meta.url));
const built = existsSync(`${root}dist/index.js`);
const run = promisify(execFile);
/** Bytes of the tarball; three quarters of it are the trained models. */
const largestTarball = 20e6;

interface Packed {
  filename: string;
  size: number;
  unpackedSize: number;
  files: { path: string; size: number }[];
}

describe.skipIf(!built)("the tarball (needs dist/)", () => {
  let folder = "";
  let packed: Packed;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "tempograph-package-"));
    const { stdout } = await run("npm", ["pack", "--ignore-scripts", "--json", "--pack-destination", folder], {
      cwd: root,
      maxBuffer: 1e8,
    });
    packed = (JSON.parse(stdout) as Packed[])[0] as Packed;
    console.log(
      `tarball: ${(packed.size / 1e6).toFixed(1)} MB, unpacked ${(packed.unpackedSize / 1e6).toFixed(1)} MB, ${packed.files.length} files`,
    );
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("it holds what a user needs and nothing else", () => {
    const paths = packed.files.map(({ path }) => path);
    for (const path of [
      "package.json",
      "README.md",
      "LICENSE",
      "CHANGELOG.md",
      "dist/index.js",
      "dist/index.d.ts",
      "dist/cli/main.js",
      "native/runtime.c",
      "schemas/forecast.schema.json",
      "docs/settings.md",
      "docs/api/forecasting.md",
      "examples/one-series.mjs",
      "examples/data/hourly.csv",
      ...["toto1-nano", "toto2-nano", "kronos-nano", "kronos-tokenizer-nano"].flatMap((name) => [
        `models/${name}/config.json`,
        `models/${name}/model.safetensors`,
        `models/${name}/README.md`,
      ]),
    ])
      expect(paths).toContain(path);
    const allowed =
      /^(package\.json|README\.md|LICENSE|CHANGELOG\.md|(dist|native|schemas|docs|examples)\/|models\/[\w-]+\/(README\.md|config\.json|model\.safetensors)$)/;
    expect(paths.filter((path) => !allowed.test(path))).toEqual([]);
    expect(paths.filter((path) => /\.(test\.js|map|tsbuildinfo|py|o|so)$/.test(path))).toEqual([]);
    expect(packed.size).toBeLessThan(largestTarball);
  });

  test("a scratch project installs it without install scripts and runs the README's program and the command line", async (context) => {
    const project = join(folder, "scratch");
    mkdirSync(project);
    const npm = async (...words: string[]): Promise<void> =>
      void (await run("npm", words, { cwd: project, maxBuffer: 1e8, timeout: 240_000 }));
    await npm("init", "-y");
    try {
      await npm("install", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund", join(folder, packed.filename));
    } catch (error) {
      const reason = String((error as { stderr?: unknown }).stderr);
      if (/E(NOTFOUND|AI_AGAIN|CONNREFUSED|TIMEDOUT|CONNRESET|NOTCACHED|HOSTUNREACH|NETUNREACH)/.test(reason))
        return context.skip("the package registry cannot be reached and its packages are not in npm's cache");
      throw error;
    }
    // Nothing but Node: no compiler, no Python, no shell tools.
    const bin = join(folder, "bin");
    mkdirSync(bin);
    symlinkSync(process.execPath, join(bin, "node"));
    const environment = { PATH: bin, HOME: folder, TEMPOGRAPH_CACHE_DIR: join(folder, "cache") };
    const node = (...words: string[]): Promise<{ stdout: string; stderr: string }> =>
      run(process.execPath, words, { cwd: project, env: environment, timeout: 240_000 });

    const code = /```js\n([^]*?)```/.exec(readFileSync(`${root}README.md`, "utf8"))?.[1] ?? "";
    expect(code).toContain('from "tempograph"');
    writeFileSync(join(project, "readme.mjs"), code);
    const program = await node("readme.mjs");
    expect(program.stdout).toMatch(/Float32Array\(24\)/);
    expect(program.stderr).toMatch(/^tempograph: the native device cannot be used .*reference device.*\n$/);

    writeFileSync(join(project, "load.csv"), `x\n${Array.from({ length: 60 }, (_, step) => Math.sin(step / 4)).join("\n")}\n`);
    const main = join(project, "node_modules", "tempograph", "dist", "cli", "main.js");
    const answer = await node(main, "forecast", "load.csv", "--horizon", "2", "--format", "json", "--no-report", "--quiet");
    expect(answer.stderr).toBe("");
    expect((JSON.parse(answer.stdout) as { series: { mean: number[] }[] }).series[0]?.mean.length).toBe(2);
    expect(existsSync(join(project, "node_modules", ".bin", "tempograph"))).toBe(true);

    // A native run where there is a compiler: koffi's binary came with the install although no script ran.
    const compilers = (process.env["PATH"] ?? "").split(":").some((place) => existsSync(join(place, "cc")));
    if (!compilers) return;
    const native = await run(process.execPath, [main, "forecast", "load.csv", "--horizon", "2", "--device", "native"], {
      cwd: project,
      env: { ...environment, PATH: `${bin}:${process.env["PATH"]}` },
      timeout: 240_000,
    });
    expect(native.stdout).toContain("device native");
  });

  test("the manifest names files that are there", () => {
    const manifest = JSON.parse(readFileSync(`${root}package.json`, "utf8")) as {
      bin: { tempograph: string };
      types: string;
      exports: { ".": { types: string; default: string } };
    };
    const paths = packed.files.map(({ path }) => path);
    for (const path of [manifest.bin.tempograph, manifest.types, ...Object.values(manifest.exports["."])])
      expect(paths).toContain(path.replace(/^\.\//, ""));
    expect(readFileSync(`${root}${manifest.bin.tempograph}`, "utf8")).toMatch(/^#!\/usr\/bin\/env node\n/);
    expect(dirname(manifest.bin.tempograph)).toBe("dist/cli");
  });
});
