// The compiler by itself: a function over tensors, traced once, then replayed for any number of rows within its bounds.  node examples/compile.mjs
import { compile, linear, openDevice, rmsNorm, size, State, Tensor } from "tempograph";

const { device } = openDevice("auto");
const weight = new State(device, "weight", [8, 16], "f32", { kind: "constant", layout: "panels" });
weight.write(Float32Array.from({ length: 8 * 16 }, (_, index) => Math.sin(index)));

const layer = compile((/** @type {Tensor} */ x) => linear(rmsNorm(x, undefined, 1e-6), weight).silu(), {
  device,
  dynamic: { rows: [1, 64] },
  name: "layer",
});
for (const rows of [1, 7, 33]) {
  const x = Tensor.from(
    Float32Array.from({ length: rows * 16 }, (_, index) => Math.cos(index)),
    [size("rows", rows), 16],
  );
  console.log(`${rows} rows: ${layer(x).data().length} values`);
}
const { compiles, recompiles, graphBreaks } = layer.report();
console.log(`compiles ${compiles}, recompiles ${recompiles}, graph breaks ${graphBreaks}`);
layer.dispose();
weight.dispose();
