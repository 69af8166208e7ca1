/**
 * Opening a file that the user named and reading it by position, with errors that say what is wrong with it.
 * Knows nothing of formats.
 */

import { closeSync, fstatSync, openSync, readSync, statSync } from "node:fs";
import type { Stats } from "node:fs";
import { InputError } from "./errors.js";

/** Largest single read the platform takes reliably. */
const longestRead = 1 << 30;

export interface OpenFile {
  readonly path: string;
  /** Size in bytes when it was opened. */
  readonly size: number;
  /** Fills `target` from byte `position` on; throws `InputError` when the file ends first. */
  readInto(target: Uint8Array, position: number): void;
  /** Releases the descriptor; a second call does nothing. */
  close(): void;
}

export function reasonOf(error: unknown): string {
  if (error instanceof Error && "code" in error) {
    if (error.code === "ENOENT") return "it does not exist";
    if (error.code === "EACCES" || error.code === "EPERM") return "permission denied";
    if (error.code === "ENOTDIR") return "a part of the path is not a folder";
  }
  return error instanceof Error ? error.message : String(error);
}

/** Says what a path is when it is not a plain file. */
function kindOf(stats: Stats): string {
  if (stats.isDirectory()) return "a folder";
  if (stats.isFIFO()) return "a pipe";
  if (stats.isSocket()) return "a socket";
  return stats.isCharacterDevice() || stats.isBlockDevice() ? "a device" : "not a plain file";
}

/** Throws `InputError` unless `path` is an existing regular file (or a link to one). `what` names its role: "safetensors file". */
export function checkRegularFile(path: string, what: string): void {
  let stats: Stats;
  try {
    stats = statSync(path);
  } catch (error) {
    throw new InputError("file-missing", `cannot open ${what} ${path}: ${reasonOf(error)}`, { cause: error });
  }
  if (!stats.isFile()) throw new InputError("file-kind", `cannot open ${what} ${path}: it is ${kindOf(stats)}, expected a regular file`);
}

/** Opens a regular file for positional reads. Whoever receives it closes it. */
export function openRegularFile(path: string, what: string): OpenFile {
  // Looked at first because opening a pipe would block.
  checkRegularFile(path, what);
  let descriptor: number;
  try {
    descriptor = openSync(path, "r");
  } catch (error) {
    throw new InputError("file-unreadable", `cannot open ${what} ${path}: ${reasonOf(error)}`, { cause: error });
  }
  let isOpen = true;
  const { size } = fstatSync(descriptor);
  return {
    path,
    size,
    readInto(target, position) {
      if (!isOpen) throw new Error(`${what} ${path} was closed`);
      for (let done = 0; done < target.length;) {
        const read = readSync(descriptor, target, done, Math.min(target.length - done, longestRead), position + done);
        if (read === 0) {
          throw new InputError(
            "file-truncated",
            `${what} ${path} ended at byte ${position + done}, expected ${position + target.length} bytes`,
          );
        }
        done += read;
      }
    },
    close() {
      if (isOpen) closeSync(descriptor);
      isOpen = false;
    },
  };
}
