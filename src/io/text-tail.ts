/**
 * The end of a table that is too large to hold as text: its header and the last records of each series, found while reading, so that memory depends
 * on the number of series and not on the file. Knows lines, quotes and where the id of a record is; nothing of other columns.
 */
import { parse } from "csv-parse/sync";
import { InputError } from "./errors.js";
import { sniffDelimiter } from "./csv.js";

export interface TextTail {
  readonly format: "csv" | "json-lines";
  /** Header (CSV) and the kept records in their order. */
  readonly text: string;
  /** Line of the input, from 1, that a line of `text`, from 1, was. */
  readonly lineOf: (line: number) => number;
  /** Records that were left out. */
  readonly dropped: number;
}

export interface TailRequest {
  /** "unknown": told by the first character. */
  readonly format: "csv" | "json-lines" | "unknown";
  /** Column or field of the series id; absent: all records are one series. */
  readonly id: string | undefined;
  readonly decimalComma: boolean;
  /** Records kept per series. */
  readonly keep: number;
}

interface Kept {
  readonly line: number;
  readonly text: string;
}

/** Throws `InputError` naming `name` and the line for text that is not UTF-8, a record without id, and JSON Lines that hold whole series. */
export async function readTail(chunks: AsyncIterable<Uint8Array>, name: string, request: TailRequest): Promise<TextTail> {
  const series = new Map<string, Kept[]>();
  let dropped = 0;
  let header: Kept | undefined;
  let idOf: (record: Kept) => string = () => "";
  let format: "csv" | "json-lines" = request.format === "json-lines" ? "json-lines" : "csv";
  const isQuoted = (first: string): boolean => {
    if (request.format === "unknown") format = formatOf(first, name);
    return format === "csv";
  };
  for await (const record of recordsOf(chunks, name, isQuoted)) {
    if (format === "csv" && header === undefined) {
      header = record;
      idOf = csvId(record.text, request);
      continue;
    }
    if (format === "json-lines" && series.size === 0) idOf = jsonId(record, name, request.id);
    const id = idOf(record);
    const kept = series.get(id);
    if (kept === undefined) series.set(id, [record]);
    else if (kept.push(record) >= 2 * request.keep) dropped += kept.splice(0, kept.length - request.keep).length;
  }
  for (const kept of series.values()) if (kept.length > request.keep) dropped += kept.splice(0, kept.length - request.keep).length;
  const records = [...(header === undefined ? [] : [header]), ...[...series.values()].flat().sort((left, right) => left.line - right.line)];
  const lines = records.flatMap(({ line, text }) => text.split("\n").map((_, index) => line + index));
  return { format, text: `${records.map(({ text }) => text).join("\n")}\n`, lineOf: (line) => lines[line - 1] ?? line, dropped };
}

function formatOf(first: string, name: string): "csv" | "json-lines" {
  const start = first.replace(/^\uFEFF/, "").trimStart()[0];
  if (start === "[")
    throw new InputError(
      "file-large",
      `${name} is too large to be read as one JSON document; write it as JSON Lines or CSV, of which the end is read`,
    );
  return start === "{" ? "json-lines" : "csv";
}

/** Lines that are not blank; where the first one says that cells are quoted, lines belong together while a quote is open. */
async function* recordsOf(chunks: AsyncIterable<Uint8Array>, name: string, isQuoted: (first: string) => boolean): AsyncGenerator<Kept> {
  let quoted: boolean | undefined;
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let [rest, line, open] = ["", 1, ""];
  let openLine = 1;
  const decode = (chunk?: Uint8Array): string => {
    try {
      const text = chunk === undefined ? decoder.decode() : decoder.decode(chunk, { stream: true });
      if (!text.includes("\0")) return text;
    } catch {
      throw new InputError("file-encoding", `${name}, at or after row ${line}: it is not UTF-8 text; save the file as UTF-8`);
    }
    throw new InputError("file-encoding", `${name}, at or after row ${line}: a zero byte; this is binary data, expected CSV or JSON text`);
  };
  function* take(lines: readonly string[]): Generator<Kept> {
    for (const ended of lines) {
      const text = ended.endsWith("\r") ? ended.slice(0, -1) : ended;
      if (quoted === undefined && text.trim() !== "") quoted = isQuoted(text);
      if (open === "") openLine = line;
      line += 1;
      const joined = open === "" ? text : `${open}\n${text}`;
      open = quoted === true && hasOpenQuote(joined) ? joined : "";
      if (open === "" && joined.trim() !== "") yield { line: openLine, text: joined };
    }
  }
  for await (const chunk of chunks) {
    const lines = (rest + decode(chunk)).split("\n");
    rest = lines.pop() ?? "";
    yield* take(lines);
  }
  yield* take([rest + decode()]);
  if (open !== "") throw new InputError("csv", `${name}, row ${openLine}: a quote is opened and never closed`);
}

/** Quotes inside quotes are doubled, so an odd number leaves one open. */
function hasOpenQuote(text: string): boolean {
  let count = 0;
  for (let at = text.indexOf('"'); at >= 0; at = text.indexOf('"', at + 1)) count += 1;
  return count % 2 === 1;
}

function csvId(header: string, { id, decimalComma }: TailRequest): (record: Kept) => string {
  if (id === undefined) return () => "";
  const delimiter = sniffDelimiter(header, decimalComma);
  const cells = (text: string): string[] =>
    text.includes('"')
      ? ((parse(text, { delimiter, relax_column_count: true, trim: true }) as string[][])[0] ?? [])
      : text.split(delimiter);
  const column = cells(header.replace(/^\uFEFF/, "")).findIndex((cell) => cell.trim() === id);
  // A wrong name is told by whoever reads the columns.
  return column < 0 ? () => "" : ({ text }) => cells(text)[column]?.trim() ?? "";
}

function jsonId(first: Kept, name: string, id: string | undefined): (record: Kept) => string {
  const read = ({ line, text }: Kept): Record<string, unknown> => {
    try {
      const value: unknown = JSON.parse(text);
      if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
    } catch (error) {
      throw new InputError("json", `${name}, line ${line}, is not valid JSON: ${error instanceof Error ? error.message : String(error)}`);
    }
    throw new InputError("json", `${name}, line ${line}: ${text.slice(0, 40)} is not an object`);
  };
  const sample = read(first);
  if ("values" in sample || "columns" in sample)
    throw new InputError(
      "file-large",
      `${name} holds one series per line and is too large to be read at once; read it in code, line by line, with Forecaster.stream`,
    );
  return id === undefined ? () => "" : (record) => String(read(record)[id] ?? "");
}
