/** Ops that move no value through arithmetic: reshape, slice, permute, broadcast, and the copies concat and gatherRows. */
import { addDims, printShape, productOf, sameDim, type Dim } from "../dim.js";
import type { Node } from "../graph.js";
import type { Evaluation, OpSpec } from "../ops.js";
import { clamp, elementCount, isLaneType, refuse, stridesOf } from "./shapes.js";

const first = (inputs: readonly Node[]): Node => inputs[0] as Node;
const sameDType = (inputs: readonly Node[]): Node["dtype"] => first(inputs).dtype;

/** Copies input to output through per-axis strides of the input. */
function copyStrided({ inputs, shape, output }: Evaluation, strides: readonly number[], offset: number): void {
  const data = inputs[0]?.data;
  if (!data) return;
  const total = elementCount(shape);
  const index = new Array<number>(shape.length).fill(0);
  let from = offset;
  for (let i = 0; i < total; i++) {
    output[i] = data[from] as number;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis] = (index[axis] as number) + 1;
      from += strides[axis] as number;
      if ((index[axis] as number) < (shape[axis] as number)) break;
      from -= (strides[axis] as number) * (shape[axis] as number);
      index[axis] = 0;
    }
  }
}

export const viewOps: readonly OpSpec[] = [
  {
    name: "reshape",
    class: "view",
    shape(inputs, attributes, _states, label) {
      const target = attributes["shape"] as readonly Dim[];
      const total = productOf(first(inputs).shape);
      if (!sameDim(productOf(target), total))
        refuse("reshape", label, inputs, `${printShape(target)} has ${String(productOf(target))} elements, the operand ${String(total)}`);
      return target;
    },
    dtype: sameDType,
    evaluate: ({ inputs, output }) => output.set(inputs[0]?.data ?? []),
  },
  {
    /** Elements [start, start + length) of one axis. */
    name: "slice",
    class: "view",
    shape(inputs, attributes, _states, label) {
      const { axis, start, length } = attributes as { axis: number; start: number; length: number };
      const shape = first(inputs).shape;
      const dim = shape[axis];
      if (dim === undefined || typeof dim !== "number" || start < 0 || length < 0 || start + length > dim) {
        refuse("slice", label, inputs, `[${start}, ${start + length}) of axis ${axis} is outside a fixed size`);
      }
      return shape.map((before, index) => (index === axis ? length : before));
    },
    dtype: sameDType,
    evaluate(evaluation) {
      const { axis, start } = evaluation.attributes as { axis: number; start: number };
      const strides = stridesOf(evaluation.inputs[0]?.shape ?? []);
      copyStrided(evaluation, strides, start * (strides[axis] as number));
    },
  },
  {
    /** Axis i of the result is axis order[i] of the operand. */
    name: "permute",
    class: "view",
    shape(inputs, attributes, _states, label) {
      const order = attributes["order"] as readonly number[];
      const shape = first(inputs).shape;
      if ([...order].sort((a, b) => a - b).some((axis, index) => axis !== index) || order.length !== shape.length)
        refuse("permute", label, inputs, `order [${order.join(", ")}] is no permutation of its axes`);
      return order.map((axis) => shape[axis] as Dim);
    },
    dtype: sameDType,
    evaluate(evaluation) {
      const order = evaluation.attributes["order"] as readonly number[];
      const strides = stridesOf(evaluation.inputs[0]?.shape ?? []);
      copyStrided(
        evaluation,
        order.map((axis) => strides[axis] as number),
        0,
      );
    },
  },
  {
    name: "broadcast",
    class: "view",
    shape(inputs, attributes, _states, label) {
      const target = attributes["shape"] as readonly Dim[];
      const shape = first(inputs).shape;
      const lead = target.length - shape.length;
      if (lead < 0 || shape.some((dim, axis) => dim !== 1 && !sameDim(dim, target[axis + lead] as Dim)))
        refuse("broadcast", label, inputs, `cannot become ${printShape(target)}`);
      return target;
    },
    dtype: sameDType,
    evaluate(evaluation) {
      const shape = evaluation.inputs[0]?.shape ?? [];
      const strides = stridesOf(shape);
      const lead = evaluation.shape.length - shape.length;
      copyStrided(
        evaluation,
        evaluation.shape.map((_, axis) => (axis < lead || shape[axis - lead] === 1 ? 0 : (strides[axis - lead] as number))),
        0,
      );
    },
  },
  {
    /** Operands one after the other along the last axis. */
    name: "concat",
    class: "gather",
    shape(inputs, _attributes, _states, label) {
      const lead = first(inputs).shape.slice(0, -1);
      let width: Dim = 0;
      for (const node of inputs) {
        if (node.shape.length !== lead.length + 1 || lead.some((dim, axis) => !sameDim(dim, node.shape[axis] as Dim)))
          refuse("concat", label, inputs, "operands must agree in all axes but the last");
        if (node.dtype !== first(inputs).dtype) refuse("concat", label, inputs, "operands must have one dtype");
        width = addDims(width, node.shape[node.shape.length - 1] as Dim);
      }
      return [...lead, width];
    },
    dtype: sameDType,
    evaluate({ inputs, shape, output }) {
      const width = shape[shape.length - 1] ?? 1;
      const rows = output.length / width;
      let column = 0;
      for (const input of inputs) {
        const part = input.shape[input.shape.length - 1] ?? 1;
        for (let row = 0; row < rows; row++)
          for (let i = 0; i < part; i++) output[row * width + column + i] = input.data[row * part + i] as number;
        column += part;
      }
    },
  },
  {
    /**
     * Row r of the result is row index[r] of the operand (all axes but the first belong to a row).
     * With a second operand, a negative index -1 - i takes row i of that one. An index outside is clamped into the operand.
     */
    name: "gatherRows",
    class: "gather",
    shape(inputs, _attributes, _states, label) {
      const [x, index, other] = inputs as [Node, Node, Node | undefined];
      if (index.dtype !== "i32" || index.shape.length !== 1) refuse("gatherRows", label, inputs, "the index must be i32 [rows]");
      const rest = x.shape.slice(1);
      if (other && (other.dtype !== x.dtype || !sameDim(productOf(other.shape.slice(1)), productOf(rest))))
        refuse("gatherRows", label, inputs, "both sources must have rows of one size and dtype");
      if (!isLaneType(x.dtype) || x.shape.length === 0)
        refuse("gatherRows", label, inputs, "takes f32 and i32 values with at least one axis");
      return [index.shape[0] as Dim, ...rest];
    },
    dtype: sameDType,
    evaluate({ inputs, output }) {
      const [x, index, other] = inputs;
      if (!x || !index) return;
      const width = elementCount(x.shape.slice(1));
      for (let r = 0; r < index.data.length; r++) {
        const at = index.data[r] as number;
        const source = at < 0 && other ? other : x;
        const row = clamp(at < 0 && other ? -1 - at : at, 0, (source.shape[0] ?? 1) - 1);
        for (let i = 0; i < width; i++) output[r * width + i] = source.data[row * width + i] as number;
      }
    },
  },
];
