/**
 * The compiled function: finds the specialization whose guards hold, traces and compiles on a miss within the recompile limit and the stance, and replays.
 * Knows values and states only; the tensor layer supplies the class that traced code sees.
 */
import type { HostArray } from "../ir/dtype.js";
import { printGraph } from "../ir/graph.js";
import type { Device, Executable, Replay, RunRequest, RunResult } from "../runtime/device.js";
import {
  bindSizes,
  dimsOf,
  flattenArguments,
  guardFields,
  guardShape,
  leafArray,
  rebuildArguments,
  type Bounds,
  type GuardField,
  type Leaf,
} from "./arguments.js";
import { chainedCalls, type Chain } from "./chain.js";
import { hasSchedules } from "./autotune/executable.js";
import { CheckCounts, checkSetting, type CheckSetting } from "./check.js";
import { emitEvent } from "./events.js";
import { autotuned, Loader } from "./loader.js";
import type { Mode } from "./lower.js";
import { CompileCounters, sumOf, type CompileReport, type ScheduleReport, type SpecializationReport } from "./report.js";
import { buffersOf, CallPlan, sizesOf } from "./plan.js";
import { inOrder, isFree, mutableStates, refuseWhileRunning } from "./run-order.js";
import { Answers, collectOutputs, type MakeValue, type TracedOutputs } from "./outputs.js";
import { Specializations, type Call, type ReplayableSpecialization, type Service, type Specialization } from "./specialization.js";
import { currentStance, TraceError, type Stance } from "./stance.js";
import { State } from "./state.js";
import { currentTracer, Tracer, withTracer, type Segment } from "./tracer.js";
import { StaticValue, type Value, type Traced } from "./value.js";

export interface CompileOptions {
  readonly device: Device;
  readonly mode?: Mode;
  readonly name?: string;
  /** Sizes that are data, with their bounds; other named sizes are fixed per specialization. A value beyond its bounds widens them: one counted recompile. */
  readonly dynamic?: Readonly<Record<string, Bounds>>;
  /** Throw instead of breaking the graph. */
  readonly fullGraph?: boolean;
  /** Recompiles before a miss falls back to eager; 8 by default. */
  readonly recompileLimit?: number;
  /** Also return the values that traced code taps. */
  readonly taps?: boolean;
  /** "bits": also run everything op by op and throw at the first difference. Default: what TEMPOGRAPH_CHECK says, else "off". */
  readonly check?: CheckSetting | undefined;
  readonly signal?: AbortSignal;
  /** One op run outside a trace: every new shape is a compile of its own, neither counted as a recompile nor subject to the stance. */
  readonly dispatch?: boolean;
  /** A stance for this function alone, asked for at each call; undefined = the process-wide one. */
  readonly stance?: () => Stance | undefined;
}

/** Ends a trace that must not run anything. */
class StopTracing extends Error {}

const hasProgram = (specialization: Specialization): specialization is ReplayableSpecialization => specialization.replayable !== undefined;

const replayOf = (mode: Mode): Replay => (mode === "reduce-overhead" || mode === "max-autotune" ? "one-call" : "per-kernel");

/** Plans kept per function. */
const keptPlans = 4;

export class CompiledCore {
  readonly name: string;
  readonly mode: Mode;
  readonly counters = new CompileCounters();
  readonly #specializations: Specializations;
  readonly #pending = new Map<string, Promise<Specialization>>();
  readonly #segments = new Map<string, Executable>();
  readonly #loader: Loader;
  /** Traces with breaks whose last segment still has to run. */
  readonly #unfinished = new WeakMap<Call, TraceOutcome>();
  /** Executables with a run off the event loop that has not ended. */
  readonly #running = new Map<Executable, number>();
  #taps = new Map<string, Value>();
  /** Of the last calls, the latest first: rounds of different sizes take turns. */
  readonly #plans: CallPlan[] = [];
  #lastArguments: readonly unknown[] | undefined;
  #disposed = false;

  constructor(
    private readonly fn: (...args: never[]) => unknown,
    private readonly options: CompileOptions,
    private readonly make: MakeValue,
  ) {
    this.name = options.name ?? (fn.name || "anonymous");
    this.mode = options.mode ?? "default";
    const checked = !options.dispatch && (options.check ?? checkSetting()) === "bits" ? new CheckCounts() : undefined;
    this.#loader = new Loader(this.name, options.device, this.counters, checked);
    const policy = {
      name: this.name,
      mode: this.mode,
      recompileLimit: options.recompileLimit ?? 8,
      dispatch: options.dispatch ?? false,
      stance: () => this.#stance,
    };
    this.#specializations = new Specializations(policy, this.counters, new Map(Object.entries(options.dynamic ?? {})));
  }

  get #stance(): Stance {
    return this.options.stance?.() ?? currentStance();
  }

  /** Values tapped by the last call, by name. */
  get taps(): ReadonlyMap<string, Value> {
    return this.#taps;
  }

  /** Runs on the calling thread. Inside another function's trace its ops become part of that trace. */
  callSync(args: readonly unknown[]): unknown {
    const outer = currentTracer();
    if (outer) return this.#inline(outer, args);
    const repeated = this.#repeated(args);
    if (repeated) return this.#runPlanSync(repeated.plan, repeated.arrays);
    const call = this.#open(args, undefined, false);
    const specialization = this.#specializations.find(call) ?? this.#compileSync(call, this.#specializations.serviceOnMiss(call));
    if (!hasProgram(specialization)) return this.#runBroken(call, specialization);
    return this.#runPlanSync(this.#plan(call, specialization), [...call.arrays.values()]);
  }

  #runPlanSync(plan: CallPlan, arrays: readonly HostArray[]): unknown {
    const { executable } = plan.specialization.replayable;
    if (this.#running.has(executable)) {
      throw new Error(
        `${this.name} was called while a run of it is under way off the event loop; a blocking call cannot wait for that. Await the run first.`,
      );
    }
    refuseWhileRunning(this.name, plan.mutable);
    if (plan.replay === "one-call") this.counters.capturedCalls++;
    const request = plan.request(arrays, undefined, false);
    const tuned = autotuned(executable);
    if (tuned && !tuned.isReady(request)) this.#loader.timedSync("search", () => tuned.readySync(request));
    return this.#answer(plan.answers, executable.runSync(request));
  }

  async call(args: readonly unknown[], signal?: AbortSignal): Promise<unknown> {
    if (currentTracer())
      throw new TraceError(`${this.name}.run(...) was called inside traced code; call ${this.name}(...) there, which joins the trace`);
    const repeated = this.#repeated(args);
    if (repeated) {
      const { plan, arrays } = repeated;
      const isReadNow = isFree(plan.mutable) && plan.specialization.replayable.executable.readsAtOnce === true;
      return this.#runPlan(plan, plan.request(arrays, signal, !isReadNow));
    }
    const call = this.#open(args, signal, true);
    // Without waiting where nothing has to be compiled: runs on the same States follow each other in the order of the calls.
    const specialization = this.#specializations.find(call) ?? (await this.#specializationFor(call, true));
    if (!hasProgram(specialization)) return this.#runBroken(call, specialization);
    const plan = this.#plan(call, specialization);
    return this.#runPlan(plan, plan.request([...call.arrays.values()], signal, false));
  }

  /** Answers of the first calls of a chain, at least one: as many as go in one foreign call, when they repeat the last call in all but data. */
  async callChain(chain: Chain, signal?: AbortSignal): Promise<unknown[]> {
    const first = chain.argumentsOf(0);
    const [plan] = this.#plans;
    const alone = !plan || this.options.taps || this.#disposed || plan.stance !== this.#stance;
    const calls = alone ? undefined : chainedCalls(plan, plan.specialization.replayable.executable, chain, first, signal);
    if (!plan || !calls) return [await this.call(first, signal)];
    const { requests, links, last } = calls;
    this.counters.calls += requests.length;
    this.counters.capturedCalls += requests.length;
    this.#lastArguments = last;
    const results = await this.#whileRunning(plan, () => calls.run(requests, links));
    return results.map((result) => this.#answer(plan.answers, result));
  }

  async #runPlan(plan: CallPlan, request: RunRequest): Promise<unknown> {
    const { executable } = plan.specialization.replayable;
    if (plan.replay === "one-call") this.counters.capturedCalls++;
    const tuned = autotuned(executable);
    const ready = tuned && !tuned.isReady(request) ? () => this.#loader.timed("search", () => tuned.ready(request)) : undefined;
    return this.#answer(plan.answers, await this.#whileRunning(plan, () => executable.run(request), ready));
  }

  async #whileRunning<T>(plan: CallPlan, run: () => Promise<T>, ready?: () => Promise<unknown>): Promise<T> {
    const { executable } = plan.specialization.replayable;
    this.#running.set(executable, (this.#running.get(executable) ?? 0) + 1);
    try {
      if (ready) await ready();
      return await inOrder(plan.mutable, run);
    } finally {
      const left = (this.#running.get(executable) ?? 1) - 1;
      if (left > 0) this.#running.set(executable, left);
      else this.#running.delete(executable);
    }
  }

  /** An earlier call's plan with this call's arrays, when nothing but data differs. */
  #repeated(args: readonly unknown[]): { readonly plan: CallPlan; readonly arrays: readonly HostArray[] } | undefined {
    if (this.#disposed) return undefined;
    const stance = this.#stance;
    for (let index = 0; index < this.#plans.length; index++) {
      const plan = this.#plans[index] as CallPlan;
      const arrays = plan.stance === stance ? plan.pattern.arraysOf(args) : undefined;
      if (!arrays) continue;
      if (index > 0) this.#plans.unshift(...this.#plans.splice(index, 1));
      this.counters.calls++;
      this.#lastArguments = args;
      return { plan, arrays };
    }
    return undefined;
  }

  #plan(call: Call, specialization: ReplayableSpecialization): CallPlan {
    const plan = new CallPlan(call, specialization, replayOf(specialization.mode), this.#stance, this.make);
    this.#plans.unshift(plan);
    if (this.#plans.length > keptPlans) this.#plans.pop();
    return plan;
  }

  /** Compiles for these arguments without running them; a function with graph breaks is only found to have them. */
  async prepare(args: readonly unknown[]): Promise<void> {
    const call = this.#open(args, undefined, true);
    this.counters.calls--;
    const specialization = await this.#specializationFor(call, false);
    const tuned = hasProgram(specialization) && autotuned(specialization.replayable.executable);
    if (!tuned) return;
    const request = this.#plan(call, specialization).request([...call.arrays.values()], undefined, false);
    await this.#loader.timed("search", () => tuned.ready(request));
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
    const [plan] = this.#plans;
    const arrays = plan?.pattern.arraysOf(this.#lastArguments ?? []);
    if (!plan || !arrays) throw new Error(`${this.name} has not run yet as one program, so there is nothing to profile`);
    return plan.specialization.replayable.executable.profile(plan.request(arrays, undefined, false));
  }

  report(): CompileReport {
    const { counters } = this;
    const { checked } = this.#loader;
    const specializations = this.#specializations.all.map(({ key, executables, replayable }): SpecializationReport => {
      const { count: segments, ...sum } = sumOf(executables);
      const states = [...(replayable?.segment.states.values() ?? [])];
      const bytes = (kind: string): number =>
        states.reduce((total, { declaration, buffer }) => total + (declaration.kind === kind ? buffer.bytes : 0), 0);
      const nodes = replayable?.segment.graph.nodes.length ?? 0;
      const schedules = executables.flatMap((executable) => this.#schedulesOf(executable));
      const listed = states.map(({ name, shape, declaration: { kind, layout, dtype }, buffer: { bytes: size } }) => {
        return { name, kind, layout, dtype, shape, bytes: size };
      });
      const sizes = { constantBytes: bytes("constant"), mutableBytes: bytes("mutable") };
      return { key, segments, ...sum, nodes, ...sizes, states: listed, schedules };
    });
    const every = new Set([
      ...this.#specializations.all.flatMap((specialization) => specialization.executables),
      ...this.#segments.values(),
    ]);
    return {
      name: this.name,
      mode: this.mode,
      device: this.options.device.description,
      stance: this.#stance,
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
      ...(checked ? { check: { ...checked } } : {}),
    };
  }

  #schedulesOf(executable: Executable): readonly ScheduleReport[] {
    const tuned = autotuned(executable);
    if (tuned) return tuned.schedules;
    if (this.mode !== "max-autotune" || hasSchedules(this.options.device)) return [];
    const reason = `the ${this.options.device.name} device interprets the graph; it has no kernels to schedule`;
    return [{ shape: "any", source: "usual", reason, seconds: 0, candidates: 0, kernels: [] }];
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const { executables } of this.#specializations.all) for (const executable of executables) executable.dispose();
    for (const executable of this.#segments.values()) executable.dispose();
  }

  #open(args: readonly unknown[], signal: AbortSignal | undefined, copy: boolean): Call {
    if (this.#disposed) throw new Error(`${this.name} was disposed`);
    const leaves = flattenArguments(args);
    this.#checkStates(leaves);
    const sizes = bindSizes(leaves, this.name);
    const bounds = this.#specializations.boundsFor(sizes);
    const arrays = new Map<string, HostArray>();
    for (const leaf of leaves) {
      if (leaf.value instanceof State || leaf.value instanceof StaticValue) continue;
      arrays.set(leaf.path, copy ? leafArray(leaf).slice() : leafArray(leaf));
    }
    this.counters.calls++;
    let fields: readonly GuardField[] | undefined;
    this.#lastArguments = args;
    return {
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

  /** Keeps a finished specialization; throws when the function was disposed while it was compiled. */
  #remember(specialization: Specialization): Specialization {
    if (this.#disposed) {
      for (const executable of specialization.executables) executable.dispose();
      throw new Error(`${this.name} was disposed while it was compiled`);
    }
    this.#specializations.add(specialization);
    return specialization;
  }

  /** The specialization that serves a call. Concurrent calls with equal arguments share one compilation; each then checks the guards for itself. */
  async #specializationFor(call: Call, run: boolean): Promise<Specialization> {
    // Guards are written out on a miss only: most calls find their specialization.
    let key = "";
    for (;;) {
      const found = this.#specializations.find(call);
      if (found) return found;
      key ||= `${this.#stance} ${call.fields.map(({ path, text }) => `${path}: ${text}`).join("; ")}`;
      const pending = this.#pending.get(key);
      if (!pending) break;
      await pending;
    }
    const made = this.#compile(call, this.#specializations.serviceOnMiss(call), run)
      .then((specialization) => this.#remember(specialization))
      .finally(() => this.#pending.delete(key));
    this.#pending.set(key, made);
    return made;
  }

  async #compile(call: Call, service: Service, run: boolean): Promise<Specialization> {
    const traced = this.#trace(call, service.mode, run);
    const executable = traced.broken ? undefined : await this.#loader.load(traced.segment.graph, service.mode);
    return this.#specialization(call, service, traced, executable);
  }

  #compileSync(call: Call, service: Service): Specialization {
    const traced = this.#trace(call, service.mode, true);
    const executable = traced.broken ? undefined : this.#loader.loadSync(traced.segment.graph, service.mode);
    return this.#remember(this.#specialization(call, service, traced, executable));
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
    const results = this.#runSegment(traced.segment, call, specialization.mode);
    return this.#answer(new Answers(traced, call.sizes, this.make), results);
  }

  #runSegment(segment: Segment, call: Call, mode: Mode): RunResult {
    const text = `${mode}\n${printGraph(segment.graph)}`;
    let executable = this.#segments.get(text);
    if (!executable) {
      executable = this.#loader.loadSync(segment.graph, mode, "piece");
      this.#segments.set(text, executable);
    }
    refuseWhileRunning(this.name, mutableStates([...segment.states.values()]));
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

  #answer(answers: Answers, results: RunResult): unknown {
    this.#taps = answers.taps(results);
    return answers.value(results);
  }
}

interface TraceOutcome extends TracedOutputs {
  readonly tracer: Tracer;
  readonly segment: Segment;
  readonly broken: boolean;
  /** Ended at the first break, because nothing was to be run. */
  readonly stopped: boolean;
}

const passedStates = (call: Call, segment: Segment): ReadonlySet<string> =>
  new Set(call.leaves.flatMap(({ value }) => (value instanceof State && segment.states.get(value.name) === value ? [value.name] : [])));
