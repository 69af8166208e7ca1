/**
 * Nodes expanded to steps: loads, maps, reductions and rotations over one inner axis, each with the loop in which it can be computed. Must not know C.
 */
import type { Dim } from "../ir/dim.js";
import type { Attributes, Node } from "../ir/graph.js";
import { opSpec } from "../ir/ops.js";
import * as s from "../ir/scalar.js";
import type { Scalar, ScalarType } from "../ir/scalar.js";

export type Reduction = "sum" | "sumSquares" | "max";

export interface Step {
  /** `given` values are named by the caller: the accumulators of a contraction. */
  readonly kind: "load" | "map" | "reduce" | "rope" | "given";
  readonly width: number;
  readonly type: ScalarType;
  /** Stem of its name in C. */
  readonly name: string;
  readonly inputs: readonly Step[];
  /** Loop in which it is computed; a reduction's result is there from level + 1 on. */
  readonly level: number;
  readonly node?: Node;
  /** Loads: how operands align, and whether the load is the node's own computation (see `rowAddress`). */
  readonly trailing?: boolean;
  readonly source?: boolean;
  readonly define?: (inputs: readonly Scalar[]) => Scalar;
  readonly reduction?: Reduction;
  readonly costly: boolean;
  /** Differs from column to column even where the width is 1: everything made of accumulators. */
  readonly perElement?: boolean;
}

/** Inner width and leading axes of a node's iteration; a dynamic last axis is all rows, width 1. */
export function iterationOf(node: { readonly shape: readonly Dim[] }): { rowShape: readonly Dim[]; width: number } {
  const last = node.shape[node.shape.length - 1];
  if (last === undefined) return { rowShape: [], width: 1 };
  return typeof last === "number" ? { rowShape: node.shape.slice(0, -1), width: last } : { rowShape: node.shape, width: 1 };
}

/** Whether the last axis of a value is data, so that its iteration has no columns. */
const isTrailing = ({ shape }: { readonly shape: readonly Dim[] }): boolean =>
  shape.length > 0 && typeof shape[shape.length - 1] !== "number";

const available = (step: Step): number => (step.kind === "reduce" ? step.level + 1 : step.level);

/** Expands nodes to steps. `given` supplies steps for values that are not loaded, such as accumulators. */
export class StepPlanner {
  readonly steps = new Map<Node, Step>();
  readonly #trailingLoads = new Map<Node, Step>();
  readonly ordered: Step[] = [];

  /** Declares a value that the surrounding code computes, and returns its step. */
  give(node: Node): Step {
    const step = this.#step({ kind: "given", name: "sum", width: iterationOf(node).width, type: "f32", inputs: [], node, costly: false });
    this.steps.set(node, step);
    return step;
  }

  #step(step: Omit<Step, "level">): Step {
    const level = step.inputs.reduce((high, input) => Math.max(high, available(input) + (step.kind === "rope" ? 1 : 0)), 0);
    const perElement = step.kind === "given" || step.inputs.some((input) => input.perElement);
    const made = { ...step, level, perElement };
    this.ordered.push(made);
    return made;
  }

  map(name: string, inputs: readonly Step[], width: number, type: ScalarType, define: Step["define"], costly = false): Step {
    return this.#step({ kind: "map", name, width, type, inputs, define, costly });
  }

  reduce(input: Step, reduction: Reduction): Step {
    return this.#step({
      kind: "reduce",
      name: reduction === "max" ? "largest" : "total",
      width: 1,
      type: "f32",
      inputs: [input],
      reduction,
      costly: false,
    });
  }

  /** A value read from memory, or the constant it is, for a consumer whose last axis is `trailing` (see `RowRead`). */
  load(node: Node, trailing = false): Step {
    const loads = trailing && !this.steps.has(node) ? this.#trailingLoads : this.steps;
    const known = loads.get(node);
    if (known) return known;
    if (node.op === "constant") {
      const { value, dtype } = node.attributes as { value: number; dtype: ScalarType };
      return this.map("constant", [], 1, dtype, () => s.constant(dtype, value));
    }
    const step = this.#loadStep(node, trailing);
    loads.set(node, step);
    return step;
  }

  #loadStep(node: Node, trailing: boolean, source = false): Step {
    const width = trailing ? 1 : iterationOf(node).width;
    const type = node.dtype === "i32" ? "i32" : "f32";
    return this.#step({ kind: "load", name: "x", width, type, inputs: [], node, trailing, source, costly: false });
  }

  /** Adds a node that the kernel computes. */
  compute(node: Node): void {
    this.steps.set(node, this.#expand(node));
  }

  #expand(node: Node): Step {
    const { width } = iterationOf(node);
    const type: ScalarType = node.dtype === "i32" ? "i32" : "f32";
    const first = node.inputs[0] as Node;
    const inputs = (): Step[] => node.inputs.map((input) => this.load(input, isTrailing(node)));
    switch (node.op) {
      case "sum":
      case "max":
        return this.reduce(this.load(first), node.op);
      case "rmsNorm":
        return this.#rmsNorm(node, inputs(), width);
      case "softmax":
        return this.#softmax(this.load(first), width);
      case "rope":
        return this.#rope(node, width);
      case "appendKeys":
      case "appendValues":
      case "writeRows":
        return this.load(first, isTrailing(first));
      case "gatherRows":
      case "read":
        return this.#loadStep(node, isTrailing(node), true);
      default: {
        const define = opSpec(node.op).define;
        if (!define) throw new Error(`${node.op} has no scalar definition, so a row kernel cannot hold it`);
        return this.map(node.op, inputs(), width, type, (operands) => define(operands, node.attributes as Attributes), costly(node.op));
      }
    }
  }

  #rmsNorm(node: Node, [x, weight]: Step[], width: number): Step {
    const squares = this.reduce(x as Step, "sumSquares");
    const epsilon = node.attributes["epsilon"] as number;
    const scale = this.map("scale", [squares], 1, "f32", ([total]) => {
      const mean = s.div(total as Scalar, s.constant("f32", width));
      return s.div(s.constant("f32", 1), s.sqrt(s.add(mean, s.constant("f32", epsilon))));
    });
    return this.map("normal", [x as Step, scale, ...(weight ? [weight] : [])], width, "f32", ([value, factor, column]) => {
      const normal = s.mul(value as Scalar, factor as Scalar);
      return column ? s.mul(normal, column) : normal;
    });
  }

  #softmax(x: Step, width: number): Step {
    const largest = this.reduce(x, "max");
    const weights = this.map(
      "weight",
      [x, largest],
      width,
      "f32",
      ([value, top]) => s.call("exp", "f32", [s.sub(value as Scalar, top as Scalar)]),
      true,
    );
    const total = this.reduce(weights, "sum");
    return this.map("softmax", [weights, total], width, "f32", ([weight, sum]) => s.div(weight as Scalar, sum as Scalar));
  }

  /** Operands: x, then the rows of the cosine, sine and multiplier tables that belong to the row's token. */
  #rope(node: Node, width: number): Step {
    return this.#step({
      kind: "rope",
      name: "rotated",
      width,
      type: "f32",
      inputs: [this.load(node.inputs[0] as Node)],
      node,
      costly: true,
    });
  }
}

const costlyOps = new Set(["exp", "log", "log1p", "asinh", "sinh", "sigmoid", "silu", "softplus", "div", "sqrt"]);
const costly = (op: string): boolean => costlyOps.has(op);
