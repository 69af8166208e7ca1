/** The package's public names: a list that changes on purpose only, and the compiler used through it. */
import { expect, test } from "vitest";
import * as tempograph from "../src/index.js";

test("public names", () => {
  expect(Object.keys(tempograph).sort()).toMatchInlineSnapshot(`
    [
      "AbortedError",
      "BitDifferenceError",
      "DeviceError",
      "Forecast",
      "Forecaster",
      "InputError",
      "NativeError",
      "RecompileError",
      "SeriesForecast",
      "Size",
      "State",
      "StaticValue",
      "Tensor",
      "TraceError",
      "analyzeLogText",
      "analyzeLogs",
      "attention",
      "candleFeatures",
      "compile",
      "concat",
      "constant",
      "copyRows",
      "currentStance",
      "gatherRows",
      "linear",
      "onEvent",
      "openDevice",
      "percentChanges",
      "planCandles",
      "printEvent",
      "readState",
      "rmsNorm",
      "rope",
      "setStance",
      "size",
      "stances",
      "staticValue",
      "tap",
      "writeRows",
    ]
  `);
});

test("compile through the public names: two lengths, one compile, the same bits as eager", () => {
  const { compile, openDevice, size, State, Tensor } = tempograph;
  const { device } = openDevice("reference");
  const weight = new State(device, "weight", [3, 4], "f32", { kind: "constant", layout: "panels" });
  weight.write(Float32Array.from({ length: 12 }, (_, index) => index / 8));
  const step = (x: tempograph.Tensor): tempograph.Tensor => tempograph.linear(x, weight).silu();
  const compiled = compile(step, { device, dynamic: { rows: [1, 16] }, name: "step" });
  const eager = compile(step, { device, mode: "eager", dynamic: { rows: [1, 16] } });
  const rows = (count: number): tempograph.Tensor =>
    Tensor.from(
      Float32Array.from({ length: 4 * count }, (_, index) => index - 3),
      [size("rows", count), 4],
    );
  expect(compiled(rows(2)).data()).toEqual(eager(rows(2)).data());
  expect(compiled(rows(5)).data().length).toBe(15);
  expect(compiled.report()).toMatchObject({ name: "step", compiles: 1, recompiles: 0, graphBreaks: 0 });
  compiled.dispose();
  eager.dispose();
  weight.dispose();
});

test("a stance set through the public names turns a recompile into an error", () => {
  const { compile, openDevice, RecompileError, setStance, Tensor } = tempograph;
  const compiled = compile((x: tempograph.Tensor) => x.add(1), { device: openDevice("reference").device, name: "fixed" });
  compiled(Tensor.from(Float32Array.of(1, 2), [2]));
  const events: string[] = [];
  const stop = tempograph.onEvent((event) => void events.push(event.stream));
  const before = setStance("fail_on_recompile");
  try {
    expect(() => compiled(Tensor.from(Float32Array.of(1, 2, 3), [3]))).toThrow(RecompileError);
  } finally {
    setStance(before);
    stop();
    compiled.dispose();
  }
  expect(tempograph.currentStance()).toBe("default");
});
