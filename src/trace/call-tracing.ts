/**
 * Runs a function on traced arguments, and the segments of calls whose traces have breaks. Must not know guards, nor which specialization serves a call.
 */
import type { HostArray } from "../ir/dtype.js";
import { printGraph } from "../ir/graph.js";
import type { Executable, Replay, RunResult } from "../runtime/device.js";
import { dimsOf, rebuildArguments } from "./arguments.js";
import { emitEvent } from "./events.js";
import type { Loader } from "./loader.js";
import type { Mode } from "./lower.js";
import { Answers, collectOutputs, type MakeValue, type TracedOutputs } from "./outputs.js";
import { buffersOf, sizesOf } from "./plan.js";
import type { CompileCounters } from "./report.js";
import { mutableStates, refuseWhileRunning } from "./run-order.js";
import { compileTime } from "./compile-time.js";
import type { Call } from "./specialization.js";
import { State } from "./state.js";
import { Tracer, withTracer, type Segment } from "./tracer.js";
import { StaticValue, type Traced, type Value } from "./value.js";

/** What is traced, and how. */
export interface TracedFunction {
  readonly name: string;
  readonly fn: (...args: never[]) => unknown;
  readonly fullGraph: boolean;
  readonly taps: boolean;
  /** Throws when the function cannot use a state. */
  readonly checkState: (state: State) => void;
  readonly make: MakeValue;
}

export interface TraceOutcome extends TracedOutputs {
  readonly tracer: Tracer;
  readonly segment: Segment;
  readonly broken: boolean;
  /** Ended at the first break, because nothing was to be run. */
  readonly stopped: boolean;
}

/** Ends a trace that must not run anything. */
class StopTracing extends Error {}

export const replayOf = (mode: Mode): Replay => (mode === "reduce-overhead" || mode === "max-autotune" ? "one-call" : "per-kernel");

export class CallTracing {
  readonly #segments = new Map<string, Executable>();
  readonly #unfinished = new WeakMap<Call, TraceOutcome>();

  constructor(
    private readonly traced: TracedFunction,
    private readonly loader: Loader,
    private readonly counters: CompileCounters,
  ) {}

  /** Programs of segments; the owner disposes of them. */
  get executables(): readonly Executable[] {
    return [...this.#segments.values()];
  }

  /**
   * Runs the function once on traced arguments. With graph breaks the segments before the last run here; as states must not be written twice, a broken trace
   * is finished by its own call and only remembered as broken.
   */
  trace(call: Call, mode: Mode, run: boolean): TraceOutcome {
    const { name, fullGraph, taps, checkState } = this.traced;
    const end = compileTime.begin();
    const tracer = new Tracer(
      {
        name,
        fullGraph,
        sizes: call.sizes,
        inputValue: (path) => (call.arrays.get(path) as HostArray).slice(),
        checkState,
        runSegment: (segment) => this.#runSegment(segment, call, mode),
        onBreak: ({ reason, location, label }) => {
          if (!run) throw new StopTracing();
          const where = location ?? "unknown";
          this.counters.countBreak(where);
          emitEvent({ stream: "graph_breaks", function: name, ...(location ? { location } : {}), fields: { reason, value: label } });
        },
      },
      taps,
    );
    try {
      return this.#run(tracer, call);
    } catch (error) {
      if (!(error instanceof StopTracing)) throw error;
      const { segment } = tracer.finish([]);
      return { tracer, segment, structure: undefined, outputs: [], tapNames: [], taps: [], broken: true, stopped: true };
    } finally {
      tracer.close();
      this.counters.milliseconds.trace += end();
    }
  }

  #run(tracer: Tracer, call: Call): TraceOutcome {
    const { name, fn, make } = this.traced;
    const inputs = new Map<string, Value>();
    for (const leaf of call.leaves) {
      if (leaf.value instanceof State || leaf.value instanceof StaticValue) continue;
      const dtype = typeof leaf.value === "number" ? "f32" : leaf.value.dtype;
      const axes = typeof leaf.value === "number" || leaf.value.content.kind !== "concrete" ? [] : leaf.value.content.axes;
      const node = tracer.input(leaf.path, dimsOf(axes, call.bounds), dtype);
      inputs.set(leaf.path, make({ kind: "traced", tracer, node }, dtype));
    }
    const traced = rebuildArguments(call.args, ({ path, value }) =>
      value instanceof State ? value : value instanceof StaticValue ? value.value : inputs.get(path),
    );
    const result = withTracer(tracer, () => (fn as (...args: unknown[]) => unknown)(...traced));
    if (result instanceof Promise) throw new TypeError(`${name} is async; a traced function must return its tensors directly`);
    const outputs: Value[] = [];
    const structure = collectOutputs(result, outputs, name, tracer);
    const { segment, tapNames } = tracer.finish(outputs.map((value) => (value.content as Traced).node));
    const taps = segment.graph.outputs.slice(outputs.length).map(({ node }) => make({ kind: "traced", tracer, node }, node.dtype));
    return { tracer, segment, structure, outputs, tapNames, taps, broken: tracer.segments > 1, stopped: false };
  }

  /** A trace with breaks whose last segment still has to run: the call that it was compiled for runs it. */
  keepUnfinished(call: Call, traced: TraceOutcome): void {
    this.#unfinished.set(call, traced);
  }

  /** A call whose trace has breaks: traced anew each time, its segments taken from the cache. The trace that compiled it serves its own call. */
  runBroken(call: Call, mode: Mode): { readonly answers: Answers; readonly results: RunResult } {
    const traced = this.#unfinished.get(call) ?? this.trace(call, mode, true);
    this.#unfinished.delete(call);
    const results = this.#runSegment(traced.segment, call, mode);
    return { answers: new Answers(traced, call.sizes, this.traced.make), results };
  }

  #runSegment(segment: Segment, call: Call, mode: Mode): RunResult {
    const text = `${mode}\n${printGraph(segment.graph)}`;
    let executable = this.#segments.get(text);
    if (!executable) {
      executable = this.loader.loadSync(segment.graph, mode, "piece");
      this.#segments.set(text, executable);
    }
    refuseWhileRunning(this.traced.name, mutableStates([...segment.states.values()]));
    return executable.runSync({
      inputs: this.#inputs(call, segment),
      states: buffersOf(segment.states.values()),
      sizes: sizesOf(call, segment),
      replay: replayOf(mode),
      ...(call.signal ? { signal: call.signal } : {}),
    });
  }

  #inputs(call: Call, segment: Segment): Map<string, HostArray> {
    return new Map(segment.graph.inputs.map(({ name }) => [name, call.arrays.get(name) ?? (segment.carried.get(name) as HostArray)]));
  }
}
