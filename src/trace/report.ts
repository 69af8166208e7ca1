/** Counters of a compiled function, and what its report says. Holds no behaviour of the compiler. */
import type { DType } from "../ir/dtype.js";
import type { Executable, GeneratedSource } from "../runtime/device.js";
import type { Stance } from "./stance.js";
import type { Mode } from "./lower.js";

export interface RecompileRecord {
  /** First failed guard, for example `arguments[1] == 3`. */
  readonly guard: string;
  readonly was: string;
  readonly now: string;
  readonly location: string | undefined;
}

export interface KernelScheduleReport {
  /** Its symbol under the usual schedule, and the label of its first launch. */
  readonly kernel: string;
  readonly label: string;
  readonly launches: number;
  /** What differs from the usual schedule; "usual" when nothing does. In a bundle the whole schedule. */
  readonly schedule: string;
  /** Share of the kernel's time it saved when it was chosen; absent where that is not known. */
  readonly gain?: number;
}

/** Where the schedules for one class of sizes came from. */
export interface ScheduleReport {
  /** Sizes rounded up to powers of two, as `rows=256`. */
  readonly shape: string;
  readonly source: "search" | "cache" | "bundle" | "usual";
  /** Why the usual schedules serve. */
  readonly reason?: string;
  /** Of this process's search, in which this many candidates were tried. */
  readonly seconds: number;
  readonly candidates: number;
  readonly kernels: readonly KernelScheduleReport[];
}

export interface SpecializationReport {
  readonly key: string;
  readonly segments: number;
  readonly kernels: number;
  readonly launches: number;
  readonly arenaBytes: number;
  readonly runs: number;
  readonly foreignCalls: number;
  /** Nodes of the traced graph; 0 when graph breaks cut it into segments. */
  readonly nodes: number;
  /** Bytes of the states it uses: weights, and what it writes. */
  readonly constantBytes: number;
  readonly mutableBytes: number;
  /** Those states one by one; none when graph breaks cut the function into segments. */
  readonly states: readonly StateReport[];
  /** Generated text of its kernels. */
  readonly sources: readonly GeneratedSource[];
  /** Mode max-autotune: one entry per class of sizes that was called; empty in other modes. */
  readonly schedules: readonly ScheduleReport[];
}

/** A State as a program uses it. */
export interface StateReport {
  readonly name: string;
  readonly kind: "constant" | "mutable";
  /** Weight matrices are panels. */
  readonly layout: "plain" | "panels";
  /** What its elements are stored as. */
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: number;
}

/** The pieces that graph breaks cut a function into, over all its specializations. */
export interface SegmentsReport {
  readonly count: number;
  readonly kernels: number;
  readonly launches: number;
  readonly arenaBytes: number;
  readonly runs: number;
  readonly foreignCalls: number;
  readonly sources: readonly GeneratedSource[];
}

export interface CheckReport {
  readonly runs: number;
  /** Values inside the programs, outputs and written States that were compared, and their elements in all. */
  readonly values: number;
  readonly outputs: number;
  readonly states: number;
  readonly elements: number;
}

/** What a compiled function has done so far: counts, times, specializations, guards. */
export interface CompileReport {
  readonly name: string;
  readonly mode: Mode;
  readonly device: string;
  readonly stance: Stance;
  readonly calls: number;
  /** Traces compiled, the first included. */
  readonly compiles: number;
  readonly recompiles: number;
  readonly recompilesByGuard: Readonly<Record<string, number>>;
  readonly graphBreaks: number;
  readonly breaksByLocation: Readonly<Record<string, number>>;
  readonly fallbacks: number;
  /** Calls replayed as a single foreign call. */
  readonly capturedCalls: number;
  readonly foreignCalls: number;
  readonly waits: number;
  /** Functions that are compiled at the same time divide it between them. `search` is what mode max-autotune took to find schedules, building candidates included. */
  readonly milliseconds: { readonly trace: number; readonly lower: number; readonly build: number; readonly search: number };
  readonly specializations: readonly SpecializationReport[];
  readonly brokenSegments: SegmentsReport;
  /** What was compared with running op by op; all zero when nothing was. Absent when no check was asked for. */
  readonly check?: CheckReport;
}

/** Counts of several executables together. */
export function sumOf(executables: readonly Executable[]): SegmentsReport {
  const sum = { count: executables.length, kernels: 0, launches: 0, arenaBytes: 0, runs: 0, foreignCalls: 0 };
  for (const { counters } of executables) {
    sum.kernels += counters.kernels;
    sum.launches += counters.launches;
    sum.arenaBytes += counters.arenaBytes;
    sum.runs += counters.runs;
    sum.foreignCalls += counters.foreignCalls;
  }
  return { ...sum, sources: executables.flatMap(({ sources }) => sources) };
}

export class CompileCounters {
  calls = 0;
  compiles = 0;
  recompiles = 0;
  graphBreaks = 0;
  fallbacks = 0;
  capturedCalls = 0;
  readonly milliseconds = { trace: 0, lower: 0, build: 0, search: 0 };
  readonly recompilesByGuard: Record<string, number> = {};
  readonly breaksByLocation: Record<string, number> = {};

  countRecompile({ guard }: RecompileRecord): void {
    this.recompiles++;
    this.recompilesByGuard[guard] = (this.recompilesByGuard[guard] ?? 0) + 1;
  }

  countBreak(location: string): void {
    this.graphBreaks++;
    this.breaksByLocation[location] = (this.breaksByLocation[location] ?? 0) + 1;
  }
}
