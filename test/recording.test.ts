/** Recordings of a device: what they add up over runs, and what they leave out. */
import { afterAll, describe, expect, test } from "vitest";
import { compile, linear, Tensor } from "../src/tensor/index.js";
import { openDevice, size, State } from "../src/trace/entry.js";
import type { RecordedRuns } from "../src/runtime/device.js";
import { NativeError } from "../src/runtime/native/errors.js";

const [rows, depth, width] = [40, 64, 96];

function openNative(): ReturnType<typeof openDevice>["device"] | undefined {
  try {
    return openDevice("native", { threads: 2 }).device;
  } catch (error) {
    if (!(error instanceof NativeError)) throw error;
    console.warn(`skipped: ${error.message}`);
    return undefined;
  }
}

const device = openNative();

describe.skipIf(!device)("recordings", () => {
  const native = device as NonNullable<typeof device>;
  const record = (body: () => Promise<void> | void): Promise<RecordedRuns> =>
    (native.record as NonNullable<typeof native.record>).call(native, body);
  const weight = device && new State(device, "weight", [width, depth], "f32", { kind: "constant", layout: "panels" });
  weight?.write(Float32Array.from({ length: width * depth }, (_, i) => Math.sin(i)));
  const make = (mode: "eager" | "reduce-overhead", name: string) =>
    compile((x: Tensor) => linear(x.mul(2), weight as State).silu(), { device: native, mode, name, dynamic: { rows: [1, 64] } });
  const input = (count: number): Tensor => Tensor.from(new Float32Array(count * depth).fill(0.5), [size("rows", count), depth]);
  const programs = device ? { captured: make("reduce-overhead", "captured"), eager: make("eager", "eager") } : undefined;
  const { captured, eager } = programs as NonNullable<typeof programs>;

  afterAll(() => {
    captured.dispose();
    eager.dispose();
    weight?.dispose();
  });

  test("runs on and off the event loop, their launches and their work", async () => {
    captured(input(rows));
    const recorded = await record(async () => {
      captured(input(rows));
      await captured.run([input(rows)]);
      captured(input(rows / 2));
    });
    expect(recorded.runs).toBe(3);
    expect(recorded.foreignCalls).toBe(3);
    const launches = captured.report().specializations[0]?.launches as number;
    expect(recorded.kernels.reduce((sum, kernel) => sum + kernel.launches, 0)).toBe(3 * launches);
    const contractions = recorded.kernels.filter(({ flops }) => flops > 0);
    expect(contractions.map(({ flops, launches: count }) => [flops, count]).sort()).toEqual(
      [
        [2 * rows * depth * width, 2],
        [rows * depth * width, 1],
      ].sort(),
    );
    for (const kernel of recorded.kernels) {
      expect(kernel.program).toBe("captured");
      expect(kernel.milliseconds).toBeGreaterThan(0);
    }
    expect(recorded.milliseconds).toBeGreaterThan(recorded.kernels.reduce((sum, { milliseconds }) => sum + milliseconds, 0));
  });

  test("one foreign call per kernel in eager mode", async () => {
    eager(input(rows));
    const recorded = await record(() => void eager(input(rows)));
    expect(recorded.runs).toBe(1);
    expect(recorded.foreignCalls).toBe(eager.report().specializations[0]?.launches);
  });

  test("runs outside a recording are not in it, and the bits are the same", async () => {
    const before = captured(input(rows)).data();
    let inside: Tensor | undefined;
    const recorded = await record(() => void (inside = captured(input(rows))));
    captured(input(rows));
    expect(recorded.runs).toBe(1);
    expect(inside?.data()).toEqual(before);
  });

  test("a second recording of the same device is refused, a later one is not", async () => {
    await record(async () => {
      await expect(record(() => undefined)).rejects.toThrow("a recording of this device is open already");
    });
    await expect(record(() => Promise.reject(new Error("body failed")))).rejects.toThrow("body failed");
    expect((await record(() => undefined)).runs).toBe(0);
  });
});
