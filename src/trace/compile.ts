/**
 * The compiled function: finds the specialization whose guards hold, traces and compiles on a miss within the recompile limit and the stance, and replays.
 * Knows values and states only; the tensor layer supplies the class that traced code sees.
 */
import type { HostArray } from "../ir/dtype.js";
import { evaluateDim, type SizeBindings } from "../ir/dim.js";
import { printGraph } from "../ir/graph.js";
import type { Device, Executable, Replay, RunResult } from "../runtime/device.js";
import {
  bindSizes,
  dimsOf,
  flattenArguments,
  guardFields,
  guardShape,
  sameGuard,
  leafArray,
  rebuildArguments,
  type Bounds,
  type GuardField,
  type GuardShape,
  type Leaf,
} from "./arguments.js";
import { callerLocation, emitEvent } from "./events.js";
import { lowerGraph, type Mode } from "./lower.js";
import { CompileCounters, sumOf, type CompileReport, type RecompileRecord, type SpecializationReport } from "./report.js";
import { currentStance, RecompileError } from "./stance.js";
import { State } from "./state.js";
import { Tracer, withTracer, type Segment } from "./tracer.js";
import { concreteContent, StaticValue, Value, type Traced } from "./value.js";

export interface CompileOptions {
  readonly device: Device;
  readonly mode?: Mode;
  readonly name?: string;
  /** Sizes that are data, with their bounds; other named sizes are fixed per specialization. A value beyond its bounds widens them: one counted recompile. */
  readonly dynamic?: Readonly<Record<string, Bounds>>;
  /** Throw instead of breaking the graph. */
  readonly fullGraph?: boolean;
  /** Specializations before a miss falls back to eager. */
  readonly recompileLimit?: number;
  /** Also return the values that traced code taps. */
  readonly taps?: boolean;
  readonly signal?: AbortSignal;
}

export type MakeValue = (...parts: ConstructorParameters<typeof Value>) => Value;

/** How outputs are rebuilt: the returned structure with output numbers for values. */
type Structure = unknown;
class OutputNumber {
  constructor(readonly index: number) {}
}

interface Specialization {
  readonly key: string;
  readonly fields: readonly GuardField[];
  /** The guards again, in the form that is compared on every call, and the bounds they were made under. */
  readonly guards: readonly GuardShape[];
  readonly boundsVersion: number;
  readonly sizeGuards: ReadonlyMap<string, { readonly value: number; readonly location: string | undefined }>;
  /** A replayable program, or undefined when graph breaks mean retracing each call. */
  readonly replayable: Replayable | undefined;
  /** The mode it really runs in: eager after a fallback. */
  readonly mode: Mode;
  readonly executables: Executable[];
}

interface Replayable {
  readonly executable: Executable;
  readonly segment: Segment;
  readonly structure: Structure;
  readonly outputs: readonly Value[];
  readonly tapNames: readonly string[];
  readonly taps: readonly Value[];
}

interface Call {
  readonly args: readonly unknown[];
  readonly leaves: readonly Leaf[];
  readonly sizes: SizeBindings;
  /** Written out only when a specialization is missed. */
  readonly fields: readonly GuardField[];
  readonly signal: AbortSignal | undefined;
}

const replayOf = (mode: Mode): Replay => (mode === "reduce-overhead" || mode === "max-autotune" ? "one-call" : "per-kernel");

export class CompiledCore {
  readonly name: string;
  readonly mode: Mode;
  readonly counters = new CompileCounters();
  readonly #specializations: Specialization[] = [];
  readonly #pending = new Map<string, Promise<Specialization>>();
  readonly #segments = new Map<string, Executable>();
  /** Traces with breaks whose last segment still has to run. */
  readonly #unfinished = new Map<Specialization, TraceOutcome>();
  readonly #bounds: Map<string, Bounds>;
  #boundsVersion = 0;
  #taps = new Map<string, Value>();
  #last: Call | undefined;
  #disposed = false;
  #limitHit = false;

  constructor(
    private readonly fn: (...args: never[]) => unknown,
    private readonly options: CompileOptions,
    private readonly make: MakeValue,
  ) {
    this.name = options.name ?? (fn.name || "anonymous");
    this.mode = options.mode ?? "default";
    this.#bounds = new Map(Object.entries(options.dynamic ?? {}));
  }

  /** Values tapped by the last call, by name. */
  get taps(): ReadonlyMap<string, Value> {
    return this.#taps;
  }

  callSync(args: readonly unknown[]): unknown {
    const call = this.#open(args, undefined);
    const found = this.#find(call);
    const specialization = found ?? this.#remember(this.#compileSync(call, this.#modeOnMiss(call)));
    if (!specialization.replayable) return this.#runBroken(call, specialization);
    const { executable } = specialization.replayable;
    return this.#answer(specialization, executable.runSync(this.#request(call, specialization)), call);
  }

  async call(args: readonly unknown[], signal?: AbortSignal): Promise<unknown> {
    const call = this.#open(args, signal);
    const specialization = this.#find(call) ?? (await this.#compileShared(call));
    if (!specialization.replayable) return this.#runBroken(call, specialization);
    const { executable } = specialization.replayable;
    return this.#answer(specialization, await executable.run(this.#request(call, specialization)), call);
  }

  /** Compiles for these arguments without running them. */
  async prepare(args: readonly unknown[]): Promise<void> {
    const call = this.#open(args, undefined);
    this.counters.calls--;
    if (!this.#find(call)) await this.#compileShared(call);
  }

  /** Runs the last call again with the profiler on: time per launch. State writes happen again, so only a measurement should follow. */
  profileLast(): ReturnType<Executable["profile"]> {
    const call = this.#last;
    const specialization = call ? this.#find(call) : undefined;
    if (!call || !specialization?.replayable)
      throw new Error(`${this.name} has not run yet as one program, so there is nothing to profile`);
    return specialization.replayable.executable.profile(this.#request(call, specialization));
  }

  report(): CompileReport {
    const { counters } = this;
    const specializations = this.#specializations.map(({ key, executables, replayable }): SpecializationReport => {
      const { count: segments, ...sum } = sumOf(executables);
      const states = [...(replayable?.segment.states.values() ?? [])];
      const bytes = (kind: string): number =>
        states.reduce((total, { declaration, buffer }) => total + (declaration.kind === kind ? buffer.bytes : 0), 0);
      const nodes = replayable?.segment.graph.nodes.length ?? 0;
      return { key, segments, ...sum, nodes, constantBytes: bytes("constant"), mutableBytes: bytes("mutable") };
    });
    const every = new Set([...this.#specializations.flatMap((specialization) => specialization.executables), ...this.#segments.values()]);
    return {
      name: this.name,
      mode: this.mode,
      device: this.options.device.description,
      stance: currentStance(),
      calls: counters.calls,
      compiles: counters.compiles,
      recompiles: counters.recompiles,
      recompilesByGuard: { ...counters.recompilesByGuard },
      graphBreaks: counters.graphBreaks,
      breaksByLocation: { ...counters.breaksByLocation },
      fallbacks: counters.fallbacks,
      capturedCalls: counters.capturedCalls,
      foreignCalls: [...every].reduce((sum, executable) => sum + executable.counters.foreignCalls, 0),
      waits: [...every].reduce((sum, executable) => sum + executable.counters.waits, 0),
      milliseconds: { ...counters.milliseconds },
      specializations,
      brokenSegments: sumOf([...this.#segments.values()]),
    };
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const { executables } of this.#specializations) for (const executable of executables) executable.dispose();
    for (const executable of this.#segments.values()) executable.dispose();
  }

  #open(args: readonly unknown[], signal: AbortSignal | undefined): Call {
    if (this.#disposed) throw new Error(`${this.name} was disposed`);
    const leaves = flattenArguments(args);
    const sizes = bindSizes(leaves, this.name);
    this.#widenBounds(sizes);
    this.counters.calls++;
    const bounds = this.#bounds;
    let fields: readonly GuardField[] | undefined;
    this.#last = {
      args,
      leaves,
      sizes,
      signal,
      get fields() {
        return (fields ??= guardFields(leaves, bounds));
      },
    };
    return this.#last;
  }

  /** A size beyond its bounds doubles them, so that growth costs few recompiles. */
  #widenBounds(sizes: SizeBindings): void {
    for (const [name, value] of Object.entries(sizes)) {
      const bounds = this.#bounds.get(name);
      if (!bounds || (value >= bounds[0] && value <= bounds[1])) continue;
      let high = Math.max(bounds[1], 1);
      while (high < value) high *= 2;
      this.#bounds.set(name, [Math.min(bounds[0], value), high]);
      this.#boundsVersion++;
    }
  }

  #find(call: Call): Specialization | undefined {
    return this.#specializations.find(
      (specialization) =>
        this.#guardsHold(specialization, call) && [...specialization.sizeGuards].every(([name, guard]) => call.sizes[name] === guard.value),
    );
  }

  #guardsHold({ guards, fields, boundsVersion }: Specialization, call: Call): boolean {
    if (guards.length !== call.leaves.length) return false;
    if (boundsVersion === this.#boundsVersion)
      return call.leaves.every((leaf, index) => sameGuard(guards[index] as GuardShape, leaf, this.#bounds));
    return fields.every((field, index) => field.text === call.fields[index]?.text && field.path === call.fields[index].path);
  }

  /** Counts the miss, says which field differed and who asked, and decides by stance and limit how it is served. */
  #modeOnMiss(call: Call): Mode {
    if (currentStance() === "force_eager") return "eager";
    const nearest = this.#specializations[this.#specializations.length - 1];
    if (!nearest) return this.mode;
    const record = this.#difference(call, nearest);
    const limit = this.options.recompileLimit ?? 8;
    if (currentStance() === "fail_on_recompile") {
      throw new RecompileError(
        `${this.name} would recompile: ${record.guard} failed (was ${record.was}, now ${record.now}${record.location ? `, ${record.location}` : ""}). The stance fail_on_recompile forbids that.`,
      );
    }
    const { location } = record;
    const described = { guard: record.guard, was: record.was, now: record.now };
    if (this.#specializations.filter((specialization) => specialization.mode !== "eager").length > limit) {
      this.counters.fallbacks++;
      // Hit once; every later miss is a fallback of its own.
      if (!this.#limitHit) {
        emitEvent({
          stream: "recompile_limit",
          function: this.name,
          ...(location ? { location } : {}),
          fields: { limit, last: record.guard, was: record.was, now: record.now },
        });
      }
      this.#limitHit = true;
      emitEvent({
        stream: "fallback",
        function: this.name,
        fields: { reason: `recompileLimit ${limit} reached; running eager`, guard: record.guard },
      });
      return "eager";
    }
    this.counters.countRecompile(record);
    emitEvent({
      stream: "recompiles",
      function: this.name,
      ...(location ? { location } : {}),
      fields: { ...described, count: this.counters.recompiles },
    });
    if (currentStance() === "eager_on_recompile") {
      this.counters.fallbacks++;
      emitEvent({ stream: "fallback", function: this.name, fields: { reason: "stance eager_on_recompile", guard: record.guard } });
      return "eager";
    }
    return this.mode;
  }

  #difference(call: Call, nearest: Specialization): RecompileRecord {
    for (const [index, field] of call.fields.entries()) {
      const before = nearest.fields[index];
      if (before && before.text !== field.text) {
        return { guard: `${field.path} ${before.text}`, was: before.text, now: field.text, location: callerLocation() };
      }
    }
    for (const [name, guard] of nearest.sizeGuards) {
      if (call.sizes[name] !== guard.value)
        return {
          guard: `size ${name} == ${guard.value}`,
          was: String(guard.value),
          now: String(call.sizes[name]),
          location: guard.location,
        };
    }
    return {
      guard: "number of arguments",
      was: String(nearest.fields.length),
      now: String(call.fields.length),
      location: callerLocation(),
    };
  }

  #remember(specialization: Specialization): Specialization {
    this.#specializations.push(specialization);
    return specialization;
  }

  /** Concurrent calls with equal arguments share one compilation. */
  #compileShared(call: Call): Promise<Specialization> {
    const key = call.fields.map(({ path, text }) => `${path}: ${text}`).join("; ");
    const pending = this.#pending.get(key);
    if (pending) return pending;
    const made = this.#compile(call, this.#modeOnMiss(call))
      .then((specialization) => this.#remember(specialization))
      .finally(() => this.#pending.delete(key));
    this.#pending.set(key, made);
    return made;
  }

  async #compile(call: Call, mode: Mode): Promise<Specialization> {
    const traced = this.#trace(call, mode);
    const executable = traced.broken
      ? undefined
      : await this.#timed("build", () => this.options.device.load(this.#lower(traced.segment, mode)));
    return this.#specialization(call, mode, traced, executable);
  }

  #compileSync(call: Call, mode: Mode): Specialization {
    const traced = this.#trace(call, mode);
    const start = performance.now();
    const executable = traced.broken ? undefined : this.options.device.loadSync(this.#lower(traced.segment, mode));
    this.counters.milliseconds.build += performance.now() - start;
    return this.#specialization(call, mode, traced, executable);
  }

  async #timed<T>(stage: "build", body: () => Promise<T>): Promise<T> {
    const start = performance.now();
    try {
      return await body();
    } finally {
      this.counters.milliseconds[stage] += performance.now() - start;
    }
  }

  #lower(segment: Segment, mode: Mode): ReturnType<typeof lowerGraph> {
    const start = performance.now();
    try {
      return lowerGraph(segment.graph, this.options.device, mode);
    } finally {
      this.counters.milliseconds.lower += performance.now() - start;
    }
  }

  #specialization(call: Call, mode: Mode, traced: TraceOutcome, executable: Executable | undefined): Specialization {
    this.counters.compiles++;
    const key = call.fields.map(({ path, text }) => `${path}: ${text}`).join("; ");
    emitEvent({ stream: "compiles", function: this.name, fields: { mode, key } });
    const specialization: Specialization = {
      key,
      fields: call.fields,
      guards: call.leaves.map((leaf) => guardShape(leaf, this.#bounds)),
      boundsVersion: this.#boundsVersion,
      sizeGuards: traced.tracer.sizeGuards,
      mode,
      replayable: executable
        ? {
            executable,
            segment: traced.segment,
            structure: traced.structure,
            outputs: traced.outputs,
            tapNames: traced.tapNames,
            taps: traced.taps,
          }
        : undefined,
      executables: executable ? [executable] : [],
    };
    if (traced.broken) this.#unfinished.set(specialization, traced);
    return specialization;
  }

  /**
   * Runs the function once on traced arguments. With graph breaks the segments before the last run here; as states must not be written twice, a broken trace
   * is finished by its own call and only remembered as broken.
   */
  #trace(call: Call, mode: Mode): TraceOutcome {
    const start = performance.now();
    const tracer = new Tracer(
      {
        name: this.name,
        fullGraph: this.options.fullGraph ?? false,
        sizes: call.sizes,
        runSegment: (segment) => this.#runSegment(segment, call, mode),
        onBreak: ({ reason, location, label }) => {
          const where = location ?? "unknown";
          this.counters.countBreak(where);
          emitEvent({ stream: "graph_breaks", function: this.name, ...(location ? { location } : {}), fields: { reason, value: label } });
        },
      },
      this.options.taps ?? false,
    );
    const inputs = new Map<string, Value>();
    for (const leaf of call.leaves) {
      if (leaf.value instanceof State || leaf.value instanceof StaticValue) continue;
      const dtype = typeof leaf.value === "number" ? "f32" : leaf.value.dtype;
      const axes = typeof leaf.value === "number" || leaf.value.content.kind !== "concrete" ? [] : leaf.value.content.axes;
      const node = tracer.input(leaf.path, dimsOf(axes, this.#bounds), dtype);
      inputs.set(leaf.path, this.make({ kind: "traced", tracer, node }, dtype));
    }
    const traced = rebuildArguments(call.args, ({ path, value }) =>
      value instanceof State ? value : value instanceof StaticValue ? value.value : inputs.get(path),
    );
    const result = withTracer(tracer, () => (this.fn as (...args: unknown[]) => unknown)(...traced));
    if (result instanceof Promise) throw new TypeError(`${this.name} is async; a traced function must return its tensors directly`);
    const outputs: Value[] = [];
    const structure = collectOutputs(result, outputs, this.name);
    const finished = tracer.finish(outputs.map((value) => (value.content as Traced).node));
    const taps = finished.segment.graph.outputs
      .slice(outputs.length)
      .map(({ node }) => this.make({ kind: "traced", tracer, node }, node.dtype));
    this.counters.milliseconds.trace += performance.now() - start;
    return { tracer, segment: finished.segment, structure, outputs, tapNames: finished.tapNames, taps, broken: tracer.segments > 1 };
  }

  /** A call whose trace has breaks: traced anew each time, its segments taken from the cache. The trace that compiled it serves the first call. */
  #runBroken(call: Call, specialization: Specialization): unknown {
    const traced = this.#unfinished.get(specialization) ?? this.#trace(call, specialization.mode);
    this.#unfinished.delete(specialization);
    return this.#rebuild(traced, this.#runSegment(traced.segment, call, specialization.mode), call);
  }

  #runSegment(segment: Segment, call: Call, mode: Mode): RunResult {
    const text = `${mode}\n${printGraph(segment.graph)}`;
    let executable = this.#segments.get(text);
    if (!executable) {
      executable = this.options.device.loadSync(this.#lower(segment, mode));
      this.#segments.set(text, executable);
    }
    return executable.runSync({
      inputs: this.#inputs(call, segment),
      states: statesOf(segment),
      sizes: sizesOf(call, segment),
      replay: replayOf(mode),
      ...(call.signal ? { signal: call.signal } : {}),
    });
  }

  #inputs(call: Call, segment: Segment): Map<string, HostArray> {
    const byPath = new Map(call.leaves.map((leaf) => [leaf.path, leaf]));
    return new Map(
      segment.graph.inputs.map(({ name }) => {
        const leaf = byPath.get(name);
        return [name, leaf ? leafArray(leaf) : (segment.carried.get(name) as HostArray)];
      }),
    );
  }

  #request(call: Call, specialization: Specialization): Parameters<Executable["run"]>[0] {
    const { segment } = specialization.replayable as Replayable;
    const replay = replayOf(specialization.mode);
    if (replay === "one-call") this.counters.capturedCalls++;
    return {
      inputs: this.#inputs(call, segment),
      states: this.#statesOfCall(call, segment),
      sizes: sizesOf(call, segment),
      replay,
      ...(call.signal ? { signal: call.signal } : {}),
    };
  }

  /** States passed as arguments replace the traced ones of the same name; captured states stay. */
  #statesOfCall(call: Call, segment: Segment): Map<string, State["buffer"]> {
    const states = statesOf(segment);
    for (const { value } of call.leaves) if (value instanceof State && states.has(value.name)) states.set(value.name, value.buffer);
    return states;
  }

  #answer(specialization: Specialization, results: RunResult, call: Call): unknown {
    return this.#rebuild(specialization.replayable as Replayable, results, call);
  }

  #rebuild(traced: Pick<Replayable, "structure" | "outputs" | "tapNames" | "taps">, results: RunResult, { sizes }: Call): unknown {
    const concrete = (value: Value, name: string): Value =>
      this.make(
        concreteContent(
          results.get(name) as HostArray,
          value.shape.map((dim) => evaluateDim(dim, sizes)),
        ),
        value.dtype,
      );
    this.#taps = new Map(traced.taps.map((value, index) => [traced.tapNames[index] as string, concrete(value, `tap${index}`)]));
    const values = traced.outputs.map((value, index) => concrete(value, `out${index}`));
    const restore = (part: Structure): unknown => {
      if (part instanceof OutputNumber) return values[part.index];
      if (Array.isArray(part)) return part.map(restore);
      if (part && typeof part === "object") return Object.fromEntries(Object.entries(part).map(([key, item]) => [key, restore(item)]));
      return part;
    };
    return restore(traced.structure);
  }
}

interface TraceOutcome {
  readonly tracer: Tracer;
  readonly segment: Segment;
  readonly structure: Structure;
  readonly outputs: readonly Value[];
  readonly tapNames: readonly string[];
  readonly taps: readonly Value[];
  readonly broken: boolean;
}

/** Sizes of the call and of states the function captured instead of being given. */
function sizesOf(call: Call, segment: Segment): SizeBindings {
  let sizes = call.sizes;
  for (const state of segment.states.values()) {
    for (const [name, value] of Object.entries(state.buffer.sizes)) if (!(name in sizes)) sizes = { ...sizes, [name]: value };
  }
  return sizes;
}

const statesOf = (segment: Segment): Map<string, State["buffer"]> =>
  new Map([...segment.states].map(([name, state]) => [name, state.buffer]));

function collectOutputs(result: unknown, outputs: Value[], name: string): Structure {
  if (result instanceof Value) {
    if (result.content.kind !== "traced")
      throw new TypeError(`${name} returns a tensor that its trace did not make; return traced values only`);
    outputs.push(result);
    return new OutputNumber(outputs.length - 1);
  }
  if (result === undefined || result === null) return result;
  if (Array.isArray(result)) return result.map((item) => collectOutputs(item, outputs, name));
  if (typeof result === "object" && Object.getPrototypeOf(result) === Object.prototype) {
    return Object.fromEntries(Object.entries(result).map(([key, item]) => [key, collectOutputs(item, outputs, name)]));
  }
  throw new TypeError(`${name} returns a ${typeof result}; compiled functions return tensors and plain objects or arrays of them`);
}
