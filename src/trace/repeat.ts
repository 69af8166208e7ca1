/**
 * The last call as a pattern: a next one that differs in nothing but its data needs no look at guards, sizes and states again. Must not know how a miss is
 * served. While weights stream through the caches every object a call touches is a miss to memory, so a match compares references and reads no State.
 */
import type { DType, HostArray } from "../ir/dtype.js";
import { isLeaf, leafValue } from "./arguments.js";
import { State } from "./state.js";
import { Size, StaticValue, Value } from "./value.js";

type Pattern =
  | { readonly kind: "data"; readonly dtype: DType; readonly axes: readonly (number | Size)[] }
  | { readonly kind: "number" }
  /** A State, a static argument or nothing at all: the very same value. */
  | { readonly kind: "same"; readonly value: unknown }
  | { readonly kind: "static"; readonly value: string | number | boolean }
  | { readonly kind: "list"; readonly items: readonly Pattern[] }
  | {
      readonly kind: "record";
      readonly keys: readonly string[];
      readonly items: readonly Pattern[];
      /** Where the record can never hold anything else: itself, and the arrays of its leaves. */
      readonly fixed?: { readonly record: unknown; readonly arrays: readonly HostArray[] };
    };

export class CallPattern {
  readonly #root: Pattern;

  /** `args` of a call that was served: every leaf is one that compiled functions take. */
  constructor(args: readonly unknown[]) {
    this.#root = patternOf(args);
  }

  /** The arrays of the data leaves in the order of the arguments, not copied; undefined when the arguments differ in more than data. */
  arraysOf(args: readonly unknown[]): HostArray[] | undefined {
    const arrays: HostArray[] = [];
    return matches(this.#root, args, arrays) ? arrays : undefined;
  }
}

function patternOf(value: unknown): Pattern {
  if (Array.isArray(value)) return { kind: "list", items: value.map(patternOf) };
  if (value === undefined || value === null) return { kind: "same", value };
  if (!isLeaf(value)) return recordPattern(value as Record<string, unknown>);
  const leaf = leafValue(value);
  if (typeof leaf === "number") return { kind: "number" };
  if (leaf instanceof StaticValue) return { kind: "static", value: leaf.value };
  if (leaf instanceof State || leaf.content.kind !== "concrete") return { kind: "same", value: leaf };
  return { kind: "data", dtype: leaf.dtype, axes: leaf.content.axes };
}

function recordPattern(record: Record<string, unknown>): Pattern {
  const pattern = { kind: "record", keys: Object.keys(record), items: Object.values(record).map(patternOf) } as const;
  if (!Object.isFrozen(record) || !pattern.items.every(isFixed)) return pattern;
  const arrays: HostArray[] = [];
  matches(pattern, record, arrays);
  return { ...pattern, fixed: { record, arrays } };
}

/** Whether a frozen record's field of this pattern can never match anything but what it holds. */
const isFixed = (pattern: Pattern): boolean => pattern.kind !== "list" && (pattern.kind !== "record" || pattern.fixed !== undefined);

function matches(pattern: Pattern, value: unknown, arrays: HostArray[]): boolean {
  switch (pattern.kind) {
    case "same":
      return value === pattern.value;
    case "data":
      if (!(value instanceof Value) || value.dtype !== pattern.dtype || value.content.kind !== "concrete") return false;
      arrays.push(value.content.array);
      return sameAxes(pattern.axes, value.content.axes);
    case "number":
      if (typeof value !== "number") return false;
      arrays.push(Float32Array.of(value));
      return true;
    case "static":
      return Object.is(value instanceof StaticValue ? value.value : typeof value === "number" ? undefined : value, pattern.value);
    case "list":
      return Array.isArray(value) && value.length === pattern.items.length && everyItem(pattern.items, value, arrays);
    case "record":
      if (pattern.fixed && pattern.fixed.record === value) {
        for (const array of pattern.fixed.arrays) arrays.push(array);
        return true;
      }
      return isPlain(value) && everyField(pattern, value, arrays);
  }
}

function everyItem(items: readonly Pattern[], values: readonly unknown[], arrays: HostArray[]): boolean {
  for (let index = 0; index < items.length; index++) if (!matches(items[index] as Pattern, values[index], arrays)) return false;
  return true;
}

function everyField({ keys, items }: Pattern & { kind: "record" }, value: Record<string, unknown>, arrays: HostArray[]): boolean {
  let index = 0;
  for (const key in value) {
    if (key !== keys[index] || !matches(items[index] as Pattern, value[key], arrays)) return false;
    index++;
  }
  return index === keys.length;
}

const isPlain = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;

function sameAxes(known: readonly (number | Size)[], axes: readonly (number | Size)[]): boolean {
  if (known === axes) return true;
  if (known.length !== axes.length) return false;
  for (let index = 0; index < known.length; index++) {
    const [before, now] = [known[index], axes[index]];
    if (before === now) continue;
    if (!(before instanceof Size && now instanceof Size && before.name === now.name && before.value === now.value)) return false;
  }
  return true;
}
