/**
 * Pinned bits: hashes of answers, taken once on AVX-512 and asserted on every instruction set. A change of any bit, in a function, in an order of operations or in a
 * compiler, fails here; the numbers may only be changed on purpose, with a line in CHANGELOG. The functions are also held against f64 over the whole f32 range.
 */
import { describe, expect, it } from "vitest";
import { opSpec } from "../src/ir/ops.js";
import type { CompiledGraph, Device } from "../src/runtime/device.js";
import { compileTogether, nativeTargets, runCase, ulp, type GraphCase } from "./graph-harness.js";
import { cases, functions, hashesOn, pinned } from "./pinned-cases.js";

describe("pinned bits", () => {
  for (const { target, device, reason } of nativeTargets()) {
    it.skipIf(!device)(`${target}${device ? "" : ` (skipped: ${reason})`}`, () => {
      if (!device) return;
      expect(hashesOn(device)).toEqual(pinned);
    });
  }
});

describe("functions over the whole f32 range", () => {
  const [best] = nativeTargets().filter(({ device }) => device);
  it.skipIf(!best)("lie within 2 units in the last place of f64, 4 for the composed ones", () => {
    const device = best?.device as Device;
    const compiled = compileTogether("pinned", device, cases, ["default"]).get("default") ?? [];
    const worst: Record<string, number> = {};
    functions.forEach((op, index) => {
      const one = cases[index] as GraphCase;
      const input = one.bindings[0]?.inputs.get("x0") as Float32Array;
      const got = runCase(device, one, compiled[index] as CompiledGraph, "one-call")[0]?.get("out0") as Float32Array;
      const exact = new Float64Array(input.length);
      opSpec(op).evaluate({
        inputs: [{ shape: [input.length], dtype: "f32", data: input }],
        states: [],
        attributes: {},
        shape: [input.length],
        sizes: {},
        output: exact,
      });
      let most = 0;
      input.forEach((_, i) => {
        const [a, b] = [got[i] as number, exact[i] as number];
        if (Number.isNaN(b) || Math.abs(b) > 3.4028235e38)
          return expect(Object.is(a, Math.fround(b)), `${op}(${input[i]}) = ${a}, expected ${b}`).toBe(true);
        if ((op === "sigmoid" || op === "silu") && Math.abs(b) < 1e-35) return;
        most = Math.max(most, Math.abs(a - b) / ulp(b));
      });
      worst[op] = most;
    });
    for (const op of functions)
      expect(worst[op], `${op}: ${JSON.stringify(worst)}`).toBeLessThan(["sigmoid", "silu", "softplus"].includes(op) ? 4 : 2);
  });
});
