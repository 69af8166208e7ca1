/**
 * The foreign-function boundary: the exports of native/runtime.c as typed TypeScript functions. The only file that touches koffi.
 * Addresses are plain numbers (below 2^53). Must not know caches, compilers or what is run.
 */
import { createRequire } from "node:module";
import type * as koffiModule from "koffi";
import { NativeError } from "./errors.js";

type Koffi = typeof koffiModule;

let loadedKoffi: Koffi | undefined;

/** Loaded at first use, so that a machine for which koffi has no binary still runs the other devices. */
function koffi(): Koffi {
  return (loadedKoffi ??= createRequire(import.meta.url)("koffi") as Koffi);
}

/** Exports of the runtime library, named as in C without the prefix; see there for what each does. */
export interface RuntimeFunctions {
  ticksPerSecond(): number;
  allocate(bytes: number, huge: number): number;
  free(address: number, bytes: number, huge: number): void;
  allocatedBytes(): number;
  run(table: number, count: number, threads: number, abortWord: number, scratchBytes: number, profile: number): number;
  open(readDescriptor: Int32Array): number;
  submit(client: number, table: number, count: number, threads: number, abortWord: number, scratchBytes: number, profile: number): number;
  take(client: number, status: Int32Array): number;
  close(client: number): void;
  packPanels(source: number, rowStride: number, rows: number, depth: number, target: number, halves: number, threads: number): number;
  multiplyF64(a: number, b: number, target: number, rows: number, depth: number, columns: number, threads: number): number;
  load(path: string): number;
  symbol(library: number, name: string): number;
  loadError(): string;
}

const prototypes: Record<keyof RuntimeFunctions, string> = {
  ticksPerSecond: "double tg_ticks_per_second()",
  allocate: "int64_t tg_allocate(int64_t bytes, int32_t huge)",
  free: "void tg_free(int64_t address, int64_t bytes, int32_t huge)",
  allocatedBytes: "int64_t tg_allocated_bytes()",
  run: "int64_t tg_run(int64_t table, int64_t count, int64_t threads, int64_t abortWord, int64_t scratchBytes, int32_t profile)",
  open: "int64_t tg_open(int32_t *readDescriptor)",
  submit:
    "int64_t tg_submit(int64_t client, int64_t table, int64_t count, int64_t threads, int64_t abortWord, int64_t scratchBytes, int32_t profile)",
  take: "int64_t tg_take(int64_t client, int32_t *status)",
  close: "void tg_close(int64_t client)",
  packPanels:
    "int64_t tg_pack_panels(int64_t source, int64_t rowStride, int64_t rows, int64_t depth, int64_t target, int64_t halves, int64_t threads)",
  multiplyF64:
    "int64_t tg_multiply_f64(int64_t a, int64_t b, int64_t target, int64_t rows, int64_t depth, int64_t columns, int64_t threads)",
  load: "int64_t tg_load(str path)",
  symbol: "int64_t tg_symbol(int64_t library, str name)",
  loadError: "str tg_load_error()",
};

/** Opens the runtime library at `path`. Throws `library-failed` with the loader's own words. */
export function openRuntime(path: string): RuntimeFunctions {
  try {
    const library = koffi().load(path);
    const entries = Object.entries(prototypes).map(([name, prototype]) => [name, library.func(prototype)]);
    return Object.fromEntries(entries) as RuntimeFunctions;
  } catch (error) {
    throw new NativeError("library-failed", error instanceof Error ? error.message : String(error), { cause: error });
  }
}

/** Where the values of an array lie, for a call that ends before the array can be collected; passed as it is, an array would be copied. */
export function addressOf(values: Float32Array): number {
  return Number(koffi().address(values));
}

/** The memory at `address` as an ArrayBuffer, not a copy. */
export function viewMemory(address: number, bytes: number): ArrayBuffer {
  return koffi().view(address, bytes);
}
