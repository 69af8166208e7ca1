/**
 * JSON series: a list of numbers, one series object, a list of them, `{series: [...]}`, or a list of records, which is a table; and JSON Lines, one of these
 * objects per line.
 * Knows the forms and their mistakes; nothing of models.
 */

import type { RawTable } from "./cells.js";
import { parseNumber } from "./cells.js";
import { InputError } from "./errors.js";
import { firstDuplicateKey } from "./json-keys.js";
import { checkObserved, timesOfSeries } from "./series-table.js";
import type { SeriesColumn, TableRequest, TableSeries } from "./series-table.js";

type JsonObject = Readonly<Record<string, unknown>>;

const seriesFields = ["id", "values", "columns", "variate", "timestamps", "frequency", "mask"];

/** Throws `InputError` naming `name` and the place in the document. */
export function parseJsonSeries(
  text: string,
  name: string,
  request: TableRequest,
  defaultId: string,
): RawTable | { series: TableSeries[] } {
  return seriesOf(parseValue(text.replace(/^\uFEFF/, ""), name), name, request, defaultId);
}

/** JSON Lines: a series object or a record per line; blank lines are skipped. Throws `InputError` naming `name` and the line. */
export function parseJsonLines(
  text: string,
  name: string,
  request: TableRequest,
  defaultId: string,
  lineOf: (line: number) => number = (line) => line,
): RawTable | { series: TableSeries[] } {
  const values: unknown[] = [];
  text
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .forEach((line, index) => {
      if (line.trim() === "") return;
      const place = `${name}, line ${lineOf(index + 1)}`;
      const value = parseValue(line, `${place},`, place);
      if (!isObject(value)) throw new InputError("json", `${place}: ${line.slice(0, 40)} is not an object`);
      values.push(value);
    });
  return seriesOf(values, name, request, defaultId);
}

/** Whether text is JSON Lines: its first line is an object by itself, and more follows. */
export function looksLikeJsonLines(text: string): boolean {
  const [first = "", ...rest] = text.trim().split(/\r?\n/, 2);
  if (!first.startsWith("{") || rest.length === 0) return false;
  try {
    JSON.parse(first);
    return true;
  } catch {
    return false;
  }
}

/** `where` begins the message about a repeated key, `label` the one about text that is no JSON. */
function parseValue(text: string, label: string, where = label): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InputError("json", `${label} is not valid JSON: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  const duplicate = firstDuplicateKey(text);
  if (duplicate === undefined) return value;
  const key = [...duplicate.path, duplicate.key].filter((part) => part !== "").join(".");
  throw new InputError("json", `${where}: key "${key}" occurs twice in one object; each field may occur once`);
}

/** A value for a message: its JSON, cut where it is long. */
function shown(value: unknown): string {
  let text: string;
  try {
    text = JSON.stringify(value) ?? "nothing";
  } catch {
    // Nested too deeply to be written down.
    return Array.isArray(value) ? "a list of lists" : "a nested object";
  }
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

function seriesOf(document: unknown, name: string, request: TableRequest, defaultId: string): RawTable | { series: TableSeries[] } {
  let value = document;
  if (isObject(value) && "series" in value) {
    const extra = Object.keys(value).filter((key) => key !== "series");
    if (extra.length > 0) throw new InputError("json", `${name}: unknown field "${extra[0]}" beside "series"`);
    value = value["series"];
  }
  if (Array.isArray(value) && value.length === 0)
    throw new InputError("file-empty", `${name} holds an empty list, expected values or series`);
  if (Array.isArray(value) && !isObject(value[0])) value = { values: value };
  const entries: readonly unknown[] = Array.isArray(value) ? value : [value];
  if (Array.isArray(value) && isObject(value[0]) && !("values" in value[0]) && !("columns" in value[0])) return recordTable(entries, name);
  for (const flag of ["time", "id"] as const) {
    if (request[flag] !== undefined)
      throw new InputError("json", `${name}: a ${flag} column ("${request[flag]}") can be named for tables only; these are series objects`);
  }
  const many = entries.length > 1;
  const series = entries.map((entry, index) =>
    readSeries(entry, many ? `${name}, series ${index}` : name, request, many ? `${defaultId}-${index}` : defaultId),
  );
  series.forEach(({ id }, index) => {
    if (series.findIndex((other) => other.id === id) !== index) throw new InputError("json", `${name}: two series have the id "${id}"`);
  });
  return { series };
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Records to cells: the columns are those of the first record; a field that others lack is a missing value. */
function recordTable(records: readonly unknown[], name: string): RawTable {
  const header = Object.keys(records[0] as JsonObject);
  const rows = records.map((record, index) => {
    const place = `record ${index}`;
    if (!isObject(record)) throw new InputError("json", `${name}, ${place}: ${shown(record)} is not an object like the first record`);
    const unknown = Object.keys(record).find((key) => !header.includes(key));
    if (unknown !== undefined) throw new InputError("json", `${name}, ${place}: field "${unknown}" is not in the first record`);
    return { place, cells: header.map((key) => cellText(record[key])) };
  });
  return { name, header, rows };
}

function cellText(value: unknown): string {
  if (value === undefined || value === null) return "";
  return typeof value === "string" ? value : shown(value);
}

function readSeries(entry: unknown, label: string, request: TableRequest, defaultId: string): TableSeries {
  if (!isObject(entry)) throw new InputError("json", `${label} is ${shown(entry)}, expected an object with "values"`);
  const unknown = Object.keys(entry).find((key) => !seriesFields.includes(key));
  if (unknown !== undefined) throw new InputError("json", `${label}: unknown field "${unknown}"; known are ${seriesFields.join(", ")}`);
  const columns = maskColumns(readColumns(entry, label), entry["mask"], label);
  const length = columns[0]?.values.length ?? 0;
  if (length === 0) throw new InputError("file-empty", `${label} has no values`);
  for (const column of columns) {
    if (column.values.length !== length) {
      throw new InputError("json", `${label}: "${column.name}" has ${column.values.length} values, "${columns[0]?.name}" has ${length}`);
    }
  }
  const pick = (names: readonly string[], role: string): SeriesColumn[] =>
    names.map((wanted) => {
      const column = columns.find(({ name }) => name === wanted);
      if (column) return column;
      throw new InputError(
        "table-column",
        `${label} has no ${role} column "${wanted}"; its columns are ${columns.map(({ name }) => `"${name}"`).join(", ")}`,
      );
    });
  const past = pick(request.past ?? [], "past covariate");
  const targets = request.targets ? pick(request.targets, "target") : columns.filter((column) => !past.includes(column));
  if (targets.length === 0) throw new InputError("table-column", `${label} has no target column left beside the past covariates`);
  for (const column of targets) checkObserved(column, label);
  const frequency = request.frequency ?? textField(entry, "frequency", label);
  const times = readTimes(entry, targets, frequency, label);
  return {
    id: textField(entry, "id", label) ?? defaultId,
    targets,
    past,
    ...times,
    ...(frequency !== undefined && { frequency }),
  };
}

function textField(entry: JsonObject, field: string, label: string): string | undefined {
  const value = entry[field];
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string" && value !== "") return value;
  if (typeof value === "number" && field === "id") return String(value);
  throw new InputError("json", `${label}: "${field}" is ${shown(value)}, expected text`);
}

/** `values`: one row of numbers, or one per variate; `columns`: rows by name. */
function readColumns(entry: JsonObject, label: string): SeriesColumn[] {
  const { values, columns } = entry;
  if ((values === undefined) === (columns === undefined)) {
    throw new InputError("json", `${label} must have either "values" or "columns"`);
  }
  if (columns !== undefined) {
    if (!isObject(columns)) throw new InputError("json", `${label}: "columns" is ${shown(columns)}, expected lists by name`);
    return Object.entries(columns).map(([name, row]) => ({ name, values: readNumbers(row, `${label}, "${name}"`) }));
  }
  if (Array.isArray(values) && Array.isArray(values[0])) {
    return values.map((row: unknown, index) => ({ name: `value${index}`, values: readNumbers(row, `${label}, variate ${index}`) }));
  }
  return [{ name: textField(entry, "variate", label) ?? "value", values: readNumbers(values, label) }];
}

function readNumbers(row: unknown, label: string): Float64Array {
  if (!Array.isArray(row)) throw new InputError("json", `${label}: values are ${shown(row)}, expected a list of numbers`);
  return Float64Array.from(row as readonly unknown[], (value, index) => {
    if (typeof value === "number" && Number.isFinite(Math.fround(value))) return value;
    if (typeof value === "number")
      throw new InputError(
        "table-cell",
        `${label}, index ${index}: ${value} is beyond the range of float32, 3.4e38; write null for a missing value`,
      );
    if (value === null || (typeof value === "string" && Number.isNaN(parseNumber(value) ?? 0))) return NaN;
    throw new InputError("table-cell", `${label}, index ${index}: ${shown(value)} is not a number; write null for a missing value`);
  });
}

/** Turns unobserved values into NaN: `mask` is one list for all columns, or one per column; 0 or false = missing. */
function maskColumns(columns: SeriesColumn[], mask: unknown, label: string): SeriesColumn[] {
  if (mask === undefined || mask === null) return columns;
  const rows: unknown = Array.isArray(mask) && Array.isArray(mask[0]) ? mask : columns.map(() => mask);
  if (!Array.isArray(rows) || rows.length !== columns.length)
    throw new InputError("json", `${label}: "mask" does not have one list per variate`);
  return columns.map(({ name, values }, at) => {
    const row: unknown = rows[at];
    if (
      !Array.isArray(row) ||
      row.length !== values.length ||
      !row.every((flag) => flag === 0 || flag === 1 || typeof flag === "boolean")
    ) {
      throw new InputError("json", `${label}: "mask" of "${name}" is not a list of ${values.length} zeros and ones`);
    }
    return { name, values: values.map((value, index) => (row[index] ? value : NaN)) };
  });
}

function readTimes(
  entry: JsonObject,
  targets: readonly SeriesColumn[],
  frequency: string | undefined,
  label: string,
): ReturnType<typeof timesOfSeries> {
  const stamps = entry["timestamps"];
  if (stamps === undefined || stamps === null) return {};
  const length = targets[0]?.values.length ?? 0;
  if (!Array.isArray(stamps) || stamps.length !== length) {
    const found = Array.isArray(stamps) ? `${stamps.length} timestamps` : `timestamps ${shown(stamps)}`;
    throw new InputError("timestamp", `${label} has ${length} values and ${found}; one timestamp per value is needed`);
  }
  const notText = stamps.findIndex((stamp) => typeof stamp !== "string");
  if (notText >= 0)
    throw new InputError("timestamp", `${label}, index ${notText}: ${shown(stamps[notText])} is no timestamp; expected ISO 8601 text`);
  const names = targets.map(({ name }) => name);
  return timesOfSeries(stamps as string[], names, frequency, label);
}
