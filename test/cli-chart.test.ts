/** Charts, tables and number formats as text. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { renderChart, type ChartInput } from "../src/cli/chart.js";
import { bytes, duration, numberFormat } from "../src/cli/numbers.js";
import { stampFormat } from "../src/cli/stamps.js";
import { renderTable } from "../src/cli/table.js";

const base: ChartInput = {
  title: "title",
  history: [0, 1, 2, 3, 4, 5, 6, 7],
  center: [8, 9],
  lower: [7, 7],
  upper: [9, 11],
  stampOf: (step) => `s${step}`,
  legend: "legend",
};

test("a rising line rises, the band lies right of the origin, the axis names start, origin and end", () => {
  const lines = renderChart(base, { columns: 50, lines: 8, colours: false }).split("\n");
  expect(lines[0]).toBe("title");
  expect(lines).toHaveLength(8 + 4);
  const plot = lines.slice(1, 9);
  const inked = plot.map((line) => line.search(/[⠁-⣿]/));
  // Higher lines start later: the series rises.
  const found = inked.filter((column) => column >= 0);
  expect(found).toEqual([...found].sort((left, right) => right - left));
  const origin = lines.find((line) => line.includes("┴"))?.indexOf("┴") ?? -1;
  for (const line of plot)
    for (let column = 0; column < line.length; column += 1) if (line[column] === "░") expect(column).toBeGreaterThanOrEqual(origin);
  expect(plot.join("")).toContain("░");
  expect(lines.at(-2)).toMatch(/s0 +s8 +s9/);
  expect(lines[1]).toMatch(/^ *11\.0+ ┤/);
  expect(lines[8]).toMatch(/^ *0\.0+ ┤/);
});

test("any input fits the terminal and throws nothing", () => {
  const value = fc.oneof(fc.double({ noDefaultInfinity: true }), fc.constantFrom(0, Number.NaN, 1e30, -1e-30));
  fc.assert(
    fc.property(
      fc.array(value, { maxLength: 40 }),
      fc.array(value, { minLength: 1, maxLength: 20 }),
      fc.integer({ min: 30, max: 120 }),
      (history, center, columns) => {
        const upper = center.map((middle) => middle + 1);
        const text = renderChart({ ...base, history, center, lower: center, upper }, { columns, lines: 6, colours: false });
        return text.split("\n").every((line) => line.length <= columns) && !text.includes("undefined");
      },
    ),
    { verbose: true },
  );
});

test("tables: columns as wide as their widest cell, numbers to the right", () => {
  expect(
    renderTable(
      [{ title: "a" }, { title: "long title", align: "right" }],
      [
        ["wide cell", "1"],
        ["b", "22"],
      ],
    ),
  ).toBe(["a          long title", "─────────  ──────────", "wide cell           1", "b                  22"].join("\n"));
});

test("numbers: digits that fit the column", () => {
  expect(numberFormat([1713.6417, 12.5])(12.5)).toBe("12.5");
  expect(numberFormat([97.412])(97.41234)).toBe("97.412");
  expect(numberFormat([0.012345])(0.012345)).toBe("0.012345");
  expect(numberFormat([1e30])(1e30)).toBe("1.000e+30");
  expect(numberFormat([0])(0)).toBe("0");
  expect(numberFormat([1])(Number.NaN)).toBe("-");
  expect(duration(3.21)).toBe("3.2 ms");
  expect(duration(1234)).toBe("1.2 s");
  expect(bytes(512)).toBe("512 B");
  expect(bytes(3_400_000)).toBe("3.4 MB");
});

test("stamps: dates alone at midnight, minutes else, seconds only when they matter", () => {
  expect(stampFormat(["2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"])("2024-01-02T00:00:00Z")).toBe("2024-01-02");
  expect(stampFormat(["2024-01-01T00:00:00+08:00", "2024-01-01T01:00:00+08:00"])("2024-01-01T01:00:00+08:00")).toBe("2024-01-01 01:00");
  expect(stampFormat(["2024-01-01T00:00:30Z"])("2024-01-01T00:00:30Z")).toBe("2024-01-01 00:00:30");
  expect(stampFormat(["2024-01-01"])("2024-01-01")).toBe("2024-01-01");
  expect(stampFormat([7])(7)).toBe("7");
});
