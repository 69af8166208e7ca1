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

/** A loop that asks again for the rest; answers also how many calls went together. */
async function chained(
  program: Compiled<[Inputs], Answer>,
  calls: number,
  signal?: AbortSignal,
): Promise<{ answers: Answer[]; together: number[] }> {
  const given = new Arguments();
  const answers: Answer[] = [];
  const together: number[] = [];
  while (answers.length < calls) {
    const from = answers.length;
    const made = await program.runChain(
      { most: calls - from, argumentsOf: (index) => given.at(from + index), carried: { next: given.inputs.x } },
      signal,
    );
    together.push(made.length);
    answers.push(...made);
    given.x.set(made.at(-1)?.next.data() as Float32Array);
  }
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
    expect(await program.runChain({ most: 9, argumentsOf, carried: { next: given.inputs.x } })).toHaveLength(3);
  });

  it("can carry other fields than the time before", async () => {
    const program = walk(native);
    const given = new Arguments();
    const run = async (carried: CallChain<[Inputs]>["carried"]): Promise<number[][]> => {
      given.x.fill(0.5);
      return (await program.runChain({ most: 2, argumentsOf: (index) => given.at(index), carried })).map(dataOf);
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
    const chain = (carried: CallChain<[Inputs]>["carried"]): Promise<Answer[]> =>
      program.runChain({ most: 4, argumentsOf: (index) => given.at(index), carried });
    await expect(chain({ next: Tensor.from(floats(1), [1]) })).rejects.toThrow(
      /walk: the tensor carried from "next" is none of the arguments/,
    );
    await expect(chain({ next: given.inputs.index })).rejects.toThrow(/walk: the answer's "next" is no tensor of the dtype and size/);
    await expect(chain({ other: given.inputs.x })).rejects.toThrow(/walk: the answer's "other" is no tensor/);
  });

  it("ends with an abort, and the next is right", async () => {
    const program = walk(native);
    const expected = await oneByOne(program, 20);
    const controller = new AbortController();
    const run = chained(program, 20, controller.signal);
    controller.abort(new Error("enough"));
    await expect(run).rejects.toMatchObject({ code: "aborted" });
    expect((await chained(program, 20)).answers.map(dataOf)).toEqual(expected);
  });

  it("rejects after dispose", async () => {
    const program = walk(native);
    const given = new Arguments();
    await chained(program, 4);
    program.dispose();
    await expect(program.runChain({ most: 4, argumentsOf: (index) => given.at(index), carried: {} })).rejects.toThrow(/walk was disposed/);
  });
});
