/** Reading a checkpoint completely: every tensor a model names must be there with its shape, and every tensor there must be known. */
import type { Device } from "../runtime/device.js";
import { State } from "../trace/entry.js";
import { InputError } from "./input-error.js";
import type { TensorSource } from "./tensor-source.js";

/** Reads tensors by name, remembers which, and finally names what is missing or left over. */
export class WeightReader {
  readonly #used = new Set<string>();
  readonly #problems: string[] = [];

  constructor(private readonly source: TensorSource) {}

  has(name: string): boolean {
    return this.source.info(name) !== undefined;
  }

  /** Float32 values of a tensor of exactly this shape; zeros, and a remembered problem, when it is missing or has another shape. */
  read(name: string, shape: readonly number[]): Float32Array {
    this.#used.add(name);
    const info = this.source.info(name);
    const total = shape.reduce((a, b) => a * b, 1);
    if (!info) this.#problems.push(`missing ${name} [${shape.join(", ")}]`);
    else if (info.shape.join() !== shape.join())
      this.#problems.push(`${name} has shape [${info.shape.join(", ")}], expected [${shape.join(", ")}]`);
    else if (!["F32", "F16", "BF16", "F64"].includes(info.dtype))
      this.#problems.push(`${name} has dtype ${info.dtype}, expected a float type`);
    else return this.source.read(name);
    return new Float32Array(this.#problems.length > 64 ? 0 : total);
  }

  /** Marks tensors that a file may hold and this model recomputes. */
  ignore(matches: (name: string) => boolean): void {
    for (const name of this.source.names()) if (matches(name)) this.#used.add(name);
  }

  /** Throws an InputError that names every missing, misshapen and unknown tensor. */
  finish(): void {
    for (const name of this.source.names()) if (!this.#used.has(name)) this.#problems.push(`unknown ${name}`);
    if (this.#problems.length === 0) return;
    const shown = this.#problems.slice(0, 12).join("; ");
    const more = this.#problems.length > 12 ? `; and ${this.#problems.length - 12} more` : "";
    throw new InputError(
      "checkpoint-tensors",
      `${this.source.label}: the tensors do not fit this model: ${shown}${more}. Check that config.json and the weights belong together.`,
    );
  }
}

/** Makes constant states and owns their device memory. */
export class WeightStates {
  readonly #states: State[] = [];

  constructor(private readonly device: Device) {}

  matrix(name: string, values: Float32Array, rows: number, depth: number): State {
    return this.#keep(new State(this.device, name, [rows, depth], "f32", { kind: "constant", layout: "panels" }), values);
  }

  vector(name: string, values: Float32Array): State {
    return this.#keep(new State(this.device, name, [values.length], "f32", { kind: "constant" }), values);
  }

  /** A row-major table [rows, columns]. */
  table(name: string, values: Float32Array, columns: number): State {
    return this.#keep(new State(this.device, name, [values.length / columns, columns], "f32", { kind: "constant" }), values);
  }

  get bytes(): number {
    return this.#states.reduce((sum, state) => sum + state.buffer.bytes, 0);
  }

  dispose(): void {
    for (const state of this.#states) state.dispose();
    this.#states.length = 0;
  }

  #keep(state: State, values: Float32Array): State {
    state.write(values);
    this.#states.push(state);
    return state;
  }
}
