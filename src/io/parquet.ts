/**
 * Parquet files in and out: tables of cells, and columns of a forecast. The libraries are loaded when a file asks for them.
 * Knows the format; what columns mean is table.ts's business.
 */
import { readFileSync } from "node:fs";
import type { RawTable } from "./cells.js";
import { InputError } from "./errors.js";
import { checkRegularFile, reasonOf } from "./regular-file.js";

/** Reads every row. Throws `InputError` for anything that is no complete Parquet file, or is packed in a way that cannot be read. */
export async function readParquet(path: string): Promise<RawTable> {
  checkRegularFile(path, "Parquet file");
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw new InputError("file-unreadable", `cannot read ${path}: ${reasonOf(error)}`, { cause: error });
  }
  return parseParquet(bytes, path);
}

export async function parseParquet(bytes: Uint8Array, name: string): Promise<RawTable> {
  const { parquetMetadata, parquetReadObjects, parquetSchema } = await import("hyparquet");
  const file = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
  let header: string[];
  let rows: Record<string, unknown>[];
  try {
    const metadata = parquetMetadata(file);
    header = parquetSchema(metadata).children.map(({ element }) => element.name);
    rows = await parquetReadObjects({ file, metadata });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new InputError("parquet", `${name} cannot be read as Parquet: ${reason}`, { cause: error });
  }
  if (rows.length === 0) throw new InputError("file-empty", `${name} holds no rows`);
  return {
    name,
    header,
    rows: rows.map((row, index) => ({ place: `row ${index}`, cells: header.map((column) => cellText(row[column])) })),
  };
}

function cellText(value: unknown): string {
  if (value === undefined || value === null) return "";
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "" : value.toISOString();
  if (typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "boolean") return String(value);
  return JSON.stringify(value, (_, part: unknown) => (typeof part === "bigint" ? String(part) : part)) ?? "";
}

/** A column of text or of numbers; NaN becomes null. */
export interface ParquetColumn {
  readonly name: string;
  readonly data: readonly string[] | readonly number[];
}

/** Bytes of a file with these columns, all of one length. */
export async function writeParquet(columns: readonly ParquetColumn[]): Promise<Uint8Array> {
  const { parquetWriteBuffer } = await import("hyparquet-writer");
  const buffer = parquetWriteBuffer({
    columnData: columns.map(({ name, data }) =>
      typeof data[0] === "string"
        ? { name, data: [...data], type: "STRING" as const }
        : { name, data: data.map((value) => (Number.isFinite(value) ? value : null)), type: "DOUBLE" as const, nullable: true },
    ),
  });
  return new Uint8Array(buffer);
}
