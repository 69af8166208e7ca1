/** `tempograph models` and hub references, against a hub of our own: layout of the cache, resume, checksums, offline, mistakes; and shell completion. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, lstatSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { hubCacheFolder, isHubId, resolveHubModel } from "../src/io/hub.js";
import { runCli, temporaryFolder } from "./cli-harness.js";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS = Buffer.from(Array.from({ length: 5000 }, (_, index) => (index * 7) % 251));
const CONFIG = Buffer.from('{"hello": 1}');

interface FakeHub {
  readonly environment: Record<string, string>;
  readonly folder: string;
  readonly requests: string[];
  readonly close: () => void;
  weights: Buffer;
}

const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");
const gitId = (bytes: Buffer): string => createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");

async function fakeHub(): Promise<FakeHub> {
  const requests: string[] = [];
  const hub: { weights: Buffer } = { weights: WEIGHTS };
  const server: Server = createServer((request, response) => {
    const url = decodeURIComponent(request.url ?? "");
    requests.push(`${url.split("?")[0]}${request.headers.range === undefined ? "" : ` ${request.headers.range}`}`);
    const json = (value: unknown): void => void response.setHeader("content-type", "application/json").end(JSON.stringify(value));
    if (url.startsWith("/api/models/acme/tiny/revision/") || /^\/api\/models\/acme\/tiny(\?|$)/.test(url)) {
      if (url.includes("/revision/nowhere")) return void response.writeHead(404).end();
      return json({
        _id: "1",
        id: "acme/tiny",
        sha: COMMIT,
        private: false,
        gated: false,
        downloads: 0,
        likes: 0,
        lastModified: "2024-01-01T00:00:00Z",
      });
    }
    if (url.startsWith(`/api/models/acme/tiny/tree/${COMMIT}`)) {
      return json([
        { type: "file", path: "README.md", size: 3, oid: gitId(Buffer.from("abc")) },
        { type: "file", path: "config.json", size: CONFIG.length, oid: gitId(CONFIG) },
        {
          type: "file",
          path: "model.safetensors",
          size: WEIGHTS.length,
          oid: "f".repeat(40),
          lfs: { oid: sha256(WEIGHTS), size: WEIGHTS.length, pointerSize: 130 },
        },
      ]);
    }
    const file = { [`/acme/tiny/resolve/${COMMIT}/config.json`]: CONFIG, [`/acme/tiny/resolve/${COMMIT}/model.safetensors`]: hub.weights }[
      url
    ];
    if (file === undefined) return void response.writeHead(404).end();
    const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
    response.writeHead(from > 0 ? 206 : 200, { "content-length": file.length - from }).end(file.subarray(from));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const folder = temporaryFolder();
  const environment = { HF_ENDPOINT: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, HF_HOME: folder };
  return Object.assign(hub, { environment, folder, requests, close: () => void server.close() });
}

describe("hub models", () => {
  test("pull writes the layout that Python's tools read, and prints the folder", async () => {
    const { environment, folder } = await fakeHub();
    const run = await runCli(["models", "pull", "acme/tiny"], { environment });
    const storage = join(folder, "hub", "models--acme--tiny");
    const snapshot = join(storage, "snapshots", COMMIT);
    expect(run).toMatchObject({ code: 0, error: "", out: `acme/tiny: ${snapshot}, 5.0 kB\n` });
    expect(readFileSync(join(storage, "refs", "main"), "utf8")).toBe(COMMIT);
    expect(readFileSync(join(snapshot, "model.safetensors"))).toEqual(WEIGHTS);
    expect(lstatSync(join(snapshot, "config.json")).isSymbolicLink()).toBe(true);
    expect(readlinkSync(join(snapshot, "model.safetensors"))).toBe(join("..", "..", "blobs", sha256(WEIGHTS)));
    expect(existsSync(join(snapshot, "README.md"))).toBe(false);
  });

  test("a cached model needs no hub: by branch, by commit, offline", async () => {
    const { environment, requests } = await fakeHub();
    const folder = await resolveHubModel("acme/tiny", { environment });
    const before = requests.length;
    expect(await resolveHubModel("acme/tiny", { environment })).toBe(folder);
    expect(await resolveHubModel("acme/tiny", { environment, revision: COMMIT, offline: true })).toBe(folder);
    expect(requests.length).toBe(before);
    await expect(resolveHubModel("acme/tiny", { environment, revision: "other", offline: true })).rejects.toMatchObject({
      code: "hub-offline",
    });
    await expect(resolveHubModel("acme/other", { environment: { ...environment, HF_HUB_OFFLINE: "1" } })).rejects.toThrow(
      /not in the cache/,
    );
  });

  test("a download goes on where it stopped", async () => {
    const { environment, folder, requests } = await fakeHub();
    const blobs = join(folder, "hub", "models--acme--tiny", "blobs");
    mkdirSync(blobs, { recursive: true });
    writeFileSync(join(blobs, `${sha256(WEIGHTS)}.incomplete`), WEIGHTS.subarray(0, 1234));
    const progress: number[] = [];
    const snapshot = await resolveHubModel("acme/tiny", { environment, onProgress: (done, total) => void progress.push(done / total) });
    expect(requests).toContain(`/acme/tiny/resolve/${COMMIT}/model.safetensors bytes=1234-`);
    expect(readFileSync(join(snapshot, "model.safetensors"))).toEqual(WEIGHTS);
    expect(progress.at(-1)).toBe(1);
    expect(existsSync(join(blobs, `${sha256(WEIGHTS)}.incomplete`))).toBe(false);
  });

  test("a damaged or short download is refused and never gets its name", async () => {
    const hub = await fakeHub();
    hub.weights = Buffer.from(WEIGHTS).fill(1, 10, 11);
    await expect(resolveHubModel("acme/tiny", { environment: hub.environment })).rejects.toThrow(/checksum/);
    hub.weights = WEIGHTS.subarray(0, 100);
    await expect(resolveHubModel("acme/tiny", { environment: hub.environment })).rejects.toThrow(/100 bytes arrived, 5000 were announced/);
    expect(existsSync(join(hub.folder, "hub", "models--acme--tiny", "blobs", sha256(WEIGHTS)))).toBe(false);
    hub.weights = WEIGHTS;
    await resolveHubModel("acme/tiny", { environment: hub.environment });
  });

  test("list shows it, info describes what is in the package, remove frees it", async () => {
    const { environment } = await fakeHub();
    await resolveHubModel("acme/tiny", { environment });
    const list = await runCli(["models", "list"], { environment });
    expect(list.out).toMatch(/acme\/tiny .* in the cache, 5\.0 kB/);
    expect(list.out).toMatch(/bundled:toto2-nano .* in the package/);
    const info = await runCli(["models", "info", "bundled:toto2-nano", "--json"], { environment });
    expect(JSON.parse(info.out)).toMatchObject({
      reference: "bundled:toto2-nano",
      family: "Toto 2.0",
      parameters: expect.any(Number) as number,
    });
    expect(await runCli(["models", "remove", "acme/tiny"], { environment })).toMatchObject({
      code: 0,
      error: "tempograph: removed acme/tiny, 5.0 kB\n",
    });
    expect(await runCli(["models", "remove", "acme/tiny"], { environment })).toMatchObject({ code: 2, out: "" });
    expect((await runCli(["models", "list", "--json"], { environment })).out).not.toContain("acme");
  });

  test.each([
    ["an unknown id", "acme/none", [], /has no model acme\/none at main .*404/],
    ["an unknown revision", "acme/tiny", ["--revision", "nowhere"], /at nowhere/],
    ["no id", "tiny", [], /no hub id: expected OWNER\/NAME/],
    ["a revision that climbs", "acme/tiny", ["--revision", "../x"], /no revision/],
    ["offline", "acme/tiny", ["--offline"], /downloads are switched off/],
  ])("mistakes: %s", async (_, id, flags, message) => {
    const { environment } = await fakeHub();
    const run = await runCli(["models", "pull", id, ...flags], { environment });
    expect(run).toMatchObject({ code: 2, out: "" });
    expect(run.error).toMatch(message);
    expect(run.error).toMatch(/^tempograph: [^\n]+\n$/);
  });

  test("no hub at all, and an aborted download", async () => {
    const { environment, close } = await fakeHub();
    close();
    await expect(resolveHubModel("acme/tiny", { environment })).rejects.toMatchObject({ code: "hub-unreachable" });
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(resolveHubModel("acme/tiny", { environment, signal })).rejects.toThrow(/enough/);
  });

  test("where the cache is; what reads as an id", () => {
    expect(hubCacheFolder({ HF_HUB_CACHE: "/a" })).toBe("/a");
    expect(hubCacheFolder({ HF_HOME: "/a" })).toBe("/a/hub");
    expect(hubCacheFolder({ XDG_CACHE_HOME: "/c" })).toBe("/c/huggingface/hub");
    expect(hubCacheFolder({ HOME: "/h" })).toBe("/h/.cache/huggingface/hub");
    expect(["a/b", "Datadog/Toto-Open-Base-1.0"].map(isHubId)).toEqual([true, true]);
    expect(["bundled:x", "./a/b", "/a/b", "a", "a/b/c", "../b", "src/cli"].map(isHubId)).toEqual(new Array(7).fill(false));
  });
});

describe("shell completion", () => {
  test("bash offers commands, sub-commands and flags", async () => {
    const { out } = await runCli(["completion", "bash"]);
    const complete = (...words: string[]): string[] =>
      execFileSync("bash", [
        "-c",
        `${out}\nCOMP_WORDS=(tempograph ${words.map((word) => `"${word}"`).join(" ")}); COMP_CWORD=${words.length}; _tempograph; echo "\${COMPREPLY[*]}"`,
      ])
        .toString()
        .trim()
        .split(" ");
    expect(complete("fo")).toEqual(["forecast"]);
    expect(complete("models", "")).toEqual(expect.arrayContaining(["list", "info", "pull", "remove"]));
    expect(complete("forecast", "--hor")).toEqual(["--horizon"]);
    expect(complete("models", "pull", "--rev")).toEqual(["--revision"]);
  });

  test("zsh and fish are there, others are refused", async () => {
    expect((await runCli(["completion", "zsh"])).out).toContain("bashcompinit");
    expect((await runCli(["completion", "fish"])).out).toMatch(/__fish_seen_subcommand_from forecast.*--horizon/);
    expect(await runCli(["completion", "tcsh"])).toMatchObject({ code: 2, out: "" });
  });
});
