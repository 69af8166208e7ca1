/** Arguments of a compiled function: flattened to leaves, described as guards, rebuilt as traced values. Must not know how anything is compiled. */
import { printShape, sizeVar, type Dim, type SizeBindings } from "../ir/dim.js";
import type { HostArray } from "../ir/dtype.js";
import { printAttribute } from "../ir/graph.js";
import { State } from "./state.js";
import { Size, StaticValue, Value } from "./value.js";

/** Bounds of a size: [min, max]. */
export type Bounds = readonly [number, number];

export interface Leaf {
  /** Readable place of the argument, for example `arguments[0].positions`. */
  readonly path: string;
  readonly value: Value | State | StaticValue<string | number | boolean> | number;
}

/** One printable field of a guard: equal texts mean equal specializations. */
export interface GuardField {
  readonly path: string;
  readonly text: string;
}

/** Strings and booleans steer traced code, so they are static: another value means another compile. */
export const isLeaf = (value: unknown): boolean =>
  value instanceof Value ||
  value instanceof State ||
  value instanceof StaticValue ||
  typeof value === "number" ||
  typeof value === "string" ||
  typeof value === "boolean";

export const leafValue = (value: unknown): Leaf["value"] =>
  typeof value === "string" || typeof value === "boolean" ? new StaticValue(value) : (value as Leaf["value"]);

export function flattenArguments(args: readonly unknown[]): Leaf[] {
  const leaves: Leaf[] = [];
  const visit = (value: unknown, path: string): void => {
    if (value === undefined || value === null) return;
    if (isLeaf(value)) leaves.push({ path, value: leafValue(value) });
    else if (Array.isArray(value)) value.forEach((item, index) => visit(item, `${path}[${index}]`));
    else if (typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
      for (const [key, item] of Object.entries(value)) visit(item, `${path}.${key}`);
    } else {
      throw new TypeError(
        `${path} is a ${typeof value === "object" ? (value.constructor.name ?? "object") : typeof value}; compiled functions take tensors, states, numbers, strings, booleans, staticValue(...) and plain objects or arrays of these`,
      );
    }
  };
  args.forEach((value, index) => visit(value, `arguments[${index}]`));
  return leaves;
}

/** Replaces every leaf by what `replace` gives for its path; everything else keeps its structure. */
export function rebuildArguments(args: readonly unknown[], replace: (leaf: Leaf) => unknown): unknown[] {
  const visit = (value: unknown, path: string): unknown => {
    if (value === undefined || value === null) return value;
    if (isLeaf(value)) return replace({ path, value: leafValue(value) });
    if (Array.isArray(value)) return value.map((item, index) => visit(item, `${path}[${index}]`));
    return Object.fromEntries(Object.entries(value as object).map(([key, item]) => [key, visit(item, `${path}.${key}`)]));
  };
  return args.map((value, index) => visit(value, `arguments[${index}]`));
}

/** Axes of a concrete leaf as dims: named sizes with declared bounds become size variables, all others are fixed. */
export function dimsOf(axes: readonly (number | Size)[], bounds: ReadonlyMap<string, Bounds>): Dim[] {
  return axes.map((axis) => {
    if (typeof axis === "number") return axis;
    const known = bounds.get(axis.name);
    return known ? sizeVar(axis.name, known[0], known[1]) : axis.value;
  });
}

/** Values of all named sizes; throws when one name has two values. */
export function bindSizes(leaves: readonly Leaf[], functionName: string): SizeBindings {
  const sizes: Record<string, number> = {};
  const bind = (name: string, value: number, path: string): void => {
    const known = sizes[name];
    if (known !== undefined && known !== value)
      throw new Error(
        `${functionName}: size "${name}" is ${known} elsewhere but ${value} in ${path}; one name must have one value per call`,
      );
    sizes[name] = value;
  };
  for (const { path, value } of leaves) {
    if (value instanceof Value && value.content.kind === "concrete")
      for (const axis of value.content.axes) if (axis instanceof Size) bind(axis.name, axis.value, path);
    if (value instanceof State) for (const [name, bound] of Object.entries(value.buffer.sizes)) bind(name, bound, path);
  }
  return sizes;
}

const printAxes = (dims: readonly Dim[]): string =>
  printShape(
    dims.map((dim) =>
      typeof dim === "number"
        ? dim
        : (`${String(dim)} with ${Object.values(dim.variables)
            .map(({ name, min, max }) => `${name}:${min}..${max}`)
            .join(", ")}` as unknown as Dim),
    ),
  );

/** Whether a leaf fulfils the same guard as the one a specialization was made for; decides without writing the guard out. */
export function sameGuard(known: GuardShape, { path, value }: Leaf, bounds: ReadonlyMap<string, Bounds>): boolean {
  if (known.path !== path) return false;
  if (typeof value === "number") return known.kind === "number";
  if (value instanceof StaticValue) return known.kind === "static" && Object.is(known.value, value.value);
  if (value instanceof State) return known.kind === "state" && (known.declaration === value.declaration || known.text === stateText(value));
  if (known.kind !== "tensor" || known.dtype !== value.dtype || value.content.kind !== "concrete") return false;
  const { axes } = value.content;
  return axes.length === known.axes.length && axes.every((axis, index) => sameAxis(known.axes[index] as number | string, axis, bounds));
}

const sameAxis = (known: number | string, axis: number | Size, bounds: ReadonlyMap<string, Bounds>): boolean =>
  typeof axis === "number" ? known === axis : bounds.has(axis.name) ? known === axis.name : known === axis.value;

/** The part of a leaf that its guard depends on; holds none of its data. */
export type GuardShape = { readonly path: string } & (
  | { readonly kind: "number" }
  | { readonly kind: "static"; readonly value: string | number | boolean }
  | { readonly kind: "state"; readonly declaration: State["declaration"]; readonly text: string }
  | { readonly kind: "tensor"; readonly dtype: Value["dtype"]; readonly axes: readonly (number | string)[] }
);

export function guardShape({ path, value }: Leaf, bounds: ReadonlyMap<string, Bounds>): GuardShape {
  if (typeof value === "number") return { path, kind: "number" };
  if (value instanceof StaticValue) return { path, kind: "static", value: value.value };
  if (value instanceof State) return { path, kind: "state", declaration: value.declaration, text: stateText(value) };
  const axes = value.content.kind === "concrete" ? value.content.axes : [];
  return {
    path,
    kind: "tensor",
    dtype: value.dtype,
    axes: axes.map((axis) => (typeof axis === "number" ? axis : bounds.has(axis.name) ? axis.name : axis.value)),
  };
}

const stateText = ({ declaration: { name, dtype, kind, layout, shape } }: State): string =>
  `state ${name} ${dtype}${printAxes(shape)} ${kind} ${layout}`;

/** What a specialization depends on, field by field. */
export function guardFields(leaves: readonly Leaf[], bounds: ReadonlyMap<string, Bounds>): GuardField[] {
  return leaves.map(({ path, value }) => {
    if (typeof value === "number") return { path, text: "number (data)" };
    if (value instanceof StaticValue) return { path, text: `== ${printAttribute(value.value)}` };
    if (value instanceof State) return { path, text: stateText(value) };
    const axes = value.content.kind === "concrete" ? dimsOf(value.content.axes, bounds) : value.shape;
    return { path, text: `${value.dtype}${printAxes(axes)}` };
  });
}

/** Array of a data leaf: a tensor's own array, or one f32 for a number. */
export const leafArray = (leaf: Leaf): HostArray => {
  if (typeof leaf.value === "number") return Float32Array.of(leaf.value);
  const content = (leaf.value as Value).content;
  if (content.kind !== "concrete")
    throw new Error(`${leaf.path} is a value of a trace and cannot be passed to a compiled function from outside it`);
  return content.array;
};
