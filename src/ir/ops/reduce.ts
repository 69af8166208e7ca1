/** Ops over the last axis: plain reductions and the row ops (rmsNorm, softmax) that models use by name. */
import type { Dim } from "../dim.js";
import type { Node } from "../graph.js";
import type { Evaluation, OpSpec } from "../ops.js";
import { refuse, staticLastDim } from "./shapes.js";

const reduced = (node: Node): readonly Dim[] => [...node.shape.slice(0, -1), 1];

function eachRow(
  { inputs, output }: Evaluation,
  body: (data: ArrayLike<number>, start: number, length: number, row: number) => void,
): void {
  const input = inputs[0];
  if (!input) return;
  const length = input.shape[input.shape.length - 1] ?? 1;
  const rows = length === 0 ? output.length : input.data.length / length;
  for (let row = 0; row < rows; row++) body(input.data, row * length, length, row);
}

function reduction(name: string, start: number, combine: (before: number, value: number) => number): OpSpec {
  return {
    name,
    class: "reduce",
    shape(inputs, _attributes, _states, label) {
      staticLastDim(name, label, inputs[0] as Node);
      if ((inputs[0] as Node).dtype !== "f32") refuse(name, label, inputs, "reduces f32 only");
      return reduced(inputs[0] as Node);
    },
    dtype: (inputs) => (inputs[0] as Node).dtype,
    evaluate(evaluation) {
      eachRow(evaluation, (data, first, length, row) => {
        let result = start;
        for (let i = 0; i < length; i++) result = combine(result, data[first + i] as number);
        evaluation.output[row] = result;
      });
    },
  };
}

export const reduceOps: readonly OpSpec[] = [
  reduction("sum", 0, (before, value) => before + value),
  reduction("max", -Infinity, (before, value) => (value > before || Number.isNaN(value) ? value : before)),
  {
    /** x / sqrt(mean(x^2) + eps), times a weight per column when given one. */
    name: "rmsNorm",
    class: "rowwise",
    shape(inputs, _attributes, _states, label) {
      const [x, weight] = inputs as [Node, Node | undefined];
      const width = staticLastDim("rmsNorm", label, x);
      if (x.dtype !== "f32" || (weight && weight.dtype !== "f32")) refuse("rmsNorm", label, inputs, "operands must be f32");
      if (weight && (weight.shape.length !== 1 || weight.shape[0] !== width))
        refuse("rmsNorm", label, inputs, `the weight must be [${width}]`);
      return x.shape;
    },
    dtype: () => "f32",
    evaluate(evaluation) {
      const weight = evaluation.inputs[1]?.data;
      const epsilon = evaluation.attributes["epsilon"] as number;
      eachRow(evaluation, (data, first, length) => {
        let squares = 0;
        for (let i = 0; i < length; i++) squares += (data[first + i] as number) ** 2;
        const scale = 1 / Math.sqrt(squares / length + epsilon);
        for (let i = 0; i < length; i++)
          evaluation.output[first + i] = (data[first + i] as number) * scale * (weight ? (weight[i] as number) : 1);
      });
    },
  },
  {
    name: "softmax",
    class: "rowwise",
    shape(inputs, _attributes, _states, label) {
      staticLastDim("softmax", label, inputs[0] as Node);
      if ((inputs[0] as Node).dtype !== "f32") refuse("softmax", label, inputs, "takes f32 only; convert first");
      return (inputs[0] as Node).shape;
    },
    dtype: () => "f32",
    evaluate(evaluation) {
      eachRow(evaluation, (data, first, length) => {
        let largest = -Infinity;
        for (let i = 0; i < length; i++) {
          const value = data[first + i] as number;
          if (value > largest || Number.isNaN(value)) largest = value;
        }
        let total = 0;
        for (let i = 0; i < length; i++) total += Math.exp((data[first + i] as number) - largest);
        for (let i = 0; i < length; i++) evaluation.output[first + i] = Math.exp((data[first + i] as number) - largest) / total;
      });
    },
  },
];
