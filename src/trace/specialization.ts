/**
 * Specializations of a compiled function: which one serves a call, and what happens by stance and limit when none does. Must not know how anything is traced
 * or compiled.
 */
import type { SizeBindings } from "../ir/dim.js";
import type { HostArray } from "../ir/dtype.js";
import type { Executable } from "../runtime/device.js";
import { sameGuard, type Bounds, type GuardField, type GuardShape, type Leaf } from "./arguments.js";
import { callerLocation, emitEvent } from "./events.js";
import type { Mode } from "./lower.js";
import type { TracedOutputs } from "./outputs.js";
import type { CompileCounters, RecompileRecord } from "./report.js";
import { RecompileError, type Stance } from "./stance.js";
import type { Segment } from "./tracer.js";

/** Why a specialization exists: `forced` and `stance` ones serve only while a stance asks for eager, those of the limit from then on. */
type Origin = "compiled" | "limit" | "forced" | "stance";

export interface Specialization {
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

/** One that replays a program. */
export type ReplayableSpecialization = Specialization & { readonly replayable: Replayable };

export interface Replayable extends TracedOutputs {
  readonly executable: Executable;
  readonly segment: Segment;
  /** States that came in as arguments, by name: a later call brings its own. */
  readonly passedStates: ReadonlySet<string>;
}

export interface Call {
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

export interface Service {
  readonly mode: Mode;
  readonly origin: Origin;
}

/** What decides how misses are served. */
export interface SpecializationPolicy {
  readonly name: string;
  readonly mode: Mode;
  /** Recompiles before a miss falls back to eager. */
  readonly recompileLimit: number;
  /** One op run outside a trace: never a recompile, whatever the stance. */
  readonly dispatch: boolean;
  /** The stance that holds now. */
  readonly stance: () => Stance;
}

export class Specializations {
  readonly #all: Specialization[] = [];
  #bounds: ReadonlyMap<string, Bounds>;
  #limitHit = false;

  constructor(
    private readonly policy: SpecializationPolicy,
    private readonly counters: CompileCounters,
    bounds: ReadonlyMap<string, Bounds>,
  ) {
    this.#bounds = bounds;
  }

  get all(): readonly Specialization[] {
    return this.#all;
  }

  add(specialization: Specialization): void {
    this.#all.push(specialization);
  }

  /** Bounds that hold a call's sizes: one beyond them doubles them, so that growth costs few recompiles. They last once something is compiled for them. */
  boundsFor(sizes: SizeBindings): ReadonlyMap<string, Bounds> {
    let widened: Map<string, Bounds> | undefined;
    for (const [name, value] of Object.entries(sizes)) {
      const known = this.#bounds.get(name);
      if (!known || (value >= known[0] && value <= known[1])) continue;
      let high = Math.max(known[1], 1);
      while (high < value) high *= 2;
      widened ??= new Map(this.#bounds);
      widened.set(name, [Math.min(known[0], value), high]);
    }
    return widened ?? this.#bounds;
  }

  /** The one whose guards hold and that may serve under the current stance. */
  find(call: Call): Specialization | undefined {
    return this.#all.find(
      (specialization) =>
        this.#mayServe(specialization) &&
        guardsHold(specialization, call) &&
        [...specialization.sizeGuards].every(([name, guard]) => call.sizes[name] === guard.value),
    );
  }

  #mayServe({ mode, origin }: Specialization): boolean {
    if (this.policy.dispatch) return true;
    const stance = this.policy.stance();
    if (stance === "force_eager") return mode === "eager";
    return origin === "compiled" || origin === "limit" || (origin === "stance" && stance === "eager_on_recompile");
  }

  /** Counts the miss, says which field differed and who asked, and decides by stance and limit how it is served. Throws a RecompileError by stance. */
  serviceOnMiss(call: Call): Service {
    const { name, mode, recompileLimit: limit } = this.policy;
    const compiled: Service = { mode, origin: "compiled" };
    if (this.policy.dispatch) return compiled;
    const stance = this.policy.stance();
    if (stance === "force_eager") return { mode: "eager", origin: "forced" };
    const lasting = this.#all.filter(({ origin }) => origin === "compiled" || origin === "limit");
    const nearest = lasting[lasting.length - 1];
    if (!nearest) {
      this.#bounds = call.bounds;
      return compiled;
    }
    const record = differenceOf(call, nearest);
    const { guard, was, now, location } = record;
    const where = location ? { location } : {};
    if (stance === "fail_on_recompile") {
      throw new RecompileError(
        `${name} would recompile: ${guard} failed (was ${was}, now ${now}${location ? `, ${location}` : ""}). The stance fail_on_recompile forbids that.`,
      );
    }
    const fallBack = (reason: string, origin: Origin): Service => {
      this.counters.fallbacks++;
      emitEvent({ stream: "fallback", function: name, ...where, fields: { reason, guard, was, now } });
      return { mode: "eager", origin };
    };
    if (stance === "eager_on_recompile") return fallBack("stance eager_on_recompile", "stance");
    if (lasting.filter(({ origin }) => origin === "compiled").length > limit) {
      // Hit once; every later miss is a fallback of its own.
      if (!this.#limitHit) emitEvent({ stream: "recompile_limit", function: name, ...where, fields: { limit, last: guard, was, now } });
      this.#limitHit = true;
      return fallBack(`recompileLimit ${limit} reached; running eager`, "limit");
    }
    this.#bounds = call.bounds;
    this.counters.countRecompile(record);
    emitEvent({ stream: "recompiles", function: name, ...where, fields: { guard, was, now, count: this.counters.recompiles } });
    return compiled;
  }
}

/** The first guard of `nearest` that the call does not fulfil. */
function differenceOf(call: Call, nearest: Specialization): RecompileRecord {
  for (const [index, field] of call.fields.entries()) {
    const before = nearest.fields[index];
    if (before && before.text !== field.text) {
      return { guard: `${field.path} ${before.text}`, was: before.text, now: field.text, location: callerLocation() };
    }
  }
  for (const [name, guard] of nearest.sizeGuards) {
    if (call.sizes[name] === guard.value) continue;
    return { guard: `size ${name} == ${guard.value}`, was: String(guard.value), now: String(call.sizes[name]), location: guard.location };
  }
  return { guard: "number of arguments", was: String(nearest.fields.length), now: String(call.fields.length), location: callerLocation() };
}

function guardsHold({ guards, fields, bounds }: Specialization, call: Call): boolean {
  if (guards.length !== call.leaves.length) return false;
  if (bounds === call.bounds) return call.leaves.every((leaf, index) => sameGuard(guards[index] as GuardShape, leaf, bounds));
  return fields.every((field, index) => field.text === call.fields[index]?.text && field.path === call.fields[index].path);
}
