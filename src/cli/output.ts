/**
 * Where a command's answer goes: stdout, or a file that appears whole or not at all.
 */
import { statSync } from "node:fs";
import { dirname } from "node:path";
import { InputError } from "../forecast/errors.js";
import { writeAtomically } from "../io/atomic-write.js";
import type { CliContext } from "./context.js";

/** Throws InputError when `path` can not become a file: a folder, or in a folder that is missing. For checks before any work. */
export function checkOutput(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) {
    throw new InputError("output-folder", `--output ${path} is a folder: name a file`);
  }
  const folder = dirname(path);
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new InputError("output-folder", `--output ${path}: there is no folder ${folder}: create it first`);
  }
}

/** `path` undefined or "-": stdout. */
export function deliver(context: CliContext, path: string | undefined, text: string): void {
  if (path === undefined || path === "-") context.writeOut(text);
  else writeAtomically(path, (write) => write(new TextEncoder().encode(text)));
}
