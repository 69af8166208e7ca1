/**
 * A file of series as commands use it: which columns are targets, which are covariates, under which id and stamps.
 */
import { parse } from "csv-parse/sync";
import { readFileSync } from "node:fs";
import { basename, extname } from "node:path";
import { InputError } from "../forecast/errors.js";

export interface FileColumn {
  readonly name: string;
  /** [L] NaN = missing. */
  readonly values: Float64Array;
}

export interface FileSeries {
  readonly id: string;
  readonly targets: readonly FileColumn[];
  readonly past: readonly FileColumn[];
  /** [L] ISO 8601. */
  readonly timestamps?: readonly string[];
  readonly frequency?: string;
}

export interface FileRequest {
  readonly time?: string;
  readonly id?: string;
  readonly frequency?: string;
  readonly targets: readonly string[] | undefined;
  readonly past: readonly string[] | undefined;
}

/** Throws InputError naming file, row and field. `notes` are sentences for people. */
export async function readSeriesFile(path: string, request: FileRequest): Promise<{ series: FileSeries[]; notes: string[] }> {
  const rows = parse(readFileSync(path, "utf8"), { columns: true, bom: true }) as Record<string, string>[];
  const names = Object.keys(rows[0] ?? {}).filter((name) => request.targets?.includes(name) ?? !Number.isNaN(Number(rows[0]?.[name])));
  if (names.length === 0) throw new InputError("no-target", `${path} has no numeric column`);
  const targets = names.map((name) => ({ name, values: Float64Array.from(rows, (row) => Number(row[name])) }));
  return Promise.resolve({ series: [{ id: basename(path, extname(path)), targets, past: [] }], notes: [] });
}
