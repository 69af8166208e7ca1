/** Footguns of traced code: what would be silently wrong is right here, or refused with a sentence that names the place. */
import { describe, expect, it } from "vitest";
import { compile, constant, linear, readState, rmsNorm, sizeValue, Tensor, writeRows } from "../src/tensor/index.js";
import { RecompileError, setStance, size, staticValue, TraceError } from "../src/trace/entry.js";
import { floats, matrix, mutable, native, recordEvents, reference } from "./footgun-helpers.js";

const events = recordEvents();
const vector = (...values: number[]): Tensor => Tensor.from(floats(...values), [values.length]);
const rowsOf = (count: number): Tensor => Tensor.from(new Float32Array(count * 2).fill(1), [size("rows", count), 2]);

describe("values inside traced code", () => {
  it("refuses a captured array and says where it is used", () => {
    const captured = vector(1, 2, 3);
    const step = compile((x: Tensor) => x.add(captured), { name: "captured" });
    expect(() => step(vector(1, 1, 1))).toThrow(TraceError);
    expect(() => step(vector(1, 1, 1))).toThrow(
      /captured: add uses an array that was captured, not passed in, at test\/footguns\.test\.ts:\d+.*pass it as an argument/s,
    );
  });

  it("counts a value read as one graph break at its line, and both halves are right", () => {
    const step = compile(
      (x: Tensor) => {
        const total = x.mul(2).sum();
        return total.data()[0] === 12 ? x.add(100) : x.sub(total);
      },
      { name: "breaks" },
    );
    expect([...step(vector(1, 2, 3)).data()]).toEqual([101, 102, 103]);
    expect([...step(vector(1, 2, 4)).data()]).toEqual([-13, -12, -10]);
    expect([...step(vector(3, 2, 1)).data()]).toEqual([103, 102, 101]);
    const report = step.report();
    expect(report.graphBreaks).toBe(3);
    expect(Object.keys(report.breaksByLocation)).toEqual([expect.stringMatching(/^test\/footguns\.test\.ts:\d+$/)]);
    expect(report.recompiles).toBe(0);
    expect(events.filter(({ stream }) => stream === "graph_breaks")).toHaveLength(3);
  });

  it("branches on an argument's own value again in each call", () => {
    const step = compile((x: Tensor) => (x.slice(0, 0, 1).item() > 0 ? x.neg() : x.add(1)), { name: "branch" });
    const direct = compile((x: Tensor) => ((x.data()[0] as number) > 0 ? x.neg() : x.add(1)), { name: "direct" });
    for (const f of [step, direct]) {
      expect([...f(vector(1, 2)).data()]).toEqual([-1, -2]);
      expect([...f(vector(-1, 2)).data()]).toEqual([0, 3]);
      expect([...f(vector(5, 2)).data()]).toEqual([-5, -2]);
      expect(f.report().graphBreaks).toBe(3);
    }
  });

  it("reads a constant without a break", () => {
    const step = compile((x: Tensor) => x.mul(constant(3).item()), { name: "constant" });
    expect([...step(vector(1, 2)).data()]).toEqual([3, 6]);
    expect(step.report().graphBreaks).toBe(0);
  });

  it("throws on a break with fullGraph, naming the value and the line", () => {
    const step = compile((x: Tensor) => x.mul(x.sum().item()), { name: "whole", fullGraph: true });
    expect(() => step(vector(1, 2))).toThrow(
      /whole: a value \(sum\) is read inside traced code at test\/footguns\.test\.ts:\d+.*fullGraph forbids that/s,
    );
  });

  it("commits state writes before a break exactly once, in every call", () => {
    for (const device of [native, reference]) {
      const state = mutable(device, "counts", 2, 1);
      const index = Tensor.from(Int32Array.of(0), [1]);
      const step = compile(
        (x: Tensor, at: Tensor) => {
          writeRows(state, readState(state).slice(0, 0, 1).add(x), at);
          const soFar = readState(state).slice(0, 0, 1).reshape([1]).item();
          writeRows(state, x.mul(soFar), at.add(constant(1, "i32")));
          return x.add(soFar);
        },
        { device, name: "commits" },
      );
      const one = Tensor.from(floats(1), [1, 1]);
      expect([1, 2, 3].map(() => step(one, index).data()[0])).toEqual([2, 3, 4]);
      expect([...state.read()]).toEqual([3, 3]);
      expect(step.report().graphBreaks).toBe(3);
      step.dispose();
      state.dispose();
    }
  });

  it("does not run anything when a function with breaks is prepared", async () => {
    const state = mutable(native, "prepared", 1, 1);
    const step = compile(
      (x: Tensor, at: Tensor) => {
        writeRows(state, readState(state).add(x), at);
        return x.mul(readState(state).reshape([1]).item());
      },
      { device: native, name: "prepared" },
    );
    const index = Tensor.from(Int32Array.of(0), [1]);
    await step.prepare(Tensor.from(floats(7), [1, 1]), index);
    expect([...state.read()]).toEqual([0]);
    expect(step(Tensor.from(floats(2), [1, 1]), index).data()[0]).toBe(4);
    expect([...state.read()]).toEqual([2]);
  });

  it("refuses a value that outlived its trace", () => {
    let leaked: Tensor | undefined;
    const step = compile(
      (x: Tensor) => {
        leaked = x.mul(2);
        return leaked.add(1);
      },
      { name: "leak" },
    );
    step(vector(1));
    expect(() => (leaked as Tensor).data()).toThrow(/leak: a value \(mul\) is read after its trace has ended/);
    expect(() => (leaked as Tensor).add(1)).toThrow(/trace that has ended/);
    expect(() => compile((x: Tensor) => x.add(leaked as Tensor), { name: "other" })(vector(1))).toThrow(
      /other: add uses a value of another trace/,
    );
    expect(() => compile(() => leaked as Tensor, { name: "returns" })()).toThrow(/returns a tensor that its trace did not make/);
  });

  it("inlines a compiled function that traced code calls", () => {
    const inner = compile((x: Tensor, by: number | Tensor) => x.mul(by).add(1), { name: "inner" });
    const outer = compile((x: Tensor) => inner(x, 3).sub(inner(x, x)), { name: "outer" });
    expect([...outer(vector(2, 5)).data()]).toEqual([2, -10]);
    expect(outer.report()).toMatchObject({ compiles: 1, graphBreaks: 0 });
    expect(inner.report().calls).toBe(0);
    expect([...inner(vector(2), 4).data()]).toEqual([9]);
    const waits = compile(
      (x: Tensor) => void inner.run([x, 1]).catch((error: unknown) => expect(String(error)).toContain("inside traced code")),
      { name: "waits" },
    );
    waits(vector(1));
  });

  it("refuses results, arguments and arrays that cannot mean anything", () => {
    expect(() => compile(async (x: Tensor) => Promise.resolve(x), { name: "later" })(vector(1))).toThrow(/later is async/);
    expect(() => compile(() => 3, { name: "number" })()).toThrow(/number returns a number/);
    expect(() => compile((x: unknown) => x as Tensor, { name: "map" })(new Map() as never)).toThrow(/arguments\[0\] is a Map/);
    expect(() => Tensor.from(floats(1), [1], "i32")).toThrow(/Float32Array holds f32 values, not i32/);
    expect(() => Tensor.from(floats(1, 2), [3])).toThrow(/2 values do not fill the shape \[3\]/);
  });
});

describe("guards", () => {
  it("counts a changed static argument and names the guard with its old and new value", () => {
    const step = compile((x: Tensor, scale: unknown) => x.mul(scale as number), { name: "scaled" });
    expect(step(vector(2), staticValue(3)).data()[0]).toBe(6);
    expect(step(vector(2), staticValue(4)).data()[0]).toBe(8);
    expect(step(vector(2), staticValue(3)).data()[0]).toBe(6);
    expect(step.report()).toMatchObject({ compiles: 2, recompiles: 1, recompilesByGuard: { "arguments[1] == 3": 1 } });
    const [event] = events.filter(({ stream }) => stream === "recompiles");
    expect(event).toMatchObject({
      function: "scaled",
      location: expect.stringMatching(/test\/footguns\.test\.ts:\d+/),
      fields: { was: "== 3", now: "== 4" },
    });
  });

  it("tells NaN, infinities and zeros of both signs apart, and finds each again", () => {
    const step = compile((x: Tensor, value: unknown) => x.add(value as number), { name: "odd" });
    const values = [NaN, Infinity, -Infinity, 0, -0];
    for (let round = 0; round < 2; round++)
      for (const value of values) expect(step(Tensor.from(floats(-0), [1]), staticValue(value)).data()[0]).toBe(-0 + value);
    expect(step.report().compiles).toBe(values.length);
  });

  it("keeps eager ops with odd attributes apart", () => {
    const normal = (epsilon: number): number => rmsNorm(vector(3, 4).reshape([1, 2]), undefined, epsilon).data()[0] as number;
    expect([normal(NaN), normal(Infinity), normal(NaN)]).toEqual([NaN, 0, NaN]);
  });

  it("numbers passed as arguments are data: no recompile", () => {
    const step = compile((x: Tensor, by: number | Tensor) => x.mul(by as Tensor), { name: "data" });
    expect([1, 2.5, NaN].map((by) => step(vector(2), by).data()[0])).toEqual([2, 5, NaN]);
    expect(step.report()).toMatchObject({ compiles: 1, recompiles: 0 });
  });

  it("a size beyond its bounds is one counted recompile, then none", () => {
    const step = compile((x: Tensor) => x.add(1).sum(), { name: "grows", dynamic: { rows: [1, 4] } });
    for (const count of [1, 4, 5, 8, 3, 7, 1]) expect(step(rowsOf(count)).data()).toHaveLength(count);
    expect(step.report()).toMatchObject({ compiles: 2, recompiles: 1 });
    expect(Object.keys(step.report().recompilesByGuard)[0]).toMatch(/arguments\[0\] f32\[rows with rows:1\.\.4, 2\]/);
    expect(step(rowsOf(0)).data()).toHaveLength(0);
    expect(step.report().recompiles).toBe(2);
  });

  it("a size's value asked for in traced code is a guard with its line, and each call checks it", async () => {
    const step = compile((x: Tensor) => x.mul(sizeValue(x.shape[0] as number)), { name: "asks", dynamic: { rows: [1, 64] } });
    const [two, three] = await Promise.all([step.run([rowsOf(2)]), step.run([rowsOf(3)])]);
    expect([two.data()[0], three.data()[0]]).toEqual([2, 3]);
    expect(step(rowsOf(2)).data()[0]).toBe(2);
    expect(step.report()).toMatchObject({ compiles: 2, recompiles: 1, recompilesByGuard: { "size rows == 2": 1 } });
    expect(events.find(({ stream }) => stream === "recompiles")?.location).toMatch(/test\/footguns\.test\.ts:\d+/);
  });

  it("one name with two sizes in a call is refused", () => {
    const step = compile((x: Tensor, y: Tensor) => x.add(y), { name: "two", dynamic: { rows: [1, 9] } });
    expect(() => step(rowsOf(2), rowsOf(3))).toThrow(/size "rows" is 2 elsewhere but 3 in arguments\[1\]/);
  });

  it("falls back to eager at the limit, says so, and stays right", () => {
    const step = compile((x: Tensor, by: unknown) => x.mul(by as number), { name: "limited", recompileLimit: 2, mode: "reduce-overhead" });
    for (let by = 0; by < 5; by++) expect(step(vector(2), staticValue(by)).data()[0]).toBe(2 * by);
    expect(step.report()).toMatchObject({ recompiles: 2, fallbacks: 2 });
    const [limit] = events.filter(({ stream }) => stream === "recompile_limit");
    expect(limit).toMatchObject({ function: "limited", fields: { limit: 2, was: "== 2", now: "== 3" } });
    expect(events.filter(({ stream }) => stream === "fallback")).toHaveLength(2);
    const before = step.report();
    expect(step(vector(2), staticValue(4)).data()[0]).toBe(8);
    expect(step.report().fallbacks).toBe(before.fallbacks);
  });
});

describe("stances", () => {
  const doubled = (name: string): ReturnType<typeof compile<[Tensor, unknown], Tensor>> =>
    compile((x: Tensor, by: unknown) => x.mul(by as number), { name });

  it("force_eager runs eager even where something is compiled, and leaves nothing behind", () => {
    const step = compile((x: Tensor) => x.mul(2).add(1), { name: "forced", mode: "reduce-overhead" });
    step(vector(1));
    const captured = step.report().capturedCalls;
    setStance("force_eager");
    expect(step(vector(3)).data()[0]).toBe(7);
    expect(step.report()).toMatchObject({ capturedCalls: captured, recompiles: 0, fallbacks: 0 });
    setStance("default");
    expect(step(vector(3)).data()[0]).toBe(7);
    expect(step.report()).toMatchObject({ capturedCalls: captured + 1, recompiles: 0 });
    const fresh = compile((x: Tensor) => x.mul(2), { name: "fresh", mode: "reduce-overhead" });
    setStance("force_eager");
    fresh(vector(1));
    setStance("default");
    fresh(vector(1));
    expect(fresh.report()).toMatchObject({ capturedCalls: 1, recompiles: 0 });
  });

  it("fail_on_recompile throws, names the guard, and what was compiled still serves", () => {
    const step = compile((x: Tensor) => x.add(1), { name: "strict", dynamic: { rows: [1, 4] } });
    step(rowsOf(4));
    setStance("fail_on_recompile");
    expect(() => step(rowsOf(5))).toThrow(RecompileError);
    expect(() => step(rowsOf(5))).toThrow(/strict would recompile: arguments\[0\] f32\[rows with rows:1\.\.4, 2\] failed/);
    expect(step(rowsOf(3)).data()).toHaveLength(6);
    expect(vector(1, 2, 3, 4, 5).add(1).data()[4]).toBe(6);
    expect(step.report()).toMatchObject({ compiles: 1, recompiles: 0 });
  });

  it("eager_on_recompile serves a miss eagerly while it holds, and compiles it afterwards", () => {
    const step = doubled("lenient");
    step(vector(1), staticValue(1));
    setStance("eager_on_recompile");
    for (let i = 0; i < 2; i++) expect(step(vector(3), staticValue(2)).data()[0]).toBe(6);
    expect(step.report()).toMatchObject({ recompiles: 0, fallbacks: 1 });
    setStance("default");
    expect(step(vector(3), staticValue(2)).data()[0]).toBe(6);
    expect(step.report()).toMatchObject({ recompiles: 1, fallbacks: 1 });
  });

  it("refuses an unknown stance", () => {
    expect(() => setStance("lazy" as never)).toThrow(/unknown stance "lazy"; known are: default/);
  });
});

describe("ops outside a trace", () => {
  it("are neither recompiles nor subject to the stance", () => {
    setStance("fail_on_recompile");
    for (const count of [1, 2, 3]) expect(Tensor.from(new Float32Array(count).fill(2), [count]).mul(3).data()[count - 1]).toBe(6);
    expect(events.filter(({ stream }) => stream === "recompiles")).toEqual([]);
  });

  it("refuse a weight that is not stored as one, and reading a packed weight", () => {
    const plain = mutable(native, "plain", 2, 2);
    expect(() => linear(vector(1, 1).reshape([1, 2]), plain)).toThrow(
      /weight plain must be an f32 or bf16 state with layout "panels", found f32 plain/,
    );
    expect(() => readState(matrix(native, "packed", 2, 2))).toThrow(/stored as weight panels, which only linear reads/);
  });
});
