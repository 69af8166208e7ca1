/**
 * The folder of compiled libraries and of records about them: where it is, who may write to it, and how entries are found, checked and added.
 * An entry's file name carries the hash of its own bytes, so one rename adds it whole and a damaged one is recognised by reading it.
 * Must not know what the libraries hold or how they are compiled.
 */
import { createHash, randomUUID } from "node:crypto";
import {
  closeSync,
  existsSync,
  fchmodSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  type Stats,
} from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { markUsed, parseSize, pruneQuietly } from "./cache-maintenance.js";
import type { Environment } from "./compiler.js";
import { NativeError } from "./errors.js";

/** Part of every key: raised when the runtime's contract with compiled kernels changes. */
export const artifactFormat = "tempograph-native-1";

const staleMilliseconds = 60 * 60 * 1000;

export function sha256(...parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash("sha256");
  // A length before each part keeps ("ab","c") and ("a","bc") apart.
  for (const part of parts) hash.update(`${typeof part === "string" ? Buffer.byteLength(part) : part.byteLength}:`).update(part);
  return hash.digest("hex");
}

/** `$TEMPOGRAPH_CACHE_DIR`, else `$XDG_CACHE_HOME/tempograph`, else `~/.cache/tempograph`. */
export function cacheDirectory(environment: Environment): string {
  const own = environment["TEMPOGRAPH_CACHE_DIR"];
  if (own) return resolve(own);
  return join(environment["XDG_CACHE_HOME"] || join(environment["HOME"] || homedir(), ".cache"), "tempograph");
}

/** Names one artifact. `source` covers text, flags and CPU; `compiler` the compiler's identity, or undefined to accept any compiler's. */
export interface ArtifactKey {
  /** Readable stem; characters that don't belong in a file name are replaced. */
  readonly name: string;
  readonly source: string;
  readonly compiler: string | undefined;
}

/** Names one record: a readable stem and a hash of what it is about. */
export type RecordKey = Pick<ArtifactKey, "name" | "source">;

function stemOf(key: RecordKey): string {
  return `${key.name.replace(/[^A-Za-z0-9_.]+/g, "_").slice(0, 100)}-${key.source.slice(0, 16)}`;
}

function systemReason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Bytes the folder may take before its least recently used entries go. */
const defaultBound = 2e9;
const addsBetweenPrunes = 256;

/** `$TEMPOGRAPH_CACHE_SIZE` in bytes, else 2 GB. */
export const cacheBound = (environment: Environment): number => parseSize(environment["TEMPOGRAPH_CACHE_SIZE"] ?? "") ?? defaultBound;

/** Creates a folder and those above it, one by one: the recursive form of mkdir never ends where the system answers "no such file" below an existing folder. */
function makeFolders(directory: string): void {
  if (existsSync(directory) && statSync(directory).isDirectory()) return;
  const parent = dirname(directory);
  if (parent !== directory) makeFolders(parent);
  try {
    mkdirSync(directory, { mode: 0o700 });
  } catch (error) {
    // Another process may have been faster; a file of that name is no folder.
    if ((error as NodeJS.ErrnoException).code !== "EEXIST" || !statSync(directory).isDirectory()) throw error;
  }
}

export class ArtifactCache {
  private added = 0;
  /** Names in the folder when it was last read. */
  private names: readonly string[] | undefined;

  private constructor(
    readonly directory: string,
    private readonly onRebuild: (line: string) => void,
    private readonly bound: number,
  ) {}

  /**
   * Opens the folder, creating it for the user alone (0700). Throws `cache-unwritable` when it cannot be created and `cache-unsafe` when
   * it belongs to somebody else or others may write to it: a shared library in it is code that this process runs.
   * `onRebuild` hears one line per damaged entry, and when entries go because the folder is larger than `bound` bytes.
   */
  static open(directory: string, onRebuild: (line: string) => void, bound = defaultBound): ArtifactCache {
    try {
      makeFolders(directory);
    } catch (error) {
      throw unwritable(directory, "cannot be created", error);
    }
    const found = statSync(directory);
    const user = process.getuid?.();
    if (user !== undefined && found.uid !== user) {
      throw new NativeError(
        "cache-unsafe",
        `The artifact cache ${directory} belongs to user ${found.uid}, not to user ${user} who runs this process; compiled code from it is not trusted. Set TEMPOGRAPH_CACHE_DIR to a folder of your own.`,
      );
    }
    if ((found.mode & 0o022) !== 0) {
      const mode = (found.mode & 0o777).toString(8);
      throw new NativeError(
        "cache-unsafe",
        `The artifact cache ${directory} has mode ${mode}: others may write to it, and it holds code that this process runs. Run "chmod go-w ${directory}", or set TEMPOGRAPH_CACHE_DIR to a folder of your own.`,
      );
    }
    const cache = new ArtifactCache(directory, onRebuild, bound);
    cache.removeStaleFiles();
    return cache;
  }

  /** Path of a whole, unchanged entry, or undefined. A damaged or foreign one is removed, reported, and answers undefined. */
  find(key: ArtifactKey): { readonly path?: string; readonly damaged: boolean } {
    return this.findEntry(`${stemOf(key)}-${key.compiler === undefined ? "" : `${key.compiler.slice(0, 8)}-`}`, ".so", "built");
  }

  /**
   * Looks among the names seen last, and reads the folder again when none of them serves: a start asks for dozens of entries, and a folder may hold thousands.
   * Entries that went meanwhile are passed over.
   */
  private findEntry(prefix: string, ending: ".so" | ".json", made: string): { readonly path?: string; readonly damaged: boolean } {
    const known = this.names;
    const found = known ? this.findAmong(known, prefix, ending, made) : { damaged: false };
    if (found.path !== undefined || found.damaged) return found;
    return this.findAmong((this.names = readdirSync(this.directory)), prefix, ending, made);
  }

  private findAmong(
    names: readonly string[],
    prefix: string,
    ending: ".so" | ".json",
    made: string,
  ): { readonly path?: string; readonly damaged: boolean } {
    let damaged = false;
    for (const file of names) {
      if (!file.startsWith(prefix) || !file.endsWith(ending)) continue;
      const path = join(this.directory, file);
      const entry = lstatSync(path, { throwIfNoEntry: false });
      if (!entry) continue;
      const problem = this.problemOf(path, entry);
      if (problem === undefined) {
        markUsed(path);
        return { path, damaged };
      }
      damaged = true;
      this.onRebuild(`artifact cache: ${path} ${problem}; it is removed and ${made} again`);
      this.discard(path);
    }
    return { damaged };
  }

  /** A whole, unchanged record; undefined when there is none. A damaged or foreign one is removed and reported. */
  findRecord(key: RecordKey): string | undefined {
    const { path } = this.findEntry(`${stemOf(key)}-`, ".json", "made");
    return path === undefined ? undefined : readFileSync(path, "utf8");
  }

  /** Adds a record under its checksum, in place of those it had before. */
  addRecord(key: RecordKey, text: string): void {
    const prefix = `${stemOf(key)}-`;
    const name = `${prefix}${sha256(text).slice(0, 32)}.json`;
    try {
      replaceFile(join(this.directory, name), text);
      for (const file of readdirSync(this.directory))
        if (file.startsWith(prefix) && file.endsWith(".json") && file !== name) rmSync(join(this.directory, file), { force: true });
    } catch (error) {
      throw unwritable(this.directory, "cannot be written", error);
    }
  }

  private problemOf(path: string, found: Stats): string | undefined {
    if (!found.isFile()) return "is not a plain file";
    if ((process.getuid && found.uid !== process.getuid()) || (found.mode & 0o022) !== 0) return "could be written by others";
    const checksum = /([0-9a-f]{32})\.\w+$/.exec(path)?.[1];
    return sha256(readFileSync(path)).slice(0, 32) === checksum ? undefined : "is damaged (its checksum differs)";
  }

  /** Removes an entry that must not be used again. */
  discard(path: string): void {
    try {
      rmSync(path, { force: true, recursive: true });
    } catch (error) {
      throw unwritable(this.directory, "cannot be written", error);
    }
  }

  /** Writes the C text beside its artifact, where a debugger and a person find it; returns its path. */
  writeSource(key: ArtifactKey, text: string): string {
    const path = join(this.directory, `${stemOf(key)}.c`);
    try {
      replaceFile(path, text);
    } catch (error) {
      throw unwritable(this.directory, "cannot be written", error);
    }
    return path;
  }

  /** Path of the C text that `writeSource` wrote; undefined when there is none. */
  sourcePath(key: ArtifactKey): string | undefined {
    const path = join(this.directory, `${stemOf(key)}.c`);
    return existsSync(path) ? path : undefined;
  }

  /** Where a compiler may write before `add`; inside the folder, so that the rename is atomic. */
  temporaryPath(key: ArtifactKey): string {
    return join(this.directory, `${stemOf(key)}.so.${temporarySuffix()}`);
  }

  /** Takes a finished file in under its checksum; returns its lasting path. */
  add(key: ArtifactKey, temporary: string): string {
    try {
      const path = this.entryPath(key, readFileSync(temporary));
      const file = openSync(temporary, "r");
      try {
        fchmodSync(file, 0o700);
        fsyncSync(file);
      } finally {
        closeSync(file);
      }
      renameSync(temporary, path);
      this.keepWithinBound();
      return path;
    } catch (error) {
      throw unwritable(this.directory, "cannot be written", error);
    }
  }

  /** Looks at the folder's size with the first artifact it adds and then now and again; never fails the build. */
  private keepWithinBound(): void {
    if (this.added++ % addsBetweenPrunes !== 0) return;
    try {
      const { entries, bytes } = pruneQuietly(this.directory, this.bound);
      if (entries > 0)
        this.onRebuild(
          `artifact cache: removed ${entries} kernels (${bytes} bytes) that were not used for longest; its bound is ${this.bound} bytes`,
        );
    } catch {
      // Another process may be pruning at the same time.
    }
  }

  private entryPath(key: ArtifactKey, bytes: Uint8Array): string {
    return join(this.directory, `${stemOf(key)}-${(key.compiler ?? "unknown").slice(0, 8)}-${sha256(bytes).slice(0, 32)}.so`);
  }

  /** A short remembered text, such as a compiler's version; undefined when there is none. */
  recall(name: string): string | undefined {
    try {
      return readFileSync(join(this.directory, `${name}.txt`), "utf8");
    } catch {
      return undefined;
    }
  }

  /** Remembers a text. Failing to is no error: it only costs asking again. */
  remember(name: string, text: string): void {
    try {
      replaceFile(join(this.directory, `${name}.txt`), text);
    } catch {
      // Nothing to undo: replaceFile leaves no part behind.
    }
  }

  /** What a process that was killed left behind. */
  private removeStaleFiles(): void {
    for (const file of readdirSync(this.directory)) {
      if (!/\.tmp-[\w-]+$/.test(file)) continue;
      const path = join(this.directory, file);
      const found = lstatSync(path, { throwIfNoEntry: false });
      if (!found || Date.now() - found.mtimeMs <= staleMilliseconds) continue;
      try {
        rmSync(path, { force: true });
      } catch {
        // A folder that may only be read still serves its artifacts.
      }
    }
  }
}

function temporarySuffix(): string {
  return `tmp-${randomUUID()}`;
}

/** Whole or not at all, whoever else writes the same file at the same time. */
function replaceFile(path: string, text: string): void {
  const temporary = `${path}.${temporarySuffix()}`;
  try {
    writeFileSync(temporary, text, { mode: 0o600, flag: "wx" });
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

function unwritable(directory: string, what: string, error: unknown): NativeError {
  return new NativeError(
    "cache-unwritable",
    `The artifact cache ${directory} ${what} (${systemReason(error)}). Set TEMPOGRAPH_CACHE_DIR to a writable folder of your own.`,
    { cause: error },
  );
}
