/** States in native memory: row-major, or weight matrices packed into column panels. */
import { asStored, widenBf16 } from "../../ir/bf16.js";
import { evaluateDim, type SizeBindings } from "../../ir/dim.js";
import { dtypes, viewAs, type HostArray } from "../../ir/dtype.js";
import type { StateDeclaration } from "../../ir/graph.js";
import type { StateBuffer } from "../device.js";
import type { NativeBuffer, NativeLibrary } from "./contract.js";
import { panelElements } from "./panels.js";

const hugePageThreshold = 2 << 20;

export class NativeState implements StateBuffer {
  readonly shape: readonly number[];
  readonly #buffer: NativeBuffer;
  #freed = false;
  #users = 0;

  /** Throws NativeError `out-of-memory` when the memory cannot be had. */
  constructor(
    private readonly library: NativeLibrary,
    readonly declaration: StateDeclaration,
    readonly sizes: SizeBindings,
  ) {
    this.shape = declaration.shape.map((dim) => evaluateDim(dim, sizes));
    // Kernels prefetch 8 KB ahead and read whole vectors: a little slack keeps both inside the allocation.
    const bytes = Math.max(64, this.#elements() * dtypes[declaration.dtype].bytes) + 64;
    this.#buffer = library.allocate(bytes, { huge: bytes >= hugePageThreshold });
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
    const staging = library.allocate(Math.max(64, rows * depth * 4));
    try {
      new Float32Array(staging.view, 0, rows * depth).set(values instanceof Uint16Array ? widenBf16(values) : values);
      library.packPanels(staging.address, depth, rows, depth, this.#buffer.address, declaration.dtype === "bf16" ? "bf16" : "f32");
    } finally {
      staging.free();
    }
  }

  /** Keeps the memory until `release`, even when the state is freed meanwhile: a run off the event loop still uses it. */
  retain(): void {
    this.#users++;
  }

  release(): void {
    this.#users--;
    if (this.#freed && this.#users === 0) this.#buffer.free();
  }

  read(): HostArray {
    if (this.declaration.layout !== "plain") throw new Error(`state ${this.declaration.name} is stored as panels and cannot be read back`);
    void this.address;
    return viewAs(this.declaration.dtype, this.#buffer.view, 0, this.#elements()).slice();
  }

  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    if (this.#users === 0) this.#buffer.free();
  }
}
