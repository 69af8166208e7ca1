/**
 * Text that a user names: a file, a pipe, or standard input as "-". Knows nothing of formats.
 */

import { isUtf8 } from "node:buffer";
import { createReadStream, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { InputError } from "./errors.js";
import { reasonOf } from "./regular-file.js";

/** What standard input is called in messages. */
export const standardInputName = "standard input";

/** Name of an input for messages: its path, or "standard input". */
export function inputName(path: string): string {
  return path === "-" ? standardInputName : path;
}

/** Text that was read whole, or bytes that are more than that. */
export type TextInput = { readonly text: string } | { readonly chunks: AsyncIterable<Uint8Array> };

/**
 * Reads UTF-8 text of up to `wholeBytes` bytes; a byte order mark is dropped. More than that is handed on as bytes, to be read once.
 * Throws `InputError` for a missing file, a folder, an empty file and text that is not UTF-8.
 */
export async function openTextInput(
  path: string,
  wholeBytes: number,
  standardInput: AsyncIterable<Uint8Array> = process.stdin,
): Promise<TextInput> {
  const input = path === "-" ? await collect(standardInput, wholeBytes) : await readBytes(path, wholeBytes);
  return input instanceof Uint8Array ? { text: textOf(input, inputName(path)) } : { chunks: input };
}

/** The text of bytes that are UTF-8. Throws `InputError` for an empty one and for other bytes. */
export function textOf(bytes: Uint8Array, name: string): string {
  checkText(bytes, name);
  const text = new TextDecoder("utf-8").decode(bytes);
  if (text.trim() === "") throw new InputError("file-empty", `${name} is empty, expected a series`);
  return text;
}

/** Throws `InputError` naming the first line that is no UTF-8 text. */
function checkText(bytes: Uint8Array, name: string): void {
  const [first, second] = bytes;
  if ((first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff))
    throw new InputError("file-encoding", `${name} is UTF-16 text, not UTF-8; save it as UTF-8`);
  const zero = bytes.indexOf(0);
  if (zero >= 0)
    throw new InputError(
      "file-encoding",
      `${name}, row ${lineAt(bytes, zero)}: a zero byte; this is binary data, expected CSV or JSON text`,
    );
  if (isUtf8(bytes)) return;
  // Bytes of a line break never occur inside another character, so that lines can be looked at one by one.
  for (let start = 0, line = 1; start < bytes.length; line++) {
    const end = bytes.indexOf(0x0a, start);
    const part = bytes.subarray(start, end < 0 ? bytes.length : end + 1);
    if (!isUtf8(part)) throw new InputError("file-encoding", `${name}, row ${line}: it is not UTF-8 text; save the file as UTF-8`);
    start += part.length;
  }
}

function lineAt(bytes: Uint8Array, place: number): number {
  let line = 1;
  for (let at = bytes.indexOf(0x0a); at >= 0 && at < place; at = bytes.indexOf(0x0a, at + 1)) line++;
  return line;
}

async function readBytes(path: string, wholeBytes: number): Promise<Uint8Array | AsyncIterable<Uint8Array>> {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found?.isDirectory()) {
    throw new InputError("file-kind", `cannot read ${path}: it is a folder, expected a CSV or JSON file`);
  }
  if (found !== undefined && found.size > wholeBytes) return createReadStream(path);
  try {
    return await readFile(path);
  } catch (error) {
    throw new InputError("file-missing", `cannot read ${path}: ${reasonOf(error)}`, { cause: error });
  }
}

async function collect(stream: AsyncIterable<Uint8Array>, wholeBytes: number): Promise<Uint8Array | AsyncIterable<Uint8Array>> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  const iterator = stream[Symbol.asyncIterator]();
  for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) {
    chunks.push(next.value);
    bytes += next.value.length;
    if (bytes > wholeBytes) return joined(chunks, { [Symbol.asyncIterator]: () => iterator });
  }
  return Buffer.concat(chunks);
}

async function* joined(first: readonly Uint8Array[], rest: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield* first;
  yield* rest;
}
