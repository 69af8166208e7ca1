/** What a traced function returned: taken apart once into tensors and a structure, and put together again for every call. */
import type { Tracer } from "./tracer.js";
import { Value } from "./value.js";

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

/** The structure again, with `values` for its tensors. */
export function restoreOutputs(structure: Structure, values: readonly Value[]): unknown {
  if (structure instanceof OutputNumber) return values[structure.index];
  if (Array.isArray(structure)) return structure.map((part) => restoreOutputs(part, values));
  if (structure && typeof structure === "object")
    return Object.fromEntries(Object.entries(structure).map(([key, part]) => [key, restoreOutputs(part, values)]));
  return structure;
}
