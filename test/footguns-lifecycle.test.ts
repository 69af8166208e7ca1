/** Footguns of running: memory that is shared or reused, runs that overlap, aborts, and everything that may be disposed at a bad moment. */
import { getEventListeners } from "node:events";
import { describe, expect, it } from "vitest";
import { compile, linear, readState, Tensor, writeRows } from "../src/tensor/index.js";
import { size, staticValue } from "../src/trace/entry.js";
import { floats, matrix, mutable, native, recordEvents, reference } from "./footgun-helpers.js";

const events = recordEvents();
const vector = (...values: number[]): Tensor => Tensor.from(floats(...values), [values.length]);
const index = (...values: number[]): Tensor => Tensor.from(Int32Array.from(values), [values.length]);
const modes = ["eager", "default", "reduce-overhead"] as const;

describe("memory", () => {
  it("outputs stay what they were after later calls", () => {
    for (const mode of modes) {
      const step = compile((x: Tensor) => ({ sum: x.add(1).sum(), twice: [x.mul(2), x.mul(2)] }), { mode, name: "kept" });
      const first = step(vector(1, 2, 3));
      const again = step(vector(10, 20, 30));
      expect([...first.sum.data(), ...(first.twice[0] as Tensor).data()]).toEqual([9, 2, 4, 6]);
      expect([...again.sum.data(), ...(again.twice[1] as Tensor).data()]).toEqual([63, 20, 40, 60]);
      (first.twice[0] as Tensor).data()[0] = -1;
      expect((first.twice[1] as Tensor).data()[0]).toBe(2);
    }
  });

  it("an output that is the input, or a view of it, is a value of its own", () => {
    for (const mode of modes) {
      const step = compile((x: Tensor) => [x, x.slice(0, 1, 2), x.reshape([1, 3]).permute([1, 0])], { mode, name: "aliases" });
      const x = vector(1, 2, 3);
      const outputs = step(x).map((output) => output.data());
      x.data()[1] = 99;
      outputs[0]?.fill(7);
      expect(outputs.map((values) => [...(values as Float32Array)])).toEqual([
        [7, 7, 7],
        [2, 3],
        [1, 2, 3],
      ]);
      expect([...x.data()]).toEqual([1, 99, 3]);
      expect([...(step(x)[0] as Tensor).data()]).toEqual([1, 99, 3]);
    }
  });

  it("an input changed after an asynchronous call began does not change the call", async () => {
    for (const device of [native, reference]) {
      const step = compile((x: Tensor) => x.mul(2), { device, name: "snapshot" });
      const x = vector(1, 2);
      const compiling = step.run([x]);
      x.data()[0] = 50;
      const running = step.run([x]);
      x.data()[0] = 70;
      expect([(await compiling).data()[0], (await running).data()[0], step(x).data()[0]]).toEqual([2, 100, 140]);
    }
  });

  it("a state that two functions share is one state", async () => {
    const state = mutable(native, "shared", 1, 1);
    const add = compile((x: Tensor, at: Tensor) => writeRows(state, readState(state).add(x), at), {
      device: native,
      name: "add",
      mode: "reduce-overhead",
    });
    const read = compile(() => readState(state).mul(10), { device: native, name: "read" });
    const one = vector(1).reshape([1, 1]);
    add(one, index(0));
    expect(read().data()[0]).toBe(10);
    await Promise.all([add.run([one, index(0)]), add.run([one, index(0)])]);
    expect((await read.run([])).data()[0]).toBe(30);
    expect(state.read()[0]).toBe(3);
  });

  it("overlapping runs of two functions on one state do not mix, in any mode", async () => {
    for (const mode of modes) {
      const state = mutable(native, "mixed", 64, 512);
      const rows = Tensor.from(
        Int32Array.from({ length: 64 }, (_, row) => row),
        [64],
      );
      const change = (by: number): ReturnType<typeof compile<[Tensor], void>> =>
        compile((at: Tensor) => writeRows(state, readState(state).mul(by).add(1), at), { device: native, mode, name: `by${by}` });
      const [twice, thrice] = [change(2), change(3)];
      await twice.run([rows]);
      await thrice.prepare(rows);
      const runs = [thrice.run([rows]), twice.run([rows]), thrice.run([rows])];
      await Promise.resolve();
      expect(() => twice(rows)).toThrow(/under way off the event loop|would use the state "mixed" while a run/);
      await Promise.all(runs);
      expect(new Set(state.read())).toEqual(new Set([((1 * 3 + 1) * 2 + 1) * 3 + 1]));
      twice(rows);
      expect(state.read()[5]).toBe(57);
    }
  });

  it("states passed as arguments are those of the call, whatever was traced", () => {
    const [a, b] = [mutable(native, "carry", 1, 1), mutable(native, "carry", 1, 1)];
    a.write(floats(1));
    b.write(floats(2));
    const read = compile((state: typeof a) => readState(state).add(0.5), { device: native, name: "carried" });
    expect([read(a), read(b), read(a)].map((tensor) => tensor.data()[0])).toEqual([1.5, 2.5, 1.5]);
    expect(read.report().compiles).toBe(1);
    const captured = compile((_: typeof a) => readState(a).add(0.5), { device: native, name: "captured" });
    expect([captured(b), captured(a)].map((tensor) => tensor.data()[0])).toEqual([1.5, 1.5]);
  });

  it("refuses two states of one name, and states of another device", () => {
    const [a, b, elsewhere] = [mutable(native, "same", 1, 1), mutable(native, "same", 1, 1), mutable(reference, "far", 1, 1)];
    const sum = compile((x: Tensor) => readState(a).add(readState(b)).add(x), { device: native, name: "twins" });
    expect(() => sum(vector(1))).toThrow(/twins: two different states are called "same"; state names must be unique/);
    const both = compile((x: typeof a, _: typeof b) => readState(x), { device: native, name: "passed" });
    expect(() => both(a, b)).toThrow(/passed: arguments\[1\] is a second state called "same"/);
    const far = compile(() => readState(elsewhere), { device: native, name: "far" });
    expect(() => far()).toThrow(/runs on the native device, but the state "far" lies on the reference device/);
  });

  it("refuses a disposed state, and disposing it twice does nothing", () => {
    for (const device of [native, reference]) {
      const state = mutable(device, "gone", 1, 1);
      const read = compile(() => readState(state).add(1), { device, name: "reader" });
      expect(read().data()[0]).toBe(1);
      const before = device.allocatedBytes;
      state.dispose();
      expect(device.allocatedBytes).toBeLessThan(before);
      state.dispose();
      expect(() => read()).toThrow(/state gone was disposed/);
      expect(() => state.read()).toThrow(/state gone was disposed/);
      expect(() => state.write(floats(1))).toThrow(/state gone was disposed/);
    }
  });
});

/** A chain of contractions that takes a while on any machine. */
function slowStep(name: string): {
  run: (count: number, signal?: AbortSignal) => Promise<Tensor>;
  step: ReturnType<typeof compile>;
  weight: ReturnType<typeof matrix>;
} {
  const width = 512;
  const weight = matrix(native, `${name}Weight`, width, width, 1 / width);
  const step = compile(
    (x: Tensor) => {
      let y = x;
      for (let i = 0; i < 24; i++) y = linear(y, weight).add(1);
      return y;
    },
    { device: native, mode: "reduce-overhead", name, dynamic: { rows: [1, 4096] } },
  );
  const run = (count: number, signal?: AbortSignal): Promise<Tensor> =>
    step.run([Tensor.from(new Float32Array(count * width), [size("rows", count), width])], signal) as Promise<Tensor>;
  return { run, step: step as never, weight };
}

describe("overlapping runs", () => {
  it("concurrent calls with equal arguments share one compile", async () => {
    const step = compile((x: Tensor, by: unknown) => x.mul(by as number), { name: "once" });
    const calls = await Promise.all([1, 2, 3, 4].map((value) => step.run([vector(value), staticValue(value % 2)])));
    expect(calls.map((tensor) => tensor.data()[0])).toEqual([1, 0, 3, 0]);
    expect(step.report()).toMatchObject({ compiles: 2, recompiles: 0 });
    expect(events.filter(({ stream }) => stream === "compiles")).toHaveLength(2);
  });

  it("a blocking call during a run of the same program is refused, and later calls work", async () => {
    const { run, step } = slowStep("busy");
    const running = run(2000);
    await step.prepare(Tensor.from(new Float32Array(2000 * 512), [size("rows", 2000), 512]));
    const blocking = (): unknown => step(Tensor.from(new Float32Array(512), [size("rows", 1), 512]));
    await new Promise((resolve) => setImmediate(resolve));
    expect(blocking).toThrow(/busy was called while a run of it is under way off the event loop/);
    const value = (await running).data()[0];
    expect((blocking() as Tensor).data()[0]).toBe(value);
    step.dispose();
  });

  it("an abort ends a run soon, and the next run is right", async () => {
    const { run, step } = slowStep("aborted");
    const want = (await run(1)).data()[0];
    const controller = new AbortController();
    const running = run(4000, controller.signal);
    setTimeout(() => controller.abort(new Error("enough")), 5);
    await expect(running).rejects.toMatchObject({
      name: "AbortError",
      code: "aborted",
      cause: expect.objectContaining({ message: "enough" }),
    });
    expect((await run(3)).data()[0]).toBe(want);
    const late = new AbortController();
    late.abort();
    await expect(run(1, late.signal)).rejects.toMatchObject({ name: "AbortError" });
    step.dispose();
  });

  it("a signal that several runs were given ends the one that runs, and none that was not given it", async () => {
    const { run, step } = slowStep("signals");
    const want = (await run(3)).data()[0];
    const [first, second] = [new AbortController(), new AbortController()];
    for (const { signal } of [first, first, second]) expect((await run(3, signal)).data()[0]).toBe(want);
    const other = run(300, second.signal);
    setTimeout(() => first.abort(), 1);
    await other;
    const unnamed = run(300);
    setTimeout(() => second.abort(), 1);
    await unnamed;
    const third = new AbortController();
    await run(3, third.signal);
    const running = run(4000, third.signal);
    const waiting = run(3, new AbortController().signal);
    setTimeout(() => third.abort(), 5);
    await expect(running).rejects.toMatchObject({ name: "AbortError" });
    expect((await waiting).data()[0]).toBe(want);
    step.dispose();
  });

  it("a signal that many programs run under has one listener, and reaches the one that runs", async () => {
    const signals = new AbortController();
    const steps = Array.from({ length: 12 }, (_, index) => slowStep(`listens${index}`));
    for (const { run } of steps) await run(1, signals.signal);
    expect(getEventListeners(signals.signal, "abort")).toHaveLength(1);
    steps.slice(1).forEach(({ step }) => step.dispose());
    const running = steps[0]!.run(4000, signals.signal);
    setTimeout(() => signals.abort(), 5);
    await expect(running).rejects.toMatchObject({ name: "AbortError" });
    steps[0]!.step.dispose();
  });

  it("dispose during a run aborts it, frees everything once, and refuses later calls", async () => {
    const before = native.allocatedBytes;
    const { run, step, weight } = slowStep("disposed");
    await run(1);
    const [running, queued] = [run(4000), run(2)];
    await new Promise((resolve) => setImmediate(resolve));
    step.dispose();
    weight.dispose();
    step.dispose();
    await expect(running).rejects.toThrow();
    await expect(queued).rejects.toThrow(/disposed/);
    await expect(run(1)).rejects.toThrow(/disposed was disposed/);
    expect(() => step(Tensor.from(new Float32Array(512), [1, 512]))).toThrow(/disposed was disposed/);
    // The thread pool keeps scratch for the next run; states, arenas and tables are gone.
    expect(native.allocatedBytes - before).toBeLessThan(4 << 20);
  });

  it("dispose while compiling refuses the call and keeps nothing", async () => {
    const step = compile((x: Tensor) => x.mul(3.25).add(Math.E), { device: native, name: "early" });
    const running = step.run([vector(1)]);
    step.dispose();
    await expect(running).rejects.toThrow(/early was disposed/);
    expect(step.report().specializations).toEqual([]);
  });

  it("a function that throws leaves the next call unharmed", () => {
    let fail = true;
    const step = compile(
      (x: Tensor) => {
        const y = x.mul(2);
        if (fail) throw new Error("model bug");
        return y;
      },
      { name: "throws" },
    );
    expect(() => step(vector(1))).toThrow("model bug");
    fail = false;
    expect(step(vector(4)).data()[0]).toBe(8);
    expect(vector(1).add(1).data()[0]).toBe(2);
  });
});
