/**
 * CSV text to a raw table: delimiter, quotes, header. Knows nothing of what columns mean.
 */

import { CsvError } from "csv-parse";
import { parse } from "csv-parse/sync";
import type { RawRow, RawTable } from "./cells.js";
import { parseNumber } from "./cells.js";
import { InputError } from "./errors.js";
import { parseStamp } from "./timestamps.js";

/**
 * Parses CSV with a header row; the delimiter is whichever of comma, semicolon and tab the header uses most (never the comma with decimal commas). Blank lines are skipped.
 * `lineOf`: the line of the file that a line of `text` was. Throws `InputError` naming `name` and the line for damaged quoting, uneven rows, a missing header and a table without rows.
 */
export function parseCsv(text: string, name: string, decimalComma = false, lineOf: (line: number) => number = (line) => line): RawTable {
  const delimiter = sniffDelimiter(text, decimalComma);
  let records: { record: string[]; info: { lines: number } }[];
  try {
    records = parse(text, {
      bom: true,
      delimiter,
      info: true,
      skip_empty_lines: true,
      relax_column_count: true,
      trim: true,
    }) as unknown as typeof records;
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    throw new InputError("csv", `${name}: ${error.message}`, { cause: error });
  }
  const [first, ...rest] = records;
  if (!first) throw new InputError("file-empty", `${name} is empty, expected a header row and data`);
  const header = first.record;
  checkHeader(header, name);
  if (rest.length === 0) throw new InputError("csv", `${name} has a header but no rows`);
  const rows = rest.map(({ record, info }): RawRow => {
    const place = `row ${lineOf(info.lines)}`;
    if (record.length !== header.length) {
      throw new InputError("csv", `${name}, ${place}: ${record.length} cells, the header has ${header.length}`);
    }
    return {
      cells: decimalComma ? record.map((cell, index) => withPoint(cell, `${name}, ${place}, column "${header[index]}"`)) : record,
      place,
    };
  });
  return { name, header, rows };
}

/** "3,14" as "3.14". A number with a point can only be a mistake here: as a thousand mark or as a decimal it would be read wrong in one of two cases. */
function withPoint(cell: string, label: string): string {
  if (/^[+-]?\d*,\d+(e[+-]?\d+)?$/i.test(cell)) return cell.replace(",", ".");
  if (/^[+-]?\d[\d.]*\.\d+(,\d+)?(e[+-]?\d+)?$/i.test(cell) && parseStamp(cell) === undefined) {
    throw new InputError(
      "table-cell",
      `${label}: "${cell}" has a point, but decimals were said to follow a comma; leave thousand marks out`,
    );
  }
  return cell;
}

/** Comma, semicolon or tab, whichever occurs most often in the first line, outside quotes; no comma with decimal commas. */
export function sniffDelimiter(text: string, decimalComma: boolean): string {
  const delimiters = decimalComma ? [";", "\t"] : [",", ";", "\t"];
  const firstLine = /^\uFEFF?\s*([^\r\n]*)/.exec(text)?.[1] ?? "";
  const unquoted = firstLine.replace(/"[^"]*"/g, "");
  const count = (delimiter: string): number => unquoted.split(delimiter).length;
  return delimiters.reduce((best, delimiter) => (count(delimiter) > count(best) ? delimiter : best), delimiters[0] ?? ",");
}

function checkHeader(header: readonly string[], name: string): void {
  const isData = (cell: string): boolean => parseNumber(cell) !== undefined || parseStamp(cell) !== undefined;
  if (header.every(isData)) {
    throw new InputError(
      "csv",
      `${name}: the first row (${header.join(", ")}) looks like data; a header row with column names is required`,
    );
  }
  header.forEach((column, index) => {
    if (column !== "" && header.indexOf(column) !== index)
      throw new InputError("csv", `${name}: column "${column}" occurs twice in the header`);
  });
}
