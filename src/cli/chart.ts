/**
 * A forecast drawn with text: history and median as lines of braille dots, the quantile band as shade, an axis with dates.
 * Knows numbers and a terminal's size; nothing of forecasts' origin.
 */
import { numberFormat } from "./numbers.js";

export interface ChartInput {
  readonly title: string;
  /** [L] the end of it is shown; NaN = a gap. */
  readonly history: ArrayLike<number>;
  /** [horizon] */
  readonly center: ArrayLike<number>;
  /** [horizon] both or neither. */
  readonly lower?: ArrayLike<number>;
  readonly upper?: ArrayLike<number>;
  /** [horizon] a narrower band inside, drawn darker; both or neither. */
  readonly innerLower?: ArrayLike<number>;
  readonly innerUpper?: ArrayLike<number>;
  /** Text under the first shown step of `history`, counted from its start, the first forecast step, and the last one. */
  readonly stampOf: (step: number) => string;
  readonly legend: string;
}

export interface ChartSize {
  /** Columns of the terminal. */
  readonly columns: number;
  /** Lines of the plot itself. */
  readonly lines?: number;
  readonly colours: boolean;
}

const DOT_BITS = [
  [0x01, 0x08],
  [0x02, 0x10],
  [0x04, 0x20],
  [0x40, 0x80],
] as const;
/** Outer and inner band. */
const BANDS = ["░", "▒"] as const;

/** Lines of text, none wider than `size.columns`. Without colours there are no escape codes in it. */
export function renderChart(input: ChartInput, size: ChartSize): string {
  const lines = Math.max(4, size.lines ?? 14);
  const horizon = input.center.length;
  const shown = Math.min(input.history.length, Math.max(3 * horizon, 48));
  const historyStart = input.history.length - shown;
  const steps = shown + horizon;
  const valueAt = (step: number): number => (step < shown ? input.history[historyStart + step] : input.center[step - shown]) ?? Number.NaN;

  const range = valueRange(input, shown, historyStart);
  const ticks = [range.high, (range.high + range.low) / 2, range.low];
  const format = numberFormat(ticks);
  const labelWidth = Math.max(...ticks.map((tick) => format(tick).length));
  const width = Math.max(10, size.columns - labelWidth - 3);

  const grid = new DotGrid(width, lines);
  const columnOf = (step: number): number => (steps === 1 ? 0 : Math.round((step / (steps - 1)) * (width * 2 - 1)));
  const rowOf = (value: number): number => Math.round(((range.high - value) / (range.high - range.low)) * (lines * 4 - 1));
  const origin = Math.floor(columnOf(shown) / 2);

  const shade = (lower: ArrayLike<number> | undefined, upper: ArrayLike<number> | undefined, depth: 1 | 2): void => {
    if (lower === undefined || upper === undefined) return;
    for (let step = 0; step < horizon; step += 1) {
      const from = Math.floor(columnOf(shown + step) / 2);
      const to = step + 1 < horizon ? Math.floor(columnOf(shown + step + 1) / 2) : from + 1;
      const top = Math.floor(rowOf(upper[step] ?? Number.NaN) / 4);
      const bottom = Math.floor(rowOf(lower[step] ?? Number.NaN) / 4);
      for (let column = from; column < Math.max(to, from + 1); column += 1) grid.shade(column, top, bottom, depth);
    }
  };
  shade(input.lower, input.upper, 1);
  shade(input.innerLower, input.innerUpper, 2);
  for (let step = 0; step < steps; step += 1) {
    const value = valueAt(step);
    if (Number.isNaN(value)) continue;
    const previous = step > 0 ? valueAt(step - 1) : Number.NaN;
    const column = columnOf(step);
    if (Number.isNaN(previous)) grid.dot(column, rowOf(value), step >= shown);
    else grid.line(columnOf(step - 1), rowOf(previous), column, rowOf(value), step >= shown);
  }

  const plot = grid.lines(origin, size.colours).map((line, row) => {
    const tick = row === 0 ? ticks[0] : row === Math.floor((lines - 1) / 2) ? ticks[1] : row === lines - 1 ? ticks[2] : undefined;
    // The middle label names the value its line stands for, not the middle of the range.
    const value = tick === ticks[1] ? range.high - ((row + 0.5) / lines) * (range.high - range.low) : tick;
    return `${(value === undefined ? "" : format(value)).padStart(labelWidth)} ${value === undefined ? "│" : "┤"}${line}`;
  });
  const axis = `${" ".repeat(labelWidth)} └${"─".repeat(origin)}┴${"─".repeat(Math.max(0, width - origin - 1))}`;
  const labels = axisLabels(
    [
      { column: 0, text: input.stampOf(historyStart) },
      { column: origin, text: input.stampOf(input.history.length) },
      { column: width, text: input.stampOf(input.history.length + horizon - 1) },
    ],
    width,
  );
  return [input.title, ...plot, axis, `${" ".repeat(labelWidth + 2)}${labels}`.trimEnd(), `${" ".repeat(labelWidth + 2)}${input.legend}`]
    .map((line) => fit(line, size.columns))
    .join("\n");
}

function valueRange(input: ChartInput, shown: number, historyStart: number): { low: number; high: number } {
  let low = Infinity;
  let high = -Infinity;
  const see = (value: number | undefined): void => {
    if (value === undefined || !Number.isFinite(value)) return;
    low = Math.min(low, value);
    high = Math.max(high, value);
  };
  for (let step = historyStart; step < historyStart + shown; step += 1) see(input.history[step]);
  for (let step = 0; step < input.center.length; step += 1) {
    see(input.center[step]);
    see(input.lower?.[step]);
    see(input.upper?.[step]);
  }
  if (low > high) return { low: 0, high: 1 };
  if (low === high) return { low: low - Math.max(1, Math.abs(low)) * 0.5, high: high + Math.max(1, Math.abs(high)) * 0.5 };
  return { low, high };
}

/** Left-most text starts at its column, right-most ends at the right edge; the middle one is dropped where they would touch. */
function axisLabels(marks: readonly { column: number; text: string }[], width: number): string {
  const [first, middle, last] = marks;
  if (first === undefined || middle === undefined || last === undefined) return "";
  const cells = Array.from({ length: width }, () => " ");
  const put = (column: number, text: string): void => {
    for (let index = 0; index < text.length && column + index < width; index += 1) cells[column + index] = text[index] ?? " ";
  };
  const lastColumn = Math.max(0, width - last.text.length);
  put(lastColumn, last.text);
  const middleColumn = Math.max(0, Math.min(middle.column - Math.floor(middle.text.length / 2), lastColumn - middle.text.length - 2));
  if (middleColumn > 1 && middleColumn + middle.text.length < lastColumn) put(middleColumn, middle.text);
  if (first.text.length + 2 <= (middleColumn > 1 ? middleColumn : lastColumn)) put(0, first.text);
  return cells.join("").trimEnd();
}

function fit(line: string, columns: number): string {
  // Lines with escape codes are built to the right width already.
  return line.includes("\u001b") || line.length <= columns ? line : line.slice(0, columns);
}

/** Two by four dots per character cell, with a shade behind them. */
class DotGrid {
  readonly #bits: Uint8Array;
  readonly #forecast: Uint8Array;
  readonly #shade: Uint8Array;

  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    this.#bits = new Uint8Array(width * height);
    this.#forecast = new Uint8Array(width * height);
    this.#shade = new Uint8Array(width * height);
  }

  dot(column: number, row: number, forecast: boolean): void {
    if (!(column >= 0 && column < this.width * 2 && row >= 0 && row < this.height * 4)) return;
    const cell = Math.floor(row / 4) * this.width + Math.floor(column / 2);
    const bit = DOT_BITS[(row % 4) as 0 | 1 | 2 | 3][(column % 2) as 0 | 1];
    this.#bits[cell] = (this.#bits[cell] ?? 0) | bit;
    if (forecast) this.#forecast[cell] = 1;
  }

  line(fromColumn: number, fromRow: number, toColumn: number, toRow: number, forecast: boolean): void {
    const count = Math.max(Math.abs(toColumn - fromColumn), Math.abs(toRow - fromRow), 1);
    for (let index = 0; index <= count; index += 1) {
      const share = index / count;
      this.dot(Math.round(fromColumn + (toColumn - fromColumn) * share), Math.round(fromRow + (toRow - fromRow) * share), forecast);
    }
  }

  shade(column: number, top: number, bottom: number, depth: 1 | 2): void {
    if (!(column >= 0 && column < this.width)) return;
    for (let row = Math.max(0, top); row <= Math.min(this.height - 1, bottom); row += 1) this.#shade[row * this.width + column] = depth;
  }

  lines(origin: number, colours: boolean): string[] {
    return Array.from({ length: this.height }, (_, row) => {
      let text = "";
      for (let column = 0; column < this.width; column += 1) {
        const cell = row * this.width + column;
        const bits = this.#bits[cell] ?? 0;
        if (bits !== 0) {
          const character = String.fromCharCode(0x2800 + bits);
          text += colours && this.#forecast[cell] === 1 ? `\u001b[36m${character}\u001b[0m` : character;
          continue;
        }
        const band = BANDS[(this.#shade[cell] ?? 0) - 1];
        if (band !== undefined) text += colours ? `\u001b[2;36m${band}\u001b[0m` : band;
        else text += column === origin ? "┊" : " ";
      }
      return text.trimEnd();
    });
  }
}
