/** What flows through traced code: a node of a trace, or a concrete array. The tensor layer adds the operations. */
import type { DType, HostArray } from "../ir/dtype.js";
import type { Dim } from "../ir/dim.js";
import type { Node } from "../ir/graph.js";
import type { Tracer } from "./tracer.js";

/** A named size with its value in this call: becomes a size variable inside traced code. */
export class Size {
  constructor(
    readonly name: string,
    readonly value: number,
  ) {}
}

/** A size of an axis: fixed, or named and different from call to call. */
export const size = (name: string, value: number): Size => new Size(name, value);

export interface Traced {
  readonly kind: "traced";
  readonly tracer: Tracer;
  readonly node: Node;
}

export interface Concrete {
  readonly kind: "concrete";
  readonly array: HostArray;
  readonly axes: readonly (number | Size)[];
}

export class Value {
  constructor(
    readonly content: Traced | Concrete,
    readonly dtype: DType,
  ) {}

  /** Sizes of the axes: numbers when concrete, possibly size expressions inside a trace. */
  get shape(): readonly Dim[] {
    const { content } = this;
    return content.kind === "traced" ? content.node.shape : content.axes.map((axis) => (axis instanceof Size ? axis.value : axis));
  }

  /**
   * The values, row-major. Of a concrete value this is its own array, not a copy. Inside a trace it ends the segment: a graph break, which runs what was
   * traced so far; with `fullGraph` it throws.
   */
  data(): HostArray {
    const { content } = this;
    return content.kind === "concrete" ? content.array : content.tracer.readValue(content.node);
  }

  /** The single value of a one-element tensor; a graph break inside a trace. */
  item(): number {
    const values = this.data();
    if (values.length !== 1) throw new Error(`item() needs exactly one element, this value has ${values.length}`);
    return values[0] as number;
  }
}

/** A static argument: part of the specialization's key, so a change means another compile. */
export class StaticValue<T extends string | number | boolean> {
  constructor(readonly value: T) {}
}

/** Marks an argument as part of the program: another value is another specialization. */
export const staticValue = <T extends string | number | boolean>(value: T): StaticValue<T> => new StaticValue(value);

/** Checks an array against axes; throws with both sizes. */
export function concreteContent(array: HostArray, axes: readonly (number | Size)[]): Concrete {
  const total = axes.reduce<number>((product, axis) => product * (axis instanceof Size ? axis.value : axis), 1);
  if (array.length !== total)
    throw new Error(
      `${array.length} values do not fill the shape [${axes.map((axis) => (axis instanceof Size ? `${axis.name}=${axis.value}` : axis)).join(", ")}]`,
    );
  return { kind: "concrete", array, axes };
}
