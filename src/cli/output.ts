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

/** `path` undefined or "-": stdout. Bytes are refused where they would end up on a terminal. */
export function deliver(context: CliContext, path: string | undefined, answer: string | Uint8Array): void {
  if (path !== undefined && path !== "-") {
    writeAtomically(path, (write) => write(typeof answer === "string" ? new TextEncoder().encode(answer) : answer));
  } else if (typeof answer === "string") context.writeOut(answer);
  else if (context.writeBytes === undefined)
    throw new InputError("output-binary", "this format is binary: name a file with --output, or send it into a pipe");
  else context.writeBytes(answer);
}
