/** What a traced function returned: taken apart once into tensors and a structure, and put together again for every call. */
import { evaluateDim, type SizeBindings } from "../ir/dim.js";
import type { HostArray } from "../ir/dtype.js";
import type { RunResult } from "../runtime/device.js";
import type { Tracer } from "./tracer.js";
import { concreteContent, Value } from "./value.js";

/** Makes a value of the tensor layer's class. */
export type MakeValue = (...parts: ConstructorParameters<typeof Value>) => Value;

/** The returned structure with an `OutputNumber` in place of every tensor. */
export type Structure = unknown;

class OutputNumber {
  constructor(readonly index: number) {}
}

/** Takes a result apart; its tensors go to `outputs` in order. Throws a TypeError for what compiled functions cannot return. */
export function collectOutputs(result: unknown, outputs: Value[], name: string, tracer: Tracer): Structure {
  if (result instanceof Value) {
    if (result.content.kind !== "traced" || result.content.tracer !== tracer)
      throw new TypeError(`${name} returns a tensor that its trace did not make; return traced values only`);
    outputs.push(result);
    return new OutputNumber(outputs.length - 1);
  }
  if (result === undefined || result === null) return result;
  if (Array.isArray(result)) return result.map((item) => collectOutputs(item, outputs, name, tracer));
  if (typeof result === "object" && Object.getPrototypeOf(result) === Object.prototype) {
    return Object.fromEntries(Object.entries(result).map(([key, item]) => [key, collectOutputs(item, outputs, name, tracer)]));
  }
  throw new TypeError(`${name} returns a ${typeof result}; compiled functions return tensors and plain objects or arrays of them`);
}

/** What a traced function returned and tapped. */
export interface TracedOutputs {
  readonly structure: Structure;
  readonly outputs: readonly Value[];
  readonly tapNames: readonly string[];
  readonly taps: readonly Value[];
}

/** A result of a run with its numeric shape. */
interface Place {
  readonly name: string;
  readonly axes: readonly number[];
  readonly dtype: Value["dtype"];
}

/** Turns results of runs with the same sizes into what the function returns. */
export class Answers {
  readonly #outputs: readonly Place[];
  readonly #taps: readonly Place[];

  constructor(
    private readonly traced: TracedOutputs,
    sizes: SizeBindings,
    private readonly make: MakeValue,
  ) {
    const place = ({ shape, dtype }: Value, name: string): Place => {
      return { name, axes: shape.map((dim) => evaluateDim(dim, sizes)), dtype };
    };
    this.#outputs = traced.outputs.map((value, index) => place(value, `out${index}`));
    this.#taps = traced.taps.map((value, index) => place(value, `tap${index}`));
  }

  /** The returned structure. */
  value(results: RunResult): unknown {
    const values = this.#outputs.map((place) => this.#valueAt(place, results));
    return restoreOutputs(this.traced.structure, values);
  }

  /** The output behind a field of the returned structure; undefined when that is no tensor. */
  outputOf(field: string): { readonly name: string; readonly dtype: Value["dtype"]; readonly length: number } | undefined {
    const part = (this.traced.structure as Readonly<Record<string, unknown>> | undefined)?.[field];
    const place = part instanceof OutputNumber ? this.#outputs[part.index] : undefined;
    return place && { name: place.name, dtype: place.dtype, length: place.axes.reduce((product, axis) => product * axis, 1) };
  }

  /** Tapped values by name. */
  taps(results: RunResult): Map<string, Value> {
    return new Map(this.#taps.map((place, index) => [this.traced.tapNames[index] as string, this.#valueAt(place, results)]));
  }

  #valueAt({ name, axes, dtype }: Place, results: RunResult): Value {
    return this.make(concreteContent(results.get(name) as HostArray, axes), dtype);
  }
}

/** The structure again, with `values` for its tensors. */
function restoreOutputs(structure: Structure, values: readonly Value[]): unknown {
  if (structure instanceof OutputNumber) return values[structure.index];
  if (Array.isArray(structure)) return structure.map((part) => restoreOutputs(part, values));
  if (structure && typeof structure === "object")
    return Object.fromEntries(Object.entries(structure).map(([key, part]) => [key, restoreOutputs(part, values)]));
  return structure;
}
