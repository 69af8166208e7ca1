/**
 * The Device contract: allocate states, load a compiled graph, run it. Never one method per op. Must not know how graphs are traced or fused.
 */
import type { SizeBindings } from "../ir/dim.js";
import type { HostArray } from "../ir/dtype.js";
import type { Graph, StateDeclaration } from "../ir/graph.js";
import type { Program, SourceFile } from "../ir/kernel.js";

export interface DeviceCapabilities {
  /** Fused multiply-add rounded once. */
  readonly fma: boolean;
  readonly f64: boolean;
  readonly threads: number;
}

/** A State's memory on a device. */
export interface StateBuffer {
  readonly declaration: StateDeclaration;
  /** Values of the declaration's size variables for this allocation. */
  readonly sizes: SizeBindings;
  /** Numeric shape. */
  readonly shape: readonly number[];
  readonly bytes: number;
  /** Copies row-major values in; weights are packed into the device's layout. f32 values for a bf16 state are rounded to nearest, ties to even. */
  write(values: HostArray): void;
  /** A copy of the values, row-major. Throws for packed weights. */
  read(): HostArray;
  /** Frees the memory; a second call does nothing. */
  free(): void;
}

/** One compiled segment: the graph it means and, for devices that run Programs, its Program. */
export interface CompiledGraph {
  readonly graph: Graph;
  readonly program: Program;
  /** Whether values may share memory once dead; off for eager, whose ops own their results. */
  readonly reuse: boolean;
}

export type Replay =
  /** Every kernel is its own foreign call. */
  | "per-kernel"
  /** The whole Program is one foreign call. */
  | "one-call";

export interface RunRequest {
  readonly inputs: ReadonlyMap<string, HostArray>;
  readonly states: ReadonlyMap<string, StateBuffer>;
  readonly sizes: SizeBindings;
  readonly replay: Replay;
  readonly signal?: AbortSignal;
}

/** Outputs by name; arrays are copies that belong to the caller. */
export type RunResult = Map<string, HostArray>;

export interface ExecutableCounters {
  readonly kernels: number;
  readonly launches: number;
  readonly foreignCalls: number;
  readonly waits: number;
  readonly arenaBytes: number;
  readonly runs: number;
}

export interface KernelProfile {
  readonly label: string;
  readonly symbol: string;
  readonly milliseconds: number;
  readonly flops: number;
  readonly bytes: number;
}

/** Launches of one kernel with equal work, over all runs of a recording. */
export interface RecordedKernel {
  readonly program: string;
  readonly symbol: string;
  /** Of the first such launch. */
  readonly label: string;
  readonly launches: number;
  /** Of all launches together, waits for other threads included. */
  readonly milliseconds: number;
  /** Of one launch. */
  readonly flops: number;
  readonly bytes: number;
}

export interface RecordedRuns {
  readonly runs: number;
  readonly foreignCalls: number;
  /** Time inside the runs: arguments, foreign calls, hand-overs and copies of the answers. */
  readonly milliseconds: number;
  /** Slowest first. */
  readonly kernels: readonly RecordedKernel[];
}

/** A program as text, with the sources its kernels are built from. */
export interface BundledProgram {
  readonly name: string;
  readonly text: string;
  readonly sources: readonly SourceFile[];
}

/** Generated text of a kernel family, and where it lies when the device keeps it. */
export interface GeneratedSource {
  readonly name: string;
  readonly path?: string;
}

/** One launch that has just ended: what it computed, before any later launch can overwrite it. */
export interface WatchedLaunch {
  readonly kernel: string;
  /** Positions in the compiled graph of the nodes it computed. */
  readonly nodes: readonly number[];
  /** Those of them that lie in a buffer; `read` copies its bytes. */
  readonly stored: readonly { readonly node: number; read(): Uint8Array }[];
}

/** Inputs that a run of a chain takes from the run before, by the name of that one's output. */
export type ChainLinks = ReadonlyMap<string, string>;

/** Runs that follow each other, equal in sizes and States: some go in one foreign call, and the next of these is laid out and handed over while one is under way. */
export interface RunChain {
  readonly first: RunRequest;
  readonly links: ChainLinks;
  /** The next run, undefined after the last. Its data is copied before the one after it is asked for; what it holds for the inputs in `links` is not looked at. */
  next(): RunRequest | undefined;
  /** Answers of the runs of one foreign call. Ends the chain by throwing. */
  take(results: readonly RunResult[]): void;
}

/** A loaded segment. Calls on one executable queue behind each other; calls on several may overlap. */
export interface Executable {
  readonly counters: ExecutableCounters;
  readonly sources: readonly GeneratedSource[];
  runSync(request: RunRequest): RunResult;
  run(request: RunRequest): Promise<RunResult>;
  /** Whether `run`, called now, has taken its inputs over when it returns its promise. Absent: not so. */
  readonly readsAtOnce?: boolean;
  /** How many runs like this one `runChain` makes in one foreign call, at least 1. Absent, like `runChain`, where runs are made one at a time. */
  chainLength?(request: RunRequest): number;
  /** Runs a whole chain off the event loop, `chainLength` runs in one foreign call; nothing else runs on this executable meanwhile. Rejects when it is aborted. */
  runChain?(chain: RunChain): Promise<void>;
  /** Runs once with the profiler on: time per launch, in launch order. */
  profile(request: RunRequest): KernelProfile[];
  /** The same off the event loop; answers no results. Absent on devices that do not run kernels one after another. */
  measure?(request: RunRequest): Promise<KernelProfile[]>;
  /** Runs once, kernel by kernel on the calling thread, and shows each launch when it has ended; not counted. For checks: slow. */
  runWatched(request: RunRequest, watch: (launch: WatchedLaunch) => void): RunResult;
  dispose(): void;
}

/** Short texts that outlive the process, each under a name and a key: chosen schedules. A damaged one is as good as none. */
export interface DeviceRecords {
  /** The text that was added last; undefined when there is none, or it is not whole. */
  find(name: string, key: string): string | undefined;
  /** Never fails: a text that cannot be kept only costs making it again. Answers whether it was kept. */
  add(name: string, key: string, text: string): boolean;
}

/** Where programs run: allocates buffers, loads compiled graphs, runs them. Made by `openDevice`. */
export interface Device {
  readonly name: "native" | "reference" | "wasm";
  /** One line for reports: instruction set, compiler, threads. */
  readonly description: string;
  readonly capabilities: DeviceCapabilities;
  /** What kernels are rendered for; part of every cache key. */
  readonly target: "avx512" | "avx2" | "neon" | "plain";
  /** Bytes of device memory in use. */
  readonly allocatedBytes: number;
  /** Kernels built by a compiler, and taken from the artifact cache, since the device was opened. */
  readonly builds: { readonly compiled: number; readonly cacheHits: number; readonly milliseconds: number };
  /** What timings on this device depend on, in words: processor, instruction set, threads. Absent where kernels have no schedules. */
  readonly machine?: string;
  /** Absent where nothing is kept. */
  readonly records?: DeviceRecords;
  /** Text of a program made ahead of time, by its key; undefined when there is none, or none were given. */
  programAhead?(key: string): string | undefined;
  /** Writes programs and their built libraries as a bundle to a new folder. Only on devices that build libraries. */
  writeBundle?(
    folder: string,
    programs: ReadonlyMap<string, BundledProgram>,
    about: Readonly<Record<string, unknown>>,
    files?: ReadonlyMap<string, string>,
  ): void;
  allocate(declaration: StateDeclaration, sizes: SizeBindings): StateBuffer;
  load(compiled: CompiledGraph): Promise<Executable>;
  loadSync(compiled: CompiledGraph): Executable;
  /** Runs `body` with the profiler on: where all runs of this device that end meanwhile spend their time. Throws when a recording is open already. */
  record?(body: () => Promise<void> | void): Promise<RecordedRuns>;
  /** target[m][n] = sum over k of a[m][k] b[k][n] with sums in f64: the folds of weight preparation. */
  multiplyF64(a: Float32Array, b: Float32Array, m: number, k: number, n: number): Float32Array;
}

export interface DeviceOptions {
  /** Folder of a bundle whose programs and libraries serve first. */
  readonly bundle?: string;
  readonly threads?: number;
  readonly target?: "avx512" | "avx2" | "neon" | "plain";
}

/** The error of a run that an AbortSignal ended; it carries the signal's reason as its cause. */
export class AbortedError extends Error {
  override readonly name = "AbortError";
  readonly code = "aborted";

  constructor(reason?: unknown) {
    super("The run was aborted before it finished; states it was writing are invalid until reset.", { cause: reason });
  }
}
