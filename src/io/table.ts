/**
 * Series files: from a path to series with their target columns, past covariates, ids and calendars.
 * Says which column is what; the formats are in csv.ts, json.ts and parquet.ts, stamps and frequencies in calendar.ts.
 */

import { basename, extname } from "node:path";
import { candleTargets } from "./candle-names.js";
import { hasDecimalComma, isMeantAsNumber, isMissing, numberProblem, parseNumber } from "./cells.js";
import type { RawRow, RawTable } from "./cells.js";
import { parseCsv } from "./csv.js";
import { InputError } from "./errors.js";
import { looksLikeJsonLines, parseJsonLines, parseJsonSeries } from "./json.js";
import { readParquet } from "./parquet.js";
import { inputName, openTextInput } from "./text-input.js";
import { readTail } from "./text-tail.js";
import { checkObserved, timesOfSeries } from "./series-table.js";
import type { SeriesColumn, SeriesTable, TableRequest, TableSeries } from "./series-table.js";
import { joinClock, timeTexts } from "./time-column.js";

export { calendarOf } from "./series-table.js";
export type { SeriesColumn, SeriesTable, TableRequest, TableSeries } from "./series-table.js";

/**
 * Reads CSV, JSON, JSON Lines or Parquet, chosen by the file's ending or, failing that, its first characters. `path` "-" is standard input (text).
 * Throws `InputError` naming file, row, column and value.
 */
export async function readSeriesTable(
  path: string,
  request: TableRequest = {},
  standardInput?: AsyncIterable<Uint8Array>,
): Promise<SeriesTable> {
  const ending = path === "-" ? "" : extname(path).toLowerCase();
  const endingId = path === "-" ? "series" : basename(path, extname(path));
  if (ending === ".parquet" || ending === ".pq") return tableSeries(await readParquet(path), request, endingId);
  const name = inputName(path);
  const input = await openTextInput(path, request.wholeBytes ?? defaultWholeBytes, standardInput);
  if ("chunks" in input) return readLargeTable(input.chunks, { name, ending, defaultId: endingId }, request);
  const { text } = input;
  const isLines = isJsonLines(ending) || (ending === "" && looksLikeJsonLines(text));
  const isJson = isLines || ending === ".json" || (ending !== ".csv" && ending !== ".tsv" && /^\s*[[{]/.test(text));
  if (!isJson) return tableSeries(parseCsv(text, name, request.decimalComma), request, endingId);
  const parsed = (isLines ? parseJsonLines : parseJsonSeries)(text, name, request, endingId);
  return "header" in parsed ? tableSeries(parsed, request, endingId) : withGaps(parsed.series, []);
}

const defaultWholeBytes = 256 * 2 ** 20;
const defaultKeepRows = 16_384;

function isJsonLines(ending: string): boolean {
  return ending === ".jsonl" || ending === ".ndjson";
}

/** The last rows of each series of a table that is too large to be held as text. */
async function readLargeTable(
  chunks: AsyncIterable<Uint8Array>,
  { name, ending, defaultId }: { name: string; ending: string; defaultId: string },
  request: TableRequest,
): Promise<SeriesTable> {
  if (ending === ".json")
    throw new InputError(
      "file-large",
      `${name} is too large to be read as one JSON document; write it as JSON Lines or CSV, of which the end is read`,
    );
  const format = isJsonLines(ending) ? "json-lines" : ending === ".csv" || ending === ".tsv" ? "csv" : "unknown";
  const keep = request.keepRows ?? defaultKeepRows;
  const tail = await readTail(chunks, name, { format, id: request.id, decimalComma: request.decimalComma ?? false, keep });
  const table =
    tail.format === "csv"
      ? parseCsv(tail.text, name, request.decimalComma, tail.lineOf)
      : parseJsonLines(tail.text, name, request, defaultId, tail.lineOf);
  if (!("header" in table)) return withGaps(table.series, []);
  const { series, notes, gaps } = tableSeries(table, request, defaultId);
  const left =
    tail.dropped === 0
      ? []
      : [`${name} is large: of each series the last ${keep} rows were read, ${tail.dropped} earlier rows were left out`];
  return { series, notes: [...left, ...notes], gaps };
}

/** Turns a raw table into series, by the request's columns. Throws `InputError`. */
export function tableSeries(table: RawTable, request: TableRequest, defaultId: string): SeriesTable {
  const timeIndex = request.time === undefined ? findTimeColumn(table, request) : columnIndex(table, request.time, "time");
  const idIndex = request.id === undefined ? undefined : columnIndex(table, request.id, "id");
  const past = (request.past ?? []).map((column) => columnIndex(table, column, "past covariate"));
  const notes: string[] = [];
  const targets =
    request.targets?.map((column) => columnIndex(table, column, "target")) ?? defaultTargets(table, [timeIndex, idIndex, ...past], notes);
  const both = targets.find((index) => past.includes(index));
  if (both !== undefined)
    throw new InputError("table-column", `${table.name}: column "${table.header[both]}" cannot be target and past covariate at once`);
  const frequency = request.frequency === undefined ? {} : { frequency: request.frequency };
  const series = groupRows(table, idIndex, defaultId).map(([id, rows]): TableSeries => {
    const label = idIndex === undefined ? table.name : `${table.name}, series "${id}"`;
    const read = (index: number): SeriesColumn => ({
      name: table.header[index] ?? "",
      values: Float64Array.from(rows, (row) => readNumber(table, row, index)),
    });
    const times = timeIndex === undefined ? {} : readTimes(table, rows, timeIndex, targets, request, label);
    const columns = targets.map(read);
    for (const column of columns) checkObserved(column, label);
    return { id, targets: columns, past: past.map(read), ...times, ...frequency };
  });
  return withGaps(series, notes);
}

function withGaps(series: readonly TableSeries[], notes: readonly string[]): SeriesTable {
  const gaps = series.flatMap(({ id, calendar }) => {
    if (!calendar || calendar.gaps.count === 0) return [];
    const { count, missing, longest } = calendar.gaps;
    const effect = calendar.positions ? "filled with missing values" : "steps are rows; name a frequency to fill them with missing values";
    return [
      `${id}: ${count} gap${count === 1 ? "" : "s"} in time, ${missing} steps of ${calendar.frequency?.label} missing, longest ${longest} (${effect})`,
    ];
  });
  return { series, notes, gaps };
}

function columnIndex(table: RawTable, column: string, role: string): number {
  const index = table.header.indexOf(column);
  if (index >= 0) return index;
  const known = table.header.map((name) => `"${name}"`).join(", ");
  throw new InputError("table-column", `${table.name} has no ${role} column "${column}"; its columns are ${known}`);
}

const timeNames =
  /^<?(time|timestamp|timestamps|date|datetime|date[_ ]time|ds|open[_ ]?time|(unix|epoch)([_ ]?time(stamp)?)?|日期|时间)>?$/i;
const clockNames = /^<?(time|时间)>?$/i;

/** By name, else the first unused text column whose first cell is a time stamp. */
function findTimeColumn(table: RawTable, { id, targets = [], past = [] }: TableRequest): number | undefined {
  const isFree = (name: string): boolean => name !== id && !targets.includes(name) && !past.includes(name);
  const first = (index: number): string => table.rows[0]?.cells[index] ?? "";
  const byName = table.header.flatMap((name, index) => (timeNames.test(name) && isFree(name) ? [index] : []));
  // Of a day and a time of day the day leads.
  if (byName.length > 0) return byName.find((index) => timeTexts([first(index)]) !== undefined) ?? byName[0];
  const byContent = table.header.findIndex(
    (name, index) => isFree(name) && parseNumber(first(index)) === undefined && timeTexts([first(index)]) !== undefined,
  );
  return byContent >= 0 ? byContent : undefined;
}

/** Candle columns where open, high, low and close are all there, else all numeric columns. */
function defaultTargets(table: RawTable, used: readonly (number | undefined)[], notes: string[]): number[] {
  const candles = candleTargets(table.header.map((name, index) => (used.includes(index) ? "" : name)));
  const free = (candles ?? table.header.map((_, index) => index)).filter((index) => !used.includes(index) && table.header[index] !== "");
  const kinds = free.map((index) => ({ index, kind: columnKind(table, index) }));
  // A column of prices that holds text is a mistake to be shown, not a column to leave out.
  const numeric = kinds.filter(({ kind }) => kind === "numeric" || (candles && kind === "text")).map(({ index }) => index);
  const empty = kinds.filter(({ kind }) => kind === "empty").map(({ index }) => `"${table.header[index]}"`);
  if (numeric.length > 0) {
    if (empty.length > 0) notes.push(`${table.name}: left out ${empty.join(", ")}, which ${empty.length === 1 ? "has" : "have"} no values`);
    return numeric;
  }
  if (empty.length > 0) {
    throw new InputError(
      "series-missing",
      `${table.name}: ${empty.join(", ")} has no observed value (${table.rows.length} rows, all missing)`,
    );
  }
  const found = table.header.map((name, index) => `"${name}" (such as ${JSON.stringify(table.rows[0]?.cells[index] ?? "")})`).join(", ");
  const withCommas = table.header.filter((_, index) => table.rows.some((row) => hasDecimalComma(row.cells[index] ?? "")));
  const advice =
    withCommas.length === 0
      ? ""
      : `; the numbers of ${withCommas.map((name) => `"${name}"`).join(", ")} have a decimal comma: give --decimal-comma`;
  throw new InputError("table-column", `${table.name} has no numeric column to forecast; found ${found}${advice}`);
}

/** Numeric when most of its cells are, so that one bad cell is reported instead of hiding the column. */
function columnKind(table: RawTable, index: number): "numeric" | "text" | "empty" {
  let [numbers, texts] = [0, 0];
  for (const row of table.rows) {
    const cell = row.cells[index] ?? "";
    if (isMissing(cell)) continue;
    if (isMeantAsNumber(cell)) numbers++;
    else texts++;
  }
  if (numbers + texts === 0) return "empty";
  return numbers > texts ? "numeric" : "text";
}

function readNumber(table: RawTable, row: RawRow, index: number): number {
  const cell = row.cells[index] ?? "";
  const value = parseNumber(cell);
  if (value !== undefined) return value;
  throw new InputError(
    "table-cell",
    `${table.name}, ${row.place}, column "${table.header[index]}": ${JSON.stringify(cell)} ${numberProblem(cell)}`,
  );
}

/** Rows by id, in the order of first appearance. */
function groupRows(table: RawTable, idIndex: number | undefined, defaultId: string): [id: string, rows: readonly RawRow[]][] {
  if (idIndex === undefined) return [[defaultId, table.rows]];
  const groups = new Map<string, RawRow[]>();
  for (const row of table.rows) {
    const id = row.cells[idIndex] ?? "";
    if (id === "")
      throw new InputError("table-cell", `${table.name}, ${row.place}, column "${table.header[idIndex]}": the series id is empty`);
    const group = groups.get(id);
    if (group) group.push(row);
    else groups.set(id, [row]);
  }
  return [...groups];
}

function readTimes(
  { header }: RawTable,
  rows: readonly RawRow[],
  index: number,
  targets: readonly number[],
  { frequency, time }: TableRequest,
  label: string,
): ReturnType<typeof timesOfSeries> {
  const cellsOf = (column: number): string[] => rows.map((row) => row.cells[column] ?? "");
  // Some files keep the day and the time of day in two columns.
  const clock = time === undefined ? header.findIndex((name, column) => column !== index && clockNames.test(name)) : -1;
  const cells = (clock < 0 ? undefined : joinClock(cellsOf(index), cellsOf(clock))) ?? cellsOf(index);
  const place = (at: number): string => `${rows[at]?.place}, column "${header[index]}"`;
  const texts = timeTexts(cells);
  const names = targets.map((column) => header[column] ?? "");
  if (texts !== "steps") return timesOfSeries(texts ?? cells, names, frequency, label, place);
  for (let at = 1; at < cells.length; at++) {
    if (Number(cells[at]) <= Number(cells[at - 1])) {
      throw new InputError(
        "timestamp",
        `${label}, ${place(at)}: step ${cells[at]} does not come after ${cells[at - 1]}; sort the rows, one row per step`,
      );
    }
  }
  return {};
}
