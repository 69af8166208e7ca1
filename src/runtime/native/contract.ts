/**
 * The contract between TypeScript and the native runtime library: memory layout of a step table and the calls the library exports.
 * Holds types and numbers only; it must not load, build or run anything.
 */

import type { BuiltLibrary } from "./bundle.js";

/** Instruction sets with a renderer of their own, widest first. */
export type Isa = "avx512" | "avx2" | "neon" | "plain";

/** One C file to build: its exported symbols and its text after the ISA's prelude. */
export interface KernelSource {
  /** File stem; readable, for example `rmsNorm_linear_768x3072`. */
  readonly name: string;
  /** Symbols the file exports, each of the kernel signature below. */
  readonly symbols: readonly string[];
  /** Complete C text, prelude included. */
  readonly text: string;
}

/**
 * Kernel signature in C:
 * `void NAME(char *const *pointers, const int64_t *numbers, int64_t begin, int64_t end, char *scratch)`
 * Computes units [begin, end). `scratch` is private to the calling thread, 64-byte aligned, and keeps its content between the calls of one step; the 64-bit word
 * before it is -1 when a step begins, for the kernel to say what it has left there. Pure: no mutable statics, frames under 16 KB.
 */
export const stepLayout = {
  /** Bytes of one step row; all fields are 64-bit. */
  bytes: 64,
  entry: 0,
  pointers: 8,
  numbers: 16,
  units: 24,
  grain: 32,
  flags: 40,
  cycles: 48,
  claimed: 56,
} as const;

export const stepFlags = {
  /** Every thread must have finished the steps before this one. Without it a step may overlap its predecessor. */
  barrier: 1,
  /** All units run on the calling thread. */
  serial: 2,
  /** The grain is a wish: where that leaves a thread less than two of it, threads take half as many units together, or a quarter, and so on; half of that towards the end. */
  divisible: 4,
} as const;

/** What `run` and `submit` answer. */
export const runStatus = { done: 0, aborted: 1 } as const;

export interface NativeBuffer {
  /** Address, 64-byte aligned; below 2^53, so a number holds it. */
  readonly address: number;
  readonly bytes: number;
  /** The memory itself, not a copy. Invalid after `free`. */
  readonly view: ArrayBuffer;
  free(): void;
}

export interface RunOptions {
  /** Threads that take part, 1 to `maximumThreads`. */
  readonly threads: number;
  /** Address of an int32 abort word, polled between steps; 0 for none. Non-zero value = stop, answer `aborted`. */
  readonly abortWord: number;
  /** Bytes of scratch each thread needs. */
  readonly scratchBytes: number;
  /** Record cycles per step (thread 0, start to end including its wait). */
  readonly profile: boolean;
}

/** The loaded runtime library. One per process; never unloaded. */
export interface NativeLibrary {
  readonly isa: Isa;
  /** Instruction set and the CPU features that decide it. */
  readonly features: string;
  /** One line for reports: path and version of the compiler, or how the library came without one. */
  readonly compiler: string;
  readonly maximumThreads: number;
  /** Bytes handed out and not freed, this library's scratch included. */
  readonly allocatedBytes: number;
  /** Rate of the counter behind the step table's `cycles`. */
  readonly ticksPerSecond: number;
  /** The `bytes` of native memory at `address`, not a copy; at most 4 GiB. Invalid once that memory is freed. */
  view(address: number, bytes: number): ArrayBuffer;
  /** 64-byte aligned, zeroed; `huge` asks for transparent huge pages, which small blocks share (states, arenas over 2 MiB). Throws when memory is out. */
  allocate(bytes: number, options?: { readonly huge?: boolean }): NativeBuffer;
  /** Builds (or takes from the artifact cache) and loads; resolves to the address of each symbol. At most two compilers at once. */
  build(sources: readonly KernelSource[]): Promise<Map<string, number>>;
  /** The same, blocking: for reads inside a trace. */
  buildSync(sources: readonly KernelSource[]): Map<string, number>;
  /** The built libraries of sources that were built before, the runtime's first. */
  builtLibraries(sources: readonly KernelSource[]): readonly BuiltLibrary[];
  /** The C file that a source was written to when it was compiled on this machine. */
  sourcePath(source: KernelSource): string | undefined;
  /** A text kept in the artifact cache under a readable name and the hash of what it is about; undefined when there is none, or only a damaged one. */
  findRecord(name: string, key: string): string | undefined;
  /** Throws `cache-unwritable`. */
  addRecord(name: string, key: string, text: string): void;
  /** Runs `count` steps at `table` on the calling thread (plus workers); returns a `runStatus`. One foreign call. */
  run(table: number, count: number, options: RunOptions): number;
  /** Queues the same to the dispatcher thread (the table and its arguments stay untouched until then) and resolves with its `runStatus`; the event loop stays free. */
  submit(table: number, count: number, options: RunOptions): Promise<number>;
  /** Packs a row-major f32 matrix [rows][depth], read where it lies, into column panels: panel p holds rows 48p .. 48p+47 as [depth][48], missing rows zero; stored as f32 or, rounded, as bf16. */
  packPanels(source: Float32Array, rowStride: number, rows: number, depth: number, target: number, stored?: "f32" | "bf16"): void;
  /** target[m][n] = f32( sum_k f64(a[m][k]) * f64(b[k][n]) ), sums in f64, k ascending; all row-major f32, multi-threaded. */
  multiplyF64(a: number, b: number, target: number, m: number, k: number, n: number): void;
  /** Counters since load; `compiled` and `cacheHits` include the runtime itself, `waits` counts wake-ups of the event loop. */
  readonly counters: { compiled: number; cacheHits: number; cacheRebuilds: number; runCalls: number; submitCalls: number; waits: number };
}
