/** The native device: Programs built by the system's C compiler and replayed by the runtime library. */
import { cpus } from "node:os";
import type { SizeBindings } from "../../ir/dim.js";
import type { StateDeclaration } from "../../ir/graph.js";
import type {
  BundledProgram,
  CompiledGraph,
  Device,
  DeviceOptions,
  DeviceRecords,
  Executable,
  RecordedRuns,
  StateBuffer,
} from "../device.js";
import { SharedTime } from "../shared-time.js";
import { Bundle, writeBundle } from "./bundle.js";
import type { NativeLibrary } from "./contract.js";
import { NativeError } from "./errors.js";
import { NativeExecutable } from "./executable.js";
import { loadNativeLibrary } from "./library.js";
import { RunRecorder } from "./recording.js";
import { NativeState } from "./state.js";

export class NativeDevice implements Device {
  readonly name = "native";
  readonly target: Device["target"];
  readonly #library: NativeLibrary;
  readonly #threads: number;
  readonly #bundle: Bundle | undefined;
  readonly #recorder = new RunRecorder();
  readonly records?: DeviceRecords;
  #milliseconds = 0;
  /** Programs that are built at once divide the time between them. */
  readonly #building = new SharedTime();

  /** Throws NativeError when the runtime can neither be built nor taken from the cache. */
  constructor(options: DeviceOptions = {}) {
    this.#library = loadNativeLibrary({
      ...(options.target ? { isa: options.target } : {}),
      ...(options.bundle === undefined ? {} : { bundle: options.bundle }),
    });
    this.#bundle = options.bundle === undefined ? undefined : Bundle.open(options.bundle);
    this.#threads = Math.min(options.threads ?? this.#library.maximumThreads, this.#library.maximumThreads);
    this.target = this.#library.isa;
    // What a bundle says is said: a machine that runs one may have no cache at all.
    if (!this.#bundle) this.records = recordsOf(this.#library);
  }

  get machine(): string {
    const all = cpus();
    return `${all[0]?.model ?? "unknown processor"} (${this.#library.features}), ${all.length} processors, ${this.target}, ${this.#threads} threads`;
  }

  get description(): string {
    return `native: ${this.target}, ${this.#threads} ${this.#threads === 1 ? "thread" : "threads"}, ${this.#library.compiler}`;
  }

  get capabilities(): Device["capabilities"] {
    return { fma: true, f64: true, threads: this.#threads };
  }

  get allocatedBytes(): number {
    return this.#library.allocatedBytes;
  }

  get builds(): Device["builds"] {
    const { compiled, cacheHits } = this.#library.counters;
    return { compiled, cacheHits, milliseconds: this.#milliseconds };
  }

  programAhead(key: string): string | undefined {
    return this.#bundle?.program(key);
  }

  writeBundle(
    folder: string,
    programs: ReadonlyMap<string, BundledProgram>,
    about: Readonly<Record<string, unknown>>,
    files?: ReadonlyMap<string, string>,
  ): void {
    const sources = [...programs.values()].flatMap((program) => program.sources);
    const libraries = this.#library.builtLibraries(sources);
    writeBundle(folder, { about, isa: this.#library.isa, programs, libraries, ...(files ? { files } : {}) });
  }

  allocate(declaration: StateDeclaration, sizes: SizeBindings): StateBuffer {
    return new NativeState(this.#library, declaration, sizes);
  }

  async load(compiled: CompiledGraph): Promise<Executable> {
    const end = this.#building.begin();
    try {
      return this.#executable(compiled, await this.#library.build(compiled.program.sources));
    } finally {
      this.#milliseconds += end();
    }
  }

  loadSync(compiled: CompiledGraph): Executable {
    const end = this.#building.begin();
    try {
      return this.#executable(compiled, this.#library.buildSync(compiled.program.sources));
    } finally {
      this.#milliseconds += end();
    }
  }

  #executable(compiled: CompiledGraph, entries: ReadonlyMap<string, number>): Executable {
    return new NativeExecutable(this.#library, compiled.program, entries, this.#threads, compiled.reuse, this.#recorder);
  }

  record(body: () => Promise<void> | void): Promise<RecordedRuns> {
    return this.#recorder.record(this.#library.ticksPerSecond, body);
  }

  multiplyF64(a: Float32Array, b: Float32Array, m: number, k: number, n: number): Float32Array {
    const library = this.#library;
    const buffers = [m * k, k * n, m * n].map((elements) => library.allocate(Math.max(64, elements * 4)));
    const [left, right, target] = buffers as [(typeof buffers)[0], (typeof buffers)[0], (typeof buffers)[0]];
    try {
      new Float32Array(left.view, 0, m * k).set(a.subarray(0, m * k));
      new Float32Array(right.view, 0, k * n).set(b.subarray(0, k * n));
      library.multiplyF64(left.address, right.address, target.address, m, k, n);
      return new Float32Array(target.view, 0, m * n).slice();
    } finally {
      for (const buffer of buffers) buffer.free();
    }
  }
}

/** Records in the artifact cache. A folder that cannot be written is no error: the record is made again next time. */
const recordsOf = (library: NativeLibrary): DeviceRecords => ({
  find: (name, key) => library.findRecord(name, key),
  add: (name, key, text) => {
    try {
      library.addRecord(name, key, text);
      return true;
    } catch (error) {
      if (error instanceof NativeError) return false;
      throw error;
    }
  },
});
