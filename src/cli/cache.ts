/** `tempograph cache list|clear`: what the folder of compiled kernels holds, and removing all of it or what was not used for longest. */
import { InputError } from "../forecast/errors.js";
import { cacheDirectory, cacheEntries, clearCache, parseSize, pruneCache } from "../internals.js";
import { note, type CliContext } from "./context.js";
import { bytes } from "./numbers.js";
import { renderTable } from "./table.js";

export interface CacheFlags {
  json?: boolean;
  all?: boolean;
  keep?: string;
  quiet?: boolean;
}

/** Rows that people see unless they ask for all. */
const SHOWN = 20;

export function runCacheList(flags: CacheFlags, context: CliContext): number {
  const folder = cacheDirectory(context.environment);
  const entries = cacheEntries(folder).reverse();
  const total = entries.reduce((sum, entry) => sum + entry.bytes, 0);
  if (flags.json) {
    const rows = entries.map(({ name, files, bytes: size, usedAt }) => ({
      name,
      files,
      bytes: size,
      used: new Date(usedAt).toISOString(),
    }));
    context.writeOut(`${JSON.stringify({ folder, bytes: total, entries: rows }, null, 2)}\n`);
    return 0;
  }
  const shown = flags.all ? entries : entries.slice(0, SHOWN);
  const schedules = entries.filter(({ files }) => files.every((file) => file.endsWith(".json"))).length;
  const kernels = `${entries.length - schedules} kernels${schedules === 0 ? "" : `, ${schedules} chosen schedules`}`;
  context.writeOut(`${folder}: ${kernels}, ${bytes(total)}\n`);
  if (shown.length === 0) return 0;
  const table = renderTable(
    [{ title: "kernel" }, { title: "size", align: "right" }, { title: "last used" }],
    shown.map((entry) => [entry.name, bytes(entry.bytes), new Date(entry.usedAt).toISOString().slice(0, 16).replace("T", " ")]),
  );
  context.writeOut(`${table}\n`);
  if (shown.length < entries.length) context.writeOut(`and ${entries.length - shown.length} more: --all shows them\n`);
  return 0;
}

export function runCacheClear(flags: CacheFlags, context: CliContext): number {
  const folder = cacheDirectory(context.environment);
  const keep = flags.keep === undefined ? undefined : parseSize(flags.keep);
  if (flags.keep !== undefined && keep === undefined)
    throw new InputError("cache-size", `--keep "${flags.keep}" is no size: write it like 500MB or 2GB`);
  const removed = keep === undefined ? clearCache(folder) : pruneCache(folder, keep);
  if (!flags.quiet) note(context, `${folder}: removed ${removed.entries} kernels, ${bytes(removed.bytes)}`);
  return 0;
}
