/**
 * What lies in a folder of compiled libraries, and making it smaller: least recently used first. Touches files of the cache's own naming only, so that a folder named
 * by mistake keeps everything else. Must not know how entries are found or built.
 */
import { lstatSync, readdirSync, rmSync, utimesSync } from "node:fs";
import { join } from "node:path";

/** One compiled unit, its libraries (one per compiler) and its C text; or one record. */
export interface CacheEntry {
  /** Readable stem with the hash of its source. */
  readonly name: string;
  readonly files: readonly string[];
  readonly bytes: number;
  /** Last time it was built or taken from the cache, in ms since 1970. */
  readonly usedAt: number;
}

const entryFile = /^(.+-[0-9a-f]{16})(?:-[0-9a-z]{1,8}-[0-9a-f]{32}\.so|-[0-9a-f]{32}\.json|\.c)$/;
const sideFile = /^compiler-[0-9a-f]{16}\.txt$|\.tmp-[\w-]+$/;
const dayMilliseconds = 24 * 60 * 60 * 1000;
/** A pruned folder has this share of its bound, so that pruning is rare. */
const prunedShare = 0.8;
/** Entries used this recently may be in use by a process that is starting. */
const youngMilliseconds = 10 * 60 * 1000;

/** Entries of a folder, least recently used first; a folder that is not there has none. */
export function cacheEntries(folder: string): CacheEntry[] {
  const entries = new Map<string, { files: string[]; bytes: number; usedAt: number }>();
  for (const file of filesOf(folder)) {
    const name = entryFile.exec(file)?.[1];
    const found = name === undefined ? undefined : lstatSync(join(folder, file), { throwIfNoEntry: false });
    if (name === undefined || !found?.isFile()) continue;
    const entry = entries.get(name) ?? { files: [], bytes: 0, usedAt: 0 };
    entry.files.push(file);
    entry.bytes += found.size;
    entry.usedAt = Math.max(entry.usedAt, found.atimeMs, found.mtimeMs);
    entries.set(name, entry);
  }
  return [...entries].map(([name, entry]) => ({ name, ...entry })).sort((a, b) => a.usedAt - b.usedAt || (a.name < b.name ? -1 : 1));
}

function filesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

export interface Removed {
  readonly entries: number;
  readonly bytes: number;
}

const removeEntries = (folder: string, entries: readonly CacheEntry[]): Removed => {
  for (const { files } of entries) for (const file of files) rmSync(join(folder, file), { force: true });
  return { entries: entries.length, bytes: entries.reduce((sum, { bytes }) => sum + bytes, 0) };
};

/** Removes every entry and what the cache keeps beside them; other files stay. */
export function clearCache(folder: string): Removed {
  const removed = removeEntries(folder, cacheEntries(folder));
  for (const file of filesOf(folder)) if (sideFile.test(file)) rmSync(join(folder, file), { force: true });
  return removed;
}

/** Removes least recently used entries until the rest takes at most `bound` bytes; nothing when it does already. Entries used after `young` stay. */
export function pruneCache(folder: string, bound: number, { share = 1, young = Infinity } = {}): Removed {
  const entries = cacheEntries(folder);
  let total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  if (total <= bound) return { entries: 0, bytes: 0 };
  const goners: CacheEntry[] = [];
  for (const entry of entries) {
    if (total <= bound * share || entry.usedAt > young) break;
    goners.push(entry);
    total -= entry.bytes;
  }
  return removeEntries(folder, goners);
}

/** Pruning as the cache itself does it after adding: well below the bound, and nothing that was just used. */
export const pruneQuietly = (folder: string, bound: number): Removed =>
  pruneCache(folder, bound, { share: prunedShare, young: Date.now() - youngMilliseconds });

/** Notes that an entry was used, at most once a day: file systems do not keep access times reliably. */
export function markUsed(path: string, now = Date.now()): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found || now - Math.max(found.atimeMs, found.mtimeMs) < dayMilliseconds) return;
  try {
    utimesSync(path, new Date(now), found.mtime);
  } catch {
    // A folder that may only be read still serves its artifacts.
  }
}

const unitBytes: Readonly<Record<string, number>> = { "": 1, b: 1, k: 1e3, kb: 1e3, m: 1e6, mb: 1e6, g: 1e9, gb: 1e9 };

/** Bytes of a size as people write it: 500MB, 2 GB, 1000; undefined when it is none. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?) ?([a-z]*)$/i.exec(text.trim());
  const unit = match && unitBytes[(match[2] ?? "").toLowerCase()];
  return match && unit !== undefined && unit !== null ? Math.round(Number(match[1]) * unit) : undefined;
}
