/**
 * Forecasts drawn as SVG: history, median, two bands, what came next where it is known, axes with numbers and dates. Several panels below each other.
 * Knows numbers and text; nothing of where forecasts come from. Needs no library: the drawing is lines and polygons.
 */
import { numberFormat } from "./numbers.js";

export interface Band {
  /** [horizon] each */
  readonly lower: ArrayLike<number>;
  readonly upper: ArrayLike<number>;
  /** For the legend, such as "0.1 to 0.9". */
  readonly name: string;
}

export interface SvgPanel {
  readonly title: string;
  /** Name of the value axis: the column, with its unit where it has one. */
  readonly unit?: string;
  /** [L] the end of it is shown; NaN = a gap. */
  readonly history: ArrayLike<number>;
  /** [horizon] */
  readonly center: ArrayLike<number>;
  readonly centerName: string;
  /** Widest first. */
  readonly bands: readonly Band[];
  /** [horizon] what came next. */
  readonly actual?: ArrayLike<number>;
  /** Text for a step counted from the start of `history`; forecast steps go on after it. */
  readonly stampOf: (step: number) => string;
}

const SIZE = { width: 860, panel: 300, left: 78, right: 20, top: 34, bottom: 46 };
const INK = { text: "#333", axis: "#999", grid: "#e5e5e5", history: "#333", center: "#0b6fb8", band: "#0b6fb8", actual: "#d1495b" };

/** A complete SVG document with a closing newline. */
export function renderSvg(panels: readonly SvgPanel[]): string {
  const height = Math.max(1, panels.length) * SIZE.panel;
  const body = panels.map((panel, index) => `<g transform="translate(0 ${index * SIZE.panel})">\n${renderPanel(panel)}\n</g>`);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${SIZE.width}" height="${height}" viewBox="0 0 ${SIZE.width} ${height}" font-family="sans-serif" font-size="12" fill="${INK.text}">`,
    `<rect width="${SIZE.width}" height="${height}" fill="#fff"/>`,
    ...body,
    "</svg>",
    "",
  ].join("\n");
}

function renderPanel(panel: SvgPanel): string {
  const horizon = panel.center.length;
  const shown = Math.min(panel.history.length, Math.max(3 * horizon, 48));
  const start = panel.history.length - shown;
  const steps = shown + horizon;
  const past = Array.from({ length: shown }, (_, step) => panel.history[start + step] ?? Number.NaN);
  const range = rangeOf([past, panel.center, ...panel.bands.flatMap(({ lower, upper }) => [lower, upper]), panel.actual ?? []]);
  const [left, right] = [SIZE.left, SIZE.width - SIZE.right];
  const [top, bottom] = [SIZE.top, SIZE.panel - SIZE.bottom];
  const x = (step: number): number => left + ((right - left) * step) / Math.max(1, steps - 1);
  const y = (value: number): number => bottom - ((bottom - top) * (value - range.low)) / (range.high - range.low);
  const ahead = (values: ArrayLike<number>): [number, number][] => Array.from(values, (value, step) => [x(shown + step), y(value)]);
  const joined = past[shown - 1];

  const parts: string[] = [];
  const ticks = ticksOf(range.low, range.high);
  const format = numberFormat(ticks);
  for (const tick of ticks) {
    parts.push(`<line x1="${left}" x2="${right}" y1="${at(y(tick))}" y2="${at(y(tick))}" stroke="${INK.grid}"/>`);
    parts.push(`<text x="${left - 8}" y="${at(y(tick) + 4)}" text-anchor="end">${format(tick)}</text>`);
  }
  panel.bands.forEach(({ lower, upper }, index) => {
    const outline = [...ahead(upper), ...ahead(lower).reverse()].filter(isDrawn);
    parts.push(`<polygon points="${points(outline)}" fill="${INK.band}" fill-opacity="${index === 0 ? 0.15 : 0.25}"/>`);
  });
  parts.push(
    `<line x1="${at(x(shown - 0.5))}" x2="${at(x(shown - 0.5))}" y1="${top}" y2="${bottom}" stroke="${INK.axis}" stroke-dasharray="3 3"/>`,
  );
  for (const run of runsOf(past.map((value, step): [number, number] => [x(step), y(value)]))) parts.push(line(run, INK.history));
  if (panel.actual !== undefined) for (const run of runsOf(ahead(panel.actual))) parts.push(line(run, INK.actual));
  const bridge: [number, number][] = joined === undefined || Number.isNaN(joined) ? [] : [[x(shown - 1), y(joined)]];
  for (const run of runsOf([...bridge, ...ahead(panel.center)])) parts.push(line(run, INK.center, 2));
  parts.push(`<line x1="${left}" x2="${right}" y1="${bottom}" y2="${bottom}" stroke="${INK.axis}"/>`);
  const marks: readonly (readonly [number, string])[] = [
    [0, "start"],
    [shown, "middle"],
    [steps - 1, "end"],
  ];
  for (const [step, anchor] of marks) {
    parts.push(`<text x="${at(x(step))}" y="${bottom + 18}" text-anchor="${anchor}">${escaped(panel.stampOf(start + step))}</text>`);
  }
  const legend = [
    ["history", INK.history],
    [panel.centerName, INK.center],
    ...(panel.actual === undefined ? [] : [["actual", INK.actual]]),
    ...panel.bands.map(({ name }) => [name, INK.band]),
  ] as const;
  let offset = left;
  for (const [name, colour] of legend) {
    parts.push(`<rect x="${offset}" y="${bottom + 28}" width="12" height="4" fill="${colour}"/>`);
    parts.push(`<text x="${offset + 17}" y="${bottom + 34}">${escaped(String(name))}</text>`);
    offset += 40 + 7 * String(name).length;
  }
  parts.push(`<text x="${left}" y="20" font-size="14" font-weight="bold">${escaped(panel.title)}</text>`);
  if (panel.unit !== undefined) parts.push(`<text x="${right}" y="20" text-anchor="end">${escaped(panel.unit)}</text>`);
  return parts.join("\n");
}

function line(run: readonly [number, number][], colour: string, width = 1.3): string {
  const only = run[0];
  if (run.length === 1 && only !== undefined) return `<circle cx="${at(only[0])}" cy="${at(only[1])}" r="2" fill="${colour}"/>`;
  return `<polyline points="${points(run)}" fill="none" stroke="${colour}" stroke-width="${width}" stroke-linejoin="round"/>`;
}

function points(list: readonly [number, number][]): string {
  return list.map(([horizontal, vertical]) => `${at(horizontal)},${at(vertical)}`).join(" ");
}

/** Unbroken stretches: a gap ends one. */
function runsOf(list: readonly [number, number][]): [number, number][][] {
  const runs: [number, number][][] = [];
  let open: [number, number][] = [];
  for (const point of list) {
    if (isDrawn(point)) open.push(point);
    else if (open.length > 0) {
      runs.push(open);
      open = [];
    }
  }
  if (open.length > 0) runs.push(open);
  return runs;
}

function isDrawn([, vertical]: readonly [number, number]): boolean {
  return Number.isFinite(vertical);
}

function rangeOf(lists: readonly ArrayLike<number>[]): { low: number; high: number } {
  let [low, high] = [Infinity, -Infinity];
  for (const list of lists) {
    for (let index = 0; index < list.length; index += 1) {
      const value = list[index] ?? Number.NaN;
      if (!Number.isFinite(value)) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (low > high) return { low: 0, high: 1 };
  if (low === high) return { low: low - Math.max(1, Math.abs(low)) * 0.5, high: high + Math.max(1, Math.abs(high)) * 0.5 };
  const margin = (high - low) * 0.04;
  return { low: low - margin, high: high + margin };
}

/** Three to seven round numbers inside the range. */
function ticksOf(low: number, high: number): number[] {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough) ?? rough;
  const first = Math.ceil(low / step);
  const last = Math.floor(high / step);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => (first + index) * step);
}

/** Hundredths of a pixel are more than anyone sees. */
function at(value: number): string {
  return String(Math.round(value * 100) / 100);
}

function escaped(text: string): string {
  // Control characters are not allowed in XML at all.
  return text
    .replace(/[\u0000-\u001f]/g, " ")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;");
}
