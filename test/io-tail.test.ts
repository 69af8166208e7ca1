/** Tables that are too large to be held: the end of each series, the same numbers as read whole, places of the file in messages, bounded memory. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readSeriesTable, type SeriesTable, type TableRequest } from "../src/io/table.js";
import { readTail } from "../src/io/text-tail.js";

let folder = "";
beforeAll(() => (folder = mkdtempSync(join(tmpdir(), "tempograph-tail-"))));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const hour = (step: number): string => new Date(Date.UTC(2024, 0, 1, step)).toISOString();
const small = { wholeBytes: 64, keepRows: 5 } satisfies TableRequest;
let written = 0;
function file(text: string, ending = ".csv"): string {
  const path = join(folder, `table${++written}${ending}`);
  writeFileSync(path, text);
  return path;
}
const valuesOf = ({ series }: SeriesTable): [id: string, values: number[], first: string | undefined][] =>
  series.map(({ id, targets, calendar }) => [id, Array.from(targets[0]?.values ?? []), calendar?.timestamps[0]]);

const long = Array.from({ length: 60 }, (_, row) => [`s${row % 3}`, hour(Math.floor(row / 3)), row * 1.5] as const);

describe("the end of each series", () => {
  test("CSV with ids: the last rows of each, in order, and a note", async () => {
    const path = file(`id,time,x\n${long.map((row) => row.join(",")).join("\r\n")}\n`);
    const whole = await readSeriesTable(path, { id: "id" });
    const tail = await readSeriesTable(path, { ...small, id: "id" });
    expect(valuesOf(tail)).toEqual(valuesOf(whole).map(([id, values]) => [id, values.slice(-5), hour(15).replace(".000Z", "Z")]));
    expect(tail.notes).toEqual([`${path} is large: of each series the last 5 rows were read, 45 earlier rows were left out`]);
    expect(tail.series[0]?.calendar?.frequency?.label).toBe(whole.series[0]?.calendar?.frequency?.label);
  });

  test("JSON Lines, by ending and by first character of standard input", async () => {
    const text = long.map(([name, time, x]) => JSON.stringify({ name, time, x, remark: 'a "quote' })).join("\n");
    const expected = [0, 1, 2].map((id) => [
      `s${id}`,
      long
        .filter(([name]) => name === `s${id}`)
        .map(([, , x]) => x)
        .slice(-5),
    ]);
    const request = { ...small, id: "name", targets: ["x"] };
    async function* stream(): AsyncGenerator<Uint8Array> {
      for (const part of text.match(/[^]{1,37}/g) ?? []) yield await Promise.resolve(Buffer.from(part));
    }
    for (const table of [await readSeriesTable(file(text, ".jsonl"), request), await readSeriesTable("-", request, stream())])
      expect(valuesOf(table).map(([id, values]) => [id, values])).toEqual(expected);
  });

  test("quoted cells with line breaks, delimiters and doubled quotes stay whole", async () => {
    const rows = Array.from({ length: 20 }, (_, row) => `"a;\n""b"" ${row}";${row},5;${hour(row)}`);
    const path = file(`\uFEFFremark;x;time\n${rows.join("\n\n")}`);
    const tail = await readSeriesTable(path, { ...small, decimalComma: true });
    expect(valuesOf(tail)).toEqual([[tail.series[0]?.id, [15.5, 16.5, 17.5, 18.5, 19.5], hour(15).replace(".000Z", "Z")]]);
  });

  test("a table that is larger than the bound but within the rows is read as it would be whole", async () => {
    const path = file(`time,x\n${Array.from({ length: 30 }, (_, row) => `${hour(row)},${row}`).join("\n")}\n`);
    expect(await readSeriesTable(path, { wholeBytes: 64 }).then(valuesOf)).toEqual(await readSeriesTable(path).then(valuesOf));
  });
});

describe("mistakes", () => {
  test.each<[string, string | Uint8Array, string, TableRequest, RegExp]>([
    ["a cell", `x\n${"1\n".repeat(50)}\nabc\n2\n3\n`, ".csv", {}, /\.csv, row 53, column "x": "abc" is not a number/],
    ["a JSON line", `${'{"x":1}\n'.repeat(50)}{"x":\n`, ".jsonl", {}, /line 51, is not valid JSON/],
    [
      "a stamp",
      `time,x\n${Array.from({ length: 40 }, (_, row) => `${hour(row)},1`).join("\n")}\n${hour(39)},2\n`,
      ".csv",
      {},
      /row 42, column "time": .*occurs twice/,
    ],
    ["an unknown id column", `x\n${"1\n".repeat(50)}`, ".csv", { id: "who" }, /no id column "who"/],
    [
      "a quote that never closes",
      `x\n${"1\n".repeat(50)}"1\n${"1\n".repeat(50)}`,
      ".csv",
      {},
      /row 52: a quote is opened and never closed/,
    ],
    ["a zero byte", `x\n${"1\n".repeat(50)}\0\n`, ".csv", {}, /zero byte/],
    ["other text", Buffer.concat([Buffer.from(`x\n${"1\n".repeat(50)}`), Buffer.of(0xff, 0x0a)]), ".csv", {}, /not UTF-8/],
    ["one JSON document", `[${"1,".repeat(50)}1]`, ".json", {}, /too large to be read as one JSON document/],
    ["one JSON document of unknown ending", `[${"1,".repeat(50)}1]`, "", {}, /too large to be read as one JSON document/],
    ["whole series per line", '{"values":[1,2,3]}\n'.repeat(20), ".jsonl", {}, /one series per line.*Forecaster\.stream/],
  ])("%s", async (_, text, ending, request, message) => {
    const path = join(folder, `bad${++written}${ending}`);
    writeFileSync(path, text);
    const refusal: unknown = await readSeriesTable(path, { ...small, ...request }).catch((error: unknown) => error);
    expect(refusal).toMatchObject({ name: "InputError", message: expect.stringMatching(message) as string });
  });
});

test("half a million rows pass through without being held", async () => {
  async function* rows(): AsyncGenerator<Uint8Array> {
    yield Buffer.from("id,x\n");
    const block = Buffer.from(Array.from({ length: 2000 }, (_, row) => `series-${row % 10},${row}.25\n`).join(""));
    for (let count = 0; count < 250; count += 1) yield await Promise.resolve(block);
  }
  const tail = await readTail(rows(), "big", { format: "csv", id: "id", decimalComma: false, keep: 100 });
  expect(tail.dropped).toBe(500_000 - 1000);
  expect(tail.text.split("\n").length).toBe(1002);
  expect(tail.lineOf(2)).toBe(500_001 - 1000 + 1);
});
