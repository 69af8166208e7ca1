/**
 * The loaded native runtime as a `NativeLibrary`: builds and opens kernels, owns memory, runs step tables.
 * Joins the parts of this folder; must not know graphs, programs or kernels' insides.
 */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { ArtifactCache, cacheBound, cacheDirectory } from "./artifact-cache.js";
import { Bundle, type BuiltLibrary } from "./bundle.js";
import { Builder, sourceKey, type BuildUnit } from "./builder.js";
import type { Environment } from "./compiler.js";
import type { Isa, KernelSource, NativeBuffer, NativeLibrary, RunOptions } from "./contract.js";
import { compilerFlags, runtimeFlags, selectCpu, usableCores } from "./cpu.js";
import { NativeError } from "./errors.js";
import { addressOf, openRuntime, viewMemory, type RuntimeFunctions } from "./ffi.js";
import { Submissions } from "./submissions.js";

export interface NativeLibraryOptions {
  /** Instruction set of the kernels; default: `TEMPOGRAPH_ISA`, else the widest the CPU has. */
  readonly isa?: Isa;
  /** Default: `TEMPOGRAPH_CACHE_DIR`, else the user's cache folder. */
  readonly cacheDirectory?: string;
  /** Threads a call may ask for; default: the cores this process may use. */
  readonly maximumThreads?: number;
  /** Where `CC`, `PATH` and the cache folder are looked up; default: the process's environment. */
  readonly environment?: Environment;
  /** A folder of libraries made ahead of time; its instruction set is then used, and nothing is compiled that it holds. */
  readonly bundle?: string;
  /** Hears one line per damaged artifact; default: standard error. */
  readonly log?: (line: string) => void;
}

/** The package's native folder, seen from src/ or dist/, or from a build one level deeper. */
const runtimeSource =
  ["../../..", "../../../.."].map((root) => fileURLToPath(new URL(`${root}/native/runtime.c`, import.meta.url))).find(existsSync) ??
  "native/runtime.c";
const largestView = 2 ** 32;
const poolLimit = 256;

const loaded = new Map<string, NativeLibrary>();

/**
 * Loads the runtime, building it when the artifact cache has none; blocking, once per process and set of options.
 * All libraries of a process that share a cache folder share one thread pool, whatever their instruction set; so do worker threads.
 * Throws `NativeError`: `compiler-missing`, `compiler-failed`, `cache-*`, `isa-unsupported`, `library-failed`,
 * `platform-unsupported`.
 */
export function loadNativeLibrary(options: NativeLibraryOptions = {}): NativeLibrary {
  if (process.platform === "win32") {
    throw new NativeError("platform-unsupported", 'The native device runs on Linux and macOS, not on Windows. Use the device "reference".');
  }
  const environment = options.environment ?? process.env;
  const directory = options.cacheDirectory ?? cacheDirectory(environment);
  const bundle = options.bundle === undefined ? undefined : Bundle.open(options.bundle);
  const host = selectCpu(bundle?.isa ?? environment["TEMPOGRAPH_ISA"]);
  const { isa } = selectCpu(options.isa ?? host.isa);
  const key = [isa, directory, environment["CC"], environment["PATH"], options.maximumThreads, options.bundle].join("\n");
  const before = loaded.get(key);
  if (before) return before;

  const log = options.log ?? ((line: string) => void process.stderr.write(`tempograph: ${line}\n`));
  const counters = { compiled: 0, cacheHits: 0, cacheRebuilds: 0, runCalls: 0, submitCalls: 0, waits: 0 };
  const builder = new Builder(() => ArtifactCache.open(directory, log, cacheBound(environment)), environment, counters, log, bundle);
  let runtime: RuntimeFunctions | undefined;
  const runtimeUnit: BuildUnit = {
    name: "runtime",
    text: readFileSync(runtimeSource, "utf8"),
    flags: runtimeFlags(host.isa),
    libraries: ["-lm", "-pthread", ...(process.platform === "linux" ? ["-Wl,-z,defs", "-ldl"] : [])],
    machine: `${host.isa} ${host.features}`,
    load: (path) => (runtime = openRuntime(path)),
  };
  builder.obtainSync(runtimeUnit);
  if (!runtime) throw new NativeError("library-failed", `The runtime built from ${runtimeSource} was not opened.`);
  const threads = Math.min(options.maximumThreads ?? usableCores(), poolLimit);
  const library = new KoffiLibrary(isa, host.features, threads, runtime, builder, runtimeUnit, counters);
  loaded.set(key, library);
  return library;
}

/**
 * The few functions of the C library that kernels call (memcpy, memset, fmaf) are found in this process: to link with libraries takes as long as to compile a small
 * kernel. One that is nowhere is an error of loading.
 */
const kernelLibraries = process.platform === "linux" ? ["-nostdlib"] : ["-lm"];

class Memory implements NativeBuffer {
  private memory: ArrayBuffer | undefined;
  private freed = false;

  constructor(
    private readonly runtime: RuntimeFunctions,
    readonly address: number,
    readonly bytes: number,
    private readonly huge: 0 | 1,
  ) {}

  get view(): ArrayBuffer {
    if (this.freed) throw new NativeError("bad-argument", `The buffer of ${this.bytes} bytes was freed; it has no view any more.`);
    return (this.memory ??= viewChecked(this.address, this.bytes));
  }

  free(): void {
    if (this.freed) return;
    this.freed = true;
    this.memory = undefined;
    this.runtime.free(this.address, Math.max(this.bytes, 1), this.huge);
  }
}

function viewChecked(address: number, bytes: number): ArrayBuffer {
  if (bytes > largestView) {
    throw new NativeError(
      "bad-argument",
      `A view of ${bytes} bytes was asked for; an ArrayBuffer holds at most ${largestView}. View a part of it.`,
    );
  }
  return viewMemory(address, bytes);
}

function requireCount(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new NativeError("bad-argument", `${name} is ${value}; it must be a whole number from 0 to ${Number.MAX_SAFE_INTEGER}.`);
  }
}

class KoffiLibrary implements NativeLibrary {
  private readonly submissions: Submissions;
  /** Addresses of each source that was loaded, by `sourceKey`. */
  private readonly symbols = new Map<string, ReadonlyMap<string, number>>();
  private readonly inProgress = new Map<string, Promise<void>>();
  private ticks: number | undefined;

  constructor(
    readonly isa: Isa,
    readonly features: string,
    readonly maximumThreads: number,
    private readonly runtime: RuntimeFunctions,
    private readonly builder: Builder,
    private readonly runtimeUnit: BuildUnit,
    readonly counters: { compiled: number; cacheHits: number; cacheRebuilds: number; runCalls: number; submitCalls: number; waits: number },
  ) {
    this.submissions = new Submissions(runtime, () => (counters.waits += 1));
  }

  get compiler(): string {
    return this.builder.compilerDescription;
  }

  get allocatedBytes(): number {
    return this.runtime.allocatedBytes();
  }

  get ticksPerSecond(): number {
    return (this.ticks ??= this.runtime.ticksPerSecond());
  }

  allocate(bytes: number, options?: { readonly huge?: boolean }): NativeBuffer {
    requireCount("bytes", bytes);
    const huge = options?.huge ? 1 : 0;
    const address = this.runtime.allocate(Math.max(bytes, 1), huge);
    if (address === 0)
      throw new NativeError(
        "out-of-memory",
        `The system has no ${bytes} bytes left for this process. Free memory, or use a smaller batch.`,
      );
    return new Memory(this.runtime, address, bytes, huge);
  }

  view(address: number, bytes: number): ArrayBuffer {
    requireCount("bytes", bytes);
    return viewChecked(address, bytes);
  }

  async build(sources: readonly KernelSource[]): Promise<Map<string, number>> {
    // The first ones begin at once, whatever follows; the compiler's queue knows the rest.
    const longestFirst = [...sources].sort((a, b) => b.text.length - a.text.length);
    const outcomes = await Promise.allSettled(longestFirst.map((source) => this.buildOne(source)));
    for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
    return this.addressesOf(sources);
  }

  buildSync(sources: readonly KernelSource[]): Map<string, number> {
    for (const source of sources) {
      const unit = this.unitOf(source);
      if (!this.symbols.has(sourceKey(unit))) this.builder.obtainSync(unit);
    }
    return this.addressesOf(sources);
  }

  builtLibraries(sources: readonly KernelSource[]): readonly BuiltLibrary[] {
    const units = new Map([this.runtimeUnit, ...sources.map((source) => this.unitOf(source))].map((unit) => [sourceKey(unit), unit]));
    return [...units.values()].map((unit) => this.builder.built(unit));
  }

  sourcePath(source: KernelSource): string | undefined {
    return this.builder.sourcePath(this.unitOf(source));
  }

  findRecord(name: string, key: string): string | undefined {
    return this.builder.findRecord(name, key);
  }

  addRecord(name: string, key: string, text: string): void {
    this.builder.addRecord(name, key, text);
  }

  /** Two builds of equal text at the same time share one compilation. */
  private buildOne(source: KernelSource): Promise<void> {
    const unit = this.unitOf(source);
    const key = sourceKey(unit);
    if (this.symbols.has(key)) return Promise.resolve();
    const running = this.inProgress.get(key);
    if (running) return running;
    const started = this.builder.obtain(unit).finally(() => this.inProgress.delete(key));
    this.inProgress.set(key, started);
    return started;
  }

  private unitOf(source: KernelSource): BuildUnit {
    const unit: BuildUnit = {
      name: source.name,
      text: source.text,
      flags: compilerFlags(this.isa),
      libraries: kernelLibraries,
      machine: `${this.isa} ${this.features}`,
      load: (path) => this.symbols.set(sourceKey(unit), this.openKernels(path, source.symbols)),
    };
    return unit;
  }

  private openKernels(path: string, symbols: readonly string[]): ReadonlyMap<string, number> {
    const handle = this.runtime.load(path);
    if (handle === 0) throw new NativeError("library-failed", this.runtime.loadError());
    return new Map(
      symbols.map((symbol) => {
        const address = this.runtime.symbol(handle, symbol);
        if (address === 0) throw new NativeError("library-failed", `it does not export "${symbol}" (${this.runtime.loadError()})`);
        return [symbol, address];
      }),
    );
  }

  private addressesOf(sources: readonly KernelSource[]): Map<string, number> {
    return new Map(sources.flatMap((source) => [...(this.symbols.get(sourceKey(this.unitOf(source))) ?? [])]));
  }

  run(table: number, count: number, options: RunOptions): number {
    this.checkRun(count, options);
    this.counters.runCalls += 1;
    const { threads, abortWord, scratchBytes, profile } = options;
    return this.checkStatus(this.runtime.run(table, count, threads, abortWord, scratchBytes, profile ? 1 : 0));
  }

  async submit(table: number, count: number, options: RunOptions): Promise<number> {
    this.checkRun(count, options);
    this.counters.submitCalls += 1;
    return this.submissions.submit(table, count, options);
  }

  packPanels(source: Float32Array, rowStride: number, rows: number, depth: number, target: number, stored: "f32" | "bf16" = "f32"): void {
    for (const [name, value] of Object.entries({ rowStride, rows, depth })) requireCount(name, value);
    if (rows > 0 && (rows - 1) * rowStride + depth > source.length)
      throw new NativeError(
        "bad-argument",
        `packPanels: ${rows} rows of ${depth} at a stride of ${rowStride} need more than the ${source.length} values given.`,
      );
    this.checkStatus(
      this.runtime.packPanels(addressOf(source), rowStride, rows, depth, target, stored === "bf16" ? 1 : 0, this.maximumThreads),
    );
  }

  multiplyF64(a: number, b: number, target: number, m: number, k: number, n: number): void {
    for (const [name, value] of Object.entries({ m, k, n })) requireCount(name, value);
    this.checkStatus(this.runtime.multiplyF64(a, b, target, m, k, n, this.maximumThreads));
  }

  private checkRun(count: number, options: RunOptions): void {
    requireCount("count", count);
    requireCount("scratchBytes", options.scratchBytes);
    if (!Number.isInteger(options.threads) || options.threads < 1 || options.threads > this.maximumThreads) {
      throw new NativeError("bad-argument", `threads is ${options.threads}; it must be a whole number from 1 to ${this.maximumThreads}.`);
    }
  }

  private checkStatus(status: number): number {
    if (status < 0)
      throw new NativeError("out-of-memory", "The run got no scratch memory: memory is out. Free memory, or use a smaller batch.");
    return status;
  }
}
