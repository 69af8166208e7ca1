/** Contractions: sums of products over one axis, each output element one chain with that axis ascending. */
import { asRead } from "../bf16.js";
import { sameDim } from "../dim.js";
import type { Node } from "../graph.js";
import type { OpSpec } from "../ops.js";
import { refuse, staticLastDim } from "./shapes.js";

export const contractionOps: readonly OpSpec[] = [
  {
    /** x [..., depth] times a weight state [out, depth], transposed, plus an optional bias [out]. */
    name: "linear",
    class: "contraction",
    shape(inputs, _attributes, states, label) {
      const [x, bias] = inputs as [Node, Node | undefined];
      const [weight] = states;
      const depth = staticLastDim("linear", label, x);
      if (!weight || weight.shape.length !== 2 || weight.shape[1] !== depth)
        refuse("linear", label, inputs, `the weight must be [out, ${depth}], found [${weight?.shape.map(String).join(", ") ?? "none"}]`);
      const out = weight.shape[0] as number;
      if (x.dtype !== "f32" || (bias && bias.dtype !== "f32")) refuse("linear", label, inputs, "x and the bias must be f32");
      if (weight.layout !== "panels" || (weight.dtype !== "f32" && weight.dtype !== "bf16"))
        refuse(
          "linear",
          label,
          inputs,
          `the weight ${weight.name} must be an f32 or bf16 state with layout "panels", found ${weight.dtype} ${weight.layout}`,
        );
      if (bias && (bias.shape.length !== 1 || bias.shape[0] !== out)) refuse("linear", label, inputs, `the bias must be [${out}]`);
      return [...x.shape.slice(0, -1), out];
    },
    dtype: () => "f32",
    evaluate({ inputs, states, shape, output }) {
      const [x, bias] = inputs;
      const weight = states[0];
      if (!x || !weight) return;
      const out = shape[shape.length - 1] as number;
      const depth = weight.shape[1] as number;
      const rows = out === 0 ? 0 : output.length / out;
      const a = x.data;
      const w = asRead(weight.data);
      for (let row = 0; row < rows; row++) {
        for (let n = 0; n < out; n++) {
          let sum = 0;
          for (let k = 0, i = row * depth, j = n * depth; k < depth; k++, i++, j++) sum += (a[i] as number) * (w[j] as number);
          output[row * out + n] = sum + (bias ? (bias.data[n] as number) : 0);
        }
      }
    },
  },
  {
    /** a [M, K] times b [K, N], both computed values. */
    name: "matmul",
    class: "contraction",
    shape(inputs, _attributes, _states, label) {
      const [a, b] = inputs as [Node, Node];
      const depth = staticLastDim("matmul", label, a);
      if (a.shape.length !== 2 || b.shape.length !== 2 || !sameDim(b.shape[0] ?? 0, depth))
        refuse("matmul", label, inputs, `needs [M, K] and [K, N] with a fixed K`);
      if (a.dtype !== "f32" || b.dtype !== "f32") refuse("matmul", label, inputs, "operands must be f32");
      staticLastDim("matmul", label, b);
      return [a.shape[0] ?? 1, b.shape[1] ?? 1];
    },
    dtype: () => "f32",
    evaluate({ inputs, shape, output }) {
      const [a, b] = inputs;
      if (!a || !b) return;
      const [rows, columns] = shape as [number, number];
      const depth = b.shape[0] as number;
      for (let row = 0; row < rows; row++) {
        for (let n = 0; n < columns; n++) {
          let sum = 0;
          for (let k = 0; k < depth; k++) sum += (a.data[row * depth + k] as number) * (b.data[k * columns + n] as number);
          output[row * columns + n] = sum;
        }
      }
    },
  },
];
