/** States in native memory: row-major, or weight matrices packed into column panels. */
import { asRead, asStored } from "../../ir/bf16.js";
import { evaluateDim, type SizeBindings } from "../../ir/dim.js";
import { dtypes, viewAs, type HostArray } from "../../ir/dtype.js";
import type { StateDeclaration } from "../../ir/graph.js";
import type { StateBuffer } from "../device.js";
import type { NativeBuffer, NativeLibrary } from "./contract.js";
import { panelElements } from "./panels.js";

/** States of each run off the event loop that has not ended. */
const inUse = new Set<readonly NativeState[]>();
/** Freed while such a run used them: their memory stays until it ends. */
let freedInUse: NativeState[] = [];
let frees = 0;

/** Grows with every state that is freed: what was bound at another count has to be looked at again. */
export const stateFrees = (): number => frees;

/** Keeps the memory of `states` until the function it answers is called, even when some are freed meanwhile. */
export function useStates(states: readonly NativeState[]): () => void {
  inUse.add(states);
  return () => {
    inUse.delete(states);
    if (freedInUse.length === 0) return;
    const waiting = freedInUse;
    freedInUse = [];
    for (const state of waiting) state.freeMemory();
  };
}

function asFloats(values: HostArray): Float32Array {
  const read = asRead(values);
  return read instanceof Float32Array ? read : Float32Array.from(read);
}

export class NativeState implements StateBuffer {
  readonly shape: readonly number[];
  readonly #buffer: NativeBuffer;
  #freed = false;

  /** Throws NativeError `out-of-memory` when the memory cannot be had. */
  constructor(
    private readonly library: NativeLibrary,
    readonly declaration: StateDeclaration,
    readonly sizes: SizeBindings,
  ) {
    this.shape = declaration.shape.map((dim) => evaluateDim(dim, sizes));
    // Kernels prefetch 8 KB ahead and read whole vectors: a little slack keeps both inside the allocation.
    const bytes = Math.max(64, this.#elements() * dtypes[declaration.dtype].bytes) + 64;
    this.#buffer = library.allocate(bytes, { huge: true });
  }

  #elements(): number {
    if (this.declaration.layout === "panels") return panelElements(this.shape[0] as number, this.shape[1] as number);
    return this.shape.reduce((a, b) => a * b, 1);
  }

  /** Throws once the state was freed: a run must never touch memory that is no longer its own. */
  get address(): number {
    if (this.#freed) throw new Error(`state ${this.declaration.name} was disposed and cannot be used`);
    return this.#buffer.address;
  }

  get bytes(): number {
    return this.#buffer.bytes;
  }

  write(values: HostArray): void {
    const { declaration, library } = this;
    void this.address;
    if (declaration.layout === "plain") {
      viewAs(declaration.dtype, this.#buffer.view, 0, this.#elements()).set(asStored(declaration.dtype, values));
      return;
    }
    const [rows, depth] = this.shape as [number, number];
    library.packPanels(asFloats(values), depth, rows, depth, this.#buffer.address, declaration.dtype === "bf16" ? "bf16" : "f32");
  }

  read(): HostArray {
    if (this.declaration.layout !== "plain") throw new Error(`state ${this.declaration.name} is stored as panels and cannot be read back`);
    void this.address;
    return viewAs(this.declaration.dtype, this.#buffer.view, 0, this.#elements()).slice();
  }

  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    frees++;
    this.freeMemory();
  }

  /** Gives the memory of a freed state back, or leaves that to the end of the last run that uses it. */
  freeMemory(): void {
    if ([...inUse].some((states) => states.includes(this))) freedInUse.push(this);
    else this.#buffer.free();
  }
}
