/**
 * Writing a file so that it appears complete or not at all: a temporary neighbour, flushed, then renamed.
 * Knows nothing of formats.
 */

import { randomBytes } from "node:crypto";
import { closeSync, fsyncSync, openSync, renameSync, statSync, unlinkSync, writeSync } from "node:fs";
import { InputError } from "./errors.js";
import { reasonOf } from "./regular-file.js";

/** Runs `fill` with a function that appends bytes. If anything throws, `path` is untouched and the temporary file is gone. */
export function writeAtomically(path: string, fill: (write: (bytes: Uint8Array) => void) => void): void {
  const found = statSync(path, { throwIfNoEntry: false });
  // A device or pipe is written to, never replaced by a file of its name.
  if (found !== undefined && !found.isFile() && !found.isDirectory()) return writeThrough(path, fill);
  const temporary = `${path}.${randomBytes(6).toString("hex")}.partial`;
  let descriptor: number;
  try {
    descriptor = openSync(temporary, "wx");
  } catch (error) {
    throw new InputError("file-unwritable", `cannot write ${path}: ${reasonOf(error)}`, { cause: error });
  }
  try {
    try {
      fill((bytes) => {
        for (let done = 0; done < bytes.length;) done += writeSync(descriptor, bytes, done, Math.min(bytes.length - done, 1 << 30));
      });
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(temporary, path);
  } catch (error) {
    unlinkSync(temporary);
    if (error instanceof Error && "syscall" in error) {
      throw new InputError("file-unwritable", `cannot write ${path}: ${reasonOf(error)}`, { cause: error });
    }
    throw error;
  }
}

function writeThrough(path: string, fill: (write: (bytes: Uint8Array) => void) => void): void {
  let descriptor: number | undefined;
  try {
    const opened = (descriptor = openSync(path, "w"));
    fill((bytes) => {
      for (let done = 0; done < bytes.length;) done += writeSync(opened, bytes, done, Math.min(bytes.length - done, 1 << 30));
    });
  } catch (error) {
    if (!(error instanceof Error && "syscall" in error)) throw error;
    throw new InputError("file-unwritable", `cannot write ${path}: ${reasonOf(error)}`, { cause: error });
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}
