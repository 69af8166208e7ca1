/** Reading a checkpoint completely: every tensor a model names must be there with its shape, and every tensor there must be known. */
import type { Device } from "../runtime/device.js";
import { State } from "../trace/entry.js";
import { InputError } from "./input-error.js";
import type { TensorSource } from "./tensor-source.js";

/** Reads tensors by name, remembers which, and finally names what is missing or left over. */
export class WeightReader {
  readonly #used = new Set<string>();
  /** Each once, however many parts of a tensor are asked for. */
  readonly #problems = new Set<string>();

  constructor(private readonly source: TensorSource) {}

  has(name: string): boolean {
    return this.source.info(name) !== undefined;
  }

  /**
   * Float32 values of a tensor of exactly this shape, in memory that `take` gives (new memory by default); zeros, and a remembered problem,
   * when it is missing or has another shape.
   */
  read(name: string, shape: readonly number[], take?: (count: number) => Float32Array): Float32Array {
    const total = shape.reduce((a, b) => a * b, 1);
    if (!this.check(name, shape)) return new Float32Array(this.#problems.size > 64 ? 0 : total);
    if (!take) return this.source.read(name);
    const target = take(total);
    this.source.readInto(name, target);
    return target;
  }

  /** Elements from `first` on of a tensor that `check` found right. */
  readRange(name: string, first: number, target: Float32Array): void {
    this.source.readRange(name, first, target);
  }

  /** Whether a tensor is there with exactly this shape and of a float type; a problem is remembered. */
  check(name: string, shape: readonly number[]): boolean {
    this.#used.add(name);
    const info = this.source.info(name);
    if (!info) this.#problems.add(`missing ${name} [${shape.join(", ")}]`);
    else if (info.shape.join() !== shape.join())
      this.#problems.add(`${name} has shape [${info.shape.join(", ")}], expected [${shape.join(", ")}]`);
    else if (!["F32", "F16", "BF16", "F64"].includes(info.dtype))
      this.#problems.add(`${name} has dtype ${info.dtype}, expected a float type`);
    else return true;
    return false;
  }

  /** Marks tensors that a file may hold and this model recomputes. */
  ignore(matches: (name: string) => boolean): void {
    for (const name of this.source.names()) if (matches(name)) this.#used.add(name);
  }

  /** Throws an InputError that names every missing, misshapen and unknown tensor. */
  finish(): void {
    for (const name of this.source.names()) if (!this.#used.has(name)) this.#problems.add(`unknown ${name}`);
    const problems = [...this.#problems];
    if (problems.length === 0) return;
    const shown = problems.slice(0, 12).join("; ");
    const more = problems.length > 12 ? `; and ${problems.length - 12} more` : "";
    throw new InputError(
      "checkpoint-tensors",
      `${this.source.label}: the tensors do not fit this model: ${shown}${more}. Check that config.json and the weights belong together.`,
    );
  }
}

/**
 * Memory that matrices stand in between their file and their packed form: taken piece by piece, given back all at once and used again, so that
 * loading needs the packed weights and little more, whenever the garbage collector runs.
 */
export class StagingMemory {
  #memory: Float32Array;
  #taken = 0;

  /** `capacity`: most elements that are taken at a time. More can be, from memory that waits for the collector. */
  constructor(capacity: number) {
    this.#memory = new Float32Array(capacity);
  }

  readonly take = (count: number): Float32Array => {
    const from = this.#taken;
    this.#taken += count;
    return this.#taken <= this.#memory.length ? this.#memory.subarray(from, this.#taken) : new Float32Array(count);
  };

  /** What was taken is overwritten from now on. */
  release(): void {
    if (this.#taken > this.#memory.length) this.#memory = new Float32Array(this.#taken);
    this.#taken = 0;
  }
}

/** Storage dtype of weight matrices: f32, or bf16, which halves what a decode reads and rounds every weight to 8 significant bits. */
export type WeightStorage = "f32" | "bf16";

/** Makes constant states and owns their device memory. */
export class WeightStates {
  readonly #states: State[] = [];

  /** `stored` is how matrices are kept; vectors and tables stay f32. */
  constructor(
    private readonly device: Device,
    private readonly stored: WeightStorage = "f32",
  ) {}

  matrix(name: string, values: Float32Array, rows: number, depth: number): State {
    return this.#keep(new State(this.device, name, [rows, depth], this.stored, { kind: "constant", layout: "panels" }), values);
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
