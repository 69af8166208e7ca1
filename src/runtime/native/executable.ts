/** A Program loaded on the native device: binds sizes to a step table once per set of sizes and states, then replays it. */
import { evaluateDim, type SizeBindings } from "../../ir/dim.js";
import { dtypes, viewAs, type HostArray } from "../../ir/dtype.js";
import type { BufferReference, KernelLaunch, Program, Units } from "../../ir/kernel.js";
import { packArena } from "../arena.js";
import { AbortedError, type Executable, type KernelProfile, type RunRequest, type RunResult, type WatchedLaunch } from "../device.js";
import { runStatus, stepFlags, stepLayout, type NativeBuffer, type NativeLibrary, type RunOptions } from "./contract.js";
import type { RunRecorder } from "./recording.js";
import { stateFrees, useStates, type NativeState } from "./state.js";

/** Work that may be done on the event loop's thread, a fraction of a millisecond; more is handed to the dispatcher. */
const inlineFlops = 5e7;
/** Longest time without a turn of the event loop, in ms. */
const turnMilliseconds = 3;
/** Bindings kept per executable; the least recently used goes first. */
const keptBindings = 32;

/** Where an input or output lies in the arena. */
interface Place {
  readonly name: string;
  readonly values: HostArray;
}

/** A step table with every address and size filled in. */
interface Binding {
  readonly table: NativeBuffer;
  readonly scratchBytes: number;
  readonly inputs: readonly Place[];
  readonly outputs: readonly Place[];
  /** Every buffer of the program as bytes, in the program's order. */
  readonly buffers: readonly Uint8Array[];
  /** The arena's generation the addresses belong to. */
  readonly generation: number;
  /** Useful work of the whole program at these sizes. */
  readonly flops: number;
}

/** What the last binding was made for. Most calls repeat it, and a caller that knows so brings the very same sizes and map of states. */
interface LastBinding {
  readonly request: Pick<RunRequest, "sizes" | "states">;
  /** Of the program, in its order. */
  readonly states: readonly NativeState[];
  /** `stateFrees` when their addresses were read. */
  readonly frees: number;
  readonly binding: Binding;
}

const sameSizes = (a: SizeBindings, b: SizeBindings): boolean => {
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => a[name] === b[name]);
};

const unitsOf = ({ dim, divide, times }: Units, sizes: SizeBindings): number =>
  Math.ceil(evaluateDim(dim, sizes) / divide) * evaluateDim(times, sizes);

export class NativeExecutable implements Executable {
  readonly #bindings = new Map<string, Binding>();
  readonly #abortWord: NativeBuffer;
  readonly #abort: Int32Array;
  #last: LastBinding | undefined;
  #lastTurn = 0;
  #arena: NativeBuffer | undefined;
  #sources: Executable["sources"] | undefined;
  #generation = 0;
  #queue: Promise<unknown> = Promise.resolve();
  #disposed = false;
  #running = 0;
  #runs = 0;
  #foreignCalls = 0;
  #waits = 0;

  constructor(
    private readonly library: NativeLibrary,
    private readonly program: Program,
    private readonly entries: ReadonlyMap<string, number>,
    private readonly threads: number,
    /** Whether buffers may share memory; off for eager, whose ops own their results. */
    private readonly reuse: boolean,
    private readonly recorder: RunRecorder,
  ) {
    this.#abortWord = library.allocate(64);
    this.#abort = new Int32Array(this.#abortWord.view, 0, 1);
  }

  get sources(): Executable["sources"] {
    return (this.#sources ??= this.program.sources.map((source) => {
      const path = this.library.sourcePath(source);
      return { name: source.name, ...(path === undefined ? {} : { path }) };
    }));
  }

  get counters(): Executable["counters"] {
    const { program } = this;
    return {
      kernels: program.sources.length,
      launches: program.launches.length,
      foreignCalls: this.#foreignCalls,
      waits: this.#waits,
      arenaBytes: this.#arena?.bytes ?? 0,
      runs: this.#runs,
    };
  }

  runSync(request: RunRequest): RunResult {
    const start = performance.now();
    const calls = this.#foreignCalls;
    const { binding } = this.#prepare(request);
    this.#runs++;
    const { table } = binding;
    const options = this.#options(binding, this.recorder.isOpen);
    const count = this.program.launches.length;
    const step = request.replay === "one-call" ? count : 1;
    for (let at = 0; at < count; at += step) {
      this.#foreignCalls++;
      this.#check(this.library.run(table.address + at * stepLayout.bytes, step, options), request);
    }
    const results = this.#collect(binding);
    if (options.profile) this.#record(binding, request, this.#foreignCalls - calls, start);
    return results;
  }

  run(request: RunRequest): Promise<RunResult> {
    return this.#inTurn(request, async (binding, start) => {
      const calls = this.#foreignCalls;
      const options = this.#options(binding, this.recorder.isOpen);
      await this.#launchAll(binding, options, request);
      const results = this.#collect(binding);
      if (options.profile) this.#record(binding, request, this.#foreignCalls - calls, start);
      return results;
    });
  }

  #inTurn<T>(request: RunRequest, body: (binding: Binding, start: number) => Promise<T>): Promise<T> {
    const turn = this.#queue.then(() => this.#runQueued(request, body));
    this.#queue = turn.catch(() => undefined);
    return turn;
  }

  async #runQueued<T>(request: RunRequest, body: (binding: Binding, start: number) => Promise<T>): Promise<T> {
    if (request.signal?.aborted) throw new AbortedError(request.signal.reason);
    const start = performance.now();
    const { binding, states } = this.#prepare(request);
    this.#runs++;
    const abort = (): void => {
      this.#abort[0] = 1;
    };
    const release = useStates(states);
    request.signal?.addEventListener("abort", abort, { once: true });
    this.#running++;
    try {
      return await body(binding, start);
    } finally {
      this.#running--;
      release();
      request.signal?.removeEventListener("abort", abort);
      if (this.#disposed) this.#free();
    }
  }

  async #launchAll(binding: Binding, options: RunOptions, request: RunRequest): Promise<void> {
    const { launches } = this.program;
    if (request.replay === "one-call") {
      await this.#launch(binding.table.address, launches.length, binding.flops, options, request);
      return;
    }
    for (const [index, launch] of launches.entries()) {
      await this.#launch(binding.table.address + index * stepLayout.bytes, 1, evaluateDim(launch.flops, request.sizes), options, request);
    }
  }

  /** One foreign call: inline when it is short, with regular turns of the event loop; else on the dispatcher's thread. */
  async #launch(table: number, count: number, flops: number, options: RunOptions, request: RunRequest): Promise<void> {
    this.#foreignCalls++;
    if (flops > inlineFlops) {
      this.#waits++;
      this.#check(await this.library.submit(table, count, options), request);
      this.#lastTurn = performance.now();
      return;
    }
    if (performance.now() - this.#lastTurn > turnMilliseconds) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      this.#lastTurn = performance.now();
    }
    this.#check(this.library.run(table, count, options), request);
  }

  #record({ table }: Binding, { sizes }: RunRequest, foreignCalls: number, start: number): void {
    const milliseconds = performance.now() - start;
    this.recorder.add({ program: this.program, table: table.view, sizes, foreignCalls, milliseconds });
  }

  profile(request: RunRequest): KernelProfile[] {
    const { binding } = this.#prepare(request);
    this.#runs++;
    this.#check(this.library.run(binding.table.address, this.program.launches.length, this.#options(binding, true)), request);
    return this.#profileOf(binding, request);
  }

  measure(request: RunRequest): Promise<KernelProfile[]> {
    return this.#inTurn(request, async (binding) => {
      const { length } = this.program.launches;
      this.#check(await this.library.submit(binding.table.address, length, this.#options(binding, true)), request);
      return this.#profileOf(binding, request);
    });
  }

  #profileOf(binding: Binding, request: RunRequest): KernelProfile[] {
    const count = this.program.launches.length;
    const cycles = new BigInt64Array(binding.table.view, 0, (count * stepLayout.bytes) / 8);
    return this.program.launches.map((launch, index) => ({
      label: launch.label,
      symbol: launch.symbol,
      milliseconds: (Number(cycles[(index * stepLayout.bytes + stepLayout.cycles) / 8] ?? 0n) / this.library.ticksPerSecond) * 1000,
      flops: evaluateDim(launch.flops, request.sizes),
      bytes: evaluateDim(launch.bytes, request.sizes),
    }));
  }

  runWatched(request: RunRequest, watch: (launch: WatchedLaunch) => void): RunResult {
    const { binding } = this.#prepare(request);
    const options = this.#options(binding, false);
    const { launches, buffers } = this.program;
    launches.forEach(({ symbol, nodes }, index) => {
      this.#check(this.library.run(binding.table.address + index * stepLayout.bytes, 1, options), request);
      const stored = buffers.flatMap(({ first, node }, buffer) =>
        first === index && nodes.includes(node) ? [{ node, read: (): Uint8Array => (binding.buffers[buffer] as Uint8Array).slice() }] : [],
      );
      watch({ kernel: symbol, nodes, stored });
    });
    return this.#collect(binding);
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    if (this.#running > 0) this.#abort[0] = 1;
    else this.#free();
  }

  #free(): void {
    this.#last = undefined;
    for (const binding of this.#bindings.values()) binding.table.free();
    this.#bindings.clear();
    this.#arena?.free();
    this.#arena = undefined;
    this.#abortWord.free();
  }

  #options(binding: Binding, profile: boolean): RunOptions {
    return { threads: this.threads, abortWord: this.#abortWord.address, scratchBytes: binding.scratchBytes, profile };
  }

  #check(status: number, request: RunRequest): void {
    if (status === runStatus.aborted) throw new AbortedError(request.signal?.reason ?? "disposed");
  }

  /** The binding of a request, its inputs in place. */
  #prepare(request: RunRequest): LastBinding {
    if (this.#disposed) throw new Error(`${this.program.name} was disposed and cannot run again`);
    this.#abort[0] = 0;
    const bound = this.#bound(request);
    for (const { name, values } of bound.binding.inputs) {
      const given = request.inputs.get(name);
      if (!given) throw new Error(`input "${name}" of ${this.program.name} is missing`);
      if (given.length !== values.length)
        throw new Error(`input "${name}" of ${this.program.name} has ${given.length} values, expected ${values.length}`);
      values.set(given);
    }
    return bound;
  }

  #collect(binding: Binding): RunResult {
    const results: RunResult = new Map();
    for (const { name, values } of binding.outputs) results.set(name, values.slice());
    return results;
  }

  #bound(request: RunRequest): LastBinding {
    const { sizes, states } = request;
    const last = this.#last;
    const usable = last?.binding.generation === this.#generation && last.frees === stateFrees();
    if (usable && last.request.sizes === sizes && last.request.states === states) return last;
    const bound = this.program.states.map(({ name }) => {
      const state = states.get(name) as NativeState | undefined;
      if (!state) throw new Error(`state "${name}" of ${this.program.name} is not bound`);
      return state;
    });
    const repeats = usable && sameSizes(last.request.sizes, sizes) && last.states.every((state, index) => state === bound[index]);
    const binding = repeats ? last.binding : this.#lookUp(sizes, bound);
    return (this.#last = { request: { sizes, states }, states: bound, frees: stateFrees(), binding });
  }

  #lookUp(sizes: SizeBindings, bound: readonly NativeState[]): Binding {
    const key = `${JSON.stringify(sizes)}|${bound.map((state) => state.address).join(",")}`;
    const known = this.#bindings.get(key);
    if (known && known.generation === this.#generation) {
      this.#bindings.delete(key);
      this.#bindings.set(key, known);
      return known;
    }
    known?.table.free();
    const made = this.#bind(sizes, new Map(bound.map((state) => [state.declaration.name, state])));
    this.#bindings.set(key, made);
    const [oldest] = this.#bindings.keys();
    if (this.#bindings.size > keptBindings && oldest !== undefined) {
      this.#bindings.get(oldest)?.table.free();
      this.#bindings.delete(oldest);
    }
    return made;
  }

  #bind(sizes: SizeBindings, states: ReadonlyMap<string, NativeState>): Binding {
    const { program } = this;
    const inputBytes = program.inputs.map(({ shape, dtype }) =>
      shape.reduce<number>((total, dim) => total * evaluateDim(dim, sizes), dtypes[dtype].bytes),
    );
    const always = { first: 0, last: program.launches.length };
    const values = program.buffers.map(({ bytes, first, last }) => ({ bytes: evaluateDim(bytes, sizes), first, last }));
    const { offsets, bytes } = packArena([...inputBytes.map((size) => ({ bytes: size, ...always })), ...values], this.reuse);
    const arena = this.#growArena(bytes);
    const inputIndex = new Map(program.inputs.map(({ name }, index) => [name, index]));
    const address = (reference: BufferReference): number => {
      if (reference.kind === "state") return (states.get(reference.name) as NativeState).address;
      const index = reference.kind === "input" ? (inputIndex.get(reference.name) as number) : program.inputs.length + reference.buffer;
      return arena.address + (offsets[index] as number);
    };
    const table = this.#writeTable(sizes, address);
    const place = (offset: number, dtype: keyof typeof dtypes, shape: readonly unknown[]): HostArray =>
      viewAs(
        dtype,
        arena.view,
        offset,
        shape.reduce<number>((total, dim) => total * evaluateDim(dim as number, sizes), 1),
      );
    return {
      table,
      scratchBytes: Math.max(64, ...program.launches.map((launch) => evaluateDim(launch.scratchBytes, sizes))),
      inputs: program.inputs.map(({ name, dtype, shape }, index) => ({ name, values: place(offsets[index] as number, dtype, shape) })),
      outputs: program.outputs.map(({ name, dtype, shape, source }) => ({
        name,
        values: place(address(source) - arena.address, dtype, shape),
      })),
      buffers: values.map((buffer, index) => new Uint8Array(arena.view, offsets[program.inputs.length + index] as number, buffer.bytes)),
      generation: this.#generation,
      flops: program.launches.reduce((sum, launch) => sum + evaluateDim(launch.flops, sizes), 0),
    };
  }

  /** The arena only grows; growing moves it, so older bindings are made again when next used. */
  #growArena(bytes: number): NativeBuffer {
    if (!this.#arena || this.#arena.bytes < bytes + 64) {
      this.#arena?.free();
      this.#arena = this.library.allocate(Math.max(4096, Math.ceil(bytes * 1.25)) + 64, { huge: bytes > 2 << 20 });
      this.#generation++;
    }
    return this.#arena;
  }

  #writeTable(sizes: SizeBindings, address: (reference: BufferReference) => number): NativeBuffer {
    const { launches } = this.program;
    const words = launches.reduce(
      (sum, { pointers, numbers }) => sum + pointers.length + numbers.length,
      (launches.length * stepLayout.bytes) / 8,
    );
    const table = this.library.allocate(Math.max(64, words * 8));
    const view = new BigInt64Array(table.view, 0, words);
    let at = (launches.length * stepLayout.bytes) / 8;
    const put = (list: readonly number[]): bigint => {
      const start = table.address + at * 8;
      for (const value of list) view[at++] = BigInt(value);
      return BigInt(start);
    };
    launches.forEach((launch: KernelLaunch, index) => {
      const entry = this.entries.get(launch.symbol);
      if (entry === undefined) throw new Error(`kernel ${launch.symbol} was not built`);
      const base = (index * stepLayout.bytes) / 8;
      view[base + stepLayout.entry / 8] = BigInt(entry);
      view[base + stepLayout.pointers / 8] = put(launch.pointers.map(address));
      view[base + stepLayout.numbers / 8] = put(launch.numbers.map((dim) => evaluateDim(dim, sizes)));
      view[base + stepLayout.units / 8] = BigInt(unitsOf(launch.units, sizes));
      view[base + stepLayout.grain / 8] = BigInt(launch.grain);
      view[base + stepLayout.flags / 8] = BigInt(index === 0 ? 0 : stepFlags.barrier);
    });
    return table;
  }
}
