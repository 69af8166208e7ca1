import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InputError } from "../src/io/errors.js";
import { readSeriesTable } from "../src/io/table.js";
import type { SeriesTable, TableRequest } from "../src/io/table.js";

const examples = join(dirname(fileURLToPath(import.meta.url)), "..", "examples", "data");

let folder = "";
let number = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tempograph-table-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function write(text: string | Uint8Array, ending = ".csv"): string {
  const path = join(folder, `demo${number++}${ending}`);
  writeFileSync(path, text);
  return path;
}

const read = (text: string, request?: TableRequest, ending?: string): Promise<SeriesTable> => readSeriesTable(write(text, ending), request);
/** Targets of every series as `id/name: values`. */
const shown = ({ series }: SeriesTable): string[] =>
  series.flatMap(({ id, targets }) => targets.map(({ name, values }) => `${id.replace(/\d+$/, "")}/${name}: ${[...values].join(" ")}`));

async function expectRefused(reading: Promise<unknown>, message: RegExp): Promise<void> {
  const error: unknown = await reading.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(InputError);
  expect((error as InputError).message).toMatch(message);
}

describe("CSV", () => {
  test("a wide table: every numeric column is a target, text columns are not", async () => {
    const table = await read("timestamp,a,note,b\n2024-01-01,1,x,10\n2024-01-02,2,y,\n2024-01-03,3,z,-1.5e1\n");
    expect(shown(table)).toEqual(["demo/a: 1 2 3", "demo/b: 10 NaN -15"]);
    expect(table.series[0]?.calendar).toMatchObject({ timestamps: ["2024-01-01", "2024-01-02", "2024-01-03"], frequency: { label: "1d" } });
    expect(table.notes).toEqual([]);
    expect(table.gaps).toEqual([]);
  });

  test.each([
    ["semicolon", "ds;y\r\n2024-01-01;1\r\n2024-01-02;2\r\n"],
    ["tab", "ds\ty\n2024-01-01\t1\n2024-01-02\t2"],
    ["byte order mark", "\uFEFFds,y\n2024-01-01,1\n2024-01-02,2\n"],
    ["quotes", '"ds","y"\n"2024-01-01","1"\n"2024-01-02","2"\n'],
    ["delimiters inside quotes", '"d;s,;;;",y\n2024-01-01,1\n2024-01-02,2\n'],
    ["blank lines and spaces", "ds, y\n\n2024-01-01, 1\n2024-01-02, 2 \n\n"],
  ])("%s", async (_, text) => {
    const table = await read(text);
    expect(shown(table)).toEqual(["demo/y: 1 2"]);
    expect(table.series[0]?.calendar?.timestamps).toEqual(["2024-01-01", "2024-01-02"]);
  });

  test("every spelling of a missing value", async () => {
    const table = await read("v\n1\nNaN\nnull\nNA\nn/a\nNone\n-\n2\n");
    expect(shown(table)).toEqual(["demo/v: 1 NaN NaN NaN NaN NaN NaN 2"]);
    expect(table.series[0]?.calendar).toBeUndefined();
  });

  test("time columns: by name, by content, named by the user, years, seconds, counters", async () => {
    const stamps = async (text: string, request?: TableRequest): Promise<readonly string[] | undefined> =>
      (await read(text, request)).series[0]?.calendar?.timestamps;
    expect(await stamps("when,v\n2024-01-01,1\n2024-01-02,2\n")).toEqual(["2024-01-01", "2024-01-02"]);
    expect(await stamps("a,Datetime,v\n2024-01-01,2020-01-01,1\n2024-01-02,2021-01-01,2\n")).toEqual(["2020-01-01", "2021-01-01"]);
    expect(await stamps("a,date,v\n2024-01-01,2020-01-01,1\n2024-01-02,2021-01-01,2\n", { time: "a" })).toEqual([
      "2024-01-01",
      "2024-01-02",
    ]);
    expect(await stamps("time,v\n2020,1\n2021,2\n")).toEqual(["2020-01-01", "2021-01-01"]);
    expect(await stamps("time,v\n1700000000,1\n1700003600,2\n")).toEqual(["2023-11-14T22:13:20Z", "2023-11-14T23:13:20Z"]);
    expect(await stamps("time,v\n1700000000000,1\n1700003600000,2\n")).toEqual(["2023-11-14T22:13:20Z", "2023-11-14T23:13:20Z"]);
    expect(await stamps("time,v\n0,1\n1,2\n")).toBeUndefined();
    expect(shown(await read("time,v\n0,1\n1,2\n"))).toEqual(["demo/v: 1 2"]);
  });

  test("a data frame's unnamed counter is no target", async () => {
    expect(shown(await read(",ds,y\n0,2024-01-01,5\n1,2024-01-02,6\n"))).toEqual(["demo/y: 5 6"]);
  });

  test("candles: the candle columns, in their order, whatever else is there", async () => {
    const table = await read("timestamp,Close,Open,High,Low,trades,Volume\n2024-01-01,2,1,3,0,9,7\n2024-01-02,2,1,3,0,9,7\n");
    expect(table.series[0]?.targets.map(({ name }) => name)).toEqual(["Open", "High", "Low", "Close", "Volume"]);
    expect(shown(await read("close,other\n1,2\n"))).toEqual(["demo/close: 1", "demo/other: 2"]);
  });

  test("targets and past covariates by name", async () => {
    const { series } = await read("t,a,b,c\n2024-01-01,1,2,3\n2024-01-02,4,5,6\n", { targets: ["c"], past: ["a"] });
    expect(series[0]?.targets.map(({ name, values }) => [name, ...values])).toEqual([["c", 3, 6]]);
    expect(series[0]?.past.map(({ name, values }) => [name, ...values])).toEqual([["a", 1, 4]]);
    expect((await read("a,b\n1,2\n", { past: ["a"] })).series[0]?.targets.map(({ name }) => name)).toEqual(["b"]);
  });

  test("long tables: one series per id, each with its own stamps", async () => {
    const text = "id,ds,y\nb,2024-01-01,1\na,2024-01-01,10\nb,2024-01-02,2\na,2024-02-01,20\na,2024-03-01,\n";
    const { series } = await read(text, { id: "id" });
    expect(series.map(({ id, targets, calendar }) => [id, ...(targets[0]?.values ?? []), calendar?.frequency?.label])).toEqual([
      ["b", 1, 2, "1d"],
      ["a", 10, 20, NaN, "1mo"],
    ]);
    await expectRefused(read(text), /demo\d+.csv, row 3, column "ds": timestamp 2024-01-01 occurs twice.*id column/);
    await expectRefused(read("id,y\na,1\n,2\n", { id: "id" }), /row 3, column "id": the series id is empty/);
    await expectRefused(read("id,y\na,1\nb,\n", { id: "id" }), /series "b": "y" has no observed value/);
  });

  test("gaps are told, and a named frequency is kept", async () => {
    const stamps = [0, 1, 2, 3, 4, 5, 6, 7, 8, 11].map((hour) => `2024-01-01T${String(hour).padStart(2, "0")}:00Z,${hour}`).join("\n");
    const rows = await read(`time,v\n${stamps}\n`);
    expect(rows.gaps).toEqual([expect.stringMatching(/^demo\d+: 1 gap in time, 2 steps of 1h missing, longest 2 \(steps are rows/)]);
    expect(rows.series[0]).not.toHaveProperty("frequency");
    const named = await read(`time,v\n${stamps}\n`, { frequency: "h" });
    expect(named.series[0]).toMatchObject({ frequency: "h" });
    expect(named.series[0]?.calendar?.positions?.at(-1)).toBe(11);
    expect(named.gaps[0]).toMatch(/filled with missing values/);
  });

  test("columns without values are left out with a note, unless nothing is left or they were asked for", async () => {
    const table = await read("a,b\n1,\n2,NaN\n");
    expect(shown(table)).toEqual(["demo/a: 1 2"]);
    expect(table.notes[0]).toMatch(/left out "b", which has no values/);
    await expectRefused(read("ds,v\n2024-01-01,\n2024-01-02,NaN\n"), /"v" has no observed value \(2 rows, all missing\)/);
    await expectRefused(read("a,b\n1,\n2,\n", { targets: ["b"] }), /"b" has no observed value \(2 steps, all missing\)/);
  });

  test.each<[string, string | Uint8Array, TableRequest, RegExp]>([
    ["an empty file", "", {}, /is empty/],
    ["only blanks", "\n \n", {}, /is empty/],
    ["a header alone", "ds,v\n", {}, /has a header but no rows/],
    ["no header", "2024-01-01,1\n2024-01-02,2\n", {}, /first row \(2024-01-01, 1\) looks like data; a header/],
    ["no numeric column", "ds,name\n2024-01-01,x\n", {}, /no numeric column to forecast; found "ds" \(such as "2024-01-01"\), "name"/],
    ["a bad cell", "ds,v\n2024-01-01,1\n2024-01-02,12..5\n2024-01-03,3\n", {}, /row 3, column "v": "12..5" is not a number/],
    ["an infinite cell", "v\n1\n2\nInfinity\n", {}, /row 4, column "v": "Infinity" is infinite; expected a finite/],
    ["an overflowing cell", "v\n1\n2\n1e400\n", {}, /row 4, column "v": "1e400" is beyond the range of float32/],
    ["a decimal comma", 'v\n1\n2\n"1,5"\n', {}, /"1,5" is not a number; .*decimals with a point/],
    ["a text target", "a,b\n1,x\n", { targets: ["b"] }, /row 2, column "b": "x"/],
    ["an unknown target", "a,b\n1,2\n", { targets: ["c"] }, /no target column "c"; its columns are "a", "b"/],
    ["an unknown time", "a,b\n1,2\n", { time: "when" }, /no time column "when"/],
    ["an unknown id", "a,b\n1,2\n", { id: "who" }, /no id column "who"/],
    ["target and past at once", "a,b\n1,2\n", { targets: ["a"], past: ["a"] }, /"a" cannot be target and past/],
    ["uneven rows", "a,b\n1,2\n3\n", {}, /row 3: 1 cells, the header has 2/],
    ["an open quote", 'a,b\n1,"2\n', {}, /quote/i],
    ["a repeated column", "a,a\n1,2\n", {}, /column "a" occurs twice/],
    ["a bad stamp", "ds,v\n2024-01-01,1\n01/02/2024,2\n", {}, /row 3, column "ds": "01\/02\/2024" is no timestamp; expected ISO 8601/],
    ["an empty stamp", "ds,v\n2024-01-01,1\n,2\n", {}, /row 3, column "ds": "" is no timestamp/],
    ["unsorted stamps", "ds,v\n2024-01-02,1\n2024-01-01,2\n", {}, /row 3, column "ds": .*sort the rows oldest first/],
    ["a repeated counter", "time,v\n1,1\n1,2\n", {}, /row 3, column "time": step 1 does not come after 1/],
    ["irregular stamps", "ds,v\n2024-01-01,1\n2024-01-02,2\n2024-01-05,3\n2024-01-11,4\n", {}, /irregular/],
    ["an unknown frequency", "ds,v\n2024-01-01,1\n", { frequency: "x" }, /unknown frequency "x"/],
    ["binary data", Uint8Array.of(80, 65, 82, 49, 0, 1), {}, /row 1: a zero byte; this is binary data/],
    ["another encoding", Uint8Array.of(0xff, 0xfe, 97, 0), {}, /not UTF-8/],
  ])("refuses %s", async (_, text, request, message) => {
    const path = write(text);
    const reading = readSeriesTable(path, request);
    await expectRefused(reading, message);
  });

  test("missing files, folders and other formats", async () => {
    await expectRefused(readSeriesTable(join(folder, "absent.csv")), /absent.csv: it does not exist/);
    const place = join(folder, "place.csv");
    mkdirSync(place);
    await expectRefused(readSeriesTable(place), /it is a folder/);
    await expectRefused(readSeriesTable(write("PAR1", ".parquet")), /cannot be read as Parquet/);
  });

  test("standard input, CSV or JSON by its first character", async () => {
    async function* stream(text: string): AsyncGenerator<Uint8Array> {
      for (const character of text) yield Promise.resolve(new TextEncoder().encode(character));
    }
    expect(shown(await readSeriesTable("-", {}, stream("v\n1\n2\n")))).toEqual(["series/v: 1 2"]);
    expect(shown(await readSeriesTable("-", {}, stream(" [1, null, 3]")))).toEqual(["series/value: 1 NaN 3"]);
    await expectRefused(readSeriesTable("-", {}, stream("")), /^standard input is empty/);
  });

  test("arbitrary text is read or refused, never a crash", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string(),
          fc
            .array(fc.constantFrom("a", "1", ",", ";", "\n", '"', "2024-01-01", "-", "[", "{", "}", ":"), { maxLength: 40 })
            .map((parts) => parts.join("")),
        ),
        async (text) => {
          try {
            const { series } = await readSeriesTable(
              "-",
              {},
              (async function* () {
                yield await Promise.resolve(new TextEncoder().encode(text));
              })(),
            );
            expect(series.every(({ targets }) => targets.length > 0)).toBe(true);
          } catch (error) {
            if (!(error instanceof InputError)) throw error;
          }
        },
      ),
      { numRuns: 400 },
    );
  });

  test("numbers come back as written", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.double({ noNaN: true, min: -3.4e38, max: 3.4e38 }), { minLength: 1, maxLength: 20 }), async (values) => {
        const { series } = await read(`v\n${values.join("\n")}\n`);
        expect([...series[0]!.targets[0]!.values]).toEqual(values.map((value) => (Object.is(value, -0) ? 0 : value)));
      }),
      { numRuns: 50 },
    );
  });
});

describe("JSON", () => {
  const json = (value: unknown, request?: TableRequest): Promise<SeriesTable> => read(JSON.stringify(value), request, ".json");

  test("the forms of a series", async () => {
    expect(shown(await json([1, null, "NaN", 4]))).toEqual(["demo/value: 1 NaN NaN 4"]);
    expect(shown(await json({ values: [1, 2], id: "x" }))).toEqual(["x/value: 1 2"]);
    expect(shown(await json({ values: [1, 2], id: "x", variate: "load" }))).toEqual(["x/load: 1 2"]);
    expect(
      shown(
        await json([
          [1, 2],
          [3, 4],
        ]),
      ),
    ).toEqual(["demo/value0: 1 2", "demo/value1: 3 4"]);
    expect(shown(await json({ columns: { a: [1, 2], b: [3, 4] } }, { targets: ["b"] }))).toEqual(["demo/b: 3 4"]);
    expect(
      shown(
        await json([
          { id: "p", values: [1] },
          { id: "q", values: [2, 3] },
        ]),
      ),
    ).toEqual(["p/value: 1", "q/value: 2 3"]);
    expect(shown(await json({ series: [{ id: 7, values: [1] }, { values: [2] }] }))).toEqual([
      "/value: 1",
      expect.stringMatching(/^demo\d+-\/value: 2$/),
    ]);
    expect(shown(await json({ values: [1, 2, 3], mask: [1, 0, true] }))).toEqual(["demo/value: 1 NaN 3"]);
    expect((await json({ columns: { a: [1], b: [2] } }, { past: ["a"] })).series[0]).toMatchObject({
      targets: [{ name: "b" }],
      past: [{ name: "a" }],
    });
  });

  test("stamps and frequencies", async () => {
    const { series } = await json({ values: [1, 2], timestamps: ["2024-01-01T00:00+02:00", "2024-01-01T01:00+02:00"] });
    expect(series[0]?.calendar?.future(1)).toEqual(["2024-01-01T02:00:00+02:00"]);
    expect(series[0]).not.toHaveProperty("frequency");
    expect((await json({ values: [1, 2], frequency: "15min" })).series[0]).toMatchObject({ frequency: "15min" });
  });

  test("records are a table", async () => {
    const records = [
      { ds: "2024-01-01", y: 1, who: "a" },
      { ds: "2024-01-02", y: null, who: "a" },
      { ds: "2024-01-01", y: 3, who: "b" },
    ];
    const { series } = await json(records, { id: "who" });
    expect(series.map(({ id, targets }) => [id, ...(targets[0]?.values ?? [])])).toEqual([
      ["a", 1, NaN],
      ["b", 3],
    ]);
    await expectRefused(json([{ y: 1 }, { y: 2, z: 3 }]), /record 1: field "z" is not in the first record/);
    await expectRefused(json([{ y: 1 }, 2]), /record 1: 2 is not an object/);
    await expectRefused(json([{ y: 1 }, { y: "x" }, { y: 2 }]), /record 1, column "y": "x" is not a number/);
  });

  test.each<[unknown, TableRequest, RegExp]>([
    [[], {}, /empty list/],
    [[1, "x"], {}, /index 1: "x" is not a number; write null/],
    [[1, true], {}, /index 1: true is not a number/],
    [[null, null], {}, /"value" has no observed value \(2 steps/],
    [3, {}, /is 3, expected an object with "values"/],
    [{ values: 3 }, {}, /values are 3, expected a list/],
    [{ values: [] }, {}, /has no values/],
    [{ value: [1] }, {}, /unknown field "value"; known are id, values/],
    [{ values: [1], columns: {} }, {}, /either "values" or "columns"/],
    [{ series: [{ values: [1] }], more: 1 }, {}, /unknown field "more"/],
    [{ values: [[1, 2], [3]] }, {}, /"value1" has 1 values, "value0" has 2/],
    [
      [
        { id: "a", values: [1] },
        { id: "a", values: [1] },
      ],
      {},
      /two series have the id "a"/,
    ],
    [{ values: [1, 2], timestamps: ["2024-01-01"] }, {}, /2 values and 1 timestamps/],
    [{ values: [1], timestamps: [5] }, {}, /index 0: 5 is no timestamp/],
    [{ values: [1, 2], mask: [1] }, {}, /"mask" of "value" is not a list of 2/],
    [{ values: [1], id: "" }, {}, /"id" is "", expected text/],
    [{ values: [1] }, { time: "ds" }, /time column \("ds"\) can be named for tables only/],
    [{ values: [1] }, { targets: ["load"] }, /no target column "load"; its columns are "value"/],
    [{ columns: { a: [1] } }, { past: ["a"] }, /no target column left/],
  ])("refuses %j", async (value, request, message) => expectRefused(json(value, request), message));

  test("damaged JSON", async () => expectRefused(read("{", {}, ".json"), /not valid JSON/));
});

describe("the example files", () => {
  test.each([
    ["hourly.csv", 2016, ["value"], "1h", 24],
    ["600977-5min.csv", 2000, ["open", "high", "low", "close", "volume", "amount"], "5min", 288],
    ["AAPL-1d.csv", 1259, ["open", "high", "low", "close", "volume"], "1b", 5],
    ["GOOGL-1d.csv", 2000, ["open", "high", "low", "close", "volume"], "1b", 5],
  ])("%s", async (name, length, columns, frequency, period) => {
    const { series } = await readSeriesTable(join(examples, name));
    expect(series.length).toBe(1);
    expect(series[0]?.id).toBe(name.replace(".csv", ""));
    expect(series[0]?.targets.map((column) => column.name)).toEqual(columns);
    expect(series[0]?.targets.every(({ values }) => values.length === length && values.every(Number.isFinite))).toBe(true);
    expect(series[0]?.calendar).toMatchObject({ frequency: { label: frequency }, seasonalPeriod: period });
  });

  test("each is described", () => {
    const readme = readFileSync(join(examples, "README.md"), "utf8");
    for (const file of readdirSync(examples)) expect(file === "README.md" || readme.includes(`\`${file}\``)).toBe(true);
  });
});
