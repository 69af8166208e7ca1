/** Calls that follow each other, each taking something from the answer before: the bits of one call after the other, in one foreign call. */
import { afterAll, describe, expect, it } from "vitest";
import { compile, gatherRows, readState, Tensor, type CallChain, type Compiled } from "../src/tensor/index.js";
import { setStance, size, State, type Mode } from "../src/trace/entry.js";
import type { Device } from "../src/runtime/device.js";
import { floats, native, recordEvents, reference } from "./footgun-helpers.js";

recordEvents();
const [rows, width] = [3, 40];
type Inputs = { x: Tensor; index: Tensor; y: Tensor };
type Answer = { next: Tensor; sum: Tensor };
const tables: State[] = [];
const programs: Compiled<[Inputs], Answer>[] = [];

/** The next x is a row of a table plus x plus what the call brings: every call depends on all before it. */
function walk(device: Device, mode: Mode = "reduce-overhead"): Compiled<[Inputs], Answer> {
  const table = new State(device, "table", [50, width], "f32", { kind: "constant" });
  table.write(Float32Array.from({ length: 50 * width }, (_, index) => Math.sin(index) / 3));
  tables.push(table);
  const body = ({ x, index, y }: Inputs): Answer => {
    const next = gatherRows(readState(table), index).mul(0.7).add(x).add(y);
    return { next, sum: next.mul(next) };
  };
  const made = compile(body, { device, mode, name: "walk", dynamic: { rows: [1, 8] } });
  programs.push(made);
  return made;
}

/** Arguments that are filled again for every call. */
class Arguments {
  readonly x = new Float32Array(rows * width).fill(0.25);
  readonly index = new Int32Array(rows);
  readonly y = new Float32Array(rows * width);
  readonly inputs: Inputs = {
    x: Tensor.from(this.x, [size("rows", rows), width]),
    index: Tensor.from(this.index, [size("rows", rows)]),
    y: Tensor.from(this.y, [size("rows", rows), width]),
  };

  at(call: number): [Inputs] {
    this.index.forEach((_, row) => (this.index[row] = (7 * call + 11 * row) % 50));
    this.y.fill(1 / (call + 1));
    return [this.inputs];
  }
}

const dataOf = ({ next, sum }: Answer): number[] => [...next.data(), ...sum.data()];

/** One call after the other. */
async function oneByOne(program: Compiled<[Inputs], Answer>, calls: number): Promise<number[][]> {
  const given = new Arguments();
  const answers: number[][] = [];
  for (let call = 0; call < calls; call++) {
    const answer = await program.run(given.at(call));
    given.x.set(answer.next.data() as Float32Array);
    answers.push(dataOf(answer));
  }
  return answers;
}

/** Answers also how many calls went together. */
async function chained(
  program: Compiled<[Inputs], Answer>,
  calls: number,
  signal?: AbortSignal,
): Promise<{ answers: Answer[]; together: number[] }> {
  const given = new Arguments();
  const answers: Answer[] = [];
  const together: number[] = [];
  const take = (made: Answer[]): void => {
    together.push(made.length);
    answers.push(...made);
    given.x.set(made.at(-1)?.next.data() as Float32Array);
  };
  await program.runChain({ most: calls, argumentsOf: (index) => given.at(index), carried: { next: given.inputs.x } }, take, signal);
  return { answers, together };
}

afterAll(() => {
  for (const program of programs) program.dispose();
  for (const table of tables) table.dispose();
});

describe("a chain of calls", () => {
  it("has the bits of one call after the other, in one foreign call for thirty-two", async () => {
    const expected = await oneByOne(walk(native), 40);
    const program = walk(native);
    const first = await chained(program, 40);
    expect(first.answers.map(dataOf)).toEqual(expected);
    // The call that compiles stands alone.
    expect(first.together).toEqual([1, 32, 7]);
    expect(program.report()).toMatchObject({ calls: 40, capturedCalls: 40, foreignCalls: 3, compiles: 1, recompiles: 0 });
    const later = await chained(program, 40);
    expect(later.together).toEqual([32, 8]);
    expect(later.answers.map(dataOf)).toEqual(expected);
    // What a caller got stays what it was.
    expect(first.answers.map(dataOf)).toEqual(expected);
    expect(program.report()).toMatchObject({ calls: 80, foreignCalls: 5 });
  });

  it("goes one by one where a call is not one foreign call, and follows what a stance asks for", async () => {
    const expected = await oneByOne(walk(reference), 5);
    for (const program of [walk(reference), walk(native, "default"), walk(native, "eager")]) {
      const { answers, together } = await chained(program, 5);
      expect(together).toEqual([1, 1, 1, 1, 1]);
      answers.forEach((answer, call) =>
        dataOf(answer).forEach((value, at) => expect(value).toBeCloseTo(expected[call]?.[at] as number, 4)),
      );
    }
    const program = walk(native);
    await chained(program, 3);
    setStance("force_eager");
    expect((await chained(program, 3)).together).toEqual([1, 1, 1]);
    setStance("default");
    expect((await chained(program, 4)).answers.map(dataOf)).toEqual(await oneByOne(program, 4));
  });

  it("is cut where a call differs in more than data", async () => {
    const program = walk(native);
    await chained(program, 2);
    const given = new Arguments();
    const single = { ...given.inputs, x: Tensor.from(new Float32Array(width), [size("rows", 1), width]) };
    const other: Inputs = {
      ...single,
      index: Tensor.from(Int32Array.of(1), [size("rows", 1)]),
      y: Tensor.from(new Float32Array(width), [size("rows", 1), width]),
    };
    const argumentsOf = (index: number): [Inputs] => (index < 3 ? given.at(index) : [other]);
    const lengths: number[] = [];
    await program.runChain({ most: 4, argumentsOf, carried: { next: given.inputs.x } }, (made) => lengths.push(made.length));
    expect(lengths).toEqual([3, 1]);
    expect(program.report()).toMatchObject({ calls: 6, capturedCalls: 6 });
  });

  it("hands each part over while the one before runs, in the same order of answers", async () => {
    const expected = await oneByOne(walk(native), 140);
    const program = walk(native);
    await chained(program, 1);
    const given = new Arguments();
    const asked: number[] = [];
    const seen: number[] = [];
    const answers: Answer[] = [];
    const take = (made: Answer[]): void => {
      answers.push(...made);
      seen.push(asked.length);
    };
    const argumentsOf = (index: number): [Inputs] => {
      asked.push(index);
      return given.at(index);
    };
    await program.runChain({ most: 140, argumentsOf, carried: { next: given.inputs.x } }, take);
    expect(answers.map(dataOf)).toEqual(expected);
    expect(asked).toEqual(Array.from({ length: 140 }, (_, index) => index));
    // When the answers of calls 0 to 31 come, those up to 63 have been handed over, and so on.
    expect(seen).toEqual([64, 96, 128, 140, 140]);
  });

  it("ends with an error of whoever takes its answers or makes its arguments, and the next is right", async () => {
    const program = walk(native);
    const expected = await oneByOne(program, 100);
    const given = new Arguments();
    const carried = { next: given.inputs.x };
    const argumentsOf = (index: number): [Inputs] => given.at(index);
    const refuse = (): void => {
      throw new Error("seen enough");
    };
    await expect(program.runChain({ most: 100, argumentsOf, carried }, refuse)).rejects.toThrow("seen enough");
    const broken = (index: number): [Inputs] => (index < 40 ? given.at(index) : (refuse() as never));
    await expect(program.runChain({ most: 100, argumentsOf: broken, carried }, () => undefined)).rejects.toThrow("seen enough");
    expect((await chained(program, 100)).answers.map(dataOf)).toEqual(expected);
  });

  it("lets other calls wait for its end", async () => {
    const program = walk(native);
    const expected = await oneByOne(program, 70);
    const given = new Arguments();
    const order: string[] = [];
    const chain = chained(program, 70).then(({ answers }) => {
      order.push("chain");
      return answers.map(dataOf);
    });
    const single = program.run(given.at(0)).then((answer) => {
      order.push("single");
      return dataOf(answer);
    });
    expect(await single).toEqual(expected[0]);
    expect(await chain).toEqual(expected);
    expect(order).toEqual(["chain", "single"]);
  });

  it("can carry other fields than the time before", async () => {
    const program = walk(native);
    const given = new Arguments();
    const run = async (carried: CallChain<[Inputs]>["carried"]): Promise<number[][]> => {
      given.x.fill(0.5);
      let answers: Answer[] = [];
      await program.runChain({ most: 2, argumentsOf: (index) => given.at(index), carried }, (made) => (answers = made));
      return answers.map(dataOf);
    };
    program(...given.at(0));
    const [byNext, bySum, alone] = [await run({ next: given.inputs.x }), await run({ sum: given.inputs.x }), await run({})];
    expect(new Set([byNext, bySum, alone].map(([first]) => String(first))).size).toBe(1);
    expect(new Set([byNext, bySum, alone].map(([, second]) => String(second))).size).toBe(3);
    given.x.fill(0.5);
    expect(alone[1]).toEqual(dataOf(program(...given.at(1))));
  });

  it("refuses to carry what does not fit", async () => {
    const program = walk(native);
    const given = new Arguments();
    program(...given.at(0));
    const chain = (carried: CallChain<[Inputs]>["carried"]): Promise<void> =>
      program.runChain({ most: 4, argumentsOf: (index) => given.at(index), carried }, () => undefined);
    await expect(chain({ next: Tensor.from(floats(1), [1]) })).rejects.toThrow(
      /walk: the tensor carried from "next" is none of the arguments/,
    );
    await expect(chain({ next: given.inputs.index })).rejects.toThrow(/walk: the answer's "next" is no tensor of the dtype and size/);
    await expect(chain({ other: given.inputs.x })).rejects.toThrow(/walk: the answer's "other" is no tensor/);
  });

  it("ends with an abort, and the next is right", async () => {
    const program = walk(native);
    // More calls than are handed over before the first answers come.
    const expected = await oneByOne(program, 100);
    const controller = new AbortController();
    const run = chained(program, 100, controller.signal);
    controller.abort(new Error("enough"));
    await expect(run).rejects.toMatchObject({ code: "aborted" });
    expect((await chained(program, 100)).answers.map(dataOf)).toEqual(expected);
  });

  it("rejects after dispose", async () => {
    const program = walk(native);
    const given = new Arguments();
    await chained(program, 4);
    program.dispose();
    const chain = program.runChain({ most: 4, argumentsOf: (index) => given.at(index), carried: {} }, () => undefined);
    await expect(chain).rejects.toThrow(/walk was disposed/);
  });
});
