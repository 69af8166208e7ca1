/** When the next candles are due: sessions, weekends, holidays, summer time; and the wall-clock features of stamps. */
import { describe, expect, test } from "vitest";
import { candleFeatures, planCandles, type CandleCalendarOptions } from "../src/index.js";

const plan = (stamps: readonly (string | Date)[], horizon: number, options: CandleCalendarOptions = {}): string[] =>
  planCandles(stamps, options, "test").future(horizon).timestamps;

/** Every `minutes` between two instants, both included. */
function every(minutes: number, from: string, to: string): Date[] {
  const [start, end] = [Date.parse(from), Date.parse(to)];
  return Array.from({ length: Math.floor((end - start) / (minutes * 60_000)) + 1 }, (_, i) => new Date(start + i * minutes * 60_000));
}
const text = (dates: readonly Date[], offset = "Z"): string[] => dates.map((date) => date.toISOString().replace(".000Z", offset));
/** 5-minute candles of the Shanghai sessions, stamped at their ends, on the given dates. */
const shanghai = (dates: readonly string[]): string[] =>
  dates.flatMap((date) => [
    ...text(every(5, `${date}T09:35:00Z`, `${date}T11:30:00Z`), "+08:00"),
    ...text(every(5, `${date}T13:05:00Z`, `${date}T15:00:00Z`), "+08:00"),
  ]);

describe("auto", () => {
  test("around the clock goes on, over midnight and month ends", () => {
    expect(plan(text(every(60, "2024-02-28T00:00:00Z", "2024-02-29T22:00:00Z")), 3)).toEqual([
      "2024-02-29T23:00:00Z",
      "2024-03-01T00:00:00Z",
      "2024-03-01T01:00:00Z",
    ]);
  });
  test("Dates are UTC", () => {
    expect(plan(every(60, "2024-01-01T00:00:00Z", "2024-01-01T04:00:00Z"), 1)).toEqual(["2024-01-01T05:00:00Z"]);
  });
  test("an outage does not make sessions", () => {
    const stamps = text([
      ...every(60, "2024-01-01T00:00:00Z", "2024-01-04T07:00:00Z"),
      ...every(60, "2024-01-04T11:00:00Z", "2024-01-07T23:00:00Z"),
    ]);
    expect(plan(stamps, 2)).toEqual(["2024-01-08T00:00:00Z", "2024-01-08T01:00:00Z"]);
  });
  test("sessions with a lunch break, nights and weekends skipped", () => {
    const stamps = shanghai(["2024-06-18", "2024-06-19", "2024-06-20"]);
    const upToLunch = [...stamps, ...shanghai(["2024-06-21"]).slice(0, 24)];
    const due = plan(upToLunch, 26);
    expect([due[0], due[23], due[24], due[25]]).toEqual([
      "2024-06-21T13:05:00+08:00",
      "2024-06-21T15:00:00+08:00",
      "2024-06-24T09:35:00+08:00",
      "2024-06-24T09:40:00+08:00",
    ]);
  });
  test("business days, days of a week, months", () => {
    const days = text(every(1440, "2024-01-01T00:00:00Z", "2024-01-19T00:00:00Z")).filter(
      (stamp) => ![0, 6].includes(new Date(stamp).getUTCDay()),
    );
    expect(plan(days, 2)).toEqual(["2024-01-22T00:00:00Z", "2024-01-23T00:00:00Z"]);
    expect(plan(["2024-01-04", "2024-01-05", "2024-01-06", "2024-01-07"], 2)).toEqual(["2024-01-08", "2024-01-09"]);
    expect(plan(["2024-01-31", "2024-02-29", "2024-03-31"], 2)).toEqual(["2024-04-30", "2024-05-31"]);
  });
});

describe("named", () => {
  test("24/7 ignores the breaks that were seen", () => {
    expect(plan(shanghai(["2024-06-18", "2024-06-19", "2024-06-21"]), 1, { calendar: "24/7" })).toEqual(["2024-06-21T15:05:00+08:00"]);
  });
  test("sessions by rule, stamped at start or end", () => {
    const stamps = text(every(30, "2024-01-05T15:00:00Z", "2024-01-05T15:30:00Z"), "-05:00");
    const calendar = { sessions: ["09:30-16:00"], weekdays: [1, 2, 3, 4, 5] };
    expect(plan(stamps, 2, { calendar })).toEqual(["2024-01-08T09:30:00-05:00", "2024-01-08T10:00:00-05:00"]);
    expect(plan(stamps, 2, { calendar: { ...calendar, label: "end" } })).toEqual([
      "2024-01-05T16:00:00-05:00",
      "2024-01-08T10:00:00-05:00",
    ]);
  });
  test("holidays by list and by rule", () => {
    const days = ["2024-12-19", "2024-12-20", "2024-12-23", "2024-12-24"];
    const list = { holidays: ["2024-12-25", "2024-12-26"] };
    expect(plan(days, 2, { calendar: list })).toEqual(["2024-12-27", "2024-12-30"]);
    const rule = { holidays: (date: string) => date.endsWith("12-25") };
    expect(plan(days, 1, { calendar: rule })).toEqual(["2024-12-26"]);
    const hours = plan(shanghai(["2024-09-27", "2024-09-30"]), 1, { calendar: { holidays: ["2024-10-01", "2024-10-02"] } });
    expect(hours).toEqual(["2024-10-03T09:35:00+08:00"]);
  });
  test("a market that never opens is an error", () => {
    expect(() => plan(["2024-01-01", "2024-01-02"], 1, { calendar: { holidays: () => true } })).toThrow(/no open day/);
    expect(() => plan(shanghai(["2024-06-18"]), 1, { calendar: { sessions: ["16:00-09:00"] } })).toThrow(/is no session/);
  });
  test("the candle's length can be named", () => {
    const stamps = ["2024-01-01T00:00:00Z", "2024-01-01T04:00:00Z", "2024-01-01T05:00:00Z", "2024-01-01T07:00:00Z"];
    expect(() => plan(stamps, 1)).toThrow(/several lengths/);
    expect(plan(stamps, 2, { frequency: "1h", calendar: "24/7" })).toEqual(["2024-01-01T08:00:00Z", "2024-01-01T09:00:00Z"]);
  });
  test("a named length is kept where the stamps show another one", () => {
    const hours = ["2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z", "2024-01-01T02:00:00Z"];
    expect(plan(hours, 2, { frequency: "2h" })).toEqual(["2024-01-01T04:00:00Z", "2024-01-01T06:00:00Z"]);
    expect(plan(hours, 2, { frequency: "30min" })).toEqual(["2024-01-01T02:30:00Z", "2024-01-01T03:00:00Z"]);
    // Sessions: the slots that were seen, a candle's length apart.
    const days = ["2024-01-02", "2024-01-03", "2024-01-04"].flatMap((day) =>
      ["09:00", "09:30", "10:00", "10:30"].map((clock) => `${day}T${clock}`),
    );
    expect(plan(days, 3, { frequency: "1h" })).toEqual(["2024-01-05T09:00:00", "2024-01-05T10:00:00", "2024-01-08T09:00:00"]);
  });
  test("mistakes in a calendar are named before any work", () => {
    for (const [calendar, message] of [
      [{ hollidays: [] }, /field "hollidays": known are weekdays, sessions, label and holidays/],
      [{ holidays: 5 }, /holidays must be a list of dates/],
      [{ holidays: ["25.12.2025"] }, /holidays must be a list of dates/],
      [{ weekdays: [0, 1] }, /weekdays must be a list of days from 1 \(Monday\) to 7/],
      [{ sessions: "09:30-16:00" }, /sessions must be a list/],
      [{ label: "middle" }, /label must be "start" or "end"/],
    ] as const)
      expect(() => plan(["2024-01-01", "2024-01-02"], 1, { calendar } as unknown as CandleCalendarOptions)).toThrow(message);
  });
});

describe("summer time", () => {
  const zone = { timeZone: "America/New_York" };
  test("hourly instants go on through both changes; the wall clock jumps", () => {
    const spring = planCandles(every(60, "2024-03-10T03:00:00Z", "2024-03-10T05:00:00Z"), zone, "test").future(4);
    expect(spring.timestamps).toEqual([
      "2024-03-10T01:00:00-05:00",
      "2024-03-10T03:00:00-04:00",
      "2024-03-10T04:00:00-04:00",
      "2024-03-10T05:00:00-04:00",
    ]);
    const autumn = planCandles(every(60, "2024-11-03T02:00:00Z", "2024-11-03T04:00:00Z"), zone, "test").future(4);
    expect(autumn.locals.map((local) => new Date(local).getUTCHours())).toEqual([1, 1, 2, 3]);
    expect(autumn.timestamps.slice(0, 3)).toEqual(["2024-11-03T01:00:00-04:00", "2024-11-03T01:00:00-05:00", "2024-11-03T02:00:00-05:00"]);
  });
  test("sessions stay at their wall-clock time over a change", () => {
    const day = (date: string): Date[] => every(30, `${date}T14:30:00Z`, `${date}T20:30:00Z`);
    const stamps = ["2024-03-05", "2024-03-06", "2024-03-07", "2024-03-08"].flatMap(day);
    const due = planCandles(stamps, zone, "test").future(2).timestamps;
    expect(due).toEqual(["2024-03-11T09:30:00-04:00", "2024-03-11T10:00:00-04:00"]);
  });
  test("stamps that write their changing offset have one length of candle", () => {
    const stamps = ["2024-03-31T00:00:00+01:00", "2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00+02:00", "2024-03-31T04:00:00+02:00"];
    expect(plan(stamps, 2)).toEqual(["2024-03-31T05:00:00+02:00", "2024-03-31T06:00:00+02:00"]);
    const days = ["2024-03-29T00:00:00+01:00", "2024-03-30T00:00:00+01:00", "2024-03-31T00:00:00+01:00", "2024-04-01T00:00:00+02:00"];
    expect(plan(days, 1)).toEqual(["2024-04-02T00:00:00+02:00"]);
    const autumn = ["2024-10-27T01:00:00+02:00", "2024-10-27T02:00:00+02:00", "2024-10-27T02:00:00+01:00", "2024-10-27T03:00:00+01:00"];
    expect(plan(autumn, 1)).toEqual(["2024-10-27T04:00:00+01:00"]);
  });
  test("the repeated hour without offsets is an error that says so", () => {
    expect(() => plan(["2024-11-03T00:00", "2024-11-03T01:00", "2024-11-03T01:00", "2024-11-03T02:00"], 1)).toThrow(/occurs twice.*offset/);
  });
});

describe("features", () => {
  test("minute, hour, weekday from Monday, day, month at the written offset", () => {
    expect(Array.from(candleFeatures(["2024-06-18T11:15:00+08:00", "2024-12-29T23:59:00Z"]))).toEqual([
      15, 11, 1, 18, 6, 59, 23, 6, 29, 12,
    ]);
  });
  test("in a zone, with its summer time; wall-clock text is not moved", () => {
    const stamps = ["2024-01-15T14:30:00Z", "2024-07-15T14:30:00Z", "2024-07-15T14:30"];
    expect(Array.from(candleFeatures(stamps, "America/New_York"))).toEqual([30, 9, 0, 15, 1, 30, 10, 0, 15, 7, 30, 14, 0, 15, 7]);
  });
  test("before 1970 and at half-hour offsets", () => {
    expect(Array.from(candleFeatures(["1969-12-31T23:45:00+05:30"]))).toEqual([45, 23, 2, 31, 12]);
    expect(Array.from(candleFeatures(["1969-12-31T18:15:00Z"], "Asia/Kolkata"))).toEqual([45, 23, 2, 31, 12]);
  });
});
