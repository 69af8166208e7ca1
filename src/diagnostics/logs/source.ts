/**
 * Opening a log: file, gzip, stdin or stream, as text in pieces of whole lines. Lines of any length take bounded memory.
 * Knows nothing of what the lines say.
 */
import { isAscii } from "node:buffer";
import { createReadStream, statSync } from "node:fs";
import { Readable, pipeline } from "node:stream";
import { createGunzip, constants } from "node:zlib";
import { InputError } from "../../io/errors.js";

/** A path, "-" for stdin, or a path or stream with the name to call it by. */
export type LogInput = string | { readonly name: string; readonly path: string } | { readonly name: string; readonly stream: Readable };

export interface OpenedLog {
  readonly name: string;
  /** Pieces of text that end at the end of a line. May throw `InputError` at the first piece. */
  text(): AsyncGenerator<string, void, void>;
  /** Filled while reading. */
  readonly notes: readonly string[];
}

const CHUNK_BYTES = 1 << 18;
/** What exceeds this in one line is dropped: no record is longer, and a file without line ends must not fill the memory. */
const LONGEST_LINE_BYTES = 1 << 20;
/** Bytes looked at to tell text from anything else. */
const SNIFFED_BYTES = 4096;
const NEWLINE = 10;

/** Throws `InputError` when `input` can not be a log: missing, unreadable, a folder. Whether it is text is known at the first piece. */
export function openLog(input: LogInput): OpenedLog {
  const { name, stream } = opened(input);
  const notes: string[] = [];
  return { name, notes, text: () => readText(stream, name, notes) };
}

function opened(input: LogInput): { name: string; stream: Readable } {
  if (input === "-") return { name: "stdin", stream: process.stdin };
  if (typeof input !== "string" && "stream" in input) return input;
  const { name, path } = typeof input === "string" ? { name: input, path: input } : input;
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) throw new InputError("log-missing", `there is no file ${name}`);
  if (stats.isDirectory()) {
    throw new InputError("log-folder", `${name} is a folder: name the log files in it, for example ${name.replace(/\/$/, "")}/*.log`);
  }
  return { name, stream: createReadStream(path, { highWaterMark: CHUNK_BYTES }) };
}

async function* readText(stream: Readable, name: string, notes: string[]): AsyncGenerator<string, void, void> {
  try {
    yield* decoded(unzipped(stream, notes), name);
  } catch (error) {
    if (error instanceof InputError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new InputError("log-unreadable", `cannot read ${name}: ${reason}`, { cause: error });
  } finally {
    stream.destroy();
  }
}

/** The bytes of `stream`, decompressed when it starts like gzip. A gzip file cut at its end gives what is left of it. */
async function* unzipped(stream: Readable, notes: string[]): AsyncGenerator<Buffer, void, void> {
  const chunks = bytes(stream);
  let head: Buffer = Buffer.alloc(0);
  while (head.length < 2) {
    const next = await chunks.next();
    if (next.done === true) break;
    head = Buffer.concat([head, next.value]);
  }
  if (head[0] !== 0x1f || head[1] !== 0x8b) {
    if (head.length > 0) yield head;
    yield* chunks;
    return;
  }
  const gunzip = createGunzip({ finishFlush: constants.Z_SYNC_FLUSH, chunkSize: CHUNK_BYTES });
  // Errors of either side arrive where the decompressed bytes are read.
  pipeline(Readable.from(prepended(head, chunks), { objectMode: false }), gunzip, () => undefined);
  let any = false;
  try {
    for await (const chunk of gunzip as AsyncIterable<Buffer>) {
      any = true;
      yield chunk;
    }
  } catch (error) {
    if (!any) throw error;
    notes.push("the gzip data is damaged: the log was read up to there");
  }
}

async function* prepended(head: Buffer, rest: AsyncGenerator<Buffer, void, void>): AsyncGenerator<Buffer, void, void> {
  yield head;
  yield* rest;
}

async function* bytes(stream: Readable): AsyncGenerator<Buffer, void, void> {
  for await (const chunk of stream as AsyncIterable<Buffer | string>) yield typeof chunk === "string" ? Buffer.from(chunk) : chunk;
}

async function* decoded(chunks: AsyncGenerator<Buffer, void, void>, name: string): AsyncGenerator<string, void, void> {
  let sniffed: Buffer = Buffer.alloc(0);
  let isSniffed = false;
  const cutter = new LineCutter();
  for await (const chunk of chunks) {
    if (isSniffed) {
      yield* cutter.add(chunk);
      continue;
    }
    sniffed = sniffed.length === 0 ? chunk : Buffer.concat([sniffed, chunk]);
    if (sniffed.length < SNIFFED_BYTES) continue;
    isSniffed = true;
    checkText(sniffed, name);
    cutter.encoding = encodingOf(sniffed);
    yield* cutter.add(sniffed);
  }
  if (!isSniffed) {
    if (sniffed.length === 0) throw new InputError("log-empty", `${name} is empty: there is nothing to analyse`);
    checkText(sniffed, name);
    cutter.encoding = encodingOf(sniffed);
    yield* cutter.add(sniffed);
  }
  yield* cutter.end();
}

/** PowerShell writes redirected output as UTF-16. */
function encodingOf(start: Buffer): "utf8" | "utf16le" {
  return start[0] === 0xff && start[1] === 0xfe ? "utf16le" : "utf8";
}

/** Control bytes that logs do not contain: more than one in fifty means that this is no text. */
function checkText(start: Buffer, name: string): void {
  if (encodingOf(start) === "utf16le") return;
  const sample = start.subarray(0, SNIFFED_BYTES);
  let control = 0;
  for (const byte of sample)
    if (byte < 32 && byte !== 9 && byte !== 10 && byte !== 13 && byte !== 27 && byte !== 8 && byte !== 12) control += 1;
  const invalid = sample.toString("utf8").split("\ufffd").length - 1;
  if (control * 50 > sample.length || invalid * 10 > sample.length) {
    throw new InputError("log-binary", `${name} is not text: expected a log (plain or gzip), found binary data`);
  }
}

/** Cuts bytes into text that ends at line ends. */
class LineCutter {
  encoding: "utf8" | "utf16le" = "utf8";
  private rest: Buffer[] = [];
  private restLength = 0;

  *add(chunk: Buffer): Generator<string, void, void> {
    const end = this.lineEnd(chunk);
    if (end < 0) {
      this.keep(chunk);
      return;
    }
    if (this.restLength > 0) {
      this.keep(chunk.subarray(0, end));
      const first = this.take();
      yield first;
    } else if (end > 0) yield this.text(chunk.subarray(0, end));
    if (end < chunk.length) this.keep(chunk.subarray(end));
  }

  *end(): Generator<string, void, void> {
    if (this.restLength > 0) yield this.take();
  }

  /** Index behind the last newline, -1 when there is none. */
  private lineEnd(chunk: Buffer): number {
    const last = chunk.lastIndexOf(NEWLINE);
    if (this.encoding === "utf8") return last < 0 ? -1 : last + 1;
    // Two bytes a character: cut behind whole characters only.
    const start = this.restLength % 2;
    for (let at = last; at >= 0; at = at === 0 ? -1 : chunk.lastIndexOf(NEWLINE, at - 1)) {
      if ((at + start) % 2 === 0 && chunk[at + 1] === 0) return at + 2;
    }
    return -1;
  }

  private keep(bytes: Buffer): void {
    // A line that goes on beyond the limit loses its end; the line end itself arrives with a later chunk.
    const newline = bytes.indexOf(NEWLINE);
    const room = LONGEST_LINE_BYTES - this.restLength;
    if (newline < 0 && room <= 0) return;
    const held = newline < 0 ? bytes.subarray(0, room) : room > 0 ? bytes : bytes.subarray(newline);
    this.rest.push(held);
    this.restLength += held.length;
  }

  private take(): string {
    const text = this.text(Buffer.concat(this.rest));
    this.rest = [];
    this.restLength = 0;
    return text;
  }

  private text(bytes: Buffer): string {
    // Logs are ASCII but for a few lines, and one byte a character is far quicker to decode.
    const text = this.encoding === "utf8" && isAscii(bytes) ? bytes.toString("latin1") : bytes.toString(this.encoding);
    return text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
  }
}
