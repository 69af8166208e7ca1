/** States as model code holds them: a declaration and its memory on one device. */
import type { Dim, SizeBindings } from "../ir/dim.js";
import type { DType, HostArray } from "../ir/dtype.js";
import type { StateDeclaration } from "../ir/graph.js";
import type { Device, StateBuffer } from "../runtime/device.js";

/** What a state is for, and how its memory is laid out. */
export interface StateOptions {
  /** Values of the shape's size variables for this allocation. */
  readonly sizes?: SizeBindings;
  readonly kind?: StateDeclaration["kind"];
  readonly layout?: StateDeclaration["layout"];
}

/** A persistent buffer: a weight (constant) or a cache, counter or carry (mutable). Owns device memory until `dispose`. */
export class State {
  readonly declaration: StateDeclaration;
  readonly buffer: StateBuffer;

  /** Zeroed memory of `shape` on `device`. Throws when memory is out. */
  constructor(
    readonly device: Device,
    name: string,
    shape: readonly Dim[],
    dtype: DType,
    options: StateOptions = {},
  ) {
    this.declaration = { name, shape, dtype, kind: options.kind ?? "mutable", layout: options.layout ?? "plain" };
    this.buffer = device.allocate(this.declaration, options.sizes ?? {});
  }

  get name(): string {
    return this.declaration.name;
  }

  /** Numeric shape. */
  get shape(): readonly number[] {
    return this.buffer.shape;
  }

  write(values: HostArray): void {
    const expected = this.shape.reduce((a, b) => a * b, 1);
    if (values.length !== expected)
      throw new Error(`state ${this.name} holds ${expected} values [${this.shape.join(", ")}], got ${values.length}`);
    this.buffer.write(values);
  }

  /** A copy of the values. */
  read(): HostArray {
    return this.buffer.read();
  }

  dispose(): void {
    this.buffer.free();
  }
}
