/** One generate call: what is asked for, the sequences and sample paths it is about, and the tokens these have so far. Knows nothing of programs and caches. */
import type { Tensor } from "../../tensor/index.js";
import type { TokenArrays } from "./codec.js";
import type { Tokens } from "./tokenizer.js";

/** One series ready for the tokenizer. */
export interface KronosEntry {
  /** f32 [length * 6] normalised, clipped. */
  readonly candles: Float32Array;
  /** i32 [length * 5] and [steps * 5]: minute, hour, weekday, day, month. */
  readonly stamps: Int32Array;
  readonly futureStamps: Int32Array;
  readonly paths: number;
}

export interface GenerateRequest {
  readonly entries: readonly KronosEntry[];
  /** Candles to generate, at most `window`. */
  readonly steps: number;
  /** Tokens the model sees at once, W. */
  readonly window: number;
  /** i32 [rows, 2]: series stream and path of every row. */
  readonly keys: Int32Array;
  readonly seed: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  /** Tokens of a step, [rows] each, instead of draws. */
  readonly forced?: (step: number) => { coarse: Int32Array; fine: Int32Array };
  readonly signal?: AbortSignal | undefined;
  /** Called after each candle; `rows` are the answer rows that the taps of this call are about. */
  readonly onStep?: (step: number, taps: ReadonlyMap<string, Tensor>, rows: readonly number[]) => void;
}

export interface GeneratedCandles {
  /** Per entry: tokens of its context, [length] each. */
  readonly context: readonly TokenArrays[];
  /** Per row: generated tokens, [steps] each. */
  readonly tokens: readonly TokenArrays[];
  /** f32 [rows * steps * 6] normalised. */
  readonly values: Float32Array;
}

/** What is prefilled once. */
export interface Sequence {
  readonly entry: KronosEntry;
  readonly context: TokenArrays;
}

/** A sample path. */
export interface Row extends TokenArrays {
  readonly entry: KronosEntry;
  /** Sequence whose prefix it continues, and that prefix's tokens. */
  readonly sequence: number;
  readonly length: number;
}

export class Run {
  /** What is prefilled: one per entry, or one per path when prefixes are not shared. */
  readonly sequences: readonly Sequence[];
  readonly rows: readonly Row[];

  constructor(
    readonly request: GenerateRequest,
    context: readonly TokenArrays[],
    shared: boolean,
  ) {
    const { entries, steps } = request;
    this.sequences = entries.flatMap((entry, index) =>
      Array.from({ length: shared ? 1 : entry.paths }, () => ({ entry, context: context[index] as TokenArrays })),
    );
    let sequence = 0;
    const rows: Row[] = [];
    entries.forEach((entry, index) => {
      for (let path = 0; path < entry.paths; path++) {
        const { length } = (context[index] as TokenArrays).coarse;
        rows.push({ entry, sequence, length, coarse: new Int32Array(steps), fine: new Int32Array(steps) });
        if (!shared || path === entry.paths - 1) sequence++;
      }
    });
    this.rows = rows;
  }

  sequenceOf({ sequence }: Row): Sequence {
    return this.sequences[sequence] as Sequence;
  }

  /** Takes the tokens of `rows` at `step` from a program's answer. */
  accept(step: number, rows: readonly number[], candle: Tokens, taps: ReadonlyMap<string, Tensor>): void {
    const [coarse, fine] = [candle.coarse.data(), candle.fine.data()];
    for (let index = 0; index < rows.length; index++) {
      const target = this.rows[rows[index] as number] as Row;
      target.coarse[step] = coarse[index] as number;
      target.fine[step] = fine[index] as number;
    }
    this.request.onStep?.(step, taps, rows);
  }
}
