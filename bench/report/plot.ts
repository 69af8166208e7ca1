/** Lines over numbers as an SVG picture, readable on light and dark pages. Must not know what the numbers mean. */
import type { Curve } from "../curves.js";

const [pictureWidth, pictureHeight] = [720, 360];
const frame = { left: 64, right: 16, top: 36, bottom: 72 };
const colours = ["#2b6cb0", "#c05621", "#2f855a", "#6b46c1"];

interface Axis {
  /** Place of a value between 0 and 1. */
  readonly place: (value: number) => number;
  readonly ticks: readonly number[];
}

const short = (value: number): string =>
  value >= 1000 ? `${Number((value / 1000).toPrecision(3))}k` : String(Number(value.toPrecision(3)));

/** Powers of `base` that enclose the values. */
function logarithmicAxis(values: readonly number[], base: number): Axis {
  const exponent = (value: number): number => Math.log(value) / Math.log(base);
  // Rounding must not add an empty power.
  const first = Math.floor(exponent(Math.min(...values)) + 1e-9);
  const last = Math.max(first + 1, Math.ceil(exponent(Math.max(...values)) - 1e-9));
  return {
    place: (value) => (exponent(value) - first) / (last - first),
    ticks: Array.from({ length: last - first + 1 }, (_, index) => base ** (first + index)),
  };
}

/** From `from` to a round number above the largest value. */
function linearAxis(from: number, largest: number): Axis {
  const rough = (largest - from) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough) as number) * power;
  const count = Math.ceil((largest - from) / step);
  return {
    place: (value) => (value - from) / (count * step),
    ticks: Array.from({ length: count + 1 }, (_, index) => from + index * step),
  };
}

const escaped = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

export function plotSvg({ title, xLabel, logarithmic, lines }: Curve): string {
  const points = lines.flatMap((line) => line.points);
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const xAxis = logarithmic ? logarithmicAxis(xs, 2) : linearAxis(0, Math.max(...xs));
  // Lines that differ by orders of magnitude need a logarithmic axis in any case.
  const wide = Math.max(...ys) / Math.min(...ys) > 30;
  const yAxis = logarithmic || wide ? logarithmicAxis(ys, wide ? 10 : 2) : linearAxis(0, Math.max(...ys));
  const x = (value: number): number => frame.left + xAxis.place(value) * (pictureWidth - frame.left - frame.right);
  const y = (value: number): number => pictureHeight - frame.bottom - yAxis.place(value) * (pictureHeight - frame.top - frame.bottom);
  const text = (at: readonly [number, number], words: string, anchor: string, fill = "#718096"): string =>
    `<text x="${at[0].toFixed(1)}" y="${at[1].toFixed(1)}" text-anchor="${anchor}" fill="${fill}">${escaped(words)}</text>`;
  const segment = (x1: number, y1: number, x2: number, y2: number): string =>
    `<line x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}" stroke="#a0aec0" stroke-width="0.5"/>`;
  const parts = [
    text([frame.left, 20], `${title}, milliseconds`, "start"),
    ...yAxis.ticks.flatMap((tick) => [
      segment(frame.left, y(tick), pictureWidth - frame.right, y(tick)),
      text([frame.left - 6, y(tick) + 4], short(tick), "end"),
    ]),
    ...xAxis.ticks.map((tick) => text([x(tick), pictureHeight - frame.bottom + 16], short(tick), "middle")),
    text([pictureWidth - frame.right, pictureHeight - frame.bottom + 32], xLabel, "end"),
    ...lines.flatMap(({ name, points: own }, index) => {
      const colour = colours[index % colours.length] as string;
      const path = own.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(" ");
      const dots =
        own.length > 20 ? [] : own.map(([px, py]) => `<circle cx="${x(px).toFixed(1)}" cy="${y(py).toFixed(1)}" r="3" fill="${colour}"/>`);
      const row = pictureHeight - frame.bottom + 32 + 13 * index;
      return [
        `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="1.5"/>`,
        ...dots,
        text([frame.left, row], name, "start", colour),
      ];
    }),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${pictureWidth} ${pictureHeight}" font-family="sans-serif" font-size="12">\n${parts.join("\n")}\n</svg>\n`;
}
