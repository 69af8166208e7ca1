/** Candle files as programs write them: names of columns, forms of time, steps that only a market's hours explain. */
import { describe, expect, test } from "vitest";
import { checkCandles } from "../src/forecast/candles.js";
import { calendarOf, tableSeries } from "../src/io/table.js";
import { candleColumn } from "../src/io/candle-names.js";
import { candleInputs } from "../src/cli/inputs.js";

const hour = 3_600_000;
const options = { sampling: {}, timeZone: undefined, calendar: undefined, consistent: false };

/** A table of `stamps` with four prices and a volume after the cells of time. */
function table(header: string, times: readonly string[]): Parameters<typeof tableSeries>[0] {
  const rows = times.map((time, row) => ({ place: `row ${row + 2}`, cells: [...time.split(","), "2", "3", "1", "2.5", String(10 + row)] }));
  return { name: "candles.csv", header: header.split(","), rows };
}

const hours = (count: number, from = Date.UTC(2024, 0, 1)): string[] =>
  Array.from({ length: count }, (_, step) => new Date(from + step * hour).toISOString());

/** Names of the columns taken, and the first and last stamp. */
function taken(header: string, times: readonly string[]): unknown[] {
  const [series] = tableSeries(table(header, times), {}, "candles").series;
  const stamps = series?.timestamps ?? [];
  return [series?.targets.map(({ name }) => candleColumn(name)).join(" "), stamps[0], stamps[stamps.length - 1]];
}

describe("names of columns", () => {
  const all = "open high low close volume";
  const ends = ["2024-01-01T00:00:00Z", "2024-01-01T03:00:00Z"];
  test.each([
    ["Date,Open,High,Low,Close,Volume"],
    ["time,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<TICKVOL>"],
    ["ds,o,h,l,c,v"],
    ["Timestamp,Open Price,High_Price,low.price,Last,Vol."],
    ["datetime,bidopen,bidhigh,bidlow,bidclose,tickqty"],
    ["date_time,OPEN,HIGH,LOW,CLOSE,Volume BTC"],
    ["日期,开盘,最高,最低,收盘,成交量"],
  ])("%s", (header) => {
    expect(taken(header, hours(4))).toEqual([all, ...ends]);
  });
  test("milliseconds and seconds since 1970 under the names exchanges use", () => {
    const milliseconds = hours(4).map((text) => String(Date.parse(text)));
    expect(taken("open_time,o,h,l,c,v", milliseconds)).toEqual([all, ...ends]);
    expect(
      taken(
        "Unix Timestamp,Open,High,Low,Close,Volume USD",
        milliseconds.map((text) => text.slice(0, 10)),
      ),
    ).toEqual(["open high low close amount", ...ends]);
  });
  test("day and time of day in two columns, in either order", () => {
    const parts = hours(4).map((text) => [text.slice(0, 10).replaceAll("-", "."), text.slice(11, 16)]);
    const local = ends.map((text) => text.slice(0, -1));
    expect(
      taken(
        "<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>",
        parts.map((pair) => pair.join(",")),
      ),
    ).toEqual([all, ...local]);
    expect(
      taken(
        "Time,Date,Open,High,Low,Close,Volume",
        parts.map((pair) => [...pair].reverse().join(",")),
      ),
    ).toEqual([all, ...local]);
  });
  test("adjusted closes and counts of trades are not candle columns", () => {
    expect(["Adj Close", "number_of_trades", "Spread", "symbol", "Change %"].map(candleColumn)).toEqual(Array(5).fill(undefined));
  });
  test("a price written with a comma is shown, not left out", () => {
    const broken = table("time,open,high,low,close,volume", hours(4));
    const rows = broken.rows.map(({ place, cells }) => ({ place, cells: cells.map((cell) => (cell === "2.5" ? "2,5" : cell)) }));
    expect(() => tableSeries({ ...broken, rows }, {}, "candles")).toThrow(/row 2, column "close": "2,5" is not a number.*--decimal-comma/);
  });
});

describe("steps", () => {
  /** Hourly candles of two sessions a day, Monday to Friday: half of the steps are longer than an hour. */
  const sessions = Array.from({ length: 12 }, (_, day) => Date.UTC(2024, 0, 1 + day))
    .filter((day) => ![0, 6].includes(new Date(day).getUTCDay()))
    .flatMap((day) => ["10:30", "11:30", "14:00", "15:00"].map((clock) => `${new Date(day).toISOString().slice(0, 10)}T${clock}:00`));

  test("short sessions are no irregular series for candles, and still one for others", () => {
    const [series] = tableSeries(table("time,open,high,low,close,volume", sessions), {}, "candles").series;
    expect(() => calendarOf(series as NonNullable<typeof series>)).toThrow(/irregular/);
    const { inputs } = candleInputs([series as NonNullable<typeof series>]);
    const { plan } = checkCandles(inputs[0] as NonNullable<(typeof inputs)[0]>, 0, options);
    expect(plan.barMilliseconds).toBe(hour);
    expect(plan.future(5).timestamps.map((text) => text.slice(5, 16))).toEqual([
      "01-15T10:30",
      "01-15T11:30",
      "01-15T14:00",
      "01-15T15:00",
      "01-16T10:30",
    ]);
  });
  test("a named frequency is the length of a candle and fills nothing", () => {
    const [series] = tableSeries(table("time,open,high,low,close,volume", sessions), { frequency: "30min" }, "candles").series;
    const { inputs } = candleInputs([series as NonNullable<typeof series>]);
    const checked = checkCandles(inputs[0] as NonNullable<(typeof inputs)[0]>, 0, options);
    expect([checked.length, checked.plan.barMilliseconds]).toEqual([sessions.length, hour / 2]);
  });
  test("days followed by hours are candles of two lengths", () => {
    const days = Array.from({ length: 20 }, (_, day) => new Date(Date.UTC(2024, 0, 1 + day)).toISOString());
    const [series] = tableSeries(table("time,open,high,low,close,volume", [...days, ...hours(40, Date.UTC(2024, 0, 21))]), {}, "x").series;
    const { inputs } = candleInputs([series as NonNullable<typeof series>]);
    expect(() => checkCandles(inputs[0] as NonNullable<(typeof inputs)[0]>, 0, options)).toThrow(/several lengths: 60 min .* 1440 min/);
  });
});
