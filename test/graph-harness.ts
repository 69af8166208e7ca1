/** Builds small graphs with data, runs many of them on a device from one C file, and compares answers. Holds no cases of its own. */
import { GraphBuilder } from "../src/ir/builder.js";
import { evaluateDim, type Dim, type SizeBindings } from "../src/ir/dim.js";
import { hostArray, type DType, type HostArray } from "../src/ir/dtype.js";
import type { Attributes, Graph, Node, StateDeclaration } from "../src/ir/graph.js";
import type { CompiledGraph, Device, Replay } from "../src/runtime/device.js";
import { NativeError } from "../src/runtime/native/errors.js";
import { openDevice } from "../src/trace/devices.js";
import { lowerGraphsTogether, type Mode } from "../src/trace/lower.js";

export interface StateValue {
  readonly declaration: StateDeclaration;
  readonly values: HostArray;
}

/** One call: values of the sizes and of every input. */
export interface Binding {
  readonly sizes: SizeBindings;
  readonly inputs: ReadonlyMap<string, HostArray>;
}

export interface GraphCase {
  readonly name: string;
  readonly graph: Graph;
  readonly states: readonly StateValue[];
  readonly stateSizes: SizeBindings;
  readonly bindings: readonly Binding[];
}

export type Fill = (count: number, sizes: SizeBindings) => HostArray;

/** Collects one graph, its states and a way to fill its inputs. */
export class CaseBuilder {
  readonly #builder: GraphBuilder;
  readonly #inputs: { node: Node; fill: Fill }[] = [];
  readonly #states: StateValue[] = [];
  readonly #outputs: Node[] = [];

  constructor(
    readonly name: string,
    readonly stateSizes: SizeBindings = {},
  ) {
    this.#builder = new GraphBuilder(name);
  }

  input(shape: readonly Dim[], dtype: DType, fill: Fill): Node {
    const node = this.#builder.input(`x${this.#inputs.length}`, shape, dtype);
    this.#inputs.push({ node, fill });
    return node;
  }

  f32(shape: readonly Dim[], fill: Fill): Node {
    return this.input(shape, "f32", fill);
  }

  i32(shape: readonly Dim[], fill: Fill): Node {
    return this.input(shape, "i32", fill);
  }

  state(
    shape: readonly Dim[],
    dtype: DType,
    fill: Fill,
    options: Partial<Pick<StateDeclaration, "kind" | "layout">> = {},
  ): StateDeclaration {
    const { kind = "mutable", layout = "plain" } = options;
    const declaration: StateDeclaration = { name: `s${this.#states.length}`, shape, dtype, kind, layout };
    this.#states.push({
      declaration,
      values: fill(
        shape.reduce<number>((total, dim) => total * evaluateDim(dim, this.stateSizes), 1),
        this.stateSizes,
      ),
    });
    return declaration;
  }

  /** A weight matrix [out, depth]. */
  weight(out: number, depth: number, fill: Fill, dtype: "f32" | "bf16" = "f32"): StateDeclaration {
    return this.state([out, depth], dtype, fill, { kind: "constant", layout: "panels" });
  }

  /** A constant vector or table, as a value. */
  table(shape: readonly Dim[], fill: Fill): Node {
    const state = this.state(shape, "f32", fill, { kind: "constant" });
    return this.add("read", [], { dtype: "f32" }, [state]);
  }

  /** States are read, except the first of an op that writes. */
  add(op: string, inputs: readonly Node[], attributes: Attributes = {}, states: readonly StateDeclaration[] = []): Node {
    const writes = ["writeRows", "copyRows", "appendKeys", "appendValues", "causalScaler"].includes(op);
    return this.#builder.add(
      op,
      inputs,
      attributes,
      states.map((state, index) => ({ state, writes: writes && index === 0 })),
    );
  }

  output(node: Node): void {
    this.#outputs.push(node);
  }

  finish(sizes: readonly SizeBindings[]): GraphCase {
    const graph = this.#builder.finish(this.#outputs.map((node, index) => ({ name: `out${index}`, node })));
    const bindings = sizes.map((own): Binding => {
      const all = { ...this.stateSizes, ...own };
      const inputs = new Map(
        this.#inputs.map(({ node, fill }) => {
          const count = node.shape.reduce<number>((total, dim) => total * evaluateDim(dim, all), 1);
          return [String(node.attributes["name"]), fill(count, all)];
        }),
      );
      return { sizes: all, inputs };
    });
    return { name: this.name, graph, states: this.#states, stateSizes: this.stateSizes, bindings };
  }
}

/** What one call gave: outputs by name, and mutable states after it. */
export type Outcome = ReadonlyMap<string, HostArray>;

export interface RunMode {
  readonly mode: Mode;
  readonly replay: Replay;
}

export const runModes: Readonly<Record<"eager" | "default" | "reduce-overhead", RunMode>> = {
  eager: { mode: "eager", replay: "per-kernel" },
  default: { mode: "default", replay: "per-kernel" },
  "reduce-overhead": { mode: "reduce-overhead", replay: "one-call" },
};

/** Compiles all cases in every mode into one C file named `name`. Modes that lower alike share their kernels. */
export function compileTogether(
  name: string,
  device: Device,
  cases: readonly GraphCase[],
  modes: readonly Mode[],
): Map<Mode, CompiledGraph[]> {
  const items = modes.flatMap((mode) => cases.map(({ graph }) => ({ graph, mode })));
  const compiled = lowerGraphsTogether(name, items, device);
  return new Map(modes.map((mode, index) => [mode, compiled.slice(index * cases.length, (index + 1) * cases.length)]));
}

/** Every binding of one case, states reset before each. */
export function runCase(device: Device, graphCase: GraphCase, compiled: CompiledGraph, replay: Replay): Outcome[] {
  const { states, stateSizes, bindings } = graphCase;
  const executable = device.loadSync(compiled);
  const buffers = states.map(({ declaration }) => device.allocate(declaration, stateSizes));
  try {
    return bindings.map(({ sizes, inputs }) => {
      buffers.forEach((buffer, index) => buffer.write((states[index] as StateValue).values));
      const bound = new Map(buffers.map((buffer) => [buffer.declaration.name, buffer]));
      const results = new Map(executable.runSync({ inputs, states: bound, sizes, replay }));
      for (const buffer of buffers) if (buffer.declaration.kind === "mutable") results.set(buffer.declaration.name, buffer.read());
      return results;
    });
  } finally {
    executable.dispose();
    for (const buffer of buffers) buffer.free();
  }
}

export interface NativeTarget {
  readonly target: "avx512" | "avx2" | "neon" | "plain";
  /** Undefined when this machine cannot run it, for the stated reason. */
  readonly device: Device | undefined;
  readonly reason: string;
}

/** The native device for every instruction set that this machine can run, and why not for the others. */
export function nativeTargets(threads?: number): NativeTarget[] {
  return (["avx512", "avx2", "neon", "plain"] as const).map((target) => {
    try {
      return { target, device: openDevice("native", { target, ...(threads ? { threads } : {}) }).device, reason: "" };
    } catch (error) {
      if (!(error instanceof NativeError)) throw error;
      return { target, device: undefined, reason: error.message.split("\n")[0] ?? "" };
    }
  });
}

/** Bits with one pattern for all NaNs, so that equal answers compare equal. */
export function bitsOf(values: HostArray): Uint32Array | Int32Array {
  if (values instanceof Int32Array) return values;
  if (values instanceof Float32Array)
    return Uint32Array.from(new Uint32Array(values.buffer, values.byteOffset, values.length), (word, i) =>
      Number.isNaN(values[i]) ? 0x7fc00000 : word,
    );
  const words = new Uint32Array(values.slice().buffer);
  return words.map((word, i) => (Number.isNaN(values[i >> 1]) ? 0x7ff80000 : word));
}

/** First element in which two answers differ, in words; undefined when none does. */
export function differenceOf(got: Outcome, want: Outcome): string | undefined {
  for (const [name, expected] of want) {
    const values = got.get(name);
    if (!values || values.length !== expected.length) return `${name}: ${values?.length ?? "no"} values, expected ${expected.length}`;
    const [a, b] = [bitsOf(values), bitsOf(expected)];
    const at = a.findIndex((word, index) => word !== b[index]);
    if (at >= 0) return `${name}[${at}]: got ${values[at]}, expected ${expected[at]}`;
  }
  return undefined;
}

/** Distance between neighbouring f32 values at x. */
export const ulp = (x: number): number => (Math.abs(x) < 2 ** -126 ? 2 ** -149 : 2 ** (Math.floor(Math.log2(Math.abs(x))) - 23));

export interface Bound {
  /** Distance in units of the last place of the expected value. */
  readonly ulps?: number;
  readonly absolute?: number;
  /** In units of 2^-24 of the result that the same graph has on absolute values: for sums with cancellation. */
  readonly ofMagnitude?: number;
}

const close = (got: number, want: number, bound: Bound, magnitude: number): boolean => {
  if (Number.isNaN(want)) return Number.isNaN(got);
  if (!Number.isFinite(want))
    return got === want || (Math.abs(got) > 3.4028e38 && Math.sign(got) === Math.sign(want) && (bound.ulps ?? 0) > 0);
  const allowed =
    (bound.ulps ?? 0) * ulp(want) +
    (bound.absolute ?? 0) +
    (bound.ofMagnitude ?? 0) * 2 ** -24 * (Number.isFinite(magnitude) ? magnitude : 0);
  return Math.abs(got - want) <= allowed || (bound.ulps !== undefined && Math.abs(want) > 3.4028e38 && got === Math.sign(want) * Infinity);
};

/** First element that lies outside the bound, in words; undefined when none does. */
export function outsideBound(got: Outcome, want: Outcome, bound: Bound, magnitudes?: Outcome): string | undefined {
  for (const [name, expected] of want) {
    const values = got.get(name);
    if (!values || values.length !== expected.length) return `${name}: ${values?.length ?? "no"} values, expected ${expected.length}`;
    const sizes = magnitudes?.get(name);
    const at = Array.from(expected).findIndex(
      (value, index) => !close(values[index] as number, value, bound, Math.abs(sizes?.[index] ?? 0)),
    );
    if (at >= 0) return `${name}[${at}]: got ${values[at]}, expected ${expected[at]}${sizes ? ` (magnitude ${sizes[at]})` : ""}`;
  }
  return undefined;
}

/** The same case on absolute values, whose results are the sizes of the sums. */
export function onAbsoluteValues(graphCase: GraphCase): GraphCase {
  const absolute = (values: HostArray): HostArray => {
    if (!(values instanceof Float32Array)) return values;
    const made = hostArray("f32", values.length);
    values.forEach((value, index) => (made[index] = Math.abs(value)));
    return made;
  };
  return {
    ...graphCase,
    states: graphCase.states.map(({ declaration, values }) => ({ declaration, values: absolute(values) })),
    bindings: graphCase.bindings.map(({ sizes, inputs }) => ({
      sizes,
      inputs: new Map([...inputs].map(([name, values]) => [name, absolute(values)])),
    })),
  };
}

/** A repeatable source of numbers in [0, 1). */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let word = Math.imul(state ^ (state >>> 15), state | 1);
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61);
    return ((word ^ (word >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Values in (-scale, scale); every `outliers`-th is twenty times as large. */
export const noise =
  (seed: number, scale = 1, outliers = 0): Fill =>
  (count) => {
    const random = generator(seed);
    return Float32Array.from(
      { length: count },
      (_, index) => (random() * 2 - 1) * scale * (outliers > 0 && index % outliers === outliers - 1 ? 20 : 1),
    );
  };

/** Whole numbers from low to high, both included. */
export const integers =
  (seed: number, low: number, high: number): Fill =>
  (count) => {
    const random = generator(seed);
    return Int32Array.from({ length: count }, () => low + Math.floor(random() * (high - low + 1)));
  };
