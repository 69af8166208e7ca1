/**
 * The compiled function: finds the specialization whose guards hold, traces and compiles on a miss within the recompile limit and the stance, and replays.
 * Knows values and states only; the tensor layer supplies the class that traced code sees.
 */
import type { HostArray } from "../ir/dtype.js";
import type { Device, Executable, RunRequest, RunResult } from "../runtime/device.js";
import {
  bindSizes,
  flattenArguments,
  guardFields,
  guardShape,
  leafArray,
  rebuildArguments,
  type Bounds,
  type GuardField,
  type Leaf,
} from "./arguments.js";
import { CallTracing, replayOf, type TraceOutcome } from "./call-tracing.js";
import { chainedCalls, type Chain } from "./chain.js";
import { CheckCounts, checkSetting, type CheckSetting } from "./check.js";
import { emitEvent } from "./events.js";
import { autotuned, Loader } from "./loader.js";
import type { Mode } from "./lower.js";
import { CompileCounters, sumOf, type CompileReport } from "./report.js";
import { specializationReport } from "./specialization-report.js";
import { CallPlan } from "./plan.js";
import { inOrder, isFree, refuseWhileRunning } from "./run-order.js";
import type { Answers, MakeValue } from "./outputs.js";
import { Specializations, type Call, type ReplayableSpecialization, type Service, type Specialization } from "./specialization.js";
import { currentStance, TraceError, type Stance } from "./stance.js";
import { State } from "./state.js";
import { currentTracer, type Tracer, type Segment } from "./tracer.js";
import { StaticValue, type Value } from "./value.js";

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

const hasProgram = (specialization: Specialization): specialization is ReplayableSpecialization => specialization.replayable !== undefined;

/** Plans kept per function. */
const keptPlans = 4;

export class CompiledCore {
  readonly name: string;
  readonly mode: Mode;
  readonly counters = new CompileCounters();
  readonly #specializations: Specializations;
  readonly #pending = new Map<string, Promise<Specialization>>();
  readonly #loader: Loader;
  readonly #tracing: CallTracing;
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
    this.#tracing = new CallTracing(
      {
        name: this.name,
        fn,
        fullGraph: options.fullGraph ?? false,
        taps: options.taps ?? false,
        checkState: (state) => this.#checkDevice(state),
        make,
      },
      this.#loader,
      this.counters,
    );
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
    if (!hasProgram(specialization)) return this.#runBroken(call, specialization.mode);
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
    if (!hasProgram(specialization)) return this.#runBroken(call, specialization.mode);
    const plan = this.#plan(call, specialization);
    return this.#runPlan(plan, plan.request([...call.arrays.values()], signal, false));
  }

  /** Runs a chain of calls. Those that repeat the last call in all but data go together: answers of one foreign call are handed on while the next runs. */
  async callChain(chain: Chain, take: (answers: unknown[]) => void, signal?: AbortSignal): Promise<void> {
    for (let made = 0; made < chain.most;) {
      const args = chain.argumentsOf(made);
      const together = await this.#callTogether(chain, made, args, take, signal);
      if (together === 0) take([await this.call(args, signal)]);
      made += together || 1;
    }
  }

  /** How many calls of a chain went together, from `from` on, whose arguments are `args`; 0 where that one has to go alone. */
  async #callTogether(
    chain: Chain,
    from: number,
    args: readonly unknown[],
    take: (answers: unknown[]) => void,
    signal: AbortSignal | undefined,
  ): Promise<number> {
    const [plan] = this.#plans;
    const serves = (): boolean => !this.#disposed && plan?.stance === this.#stance;
    if (!plan || this.options.taps || !serves()) return 0;
    const answer = (results: readonly RunResult[]): void => take(results.map((result) => this.#answer(plan.answers, result)));
    const calls = chainedCalls({ plan, signal, serves, take: answer }, chain, from, args);
    if (!calls) return 0;
    try {
      await this.#whileRunning(plan, calls.run);
    } finally {
      this.counters.calls += calls.made;
      this.counters.capturedCalls += calls.made;
      this.#lastArguments = calls.last;
    }
    return calls.made;
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
    const specializations = this.#specializations.all.map((one) => specializationReport(one, this.mode, this.options.device));
    const every = new Set([
      ...this.#specializations.all.flatMap((specialization) => specialization.executables),
      ...this.#tracing.executables,
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
      brokenSegments: sumOf(this.#tracing.executables),
      ...(checked ? { check: { ...checked } } : {}),
    };
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const { executables } of this.#specializations.all) for (const executable of executables) executable.dispose();
    for (const executable of this.#tracing.executables) executable.dispose();
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
    const traced = this.#tracing.trace(call, service.mode, run);
    const executable = traced.broken ? undefined : await this.#loader.load(traced.segment.graph, service.mode);
    return this.#specialization(call, service, traced, executable);
  }

  #compileSync(call: Call, service: Service): Specialization {
    const traced = this.#tracing.trace(call, service.mode, true);
    const executable = traced.broken ? undefined : this.#loader.loadSync(traced.segment.graph, service.mode);
    return this.#remember(this.#specialization(call, service, traced, executable));
  }

  #specialization(call: Call, { mode, origin }: Service, traced: TraceOutcome, executable: Executable | undefined): Specialization {
    this.counters.compiles++;
    const key = call.fields.map(({ path, text }) => `${path}: ${text}`).join("; ");
    emitEvent({ stream: "compiles", function: this.name, fields: { mode, key } });
    const { segment, structure, outputs, tapNames, taps } = traced;
    if (traced.broken && !traced.stopped) this.#tracing.keepUnfinished(call, traced);
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

  #runBroken(call: Call, mode: Mode): unknown {
    const { answers, results } = this.#tracing.runBroken(call, mode);
    return this.#answer(answers, results);
  }

  #answer(answers: Answers, results: RunResult): unknown {
    this.#taps = answers.taps(results);
    return answers.value(results);
  }
}

const passedStates = (call: Call, segment: Segment): ReadonlySet<string> =>
  new Set(call.leaves.flatMap(({ value }) => (value instanceof State && segment.states.get(value.name) === value ? [value.name] : [])));
