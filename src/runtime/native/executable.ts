/** A Program loaded on the native device: binds sizes to a step table once per set of sizes and states, then replays it. */
import { evaluateDim, type SizeBindings } from "../../ir/dim.js";
import type { BufferReference, Program } from "../../ir/kernel.js";
import { packArena } from "../arena.js";
import {
  AbortedError,
  type ChainLinks,
  type Executable,
  type KernelProfile,
  type RunChain,
  type RunRequest,
  type RunResult,
  type WatchedLaunch,
} from "../device.js";
import { whenAborted } from "./abort-listeners.js";
import { NativeChain, runsTogether, type ChainParts } from "./chain.js";
import { runStatus, stepLayout, type NativeBuffer, type NativeLibrary, type RunOptions } from "./contract.js";
import { bytesOf, copyPlaces, fillPlaces, placeAt, type Place } from "./places.js";
import type { RunRecorder } from "./recording.js";
import { runAhead, type Part } from "./run-ahead.js";
import { writeStepTable } from "./step-table.js";
import { stateFrees, useStates, type NativeState } from "./state.js";

/** Work that may be done on the event loop's thread, a fraction of a millisecond; more is handed to the dispatcher. */
const inlineFlops = 5e7;
/** Longest time without a turn of the event loop, in ms. */
const turnMilliseconds = 3;
/** Bindings kept per executable; the least recently used goes first. */
const keptBindings = 32;

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
  /** What a chain of its runs is laid out from. */
  readonly parts: ChainParts;
  /** Made when runs of it are first chained. */
  chain: NativeChain | undefined;
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

function freeBinding({ table, chain }: Binding): void {
  table.free();
  chain?.free();
}

const sameLinks = (a: ChainLinks, b: ChainLinks): boolean =>
  a === b || (a.size === b.size && [...a].every(([input, output]) => b.get(input) === output));

const sameSizes = (a: SizeBindings, b: SizeBindings): boolean => {
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => a[name] === b[name]);
};

export class NativeExecutable implements Executable {
  readonly #bindings = new Map<string, Binding>();
  readonly #abortWord: NativeBuffer;
  readonly #abort: Int32Array;
  #last: LastBinding | undefined;
  /** By the very sizes that a caller brings again; none of a binding that was freed. */
  #known = new WeakMap<SizeBindings, LastBinding>();
  #chainable: { readonly sizes: SizeBindings; readonly length: number } | undefined;
  #lastTurn = 0;
  #arena: NativeBuffer | undefined;
  #sources: Executable["sources"] | undefined;
  #generation = 0;
  #queue: Promise<unknown> = Promise.resolve();
  /** Runs in the queue, the one under way included. */
  #turns = 0;
  readonly #abortRun = (): void => {
    if (this.#running > 0) this.#abort[0] = 1;
  };
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

  get readsAtOnce(): boolean {
    return this.#turns === 0;
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
    const results = copyPlaces(binding.outputs);
    if (options.profile) this.#record(binding.table, 1, request, this.#foreignCalls - calls, start);
    return results;
  }

  run(request: RunRequest): Promise<RunResult> {
    return this.#inTurn(request, async (binding, start) => {
      this.#runs++;
      const calls = this.#foreignCalls;
      const options = this.#options(binding, this.recorder.isOpen);
      await this.#launchAll(binding, options, request);
      const results = copyPlaces(binding.outputs);
      if (options.profile) this.#record(binding.table, 1, request, this.#foreignCalls - calls, start);
      return results;
    });
  }

  chainLength({ sizes, replay }: RunRequest): number {
    if (replay !== "one-call") return 1;
    if (this.#chainable?.sizes !== sizes) this.#chainable = { sizes, length: runsTogether(this.program, sizes) };
    return this.#chainable.length;
  }

  runChain(chain: RunChain): Promise<void> {
    return this.#inTurn(chain.first, async (binding, start) => {
      const native = this.#chainOf(binding, chain.links, this.chainLength(chain.first));
      const options = this.#options(binding, this.recorder.isOpen);
      native.begin(chain.first);
      let parts = 0;
      let from = start;
      const next = (): Part | undefined => {
        const half = parts % 2 === 0 ? 0 : 1;
        let count = 0;
        for (let request = parts === 0 ? chain.first : chain.next(); request; request = count < native.length ? chain.next() : undefined)
          native.fill(half, count++, request);
        if (count === 0) return undefined;
        parts++;
        const take = (): void => {
          const results = native.results(half, count);
          if (options.profile) this.#record(native.tableOf(half), count, chain.first, 1, from);
          from = performance.now();
          chain.take(results);
        };
        return { ended: this.#handOver(native.tableOf(half), count, options, chain.first), take };
      };
      await runAhead(next, () => void (this.#abort[0] = 1));
    });
  }

  async #handOver(table: NativeBuffer, runs: number, options: RunOptions, request: RunRequest): Promise<void> {
    this.#runs += runs;
    this.#foreignCalls++;
    this.#waits++;
    this.#check(await this.library.submit(table.address, runs * this.program.launches.length, options), request);
    this.#lastTurn = performance.now();
  }

  #chainOf(binding: Binding, links: ChainLinks, length: number): NativeChain {
    const known = binding.chain;
    if (known && sameLinks(known.links, links)) return known;
    known?.free();
    return (binding.chain = new NativeChain(binding.parts, links, length));
  }

  #inTurn<T>(request: RunRequest, body: (binding: Binding, start: number) => Promise<T>): Promise<T> {
    const begin = (): Promise<T> => this.#runQueued(request, body);
    const turn = this.#turns++ === 0 ? begin() : this.#queue.then(begin);
    const ended = (): void => void this.#turns--;
    this.#queue = turn.then(ended, ended);
    return turn;
  }

  async #runQueued<T>(request: RunRequest, body: (binding: Binding, start: number) => Promise<T>): Promise<T> {
    if (request.signal?.aborted) throw new AbortedError(request.signal.reason);
    const start = performance.now();
    const { binding, states } = this.#prepare(request);
    const release = useStates(states);
    const deafen = request.signal && whenAborted(request.signal, this.#abortRun);
    this.#running++;
    try {
      return await body(binding, start);
    } finally {
      this.#running--;
      deafen?.();
      release();
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

  #record(table: NativeBuffer, runs: number, { sizes }: RunRequest, foreignCalls: number, start: number): void {
    const milliseconds = performance.now() - start;
    this.recorder.add({ program: this.program, table: table.view, sizes, runs, foreignCalls, milliseconds });
  }

  profile(request: RunRequest): KernelProfile[] {
    const { binding } = this.#prepare(request);
    this.#runs++;
    this.#check(this.library.run(binding.table.address, this.program.launches.length, this.#options(binding, true)), request);
    return this.#profileOf(binding, request);
  }

  measure(request: RunRequest): Promise<KernelProfile[]> {
    return this.#inTurn(request, async (binding) => {
      this.#runs++;
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
    return copyPlaces(binding.outputs);
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    if (this.#running > 0) this.#abort[0] = 1;
    else this.#free();
  }

  #free(): void {
    this.#last = undefined;
    this.#known = new WeakMap();
    for (const binding of this.#bindings.values()) freeBinding(binding);
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
    fillPlaces(bound.binding.inputs, request, this.program.name);
    return bound;
  }

  #bound(request: RunRequest): LastBinding {
    const { sizes, states } = request;
    const known = this.#known.get(sizes);
    if (known && this.#isUsable(known) && known.request.states === states) return known;
    const last = this.#last;
    const bound = this.program.states.map(({ name }) => {
      const state = states.get(name) as NativeState | undefined;
      if (!state) throw new Error(`state "${name}" of ${this.program.name} is not bound`);
      return state;
    });
    const repeats =
      last && this.#isUsable(last) && sameSizes(last.request.sizes, sizes) && last.states.every((state, index) => state === bound[index]);
    const binding = repeats ? last.binding : this.#lookUp(sizes, bound);
    this.#last = { request: { sizes, states }, states: bound, frees: stateFrees(), binding };
    this.#known.set(sizes, this.#last);
    return this.#last;
  }

  #isUsable({ binding, frees }: LastBinding): boolean {
    return binding.generation === this.#generation && frees === stateFrees();
  }

  #lookUp(sizes: SizeBindings, bound: readonly NativeState[]): Binding {
    const key = `${JSON.stringify(sizes)}|${bound.map((state) => state.address).join(",")}`;
    const known = this.#bindings.get(key);
    if (known && known.generation === this.#generation) {
      this.#bindings.delete(key);
      this.#bindings.set(key, known);
      return known;
    }
    if (known) freeBinding(known);
    const made = this.#bind(sizes, new Map(bound.map((state) => [state.declaration.name, state])));
    this.#bindings.set(key, made);
    const [oldest] = this.#bindings;
    if (this.#bindings.size > keptBindings && oldest) {
      this.#known = new WeakMap();
      freeBinding(oldest[1]);
      this.#bindings.delete(oldest[0]);
    }
    return made;
  }

  #bind(sizes: SizeBindings, states: ReadonlyMap<string, NativeState>): Binding {
    const { program } = this;
    const inputBytes = program.inputs.map((input) => bytesOf(input, sizes));
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
    const table = writeStepTable(this.library, program.launches, this.entries, sizes, [address]);
    return {
      table,
      scratchBytes: Math.max(64, ...program.launches.map((launch) => evaluateDim(launch.scratchBytes, sizes))),
      inputs: program.inputs.map((input, index) => placeAt(input, sizes, arena.view, offsets[index] as number)),
      outputs: program.outputs.map((output) => placeAt(output, sizes, arena.view, address(output.source) - arena.address)),
      buffers: values.map((buffer, index) => new Uint8Array(arena.view, offsets[program.inputs.length + index] as number, buffer.bytes)),
      generation: this.#generation,
      flops: program.launches.reduce((sum, launch) => sum + evaluateDim(launch.flops, sizes), 0),
      parts: { library: this.library, program, entries: this.entries, sizes, address },
      chain: undefined,
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
}
