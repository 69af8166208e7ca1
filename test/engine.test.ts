import { describe, expect, it } from "vitest";
import { openDevice, size, State } from "../src/trace/entry.js";
import { compile, linear, rmsNorm, Tensor } from "../src/tensor/index.js";
import type { Device } from "../src/runtime/device.js";

function noise(length: number, seed: number, scale = 1): Float32Array {
  let state = seed >>> 0;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return scale * (state / 2 ** 31 - 1);
  });
}

const devices: Device[] = [openDevice("native").device, openDevice("reference").device];

function weight(device: Device, name: string, rows: number, depth: number, seed: number): State {
  const state = new State(device, name, [rows, depth], "f32", { kind: "constant", layout: "panels" });
  state.write(noise(rows * depth, seed, 1 / Math.sqrt(depth)));
  return state;
}
function vector(device: Device, name: string, length: number, seed: number): State {
  const state = new State(device, name, [length], "f32", { kind: "constant" });
  state.write(noise(length, seed));
  return state;
}

function block(device: Device, depth: number, hidden: number) {
  const w = {
    norm: vector(device, "norm", depth, 1),
    gate: weight(device, "gate", hidden, depth, 2),
    up: weight(device, "up", hidden, depth, 3),
    down: weight(device, "down", depth, hidden, 4),
    bias: vector(device, "bias", hidden, 5),
  };
  return (x: Tensor): Tensor => {
    const y = rmsNorm(x, w.norm, 1e-8);
    return x.add(linear(linear(y, w.gate, w.bias).silu().mul(linear(y, w.up)), w.down));
  };
}

describe("a gated block", () => {
  for (const [rows, depth, hidden] of [
    [1, 32, 48],
    [5, 40, 70],
    [70, 96, 100],
  ] as const) {
    it(`${rows} rows, ${depth} -> ${hidden}: modes agree bit for bit, reference within bounds`, () => {
      const x = Tensor.from(noise(rows * depth, 9), [size("rows", rows), depth]);
      const results = new Map<string, Float32Array>();
      for (const device of devices) {
        for (const mode of ["eager", "default", "reduce-overhead", "max-autotune"] as const) {
          const step = compile(block(device, depth, hidden), { device, mode, dynamic: { rows: [1, 128] }, name: "block" });
          results.set(`${device.name} ${mode}`, step(x).data() as Float32Array);
        }
      }
      const native = results.get("native eager") as Float32Array;
      expect(results.get("native default")).toEqual(native);
      expect(results.get("native reduce-overhead")).toEqual(native);
      expect(results.get("native max-autotune")).toEqual(native);
      const reference = results.get("reference eager") as Float32Array;
      native.forEach((value, index) => expect(Math.abs(value - (reference[index] as number))).toBeLessThan(1e-5));
      expect(native.some((value) => value !== 0)).toBe(true);
    });
  }
});
