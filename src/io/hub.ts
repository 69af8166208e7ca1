/**
 * Models of a hub in the cache folder that Python's tools share: found there, or downloaded with resume, size and checksum checks.
 * Knows ids, revisions and files; nothing of what is in them.
 */
import { createHash } from "node:crypto";
import {
  createReadStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, relative } from "node:path";
import { InputError } from "./errors.js";

export type HubEnvironment = Readonly<Record<string, string | undefined>>;

export interface HubOptions {
  /** Branch, tag or commit. Default "main". */
  readonly revision?: string;
  /** Use the cache only. Default: HF_HUB_OFFLINE. */
  readonly offline?: boolean;
  /** Ask the hub even when the cache has the revision: branches move. Default false. */
  readonly refresh?: boolean;
  /** Where HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are read. */
  readonly environment: HubEnvironment;
  readonly signal?: AbortSignal;
  /** Bytes of all wanted files, those already there included. */
  readonly onProgress?: (done: number, total: number) => void;
}

export interface CachedModel {
  readonly id: string;
  /** Branches and tags with the commit they meant when they were last looked at. */
  readonly revisions: Readonly<Record<string, string>>;
  readonly commits: readonly string[];
  /** Bytes on disk. */
  readonly bytes: number;
}

interface WantedFile {
  readonly path: string;
  readonly size: number;
  /** Name of the blob: sha256 of large files, the git object id of others. */
  readonly etag: string;
  readonly isLarge: boolean;
}

const idPattern = /^[\w][\w.-]*\/[\w][\w.-]*$/;
const commitPattern = /^[0-9a-f]{40}$/;

/** Whether a model reference reads as a hub id: two names with a slash, and no such folder here. */
export function isHubId(reference: string): boolean {
  return idPattern.test(reference) && !reference.includes("..") && !existsSync(reference);
}

/** The folder that Python's tools use too. */
export function hubCacheFolder(environment: HubEnvironment): string {
  const named = environment["HF_HUB_CACHE"] ?? environment["HUGGINGFACE_HUB_CACHE"];
  if (named !== undefined && named !== "") return named;
  const caches = environment["XDG_CACHE_HOME"] ?? join(environment["HOME"] ?? homedir(), ".cache");
  return join(environment["HF_HOME"] ?? join(caches, "huggingface"), "hub");
}

/**
 * A folder with the model's config.json and weights at `revision`: from the cache when it is complete there, else downloaded.
 * Rejects with `InputError` for an unknown id or revision, a hub that cannot be reached, a damaged download, and what is missing offline.
 */
export async function resolveHubModel(id: string, options: HubOptions): Promise<string> {
  if (!idPattern.test(id)) throw new InputError("hub-id", `"${id}" is no hub id: expected OWNER/NAME, such as Datadog/Toto-Open-Base-1.0`);
  const revision = options.revision ?? "main";
  if (!/^[\w][\w./-]*$/.test(revision) || revision.includes(".."))
    throw new InputError("hub-revision", `"${revision}" is no revision: expected a branch, tag or commit`);
  const storage = storageFolder(id, options.environment);
  const cached = cachedSnapshot(storage, revision);
  if (cached !== undefined && options.refresh !== true) return cached;
  if (options.offline ?? ["1", "true", "yes", "on"].includes(options.environment["HF_HUB_OFFLINE"]?.toLowerCase() ?? "")) {
    throw new InputError(
      "hub-offline",
      `${id} at ${revision} is not in the cache (${storage}), and downloads are switched off: run tempograph models pull ${id} first`,
    );
  }
  return download(id, revision, storage, options);
}

/** Every model in the cache, by id. */
export function cachedModels(environment: HubEnvironment): CachedModel[] {
  const folder = hubCacheFolder(environment);
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.startsWith("models--"))
    .sort()
    .map((name) => {
      const storage = join(folder, name);
      const refs = existsSync(join(storage, "refs")) ? readdirSync(join(storage, "refs")) : [];
      return {
        id: name.slice("models--".length).replace("--", "/"),
        revisions: Object.fromEntries(
          refs.filter((ref) => statSync(join(storage, "refs", ref)).isFile()).map((ref) => [ref, readText(join(storage, "refs", ref))]),
        ),
        commits: existsSync(join(storage, "snapshots")) ? readdirSync(join(storage, "snapshots")) : [],
        bytes: bytesIn(join(storage, "blobs")),
      };
    });
}

/** Deletes a model from the cache; returns the bytes freed. Throws `InputError` when it is not there. */
export function removeCachedModel(id: string, environment: HubEnvironment): number {
  if (!idPattern.test(id)) throw new InputError("hub-id", `"${id}" is no hub id: expected OWNER/NAME`);
  const storage = storageFolder(id, environment);
  if (!existsSync(storage))
    throw new InputError("hub-missing", `${id} is not in the cache (${storage}); tempograph models list shows what is`);
  const bytes = bytesIn(join(storage, "blobs"));
  rmSync(storage, { recursive: true });
  return bytes;
}

function storageFolder(id: string, environment: HubEnvironment): string {
  return join(hubCacheFolder(environment), `models--${id.replace("/", "--")}`);
}

/** The snapshot that `revision` means in the cache, when it has a configuration and weights whose links lead somewhere. */
function cachedSnapshot(storage: string, revision: string): string | undefined {
  const reference = join(storage, "refs", revision);
  const commit = commitPattern.test(revision) ? revision : existsSync(reference) ? readText(reference) : undefined;
  if (commit === undefined) return undefined;
  const folder = join(storage, "snapshots", commit);
  if (!existsSync(join(folder, "config.json"))) return undefined;
  const index = join(folder, "model.safetensors.index.json");
  if (existsSync(join(folder, "model.safetensors"))) return folder;
  if (!existsSync(index)) return undefined;
  const shards = new Set(Object.values((JSON.parse(readText(index)) as { weight_map?: Record<string, string> }).weight_map ?? {}));
  return shards.size > 0 && [...shards].every((name) => existsSync(join(folder, name))) ? folder : undefined;
}

async function download(id: string, revision: string, storage: string, options: HubOptions): Promise<string> {
  const hub = await import("@huggingface/hub");
  const hubUrl = (options.environment["HF_ENDPOINT"] ?? "https://huggingface.co").replace(/\/$/, "");
  const token = options.environment["HF_TOKEN"];
  const credentials = token === undefined || token === "" ? {} : { accessToken: token };
  const withSignal: typeof fetch = (input, init) =>
    fetch(input, { ...init, ...(options.signal === undefined ? {} : { signal: options.signal }) });
  const files: WantedFile[] = [];
  let commit: string;
  try {
    const info = await hub.modelInfo({ name: id, revision, additionalFields: ["sha"], hubUrl, fetch: withSignal, ...credentials });
    commit = info.sha ?? "";
    for await (const entry of hub.listFiles({ repo: id, revision: commit, hubUrl, fetch: withSignal, ...credentials })) {
      if (entry.type !== "file" || !/^(config\.json|[\w.-]+\.safetensors|model\.safetensors\.index\.json)$/.test(entry.path)) continue;
      files.push({
        path: entry.path,
        size: entry.lfs?.size ?? entry.size,
        etag: entry.lfs?.oid ?? entry.oid ?? "",
        isLarge: entry.lfs !== undefined,
      });
    }
  } catch (error) {
    throw hubError(error, id, revision, hubUrl, options);
  }
  if (!commitPattern.test(commit)) throw new InputError("hub-answer", `${hubUrl} answered no commit for ${id} at ${revision}`);
  for (const needed of ["config.json", ".safetensors"]) {
    if (!files.some(({ path }) => path.endsWith(needed))) {
      throw new InputError(
        "hub-files",
        `${id} at ${revision} has no ${needed === "config.json" ? needed : "*.safetensors file"}: it is no model that can be run here`,
      );
    }
  }
  const folder = join(storage, "snapshots", commit);
  mkdirSync(join(storage, "blobs"), { recursive: true });
  mkdirSync(folder, { recursive: true });
  const total = files.reduce((sum, { size }) => sum + size, 0);
  let before = 0;
  for (const file of files) {
    const blob = join(storage, "blobs", file.etag);
    if (!existsSync(blob) || statSync(blob).size !== file.size) {
      const url = `${hubUrl}/${id}/resolve/${commit}/${file.path}`;
      const headers: Record<string, string> = token === undefined || token === "" ? {} : { authorization: `Bearer ${token}` };
      try {
        await fetchBlob(url, headers, blob, file, withSignal, (done) => options.onProgress?.(before + done, total));
      } catch (error) {
        throw hubError(error, id, revision, hubUrl, options);
      }
    }
    before += file.size;
    options.onProgress?.(before, total);
    const link = join(folder, file.path);
    rmSync(link, { force: true });
    symlinkSync(relative(dirname(link), blob), link);
  }
  if (revision !== commit) {
    const reference = join(storage, "refs", revision);
    mkdirSync(dirname(reference), { recursive: true });
    writeFileSync(reference, commit);
  }
  return folder;
}

/** Appends to what an earlier attempt left, checks size and checksum, then gives the file its name. */
async function fetchBlob(
  url: string,
  headers: Record<string, string>,
  blob: string,
  file: WantedFile,
  fetchFile: typeof fetch,
  onProgress: (done: number) => void,
): Promise<void> {
  const partial = `${blob}.incomplete`;
  let done = statSync(partial, { throwIfNoEntry: false })?.size ?? 0;
  if (done > file.size) {
    rmSync(partial);
    done = 0;
  }
  if (done < file.size || file.size === 0) {
    const response = await fetchFile(url, { headers: { ...headers, ...(done > 0 ? { range: `bytes=${done}-` } : {}) } });
    if (!response.ok || response.body === null) throw new Error(`${file.path}: the hub answered ${response.status} ${response.statusText}`);
    // A server that ignores the range sends the whole file.
    if (response.status !== 206) done = 0;
    const target = await open(partial, done > 0 ? "a" : "w");
    try {
      for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
        await target.write(chunk);
        done += chunk.length;
        onProgress(done);
      }
      await target.sync();
    } finally {
      await target.close();
    }
  }
  if (done !== file.size)
    throw new InputError(
      "hub-download",
      `${file.path}: ${done} bytes arrived, ${file.size} were announced; try again, the download goes on where it stopped`,
    );
  const hash = file.isLarge ? createHash("sha256") : createHash("sha1").update(`blob ${file.size}\0`);
  for await (const chunk of createReadStream(partial)) hash.update(chunk as Uint8Array);
  const found = hash.digest("hex");
  if (found !== file.etag) {
    rmSync(partial);
    throw new InputError(
      "hub-download",
      `${file.path}: its checksum is ${found}, the hub announced ${file.etag}; the download was dropped, try again`,
    );
  }
  renameSync(partial, blob);
}

function hubError(error: unknown, id: string, revision: string, hubUrl: string, { signal }: HubOptions): unknown {
  if (signal?.aborted === true || error instanceof InputError) return error;
  const status = error instanceof Error && "statusCode" in error ? Number(error.statusCode) : undefined;
  if (status === 401 || status === 403 || status === 404) {
    return new InputError(
      "hub-unknown",
      `${hubUrl} has no model ${id} at ${revision} that may be read (${status}): check id and revision, or set HF_TOKEN for a private model`,
      { cause: error },
    );
  }
  const cause = error instanceof Error && error.cause instanceof Error ? `: ${error.cause.message}` : "";
  const message = error instanceof Error ? error.message : String(error);
  return new InputError(
    "hub-unreachable",
    `${id} could not be downloaded from ${hubUrl} (${message}${cause}); there is no folder of that name here either`,
    { cause: error },
  );
}

function bytesIn(folder: string): number {
  if (!existsSync(folder)) return 0;
  return readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
}

function readText(path: string): string {
  return readFileSync(path, "utf8").trim();
}
