/**
 * Arguments of the generating programs. Where sizes stay they are made once for the rows of a call and then only filled, candle by candle: a program that is called
 * again with the same tensors, states and sizes finds its way without looking, and copies what the arrays hold.
 */
import { Tensor, type RotaryTables } from "../../tensor/index.js";
import { size } from "../../trace/entry.js";
import type { TokenArrays } from "./codec.js";
import type { CandleDraws, KronosCaches, PrefillInputs, StepInputs, TokenStream, WindowInputs } from "./forward.js";
import { ints, ownBase, placesOf, type Segment } from "./layout.js";
import type { Row, Run, Sequence } from "./request.js";
import { stampFields } from "./weights.js";

/** Tokens and their stamps, written in place. */
class StreamArguments {
  readonly tensors: TokenStream;
  readonly #coarse: Int32Array;
  readonly #fine: Int32Array;
  readonly #stamps: readonly Int32Array[];

  constructor(count: number, axis: string) {
    [this.#coarse, this.#fine] = [new Int32Array(count), new Int32Array(count)];
    this.#stamps = stampFields.map(() => new Int32Array(count));
    this.tensors = {
      coarse: ints(this.#coarse, axis),
      fine: ints(this.#fine, axis),
      stamps: this.#stamps.map((column) => ints(column, axis)),
    };
  }

  /** Tokens `from` to `to` - 1 of a sequence that `own` continues, from place `at` on. */
  write(at: number, { context, entry }: Sequence, own: TokenArrays, from: number, to: number): void {
    const { length } = context.coarse;
    for (let position = from; position < to; position++, at++) {
      const [tokens, stamps, index] = position < length ? [context, entry.stamps, position] : [own, entry.futureStamps, position - length];
      this.#coarse[at] = tokens.coarse[index] as number;
      this.#fine[at] = tokens.fine[index] as number;
      for (let column = 0; column < stampFields.length; column++)
        (this.#stamps[column] as Int32Array)[at] = stamps[index * stampFields.length + column] as number;
    }
  }
}

/** What draws the candles of some rows. */
class DrawArguments {
  readonly inputs: CandleDraws;
  readonly #step: Int32Array;
  readonly #forced: TokenArrays | undefined;

  constructor(
    private readonly run: Run,
    private readonly rows: readonly number[],
  ) {
    const { keys, seed, temperature, topK, topP, forced } = run.request;
    const own = new Int32Array(rows.length * 2);
    rows.forEach((row, index) => own.set(keys.subarray(2 * row, 2 * row + 2), 2 * index));
    this.#step = new Int32Array(rows.length);
    this.#forced = forced && { coarse: new Int32Array(rows.length), fine: new Int32Array(rows.length) };
    this.inputs = {
      draws: {
        keys: Tensor.from(own, [size("rows", rows.length), 2]),
        step: ints(this.#step, "rows"),
        seed: Tensor.from(Int32Array.of(seed | 0, Math.floor(seed / 2 ** 32) | 0), [2]),
        settings: Tensor.from(Float32Array.of(temperature, topK, topP), [3]),
      },
      identity: ints(Int32Array.from(rows.keys()), "rows"),
      ...(this.#forced ? { forced: { coarse: ints(this.#forced.coarse, "rows"), fine: ints(this.#forced.fine, "rows") } } : {}),
    };
  }

  fill(step: number): void {
    this.#step.fill(step);
    const given = this.#forced && this.run.request.forced?.(step);
    if (!given) return;
    this.rows.forEach((row, index) => {
      (this.#forced as TokenArrays).coarse[index] = given.coarse[row] as number;
      (this.#forced as TokenArrays).fine[index] = given.fine[row] as number;
    });
  }
}

/** Arguments of a step: one token of each row. */
export class StepArguments {
  readonly #inputs: StepInputs;
  readonly #members: readonly Row[];
  readonly #stream: StreamArguments;
  readonly #draws: DrawArguments;
  /** Written at every step; the cache row of a path stays. */
  readonly #places: Readonly<Record<"position" | "slot" | "length", Int32Array>>;

  constructor(
    private readonly run: Run,
    readonly rows: readonly number[],
    states: { readonly own: KronosCaches; readonly prefix: KronosCaches; readonly rotary: RotaryTables },
  ) {
    const count = rows.length;
    this.#members = rows.map((row) => run.rows[row] as Row);
    this.#stream = new StreamArguments(count, "rows");
    this.#draws = new DrawArguments(run, rows);
    this.#places = { position: new Int32Array(count), slot: new Int32Array(count), length: new Int32Array(count) };
    const { position, slot, length } = this.#places;
    const perRow = (values: readonly number[] | Int32Array): Tensor => ints(values, "rows");
    this.#inputs = {
      stream: this.#stream.tensors,
      places: { position: perRow(position), row: perRow(rows), slot: perRow(slot), length: perRow(length) },
      caches: states.own,
      prefix: {
        caches: states.prefix,
        row: perRow(this.#members.map(({ sequence }) => sequence)),
        length: perRow(this.#members.map((member) => member.length)),
      },
      ...this.#draws.inputs,
      rotary: states.rotary,
    };
  }

  /** What a step takes from the answer of the one before, where that is about the same rows. */
  get carried(): { readonly coarse: Tensor; readonly fine: Tensor } {
    const { coarse, fine } = this.#stream.tensors;
    return { coarse, fine };
  }

  /** The arguments that draw candle `step`, until they are filled again. */
  at(step: number): StepInputs {
    for (let index = 0; index < this.#members.length; index++) {
      const member = this.#members[index] as Row;
      const position = member.length + step - 1;
      this.#stream.write(index, this.run.sequenceOf(member), member, position, position + 1);
      this.#places.position[index] = position;
      this.#places.slot[index] = position - ownBase(member.length);
      this.#places.length[index] = position + 1;
    }
    this.#draws.fill(step);
    return this.#inputs;
  }
}

/** Arguments of a prefill: some sequences whole, and the rows that continue them. */
export class PrefillArguments {
  readonly #inputs: PrefillInputs;
  readonly #stream: StreamArguments;
  readonly #draws: DrawArguments;

  /** `source`: the sequence that each row continues. */
  constructor(
    run: Run,
    readonly rows: readonly number[],
    readonly lengths: readonly number[],
    source: readonly number[],
    readonly states: { readonly caches: KronosCaches; readonly rotary: RotaryTables },
  ) {
    const segments = lengths.map((count, row): Segment => ({ row, position: 0, count }));
    let end = 0;
    const last = lengths.map((length) => (end += length) - 1);
    this.#stream = new StreamArguments(end, "tokens");
    this.#draws = new DrawArguments(run, rows);
    this.#inputs = {
      stream: this.#stream.tensors,
      places: placesOf(segments, "tokens"),
      last: ints(last, "sequences"),
      source: ints(source, "rows"),
      length: ints(
        source.map((sequence) => lengths[sequence] as number),
        "rows",
      ),
      ...this.#draws.inputs,
      ...states,
    };
  }

  /** The arguments that draw candle `step` after tokens up to `end` - 1 of each sequence and what continues it, until they are filled again. */
  at(step: number, sequences: readonly { readonly sequence: Sequence; readonly own: TokenArrays; readonly end: number }[]): PrefillInputs {
    let at = 0;
    sequences.forEach(({ sequence, own, end }, index) => {
      const length = this.lengths[index] as number;
      this.#stream.write(at, sequence, own, end - length, end);
      at += length;
    });
    this.#draws.fill(step);
    return this.#inputs;
  }
}

/** Arguments of windows that have slid to candle `step`: each path's `step` own tokens after the last ones of its series, which its other paths see as well. */
export function windowArguments(
  run: Run,
  step: number,
  rows: readonly number[],
  states: { readonly common: KronosCaches; readonly own: KronosCaches; readonly rotary: RotaryTables },
): WindowInputs {
  const members = rows.map((row) => run.rows[row] as Row);
  const sequences = [...new Set(members.map(({ sequence }) => sequence))];
  const held = run.request.window - step;
  const common = new StreamArguments(sequences.length * held, "tokens");
  sequences.forEach((index, row) => {
    const sequence = run.sequences[index] as Sequence;
    const { length } = sequence.context.coarse;
    common.write(row * held, sequence, sequence.context, length - held, length);
  });
  const own = new StreamArguments(rows.length * step, "ownTokens");
  members.forEach((member, index) => own.write(index * step, run.sequenceOf(member), member, member.length, member.length + step));
  const place = new Map(sequences.map((sequence, row) => [sequence, row]));
  const commonRows = new Int32Array(rows.length * step);
  members.forEach(({ sequence }, index) => commonRows.fill(place.get(sequence) as number, index * step, (index + 1) * step));
  const draws = new DrawArguments(run, rows);
  draws.fill(step);
  return {
    common: {
      stream: common.tensors,
      places: placesOf(
        sequences.map((_, row) => ({ row, position: 0, count: held })),
        "tokens",
      ),
      caches: states.common,
    },
    own: {
      stream: own.tensors,
      places: placesOf(
        rows.map((row) => ({ row, position: held, count: step, base: ownBase(held) })),
        "ownTokens",
      ),
      caches: states.own,
    },
    prefix: { row: ints(commonRows, "ownTokens"), length: ints(new Int32Array(rows.length * step).fill(held), "ownTokens") },
    last: ints(
      rows.map((_, index) => (index + 1) * step - 1),
      "rows",
    ),
    ...draws.inputs,
    rotary: states.rotary,
  };
}
