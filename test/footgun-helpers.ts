/** What the footgun tests share: devices, a listener for compile events, small states. */
import { afterEach } from "vitest";
import type { Device } from "../src/runtime/device.js";
import { onEvent, openDevice, setStance, State, type CompileEvent } from "../src/trace/entry.js";

export const native: Device = openDevice("native").device;
export const reference: Device = openDevice("reference").device;

/** Events since the test began; the stance is the default again after each test. */
export function recordEvents(): CompileEvent[] {
  const events: CompileEvent[] = [];
  const stop = onEvent((event) => events.push(event));
  afterEach(() => {
    events.length = 0;
    setStance("default");
  });
  process.once("exit", stop);
  return events;
}

export const floats = (...values: number[]): Float32Array => Float32Array.from(values);

export function mutable(device: Device, name: string, rows: number, width: number): State {
  return new State(device, name, [rows, width], "f32");
}

export function matrix(device: Device, name: string, out: number, depth: number, value = 0.5): State {
  const state = new State(device, name, [out, depth], "f32", { kind: "constant", layout: "panels" });
  state.write(new Float32Array(out * depth).fill(value));
  return state;
}
