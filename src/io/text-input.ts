/**
 * Text that a user names: a file, a pipe, or standard input as "-". Knows nothing of formats.
 */

import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { InputError } from "./errors.js";
import { reasonOf } from "./regular-file.js";

/** What standard input is called in messages. */
export const standardInputName = "standard input";

/** Name of an input for messages: its path, or "standard input". */
export function inputName(path: string): string {
  return path === "-" ? standardInputName : path;
}

/** Reads UTF-8 text; a byte order mark is dropped. Throws `InputError` for a missing file, a folder, an empty file and text that is not UTF-8. */
export async function readTextInput(path: string, standardInput: AsyncIterable<Uint8Array> = process.stdin): Promise<string> {
  const bytes = path === "-" ? await collect(standardInput) : await readBytes(path);
  const name = inputName(path);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new InputError("file-encoding", `${name} is not UTF-8 text; save it as UTF-8`, { cause: error });
  }
  if (text.includes("\0")) throw new InputError("file-encoding", `${name} holds binary data, expected CSV or JSON text`);
  if (text.trim() === "") throw new InputError("file-empty", `${name} is empty, expected a series`);
  return text;
}

async function readBytes(path: string): Promise<Uint8Array> {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    throw new InputError("file-kind", `cannot read ${path}: it is a folder, expected a CSV or JSON file`);
  }
  try {
    return await readFile(path);
  } catch (error) {
    throw new InputError("file-missing", `cannot read ${path}: ${reasonOf(error)}`, { cause: error });
  }
}

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}
