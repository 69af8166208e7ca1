/** The reference device: interprets graphs with each op's meaning, f64 inside. Slow and plain; the oracle the others are compared with. */
import { asStored } from "../../ir/bf16.js";
import { evaluateDim, type SizeBindings } from "../../ir/dim.js";
import { hostArray, type HostArray } from "../../ir/dtype.js";
import type { Node, StateDeclaration } from "../../ir/graph.js";
import { interpret } from "../../ir/interpret.js";
import { elementCount } from "../../ir/ops/shapes.js";
import type { Value } from "../../ir/ops.js";
import {
  AbortedError,
  type CompiledGraph,
  type Device,
  type Executable,
  type KernelProfile,
  type RunRequest,
  type RunResult,
  type StateBuffer,
  type WatchedLaunch,
} from "../device.js";

class ReferenceState implements StateBuffer {
  readonly shape: readonly number[];
  readonly #value: Value;
  #freed = false;

  constructor(
    readonly declaration: StateDeclaration,
    readonly sizes: SizeBindings,
    private readonly onFree: (bytes: number) => void,
  ) {
    this.shape = declaration.shape.map((dim) => evaluateDim(dim, sizes));
    this.#value = { shape: this.shape, dtype: declaration.dtype, data: hostArray(declaration.dtype, elementCount(this.shape)) };
  }

  get bytes(): number {
    return this.#value.data.byteLength;
  }

  /** Throws once the state was freed, as on any other device. */
  get value(): Value {
    if (this.#freed) throw new Error(`state ${this.declaration.name} was disposed and cannot be used`);
    return this.#value;
  }

  write(values: HostArray): void {
    this.value.data.set(asStored(this.declaration.dtype, values));
  }

  read(): HostArray {
    return this.value.data.slice();
  }

  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    this.onFree(this.bytes);
  }
}

class ReferenceExecutable implements Executable {
  readonly sources = [];
  #runs = 0;

  constructor(private readonly compiled: CompiledGraph) {}

  get counters(): Executable["counters"] {
    return {
      kernels: 0,
      launches: this.#runs * this.compiled.graph.nodes.length,
      foreignCalls: 0,
      waits: 0,
      arenaBytes: 0,
      runs: this.#runs,
    };
  }

  runSync(request: RunRequest): RunResult {
    this.#runs++;
    return this.#interpret(request);
  }

  #interpret({ inputs, states, sizes, signal }: RunRequest, onValue?: (node: Node, value: Value) => void): RunResult {
    const { graph } = this.compiled;
    const values = new Map(
      graph.inputs.map(({ name, node }) => {
        const data = inputs.get(name);
        if (!data) throw new Error(`input "${name}" of ${graph.name} is missing`);
        return [name, { shape: node.shape.map((dim) => evaluateDim(dim, sizes)), dtype: node.dtype, data }] as const;
      }),
    );
    const bound = new Map(graph.states.map((state) => [state, (states.get(state.name) as ReferenceState).value] as const));
    const abort = (): void => {
      if (signal?.aborted) throw new AbortedError(signal.reason);
    };
    const outputs = interpret(graph, values, bound, sizes, abort, onValue);
    return new Map([...outputs].map(([name, value]) => [name, value.data.slice()]));
  }

  async run(request: RunRequest): Promise<RunResult> {
    // One turn of the event loop before each run, so that timers and aborts are heard between steps.
    await new Promise<void>((resolve) => setImmediate(resolve));
    return this.runSync(request);
  }

  profile(request: RunRequest): KernelProfile[] {
    const start = performance.now();
    this.runSync(request);
    return [{ label: this.compiled.graph.name, symbol: "interpret", milliseconds: performance.now() - start, flops: 0, bytes: 0 }];
  }

  runWatched(request: RunRequest, watch: (launch: WatchedLaunch) => void): RunResult {
    const { nodes } = this.compiled.graph;
    const position = new Map(nodes.map((node, index) => [node, index]));
    return this.#interpret(request, (node, { data }) => {
      const at = position.get(node) as number;
      const read = (): Uint8Array => new Uint8Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength));
      watch({ kernel: `interpret.${node.op}`, nodes: [at], stored: [{ node: at, read }] });
    });
  }

  dispose(): void {}
}

export class ReferenceDevice implements Device {
  readonly name = "reference";
  readonly description = "reference: interpreter in JavaScript, f64 inside, one thread";
  readonly capabilities = { fma: false, f64: true, threads: 1 };
  readonly target = "plain";
  readonly builds = { compiled: 0, cacheHits: 0, milliseconds: 0 };
  #allocated = 0;

  get allocatedBytes(): number {
    return this.#allocated;
  }

  allocate(declaration: StateDeclaration, sizes: SizeBindings): StateBuffer {
    const state = new ReferenceState(declaration, sizes, (bytes) => {
      this.#allocated -= bytes;
    });
    this.#allocated += state.bytes;
    return state;
  }

  load(compiled: CompiledGraph): Promise<Executable> {
    return Promise.resolve(this.loadSync(compiled));
  }

  loadSync(compiled: CompiledGraph): Executable {
    return new ReferenceExecutable(compiled);
  }

  multiplyF64(a: Float32Array, b: Float32Array, m: number, k: number, n: number): Float32Array {
    const target = new Float32Array(m * n);
    const row = new Float64Array(n);
    for (let i = 0; i < m; i++) {
      row.fill(0);
      for (let j = 0; j < k; j++) {
        const factor = a[i * k + j] as number;
        for (let c = 0, at = j * n; c < n; c++, at++) row[c] = (row[c] as number) + factor * (b[at] as number);
      }
      target.set(row, i * n);
    }
    return target;
  }
}
