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
import { currentStance, RecompileError, TraceError } from "./stance.js";
import { State } from "./state.js";
import { currentTracer, Tracer, withTracer, type Segment } from "./tracer.js";
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
  /** One op run outside a trace: every new shape is a compile of its own, neither counted as a recompile nor subject to the stance. */
  readonly dispatch?: boolean;
}

export type MakeValue = (...parts: ConstructorParameters<typeof Value>) => Value;

/** How outputs are rebuilt: the returned structure with output numbers for values. */
type Structure = unknown;
class OutputNumber {
  constructor(readonly index: number) {}
}

/** Why a specialization exists: `forced` and `stance` ones serve only while a stance asks for eager, those of the limit from then on. */
type Origin = "compiled" | "limit" | "forced" | "stance";

interface Specialization {
  readonly key: string;
  readonly origin: Origin;
  readonly fields: readonly GuardField[];
  /** The guards again, in the form that is compared on every call, and the bounds they were made under. */
  readonly guards: readonly GuardShape[];
  readonly bounds: ReadonlyMap<string, Bounds>;
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
  /** States that came in as arguments, by name: a later call brings its own. */
  readonly passedStates: ReadonlySet<string>;
}

interface Call {
  readonly args: readonly unknown[];
  readonly leaves: readonly Leaf[];
  /** Arrays of the data leaves by path; copies when the call may outlive the caller's next statement. */
  readonly arrays: ReadonlyMap<string, HostArray>;
  readonly sizes: SizeBindings;
  /** Bounds that hold this call's sizes; they become the function's own when something is compiled for them. */
  readonly bounds: ReadonlyMap<string, Bounds>;
  /** Written out only when a specialization is missed. */
  readonly fields: readonly GuardField[];
  readonly signal: AbortSignal | undefined;
}

interface Service {
  readonly mode: Mode;
  readonly origin: Origin;
}

/** Ends a trace that must not run anything. */
class StopTracing extends Error {}

const replayOf = (mode: Mode): Replay => (mode === "reduce-overhead" || mode === "max-autotune" ? "one-call" : "per-kernel");

export class CompiledCore {
  readonly name: string;
  readonly mode: Mode;
  readonly counters = new CompileCounters();
  readonly #specializations: Specialization[] = [];
  readonly #pending = new Map<string, Promise<Specialization>>();
  readonly #segments = new Map<string, Executable>();
  /** Traces with breaks whose last segment still has to run. */
  readonly #unfinished = new WeakMap<Call, TraceOutcome>();
  /** Executables with a run off the event loop that has not ended. */
  readonly #running = new Map<Executable, number>();
  #bounds: ReadonlyMap<string, Bounds>;
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

  /** Runs on the calling thread. Inside another function's trace its ops become part of that trace. */
  callSync(args: readonly unknown[]): unknown {
    const outer = currentTracer();
    if (outer) return this.#inline(outer, args);
    const call = this.#open(args, undefined, false);
    const specialization = this.#find(call) ?? this.#compileSync(call, this.#serviceOnMiss(call));
    if (!specialization.replayable) return this.#runBroken(call, specialization);
    const { executable } = specialization.replayable;
    if (this.#running.has(executable)) {
      throw new Error(
        `${this.name} was called while a run of it is under way off the event loop; a blocking call cannot wait for that. Await the run first.`,
      );
    }
    return this.#answer(specialization, executable.runSync(this.#request(call, specialization)), call);
  }

  async call(args: readonly unknown[], signal?: AbortSignal): Promise<unknown> {
    if (currentTracer())
      throw new TraceError(`${this.name}.run(...) was called inside traced code; call ${this.name}(...) there, which joins the trace`);
    const call = this.#open(args, signal, true);
    const specialization = await this.#specializationFor(call, true);
    if (!specialization.replayable) return this.#runBroken(call, specialization);
    const { executable } = specialization.replayable;
    this.#running.set(executable, (this.#running.get(executable) ?? 0) + 1);
    try {
      return this.#answer(specialization, await executable.run(this.#request(call, specialization)), call);
    } finally {
      const left = (this.#running.get(executable) ?? 1) - 1;
      if (left > 0) this.#running.set(executable, left);
      else this.#running.delete(executable);
    }
  }

  /** Compiles for these arguments without running them; a function with graph breaks is only found to have them. */
  async prepare(args: readonly unknown[]): Promise<void> {
    const call = this.#open(args, undefined, true);
    this.counters.calls--;
    await this.#specializationFor(call, false);
  }

  /** The function's ops as part of a trace that is under way. A number is a constant there, as it is for any code being traced. */
  #inline(outer: Tracer, args: readonly unknown[]): unknown {
    if (this.#disposed) throw new Error(`${this.name} was disposed`);
    const given = rebuildArguments(args, ({ value }) => {
      if (value instanceof StaticValue) return value.value;
      if (typeof value !== "number") return value;
      return this.make({ kind: "traced", tracer: outer, node: outer.add("constant", [], { value, dtype: "f32" }, [], "") }, "f32");
    });
    return outer.labelled(this.name, () => (this.fn as (...inner: unknown[]) => unknown)(...given));
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

  #open(args: readonly unknown[], signal: AbortSignal | undefined, copy: boolean): Call {
    if (this.#disposed) throw new Error(`${this.name} was disposed`);
    const leaves = flattenArguments(args);
    this.#checkStates(leaves);
    const sizes = bindSizes(leaves, this.name);
    const bounds = widenedBounds(this.#bounds, sizes);
    const arrays = new Map<string, HostArray>();
    for (const leaf of leaves) {
      if (leaf.value instanceof State || leaf.value instanceof StaticValue) continue;
      arrays.set(leaf.path, copy ? leafArray(leaf).slice() : leafArray(leaf));
    }
    this.counters.calls++;
    let fields: readonly GuardField[] | undefined;
    this.#last = {
      args,
      leaves,
      arrays,
      sizes,
      bounds,
      signal,
      get fields() {
        return (fields ??= guardFields(leaves, bounds));
      },
    };
    return this.#last;
  }

  #checkStates(leaves: readonly Leaf[]): void {
    const byName = new Map<string, State>();
    for (const { value, path } of leaves) {
      if (!(value instanceof State)) continue;
      this.#checkDevice(value);
      const known = byName.get(value.name);
      if (known && known !== value)
        throw new TraceError(`${this.name}: ${path} is a second state called "${value.name}"; state names must be unique inside one call`);
      byName.set(value.name, value);
    }
  }

  #checkDevice(state: State): void {
    const { device } = this.options;
    if (state.device.name !== device.name)
      throw new TraceError(
        `${this.name} runs on the ${device.name} device, but the state "${state.name}" lies on the ${state.device.name} device`,
      );
  }

  #find(call: Call): Specialization | undefined {
    return this.#specializations.find(
      (specialization) =>
        this.#mayServe(specialization) &&
        guardsHold(specialization, call) &&
        [...specialization.sizeGuards].every(([name, guard]) => call.sizes[name] === guard.value),
    );
  }

  #mayServe({ mode, origin }: Specialization): boolean {
    if (this.options.dispatch) return true;
    const stance = currentStance();
    if (stance === "force_eager") return mode === "eager";
    return origin === "compiled" || origin === "limit" || (origin === "stance" && stance === "eager_on_recompile");
  }

  /** Counts the miss, says which field differed and who asked, and decides by stance and limit how it is served. */
  #serviceOnMiss(call: Call): Service {
    const compiled: Service = { mode: this.mode, origin: "compiled" };
    if (this.options.dispatch) return compiled;
    if (currentStance() === "force_eager") return { mode: "eager", origin: "forced" };
    const lasting = this.#specializations.filter(({ origin }) => origin === "compiled" || origin === "limit");
    const nearest = lasting[lasting.length - 1];
    if (!nearest) {
      this.#bounds = call.bounds;
      return compiled;
    }
    const record = this.#difference(call, nearest);
    const { guard, was, now, location } = record;
    const where = location ? { location } : {};
    if (currentStance() === "fail_on_recompile") {
      throw new RecompileError(
        `${this.name} would recompile: ${guard} failed (was ${was}, now ${now}${location ? `, ${location}` : ""}). The stance fail_on_recompile forbids that.`,
      );
    }
    const fallBack = (reason: string, origin: Origin): Service => {
      this.counters.fallbacks++;
      emitEvent({ stream: "fallback", function: this.name, ...where, fields: { reason, guard, was, now } });
      return { mode: "eager", origin };
    };
    if (currentStance() === "eager_on_recompile") return fallBack("stance eager_on_recompile", "stance");
    const limit = this.options.recompileLimit ?? 8;
    if (lasting.filter(({ origin }) => origin === "compiled").length > limit) {
      // Hit once; every later miss is a fallback of its own.
      if (!this.#limitHit)
        emitEvent({ stream: "recompile_limit", function: this.name, ...where, fields: { limit, last: guard, was, now } });
      this.#limitHit = true;
      return fallBack(`recompileLimit ${limit} reached; running eager`, "limit");
    }
    this.#bounds = call.bounds;
    this.counters.countRecompile(record);
    emitEvent({ stream: "recompiles", function: this.name, ...where, fields: { guard, was, now, count: this.counters.recompiles } });
    return compiled;
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

  /** Keeps a finished specialization; throws when the function was disposed while it was compiled. */
  #remember(specialization: Specialization): Specialization {
    if (this.#disposed) {
      for (const executable of specialization.executables) executable.dispose();
      throw new Error(`${this.name} was disposed while it was compiled`);
    }
    this.#specializations.push(specialization);
    return specialization;
  }

  /** The specialization that serves a call. Concurrent calls with equal arguments share one compilation; each then checks the guards for itself. */
  async #specializationFor(call: Call, run: boolean): Promise<Specialization> {
    const key = `${currentStance()} ${call.fields.map(({ path, text }) => `${path}: ${text}`).join("; ")}`;
    for (;;) {
      const found = this.#find(call);
      if (found) return found;
      const pending = this.#pending.get(key);
      if (!pending) break;
      await pending;
    }
    const made = this.#compile(call, this.#serviceOnMiss(call), run)
      .then((specialization) => this.#remember(specialization))
      .finally(() => this.#pending.delete(key));
    this.#pending.set(key, made);
    return made;
  }

  async #compile(call: Call, service: Service, run: boolean): Promise<Specialization> {
    const traced = this.#trace(call, service.mode, run);
    const executable = traced.broken
      ? undefined
      : await this.#timed("build", () => this.options.device.load(this.#lower(traced.segment, service.mode)));
    return this.#specialization(call, service, traced, executable);
  }

  #compileSync(call: Call, service: Service): Specialization {
    const traced = this.#trace(call, service.mode, true);
    const start = performance.now();
    const executable = traced.broken ? undefined : this.options.device.loadSync(this.#lower(traced.segment, service.mode));
    this.counters.milliseconds.build += performance.now() - start;
    return this.#remember(this.#specialization(call, service, traced, executable));
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

  #specialization(call: Call, { mode, origin }: Service, traced: TraceOutcome, executable: Executable | undefined): Specialization {
    this.counters.compiles++;
    const key = call.fields.map(({ path, text }) => `${path}: ${text}`).join("; ");
    emitEvent({ stream: "compiles", function: this.name, fields: { mode, key } });
    const { segment, structure, outputs, tapNames, taps } = traced;
    if (traced.broken && !traced.stopped) this.#unfinished.set(call, traced);
    return {
      key,
      origin,
      fields: call.fields,
      guards: call.leaves.map((leaf) => guardShape(leaf, call.bounds)),
      bounds: call.bounds,
      sizeGuards: traced.tracer.sizeGuards,
      mode,
      replayable: executable
        ? { executable, segment, structure, outputs, tapNames, taps, passedStates: passedStates(call, segment) }
        : undefined,
      executables: executable ? [executable] : [],
    };
  }

  /**
   * Runs the function once on traced arguments. With graph breaks the segments before the last run here; as states must not be written twice, a broken trace
   * is finished by its own call and only remembered as broken.
   */
  #trace(call: Call, mode: Mode, run: boolean): TraceOutcome {
    const start = performance.now();
    const tracer = new Tracer(
      {
        name: this.name,
        fullGraph: this.options.fullGraph ?? false,
        sizes: call.sizes,
        inputValue: (name) => (call.arrays.get(name) as HostArray).slice(),
        checkState: (state) => this.#checkDevice(state),
        runSegment: (segment) => this.#runSegment(segment, call, mode),
        onBreak: ({ reason, location, label }) => {
          if (!run) throw new StopTracing();
          const where = location ?? "unknown";
          this.counters.countBreak(where);
          emitEvent({ stream: "graph_breaks", function: this.name, ...(location ? { location } : {}), fields: { reason, value: label } });
        },
      },
      this.options.taps ?? false,
    );
    try {
      return this.#traceWith(tracer, call);
    } catch (error) {
      if (!(error instanceof StopTracing)) throw error;
      const { segment } = tracer.finish([]);
      return { tracer, segment, structure: undefined, outputs: [], tapNames: [], taps: [], broken: true, stopped: true };
    } finally {
      tracer.close();
      this.counters.milliseconds.trace += performance.now() - start;
    }
  }

  #traceWith(tracer: Tracer, call: Call): TraceOutcome {
    const inputs = new Map<string, Value>();
    for (const leaf of call.leaves) {
      if (leaf.value instanceof State || leaf.value instanceof StaticValue) continue;
      const dtype = typeof leaf.value === "number" ? "f32" : leaf.value.dtype;
      const axes = typeof leaf.value === "number" || leaf.value.content.kind !== "concrete" ? [] : leaf.value.content.axes;
      const node = tracer.input(leaf.path, dimsOf(axes, call.bounds), dtype);
      inputs.set(leaf.path, this.make({ kind: "traced", tracer, node }, dtype));
    }
    const traced = rebuildArguments(call.args, ({ path, value }) =>
      value instanceof State ? value : value instanceof StaticValue ? value.value : inputs.get(path),
    );
    const result = withTracer(tracer, () => (this.fn as (...args: unknown[]) => unknown)(...traced));
    if (result instanceof Promise) throw new TypeError(`${this.name} is async; a traced function must return its tensors directly`);
    const outputs: Value[] = [];
    const structure = collectOutputs(result, outputs, this.name, tracer);
    const { segment, tapNames } = tracer.finish(outputs.map((value) => (value.content as Traced).node));
    const taps = segment.graph.outputs.slice(outputs.length).map(({ node }) => this.make({ kind: "traced", tracer, node }, node.dtype));
    return { tracer, segment, structure, outputs, tapNames, taps, broken: tracer.segments > 1, stopped: false };
  }

  /** A call whose trace has breaks: traced anew each time, its segments taken from the cache. The trace that compiled it serves its own call. */
  #runBroken(call: Call, specialization: Specialization): unknown {
    const traced = this.#unfinished.get(call) ?? this.#trace(call, specialization.mode, true);
    this.#unfinished.delete(call);
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
    return new Map(segment.graph.inputs.map(({ name }) => [name, call.arrays.get(name) ?? (segment.carried.get(name) as HostArray)]));
  }

  #request(call: Call, specialization: Specialization): Parameters<Executable["run"]>[0] {
    const replayable = specialization.replayable as Replayable;
    const replay = replayOf(specialization.mode);
    if (replay === "one-call") this.counters.capturedCalls++;
    return {
      inputs: this.#inputs(call, replayable.segment),
      states: this.#statesOfCall(call, replayable),
      sizes: sizesOf(call, replayable.segment),
      replay,
      ...(call.signal ? { signal: call.signal } : {}),
    };
  }

  /** States passed as arguments replace the traced ones of the same name; captured states stay. */
  #statesOfCall(call: Call, { segment, passedStates }: Replayable): Map<string, State["buffer"]> {
    const states = statesOf(segment);
    for (const { value } of call.leaves) if (value instanceof State && passedStates.has(value.name)) states.set(value.name, value.buffer);
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
  /** Ended at the first break, because nothing was to be run. */
  readonly stopped: boolean;
}

/** Sizes of the call and of states the function captured instead of being given. */
function sizesOf(call: Call, { graph, states }: Segment): SizeBindings {
  let { sizes } = call;
  for (const state of states.values()) {
    for (const [name, value] of Object.entries(state.buffer.sizes)) {
      const known = sizes[name];
      if (known === undefined) sizes = { ...sizes, [name]: value };
      else if (known !== value && !call.leaves.some((leaf) => leaf.value instanceof State && leaf.value.name === state.name))
        throw new Error(
          `${graph.name}: size "${name}" is ${known} in this call but ${value} in the state ${state.name}; one name must have one value per call`,
        );
    }
  }
  return sizes;
}

function guardsHold({ guards, fields, bounds }: Specialization, call: Call): boolean {
  if (guards.length !== call.leaves.length) return false;
  if (bounds === call.bounds) return call.leaves.every((leaf, index) => sameGuard(guards[index] as GuardShape, leaf, bounds));
  return fields.every((field, index) => field.text === call.fields[index]?.text && field.path === call.fields[index].path);
}

/** Bounds that hold every size: one beyond them doubles them, so that growth costs few recompiles. The same map when all lie inside. */
function widenedBounds(bounds: ReadonlyMap<string, Bounds>, sizes: SizeBindings): ReadonlyMap<string, Bounds> {
  let widened: Map<string, Bounds> | undefined;
  for (const [name, value] of Object.entries(sizes)) {
    const known = bounds.get(name);
    if (!known || (value >= known[0] && value <= known[1])) continue;
    let high = Math.max(known[1], 1);
    while (high < value) high *= 2;
    widened ??= new Map(bounds);
    widened.set(name, [Math.min(known[0], value), high]);
  }
  return widened ?? bounds;
}

const passedStates = (call: Call, segment: Segment): ReadonlySet<string> =>
  new Set(call.leaves.flatMap(({ value }) => (value instanceof State && segment.states.get(value.name) === value ? [value.name] : [])));

const statesOf = (segment: Segment): Map<string, State["buffer"]> =>
  new Map([...segment.states].map(([name, state]) => [name, state.buffer]));

function collectOutputs(result: unknown, outputs: Value[], name: string, tracer: Tracer): Structure {
  if (result instanceof Value) {
    if (result.content.kind !== "traced" || result.content.tracer !== tracer)
      throw new TypeError(`${name} returns a tensor that its trace did not make; return traced values only`);
    outputs.push(result);
    return new OutputNumber(outputs.length - 1);
  }
  if (result === undefined || result === null) return result;
  if (Array.isArray(result)) return result.map((item) => collectOutputs(item, outputs, name, tracer));
  if (typeof result === "object" && Object.getPrototypeOf(result) === Object.prototype) {
    return Object.fromEntries(Object.entries(result).map(([key, item]) => [key, collectOutputs(item, outputs, name, tracer)]));
  }
  throw new TypeError(`${name} returns a ${typeof result}; compiled functions return tensors and plain objects or arrays of them`);
}
