/** A call that repeats the last one in all but its data skips guards and look-ups; everything else must still be noticed. */
import { describe, expect, it } from "vitest";
import { CallPattern } from "../src/trace/repeat.js";
import type { Device } from "../src/runtime/device.js";
import { setStance, size, State, staticValue } from "../src/trace/entry.js";
import { compile, readState, Tensor } from "../src/tensor/index.js";
import { native, recordEvents, reference } from "./footgun-helpers.js";

recordEvents();
const state = (name: string, fill: number, device: Device = reference): State => {
  const made = new State(device, name, [2], "f32");
  made.write(Float32Array.of(fill, fill));
  return made;
};
const vector = (...values: number[]): Tensor => Tensor.from(Float32Array.from(values), [size("rows", values.length)]);

describe("the pattern of a call", () => {
  const [keys, values] = [state("keys", 1), state("values", 2)];
  const call = [{ x: vector(1, 2), caches: [keys, values], scale: 0.5, kind: "mean", none: undefined }, staticValue(Number.NaN), true];
  const changed = (change: (first: Record<string, unknown>, all: unknown[]) => void): unknown[] => {
    const all: unknown[] = [{ ...(call[0] as object) }, ...call.slice(1)];
    change(all[0] as Record<string, unknown>, all);
    return all;
  };

  it("finds the data of a call that differs in nothing else", () => {
    const pattern = new CallPattern(call);
    const arrays = pattern.arraysOf(changed((first) => Object.assign(first, { x: vector(3, 4), scale: 2 })));
    expect(arrays?.map((array) => [...array])).toEqual([[3, 4], [2]]);
    expect(pattern.arraysOf(changed((_, all) => (all[1] = staticValue(Number.NaN))))).toHaveLength(2);
  });

  it("knows a frozen record by itself, and looks into one that something in it can still change", () => {
    const inner = { x: vector(1, 2) };
    const list = [keys];
    const [fixed, loose, listed] = [
      { y: vector(3), inner: Object.freeze({ ...inner }), scale: 2, none: undefined },
      { inner },
      { list },
    ].map((record) => Object.freeze(record));
    const pattern = new CallPattern([fixed, loose, listed, { z: vector(4) }]);
    const found = (...args: unknown[]): unknown => pattern.arraysOf(args)?.map((array) => [...array]);
    expect(found(fixed, loose, listed, { z: vector(5) })).toEqual([[3], [1, 2], [2], [1, 2], [5]]);
    expect(found({ ...fixed, y: vector(6) }, loose, listed, { z: vector(5) })).toEqual([[6], [1, 2], [2], [1, 2], [5]]);
    expect(found(Object.freeze({ ...fixed, y: vector(6, 7) }), loose, listed, { z: vector(5) })).toBeUndefined();
    expect(found(undefined, loose, listed, { z: vector(5) })).toBeUndefined();
    expect(found(fixed, loose, listed, undefined)).toBeUndefined();
    inner.x = vector(8, 9);
    expect(found(fixed, loose, listed, { z: vector(5) })).toEqual([[3], [1, 2], [2], [8, 9], [5]]);
    inner.x = vector(8);
    expect(found(fixed, loose, listed, { z: vector(5) })).toBeUndefined();
    inner.x = vector(8, 9);
    list[0] = values;
    expect(found(fixed, loose, listed, { z: vector(5) })).toBeUndefined();
  });

  it.each<[string, (first: Record<string, unknown>, all: unknown[]) => void]>([
    ["another size", (first) => (first["x"] = vector(1, 2, 3))],
    ["another size name", (first) => (first["x"] = Tensor.from(Float32Array.of(1, 2), [size("columns", 2)]))],
    ["a fixed axis", (first) => (first["x"] = Tensor.from(Float32Array.of(1, 2), [2]))],
    ["another dtype", (first) => (first["x"] = Tensor.from(Int32Array.of(1, 2), [size("rows", 2)]))],
    ["a number for a tensor", (first) => (first["x"] = 1)],
    ["another state", (first) => (first["caches"] = [keys, state("values", 2)])],
    ["states in another order", (first) => (first["caches"] = [values, keys])],
    ["fewer states", (first) => (first["caches"] = [keys])],
    ["another string", (first) => (first["kind"] = "median")],
    ["a value where there was none", (first) => (first["none"] = 1)],
    ["a further field", (first) => (first["more"] = 1)],
    ["a field that is gone", (first) => delete first["none"]],
    ["another static value", (_, all) => (all[1] = staticValue(1))],
    ["a number for a static value", (_, all) => (all[1] = Number.NaN)],
    ["another boolean", (_, all) => (all[2] = false)],
    ["fewer arguments", (_, all) => all.pop()],
    ["an object of a class", (first, all) => (all[0] = Object.assign(new (class Inputs {})(), first))],
  ])("refuses %s", (_, change) => {
    expect(new CallPattern(call).arraysOf(changed(change))).toBeUndefined();
  });
});

describe.each([reference, native])("repeated calls on $name", (device) => {
  const weightOf = (fill: number): State => state("weight", fill, device);
  const doubled = (): ReturnType<typeof compile<[Tensor, State], Tensor>> =>
    compile((x: Tensor, weight: State) => x.mul(readState(weight)).add(x), { device, name: "doubled", dynamic: { rows: [1, 8] } });

  it("bring their own data, also when the caller changes it while they run", async () => {
    const f = doubled();
    const weight = weightOf(3);
    const given = Float32Array.of(1, 2);
    const x = Tensor.from(given, [2]);
    for (const [first, expected] of [
      [1, [4, 8]],
      [5, [20, 8]],
    ] as const) {
      given[0] = first;
      const run = f.run([x, weight]);
      given[0] = 99;
      expect([...(await run).data()]).toEqual(expected);
      given[0] = first;
      expect([...f(x, weight).data()]).toEqual(expected);
    }
    expect(f.report()).toMatchObject({ calls: 4, compiles: 1, recompiles: 0 });
  });

  it("may take turns between sizes, and between states of one size", async () => {
    const f = doubled();
    const weights = [weightOf(3), weightOf(4)];
    const wide = compile((x: Tensor) => x.add(x), { device, name: "turns", dynamic: { rows: [1, 64] } });
    for (let round = 0; round < 4; round++) {
      for (const count of [1, 2, 3, 4, 5, 40]) {
        const x = vector(...Array.from({ length: count }, (_, index) => index + round));
        const want = [...x.data()].map((value) => 2 * value);
        expect([...wide(x).data()]).toEqual(want);
        expect([...(await wide.run([x])).data()]).toEqual(want);
      }
      for (const [index, weight] of weights.entries())
        expect([...f(Tensor.from(Float32Array.of(1, round), [2]), weight).data()]).toEqual([4 + index, round * (4 + index)]);
      if (round === 1) weights[0]?.write(Float32Array.of(3, 3));
      if (round === 2) weights.splice(0, 1, weightOf(3))[0]?.dispose();
    }
    expect(wide.report()).toMatchObject({ calls: 48, compiles: 1, recompiles: 0 });
    wide.dispose();
  });

  it("see a state that was written, replaced or disposed", () => {
    const f = doubled();
    const [first, second] = [weightOf(3), weightOf(4)];
    const x = Tensor.from(Float32Array.of(1, 1), [2]);
    expect([...f(x, first).data()]).toEqual([4, 4]);
    first.write(Float32Array.of(1, 2));
    expect([...f(x, first).data()]).toEqual([2, 3]);
    expect([...f(x, second).data()]).toEqual([5, 5]);
    second.dispose();
    expect(() => (f(x, second).data(), first.dispose(), f(x, first))).toThrow(/disposed/);
  });

  it("obey a stance set in between, and say so after dispose", () => {
    const f = doubled();
    const weight = weightOf(3);
    const x = Tensor.from(Float32Array.of(1, 1), [2]);
    f(x, weight);
    setStance("force_eager");
    f(x, weight);
    f(x, weight);
    setStance("default");
    f(x, weight);
    expect(f.report().specializations).toHaveLength(2);
    expect(f.report().compiles).toBe(2);
    f.dispose();
    expect(() => f(x, weight)).toThrow(/doubled was disposed/);
  });
});
