import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { futureTimestamps, readCalendar } from "../src/io/calendar.js";
import { InputError } from "../src/io/errors.js";
import {
  advance,
  businessDay,
  fixedFrequency,
  inferFrequency,
  monthFrequency,
  parseFrequency,
  seasonalPeriod,
  stepsBetween,
} from "../src/io/frequency.js";
import { addMonths, daysInMonth, fieldsOf, formatStamp, instantOf, parseStamp } from "../src/io/timestamps.js";

const day = 86_400_000;
const local = (text: string): number => parseStamp(text)!.local;
/** `count` stamps from `first`, `step` milliseconds apart. */
const regular = (first: string, step: number, count: number): string[] =>
  Array.from({ length: count }, (_, index) => formatStamp({ ...parseStamp(first)!, local: local(first) + index * step }));

describe("stamps", () => {
  test.each([
    ["2024-01-31", "2024-01-31", "2024-01-31T00:00:00Z"],
    ["2024-01-31T10:15", "2024-01-31T10:15:00", "2024-01-31T10:15:00Z"],
    ["2024-01-31 10:15:30", "2024-01-31T10:15:30", "2024-01-31T10:15:30Z"],
    ["2024/1/5 9:05:00.25+08:00", "2024-01-05T09:05:00.250+08:00", "2024-01-05T01:05:00.250Z"],
    ["2024-01-31T10:15:00Z", "2024-01-31T10:15:00Z", "2024-01-31T10:15:00Z"],
    ["2024-01-31 10:15:00 UTC", "2024-01-31T10:15:00Z", "2024-01-31T10:15:00Z"],
    ["2024-01-31T10:15:00-0330", "2024-01-31T10:15:00-03:30", "2024-01-31T13:45:00Z"],
    ["2024-01-31T10:15:00+05", "2024-01-31T10:15:00+05:00", "2024-01-31T05:15:00Z"],
    ["2024-01-31T24:00:00", "2024-02-01T00:00:00", "2024-02-01T00:00:00Z"],
    ["2024-02", "2024-02-01", "2024-02-01T00:00:00Z"],
    ["2024Q3", "2024-07-01", "2024-07-01T00:00:00Z"],
    ["1999", "1999-01-01", "1999-01-01T00:00:00Z"],
    ["20240131", "2024-01-31", "2024-01-31T00:00:00Z"],
    ["20240131T101500Z", "2024-01-31T10:15:00Z", "2024-01-31T10:15:00Z"],
    ["0050-03-01", "0050-03-01", "0050-03-01T00:00:00Z"],
  ])("%s", (text, written, instant) => {
    const stamp = parseStamp(text)!;
    expect(formatStamp(stamp)).toBe(written);
    expect(instantOf(stamp)).toBe(Date.parse(instant));
  });

  test.each([
    "",
    "abc",
    "31-01-2024",
    "01/02/2024",
    "2024-13-01",
    "2024-02-30",
    "2023-02-29",
    "2024-01-31T25:00",
    "2024-01-31T10:61",
    "2024-01-31T10",
    "1.5",
    "2024-01-31T10:15:00+19:00",
    "2024-01-31x",
  ])("%j is no stamp", (text) => expect(parseStamp(text)).toBeUndefined());

  test("writing and reading are inverse", () => {
    fc.assert(
      fc.property(fc.integer({ min: -5e12, max: 2e13 }), fc.option(fc.integer({ min: -720, max: 840 })), (time, offset) => {
        const stamp = { local: time, offset: offset ?? undefined, precision: "time" } as const;
        expect(parseStamp(formatStamp(stamp))).toEqual(stamp);
      }),
    );
  });

  test("months keep the day where they can", () => {
    expect(addMonths(local("2024-01-31T08:00"), 1, 31)).toBe(local("2024-02-29T08:00"));
    expect(addMonths(local("2024-01-30"), -11, 30)).toBe(local("2023-02-28"));
    expect(daysInMonth(1900, 1)).toBe(28);
    expect(fieldsOf(local("1969-12-28T23:00"))).toEqual({ year: 1969, monthIndex: 11, day: 28, weekday: 0, timeOfDay: 23 * 3_600_000 });
  });
});

describe("frequencies", () => {
  test.each([
    ["15min", "15min", "fixed"],
    ["15T", "15min", "fixed"],
    ["5m", "5min", "fixed"],
    ["H", "1h", "fixed"],
    ["4h", "4h", "fixed"],
    ["60min", "1h", "fixed"],
    ["hourly", "1h", "fixed"],
    ["30s", "30s", "fixed"],
    ["100ms", "100ms", "fixed"],
    ["D", "1d", "fixed"],
    ["7D", "1w", "fixed"],
    ["W-SUN", "1w", "fixed"],
    ["B", "1b", "businessDay"],
    ["M", "1mo", "month"],
    ["MS", "1mo", "month"],
    ["3M", "1q", "month"],
    ["QS-OCT", "1q", "month"],
    ["12mo", "1y", "month"],
    ["A-DEC", "1y", "month"],
    [" 2 hours ", "2h", "fixed"],
    ["2y", "2y", "month"],
  ])("%s is %s", (text, label, kind) => {
    expect(parseFrequency(text)).toMatchObject({ label, kind });
    expect(parseFrequency(parseFrequency(text).label)).toEqual(parseFrequency(text));
  });

  test.each(["", "5", "0h", "-1h", "1.5h", "fortnight", "2b", "h5"])("%j is refused", (text) => {
    expect(() => parseFrequency(text)).toThrow(InputError);
    expect(() => parseFrequency(text)).toThrow(`"${text}"`);
  });

  test.each([
    ["5min", 288],
    ["10min", 144],
    ["15min", 96],
    ["30min", 48],
    ["1h", 24],
    ["1d", 7],
    ["1b", 5],
    ["1w", 52],
    ["1mo", 12],
    ["1q", 4],
    ["1y", 1],
    ["2h", 12],
    ["7h", 1],
    ["1s", 1],
    ["2d", 1],
  ])("a season of %s has %i steps", (text, period) => expect(seasonalPeriod(parseFrequency(text))).toBe(period));

  test("business days skip weekends, also when counted from one", () => {
    const friday = local("2024-03-01T16:00");
    expect(advance(friday, businessDay, 1)).toBe(local("2024-03-04T16:00"));
    expect(advance(friday, businessDay, 6)).toBe(local("2024-03-11T16:00"));
    expect(advance(local("2024-03-02"), businessDay, 1)).toBe(local("2024-03-04"));
    expect(advance(local("2024-03-03"), businessDay, 5)).toBe(local("2024-03-08"));
    expect(stepsBetween(friday, local("2024-03-04T16:00"), businessDay)).toBe(1);
    expect(stepsBetween(friday, local("2024-03-02T16:00"), businessDay)).toBeUndefined();
    expect(stepsBetween(friday, local("2024-03-04T15:00"), businessDay)).toBeUndefined();
  });

  test("counting steps inverts advancing, for every kind", () => {
    const frequency = fc.constantFrom(
      businessDay,
      fixedFrequency(day),
      fixedFrequency(300_000),
      monthFrequency(1, 31),
      monthFrequency(3, 30),
      monthFrequency(12, 29),
    );
    fc.assert(
      fc.property(frequency, fc.integer({ min: 0, max: 20_000 }), fc.nat(400), fc.nat(400), (kind, startDay, before, steps) => {
        // A point of the frequency's own grid.
        const from = advance(startDay * day + (kind.kind === "businessDay" ? 0 : 3_600_000), kind, before + 1);
        expect(stepsBetween(from, advance(from, kind, steps), kind)).toBe(steps);
        expect(stepsBetween(from, advance(from, kind, steps) + 1, kind)).toBeUndefined();
      }),
    );
  });

  const months = (first: string, count: number, step: number, anchor: number): number[] =>
    Array.from({ length: count }, (_, index) => addMonths(local(first), index * step, anchor));

  test.each([
    ["5min", regular("2024-01-01T00:00", 300_000, 50).map(local)],
    ["1h", regular("2024-01-01T00:00", 3_600_000, 2).map(local)],
    ["1d", regular("2024-01-01", day, 60).map(local)],
    ["1w", regular("2024-01-01", 7 * day, 60).map(local)],
    ["1mo", months("2023-01-01", 30, 1, 1)],
    ["1mo", months("2023-01-31", 30, 1, 31)],
    ["1mo", months("2023-01-30", 30, 1, 30)],
    ["1mo", [local("2024-01-01"), local("2024-02-01")]],
    ["1q", months("2020-03-31", 12, 3, 31)],
    ["1y", months("1990-07-01", 5, 12, 1)],
    ["1b", Array.from({ length: 40 }, (_, index) => advance(local("2024-01-03"), businessDay, index))],
  ])("inferred: %s", (label, times) => expect(inferFrequency(times, "series").label).toBe(label));

  test("one missing step in five is tolerated, more is not, and the message helps", () => {
    const hours = (...steps: number[]): number[] => steps.map((step) => step * 3_600_000);
    expect(inferFrequency(hours(0, 1, 2, 3, 4, 6), "x").label).toBe("1h");
    expect(() => inferFrequency(hours(0, 1, 2, 4, 7), "series s")).toThrow(
      /^series s: .*irregular.*1h \(50%\), 2h \(25%\), 3h \(25%\).*such as 1h/,
    );
  });
});

describe("calendars", () => {
  test("future stamps keep offset and form", () => {
    expect(futureTimestamps("2024-06-21T11:30:00+08:00", parseFrequency("5min"), 2)).toEqual([
      "2024-06-21T11:35:00+08:00",
      "2024-06-21T11:40:00+08:00",
    ]);
    expect(futureTimestamps("2024-12-31 23:00", parseFrequency("H"), 2)).toEqual(["2025-01-01T00:00:00", "2025-01-01T01:00:00"]);
    expect(futureTimestamps("2024-02-28", parseFrequency("D"), 2)).toEqual(["2024-02-29", "2024-03-01"]);
    expect(futureTimestamps("2024-02-29", parseFrequency("M"), 2)).toEqual(["2024-03-31", "2024-04-30"]);
    expect(futureTimestamps("2024-01-15", parseFrequency("Q"), 2)).toEqual(["2024-04-15", "2024-07-15"]);
    expect(futureTimestamps("2024", parseFrequency("Y"), 2)).toEqual(["2025-01-01", "2026-01-01"]);
    expect(futureTimestamps("2024-01-01", parseFrequency("12h"), 2)).toEqual(["2024-01-01T12:00:00", "2024-01-02T00:00:00"]);
    expect(futureTimestamps("2018-02-07T00:00:00Z", parseFrequency("B"), 3)).toEqual([
      "2018-02-08T00:00:00Z",
      "2018-02-09T00:00:00Z",
      "2018-02-12T00:00:00Z",
    ]);
    expect(() => futureTimestamps("soon", businessDay, 1)).toThrow(InputError);
  });

  test("a regular series", () => {
    const calendar = readCalendar(regular("2024-01-01T00:00Z", 3_600_000, 30), undefined, "s");
    expect(calendar).toMatchObject({ gaps: { count: 0, missing: 0, longest: 0 }, seasonalPeriod: 24, frequency: { label: "1h" } });
    expect(calendar.positions).toBeUndefined();
    expect(calendar.future(1)).toEqual(["2024-01-02T06:00:00Z"]);
  });

  test("month ends go on as month ends from a short month", () => {
    const calendar = readCalendar(["2023-11-30", "2023-12-31", "2024-01-31", "2024-02-29"], undefined, "s");
    expect(calendar.future(3)).toEqual(["2024-03-31", "2024-04-30", "2024-05-31"]);
    expect(readCalendar(["2023-12-30", "2024-01-30", "2024-02-29"], undefined, "s").future(2)).toEqual(["2024-03-30", "2024-04-30"]);
  });

  test("gaps: rows without a named frequency, places on a grid with one", () => {
    const stamps = regular("2024-01-01T00:00", 3_600_000, 30).filter((_, index) => ![5, 6, 7, 20].includes(index));
    const rows = readCalendar(stamps, undefined, "s");
    expect(rows.gaps).toEqual({ count: 2, missing: 4, longest: 3 });
    expect(rows.positions).toBeUndefined();
    const grid = readCalendar(stamps, "1h", "s");
    expect(grid.gaps).toEqual(rows.gaps);
    expect([...grid.positions!.slice(3, 7)]).toEqual([3, 4, 8, 9]);
    expect(grid.positions!.at(-1)).toBe(29);
    expect(grid.timestamps.length).toBe(26);
  });

  test("market days with a holiday", () => {
    const stamps = ["2018-01-11", "2018-01-12", "2018-01-16", "2018-01-17", "2018-01-18", "2018-01-19", "2018-01-22", "2018-01-23"];
    const calendar = readCalendar(stamps, undefined, "s");
    expect(calendar).toMatchObject({ frequency: { label: "1b" }, gaps: { count: 1, missing: 1, longest: 1 }, seasonalPeriod: 5 });
    expect(calendar.future(4)).toEqual(["2018-01-24", "2018-01-25", "2018-01-26", "2018-01-29"]);
  });

  test("summer time: hours follow the instants, days the wall clock", () => {
    const hours = ["2024-03-31T00:00:00+01:00", "2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00+02:00", "2024-03-31T04:00:00+02:00"];
    const hourly = readCalendar(hours, undefined, "s");
    expect(hourly).toMatchObject({ frequency: { label: "1h" }, gaps: { count: 0 } });
    expect(hourly.future(1)).toEqual(["2024-03-31T05:00:00+02:00"]);
    const days = [
      "2024-03-29T00:00+01:00",
      "2024-03-30T00:00+01:00",
      "2024-03-31T00:00+01:00",
      "2024-04-01T00:00+02:00",
      "2024-04-02T00:00+02:00",
    ];
    expect(readCalendar(days, undefined, "s")).toMatchObject({ frequency: { label: "1d" }, gaps: { count: 0 } });
    expect(readCalendar(days, "D", "s").future(1)).toEqual(["2024-04-03T00:00:00+02:00"]);
  });

  test("one stamp: no frequency unless it is named", () => {
    expect(readCalendar(["2024-01-01"], undefined, "s")).toMatchObject({ frequency: undefined, seasonalPeriod: 1 });
    expect(readCalendar(["2024-01-01"], undefined, "s").future(3)).toBeUndefined();
    expect(readCalendar(["2024-01-01"], "D", "s").future(1)).toEqual(["2024-01-02"]);
  });

  test("dates", () => {
    const calendar = readCalendar([new Date("2024-01-01T00:00Z"), new Date("2024-01-01T01:00Z")], undefined, "s");
    expect(calendar.future(1)).toEqual(["2024-01-01T02:00:00Z"]);
    expect(() => readCalendar([new Date(NaN)], undefined, "s")).toThrow(/index 0: an invalid Date/);
  });

  test.each([
    [["2024-01-01", "2024-01-02", "2024-01-02"], undefined, /^s, index 2: timestamp 2024-01-02 occurs twice/],
    [["2024-01-02", "2024-01-01"], undefined, /^s, index 1: timestamp 2024-01-01 comes after 2024-01-02; sort/],
    [["2024-01-01", "today"], undefined, /^s, index 1: "today" is no timestamp/],
    [
      ["2024-01-01T00:00Z", "2024-01-01T01:00"],
      undefined,
      /index 1: timestamp .* has no offset from UTC, the one before has one; give every timestamp/,
    ],
    [["2024-01-01", "2024-01-02", "2024-01-02T12:00"], "D", /index 2: .*not a whole number of 1d steps/],
    [["1924-01-01", "2024-01-02"], "1s", /more than 50000000 steps/],
    [["2024-01-01", "2024-01-02"], "sometimes", /unknown frequency "sometimes"/],
  ])("refuses %j with frequency %s", (stamps, frequency, message) => {
    expect(() => readCalendar(stamps, frequency, "s")).toThrow(InputError);
    expect(() => readCalendar(stamps, frequency, "s")).toThrow(message);
  });
});
