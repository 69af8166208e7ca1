/**
 * TEMPOGRAPH_CHECK=bits: an executable that also runs its graph op by op, on the same inputs and on copies of the States, and compares bit for bit every value that
 * both store, every output and every State written. Must not know how a graph is lowered, nor what called it.
 */
import { isContiguous, resolveAccess } from "../ir/access.js";
import { evaluateDim } from "../ir/dim.js";
import { dtypes, viewAs, type DType, type HostArray } from "../ir/dtype.js";
import type { Graph, Node } from "../ir/graph.js";
import type { Device, Executable, KernelProfile, RunRequest, RunResult, StateBuffer } from "../runtime/device.js";
import { emitEvent } from "./events.js";

export type CheckSetting = "bits" | "off";

/** What TEMPOGRAPH_CHECK asks for. Throws a sentence for a word that is none of the settings: a check that silently does nothing would prove nothing. */
export function checkSetting(text = process.env["TEMPOGRAPH_CHECK"]): CheckSetting {
  const word = text?.trim() ?? "";
  if (word === "" || word === "off") return "off";
  if (word === "bits") return "bits";
  throw new Error(`TEMPOGRAPH_CHECK: unknown check "${word}"; there are: bits, off`);
}

/** What checks have compared so far; all zero when nothing was. */
export class CheckCounts {
  runs = 0;
  /** Values inside programs that both ways of running store. */
  values = 0;
  outputs = 0;
  states = 0;
  elements = 0;
}

/** Thrown at the first value whose bits differ; the message names function, label, op, kernel, element and both numbers. */
export class BitDifferenceError extends Error {
  override readonly name = "BitDifferenceError";
  readonly code = "bits-differ";

  constructor(
    message: string,
    /** Model path of the node whose value differs first, or its op where it has none. */
    readonly label: string,
  ) {
    super(message);
  }
}

/** A loaded segment with the graph its launches refer to. */
export interface LoadedGraph {
  readonly graph: Graph;
  readonly executable: Executable;
}

/** What is compared at one node of the op-by-op graph. */
interface Comparison {
  readonly traced: Node;
  /** Positions in the compiled graph where the same value may lie, or where the same write is made. */
  readonly compiled: readonly number[];
}

interface Stored {
  readonly bytes: Uint8Array;
  readonly kernel: string;
}

/** What one run of the compiled program on copies left behind. */
interface Record {
  readonly stored: ReadonlyMap<number, Stored>;
  readonly kernelOf: ReadonlyMap<number, string>;
  readonly states: ReadonlyMap<string, StateBuffer>;
}

const nameOf = (node: Node): string => node.label || node.op;

/** Nodes in whose memory the whole value of `node` lies in order: itself, and what it is a plain view of. */
function homes(node: Node): readonly Node[] {
  const access = resolveAccess(node);
  return access.offset === 0 && isContiguous(access) && access.base !== node ? [node, access.base] : [node];
}

export class CheckedExecutable implements Executable {
  readonly #byValue = new Map<number, Comparison[]>();
  /** Last writer of each State in the op-by-op graph, by position. */
  readonly #byWrite = new Map<number, { readonly state: string; readonly comparison: Comparison }[]>();
  readonly #written: ReadonlySet<string>;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly about: { readonly name: string; readonly mode: string },
    private readonly traced: Graph,
    private readonly device: Device,
    private readonly compiled: LoadedGraph,
    private readonly eager: LoadedGraph,
    private readonly counts: CheckCounts,
  ) {
    this.#written = new Set(traced.nodes.flatMap(({ states }) => states.filter(({ writes }) => writes).map(({ state }) => state.name)));
    this.#pair();
  }

  /** The executable that is checked. */
  get subject(): Executable {
    return this.compiled.executable;
  }

  get counters(): Executable["counters"] {
    return this.compiled.executable.counters;
  }

  get sources(): Executable["sources"] {
    return this.compiled.executable.sources;
  }

  runSync(request: RunRequest): RunResult {
    return this.#withCopies(request, (first, second) => {
      const results = this.compiled.executable.runSync(request);
      this.#check(request, results, first, second);
      return results;
    });
  }

  /** The check itself runs on the calling thread, one run after the other: both ways share the executables' memory. */
  run(request: RunRequest): Promise<RunResult> {
    const turn = this.#queue.then(() =>
      this.#withCopies(request, async (first, second) => {
        const results = await this.compiled.executable.run(request);
        this.#check(request, results, first, second);
        return results;
      }),
    );
    this.#queue = turn.catch(() => undefined);
    return turn;
  }

  profile(request: RunRequest): KernelProfile[] {
    return this.compiled.executable.profile(request);
  }

  runWatched(...parts: Parameters<Executable["runWatched"]>): RunResult {
    return this.compiled.executable.runWatched(...parts);
  }

  dispose(): void {
    this.compiled.executable.dispose();
    this.eager.executable.dispose();
  }

  /** Finds for every traced node where its value lies on both sides; a value that one side never makes is not compared. */
  #pair(): void {
    const places = ({ graph }: LoadedGraph): ((node: Node) => readonly number[]) => {
      const position = new Map(graph.nodes.map((node, index) => [node, index]));
      return (node) => {
        const now = graph.became ? graph.became.get(node) : node;
        return now ? homes(now).flatMap((home) => position.get(home) ?? []) : [];
      };
    };
    const [inCompiled, inEager] = [places(this.compiled), places(this.eager)];
    const lastWriter = new Map<string, Node>();
    for (const node of this.traced.nodes) for (const { state, writes } of node.states) if (writes) lastWriter.set(state.name, node);
    for (const traced of this.traced.nodes) {
      const comparison = { traced, compiled: inCompiled(traced) };
      if (comparison.compiled.length === 0) continue;
      const [own] = inEager(traced);
      for (const at of inEager(traced)) this.#byValue.set(at, [...(this.#byValue.get(at) ?? []), comparison]);
      const states = [...lastWriter].filter(([, node]) => node === traced).map(([state]) => ({ state, comparison }));
      if (own !== undefined && states.length > 0) this.#byWrite.set(own, states);
    }
  }

  /** Runs `body` with two sets of States that hold what the request's hold now; frees them after it. */
  #withCopies<T>(
    { states }: RunRequest,
    body: (first: ReadonlyMap<string, StateBuffer>, second: ReadonlyMap<string, StateBuffer>) => T,
  ): T {
    const copies: StateBuffer[] = [];
    const copy = (): Map<string, StateBuffer> =>
      new Map(
        [...states].map(([name, buffer]) => {
          if (!this.#written.has(name)) return [name, buffer];
          const made = this.device.allocate(buffer.declaration, buffer.sizes);
          copies.push(made);
          made.write(buffer.read());
          return [name, made];
        }),
      );
    const free = (): void => copies.forEach((made) => made.free());
    let result: T;
    try {
      result = body(copy(), copy());
    } catch (error) {
      free();
      throw error;
    }
    if (result instanceof Promise) return result.finally(free) as T;
    free();
    return result;
  }

  #check(request: RunRequest, results: RunResult, first: ReadonlyMap<string, StateBuffer>, second: ReadonlyMap<string, StateBuffer>): void {
    const before = { ...this.counts };
    const { inputs, sizes, replay } = request;
    const record = this.#record({ inputs, sizes, replay, states: first });
    const expected = this.eager.executable.runWatched({ inputs, sizes, replay, states: second }, ({ nodes, stored }) => {
      for (const { node, read } of stored) this.#compareValue(node, read, record, request);
      for (const node of nodes)
        for (const { state, comparison } of this.#byWrite.get(node) ?? [])
          this.#compareState(state, comparison, record, second.get(state) as StateBuffer);
    });
    this.#compareRun(request, results, expected, second);
    this.counts.runs++;
    const compared = (field: "values" | "outputs" | "states" | "elements"): number => this.counts[field] - before[field];
    emitEvent({
      stream: "check",
      function: this.about.name,
      fields: {
        mode: this.about.mode,
        values: compared("values"),
        outputs: compared("outputs"),
        states: compared("states"),
        elements: compared("elements"),
      },
    });
  }

  /** The compiled program kernel by kernel, keeping what each one stores. */
  #record(request: RunRequest): Record {
    const stored = new Map<number, Stored>();
    const kernelOf = new Map<number, string>();
    this.compiled.executable.runWatched(request, (launch) => {
      for (const node of launch.nodes) kernelOf.set(node, launch.kernel);
      for (const { node, read } of launch.stored) stored.set(node, { bytes: read(), kernel: launch.kernel });
    });
    return { stored, kernelOf, states: request.states };
  }

  #compareValue(at: number, read: () => Uint8Array, { stored }: Record, { sizes }: RunRequest): void {
    const comparisons = this.#byValue.get(at) ?? [];
    for (const { traced, compiled } of comparisons) {
      const found = compiled.map((position) => stored.get(position)).find((value) => value !== undefined);
      if (!found) continue;
      this.counts.values++;
      const shape = traced.shape.map((dim) => evaluateDim(dim, sizes));
      this.#compare(arrayOf(traced.dtype, found.bytes), arrayOf(traced.dtype, read()), traced.dtype, shape, {
        label: nameOf(traced),
        what: `${nameOf(traced)} (op ${traced.op}, kernel ${found.kernel})`,
      });
      return;
    }
  }

  #compareState(state: string, { traced, compiled }: Comparison, { states, kernelOf }: Record, expected: StateBuffer): void {
    this.counts.states++;
    const kernel = compiled.map((position) => kernelOf.get(position)).find((name) => name !== undefined) ?? "unknown";
    const got = states.get(state) as StateBuffer;
    this.#compare(got.read(), expected.read(), got.declaration.dtype, got.shape, {
      label: nameOf(traced),
      what: `state ${state} after ${nameOf(traced)} (op ${traced.op}, kernel ${kernel})`,
    });
  }

  /** What the caller gets: outputs and States of the run itself, in its own replay. */
  #compareRun({ states, sizes }: RunRequest, results: RunResult, expected: RunResult, copies: ReadonlyMap<string, StateBuffer>): void {
    const only = "; each kernel by itself gave equal bits, so the way they were replayed together is at fault";
    for (const { name, node } of this.traced.outputs) {
      const [got, right] = [results.get(name), expected.get(name)] as [HostArray, HostArray];
      this.counts.outputs++;
      const shape = node.shape.map((dim) => evaluateDim(dim, sizes));
      this.#compare(got, right, node.dtype, shape, { label: nameOf(node), what: `output ${name}, ${nameOf(node)} (op ${node.op})${only}` });
    }
    for (const name of this.#written) {
      const [got, right] = [states.get(name), copies.get(name)] as [StateBuffer, StateBuffer];
      this.#compare(got.read(), right.read(), got.declaration.dtype, got.shape, {
        label: name,
        what: `state ${name} after the run${only}`,
      });
    }
  }

  #compare(
    got: HostArray,
    expected: HostArray,
    dtype: DType,
    shape: readonly number[],
    { label, what }: { readonly label: string; readonly what: string },
  ): void {
    this.counts.elements += expected.length;
    const index = firstDifference(got, expected);
    if (index < 0) return;
    const { name, mode } = this.about;
    const shown = (values: HostArray): string => (index < values.length ? `${values[index]} (${bitsOf(values, index)})` : "missing");
    throw new BitDifferenceError(
      `${name}: the bits of ${what} differ in mode ${mode}: element ${index} ${printIndex(index, shape)} of ${dtype}[${shape.join(", ")}] is ${shown(got)}, ` +
        `op by op it is ${shown(expected)}. This is the first difference; ${this.counts.values} values before it were equal. ` +
        `TEMPOGRAPH_DUMP=folder writes the text of every kernel.`,
      label,
    );
  }
}

const arrayOf = (dtype: DType, bytes: Uint8Array): HostArray =>
  viewAs(dtype, bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength / dtypes[dtype].bytes);

/** Index of the first element with other bits, -1 when there is none; NaNs are equal whatever their payload. */
function firstDifference(a: HostArray, b: HostArray): number {
  const length = Math.min(a.length, b.length);
  const raw = (values: HostArray): Buffer => Buffer.from(values.buffer, values.byteOffset, values.byteLength);
  if (a.length === b.length && raw(a).equals(raw(b))) return -1;
  for (let index = 0; index < length; index++) if (!Object.is(a[index], b[index])) return index;
  return a.length === b.length ? -1 : length;
}

/** Bits of one element in hexadecimal, the sign first. */
function bitsOf(values: HostArray, index: number): string {
  const size = values.BYTES_PER_ELEMENT;
  const bytes = Buffer.from(values.buffer, values.byteOffset + index * size, size);
  return `0x${Buffer.from(bytes).reverse().toString("hex")}`;
}

/** A flat index as one index per axis. */
function printIndex(index: number, shape: readonly number[]): string {
  let rest = index;
  const places = [...shape].reverse().map((extent) => {
    const at = extent > 0 ? rest % extent : 0;
    rest = extent > 0 ? Math.floor(rest / extent) : 0;
    return at;
  });
  return `[${places.reverse().join(", ")}]`;
}
