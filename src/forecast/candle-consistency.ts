/** Candles that contradict themselves: drawn columns are independent enough that a high may lie below a close. Arithmetic on answers, nothing else. */
import type { ModelSeriesAnswer } from "../models/model.js";
import type { Warning } from "./calendar.js";

type Columns = readonly Float32Array[];

/** Widens high and low to hold open and close, and lifts negative volume and amount to 0, in place; returns how many candles changed. */
function repair([open, high, low, close, volume, amount]: Columns): number {
  let changed = 0;
  const length = (open as Float32Array).length;
  for (let step = 0; step < length; step++) {
    const at = (column: Float32Array | undefined): number => column?.[step] ?? 0;
    const fixed = [
      [high, Math.max(at(open), at(high), at(low), at(close))],
      [low, Math.min(at(open), at(high), at(low), at(close))],
      [volume, Math.max(at(volume), 0)],
      [amount, Math.max(at(amount), 0)],
    ] as const;
    let differs = false;
    for (const [column, value] of fixed) {
      if (!column || column[step] === value) continue;
      column[step] = value;
      differs = true;
    }
    if (differs) changed++;
  }
  return changed;
}

export interface ConsistentAnswers {
  readonly answers: readonly ModelSeriesAnswer[];
  /** Candles of the means that were changed, and of all paths. */
  readonly means: number;
  readonly paths: number;
  /** One that says so, when any was. */
  readonly warnings: readonly Warning[];
}

/** Copies of the answers in which every candle has high >= open, close >= low and no negative volume or amount. */
export function makeConsistent(answers: readonly ModelSeriesAnswer[]): ConsistentAnswers {
  let [means, paths] = [0, 0];
  const repaired = answers.map((answer): ModelSeriesAnswer => {
    const copy = (columns: Columns): Columns => columns.map((column) => column.slice());
    const mean = copy(answer.mean);
    means += repair(mean);
    if (!answer.paths) return { ...answer, mean };
    const drawn = copy(answer.paths);
    paths += repair(drawn);
    return { ...answer, mean, paths: drawn };
  });
  const message = `made consistent: ${means} mean candles and ${paths} candles of sample paths had a high or low inside the candle, or a negative volume`;
  return { answers: repaired, means, paths, warnings: means + paths > 0 ? [{ code: "consistent", message }] : [] };
}

/** Change of each step over the one before in percent, the first over `last`: [horizon]. */
export function percentChanges(values: ArrayLike<number>, last: number): Float64Array {
  return Float64Array.from(values, (value, step) => {
    const before = step === 0 ? last : (values[step - 1] as number);
    return before === 0 ? Number.NaN : (100 * (value - before)) / before;
  });
}
