/**
 * The executable of mode max-autotune: one program per class of sizes, each with the schedules chosen for it - by an earlier process, in a bundle, or by a search now.
 * It replays like any other. Must not know how schedules are searched.
 */
import type { SizeBindings } from "../../ir/dim.js";
import type { Graph } from "../../ir/graph.js";
import type { KernelLaunch, Program } from "../../ir/kernel.js";
import { scheduleDifference, type KernelSchedule } from "../../ir/schedule.js";
import {
  AbortedError,
  type RunChain,
  type CompiledGraph,
  type Device,
  type Executable,
  type RunRequest,
  type RunResult,
} from "../../runtime/device.js";
import { announceProgram, isHeard, programKey } from "../ahead.js";
import { emitEvent } from "../events.js";
import { graphAhead, lowerOpen, type OpenGraph } from "../lower.js";
import type { KernelScheduleReport, ScheduleReport } from "../report.js";
import { autotuneSeconds, searchShare } from "./budget.js";
import { drive, driveSync, type Bench } from "./drive.js";
import { familiesOf, familyKey, shapeClassOf, sizesThatMatter, type KernelFamily } from "./families.js";
import { printRecord, readRecord, recordKey, type ChosenSchedule, type ScheduleRecord } from "./record.js";
import { SearchEvents } from "./search-events.js";
import { searchSchedules } from "./search.js";
import type { FamilyOutcome, Search } from "./steps.js";

const mode = "max-autotune";

export interface AutotuneOptions {
  /** Seconds that all searches of this executable may take together; default `TEMPOGRAPH_AUTOTUNE_SECONDS`. */
  readonly seconds?: number;
  /** Seconds since any fixed time. */
  readonly clock?: () => number;
}

interface ShapeProgram {
  readonly executable: Executable;
  readonly report: ScheduleReport;
}

/** What is known of a class before anything is searched: its schedules, or why there will be no search. */
type Known = { readonly record: ScheduleRecord; readonly source: "cache" | "search" } | { readonly reason: string };

/** Why candidates could not be built; undefined when that is not what went wrong. The call itself needs none of them. */
function buildProblem(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  if (code === "compiler-missing") return "there is no C compiler to build candidates with";
  return code === "compiler-failed" ? `candidates could not be built: ${(error as Error).message.split("\n")[0]}` : undefined;
}

/** What is known after candidates could not be built; throws what is no such problem. */
function unbuilt(error: unknown): { readonly reason: string } {
  const reason = buildProblem(error);
  if (reason === undefined) throw error;
  return { reason };
}

/** Whether a device has kernels whose schedules can be searched, or were chosen ahead of time. */
export const hasSchedules = (device: Device): boolean => device.machine !== undefined;

export class AutotuneExecutable implements Executable {
  readonly #programs = new Map<string, ShapeProgram>();
  readonly #pending = new Map<string, Promise<void>>();
  readonly #families: readonly KernelFamily[];
  readonly #sizes: readonly string[];
  readonly #budget: number;
  readonly #clock: () => number;
  #last: { readonly sizes: SizeBindings; readonly program: ShapeProgram } | undefined;
  #spent = 0;
  #open: OpenGraph | undefined;
  #disposed = false;

  /** `usual` is the program with its usual schedules, loaded; it serves every class for which nothing better is known. */
  constructor(
    private readonly traced: Graph,
    private readonly device: Device,
    private readonly usual: CompiledGraph,
    private readonly usualExecutable: Executable,
    open: OpenGraph | undefined,
    options: AutotuneOptions = {},
  ) {
    this.#open = open;
    this.#families = familiesOf(usual.program);
    this.#sizes = sizesThatMatter(usual.program, this.#families);
    this.#budget = options.seconds ?? autotuneSeconds();
    this.#clock = options.clock ?? (() => performance.now() / 1000);
  }

  static async load(traced: Graph, device: Device, { usual, open }: UsualGraph, options?: AutotuneOptions): Promise<AutotuneExecutable> {
    return new AutotuneExecutable(traced, device, usual, await device.load(usual), open, options);
  }

  static loadSync(traced: Graph, device: Device, { usual, open }: UsualGraph, options?: AutotuneOptions): AutotuneExecutable {
    return new AutotuneExecutable(traced, device, usual, device.loadSync(usual), open, options);
  }

  get schedules(): readonly ScheduleReport[] {
    return [...this.#programs.values()].map(({ report }) => report);
  }

  get #executables(): readonly Executable[] {
    return [...new Set([this.usualExecutable, ...[...this.#programs.values()].map(({ executable }) => executable)])];
  }

  /** Of all classes together; kernels and launches are those of the program made last. */
  get counters(): Executable["counters"] {
    const all = this.#executables.map(({ counters }) => counters);
    const sum = (pick: (one: (typeof all)[0]) => number): number => all.reduce((total, one) => total + pick(one), 0);
    const { kernels, launches } = all[all.length - 1] as (typeof all)[0];
    return {
      kernels,
      launches,
      foreignCalls: sum(({ foreignCalls }) => foreignCalls),
      waits: sum(({ waits }) => waits),
      arenaBytes: sum(({ arenaBytes }) => arenaBytes),
      runs: sum(({ runs }) => runs),
    };
  }

  get sources(): Executable["sources"] {
    const all = this.#executables.flatMap(({ sources }) => sources);
    return [...new Map(all.map((source) => [source.path ?? source.name, source])).values()];
  }

  /** Whether there is a program for the request's sizes. */
  isReady(request: RunRequest): boolean {
    return this.#programFor(request) !== undefined;
  }

  /** Makes sure that there is a program for the request's sizes: searches when nothing is known of their class. Rejects with AbortedError. */
  async ready(request: RunRequest): Promise<void> {
    const shape = this.#shapeOf(request);
    while (!this.#programs.has(shape)) {
      if (request.signal?.aborted) throw new AbortedError(request.signal.reason);
      const pending = this.#pending.get(shape);
      if (!pending) return this.#begin(shape, request);
      // Another call's search; when that call is aborted, this one searches itself.
      await pending.catch((error: unknown) => {
        if (!(error instanceof AbortedError) || this.#disposed) throw error;
      });
    }
  }

  #begin(shape: string, request: RunRequest): Promise<void> {
    const made = this.#make(shape, request).finally(() => this.#pending.delete(shape));
    this.#pending.set(shape, made);
    return made;
  }

  async #make(shape: string, request: RunRequest): Promise<void> {
    const ahead = this.#ahead(shape);
    if (ahead) return this.#keep(shape, ahead.report, ahead.compiled && (await this.device.load(ahead.compiled)));
    const known = this.#known(shape) ?? (await this.#searched(shape, request));
    const compiled = this.#compiled(shape, known);
    this.#keep(shape, this.#report(shape, known), compiled && (await this.device.load(compiled)));
  }

  /** The same on the calling thread. */
  readySync(request: RunRequest): void {
    const shape = this.#shapeOf(request);
    if (this.#programs.has(shape)) return;
    const ahead = this.#ahead(shape);
    if (ahead) return this.#keep(shape, ahead.report, ahead.compiled && this.device.loadSync(ahead.compiled));
    const known = this.#known(shape) ?? this.#searchedSync(shape, request);
    const compiled = this.#compiled(shape, known);
    this.#keep(shape, this.#report(shape, known), compiled && this.device.loadSync(compiled));
  }

  #keep(shape: string, report: ScheduleReport, executable: Executable | undefined): void {
    if (this.#disposed) {
      executable?.dispose();
      throw new AbortedError("disposed");
    }
    // A blocking call may have been faster.
    if (this.#programs.has(shape)) executable?.dispose();
    else this.#programs.set(shape, { executable: executable ?? this.usualExecutable, report });
  }

  /** A device that keeps no records runs what a bundle holds, and nothing is searched. */
  #ahead(shape: string): { readonly report: ScheduleReport; readonly compiled: CompiledGraph | undefined } | undefined {
    if (this.device.records) return undefined;
    const compiled = graphAhead(this.traced, this.device, mode, shape);
    const reason = compiled ? {} : { reason: "the bundle has no schedules for these sizes" };
    const report = { shape, source: compiled ? "bundle" : "usual", seconds: 0, candidates: 0, ...reason } as const;
    return { compiled, report: { ...report, kernels: compiled ? kernelsOf(compiled.program, this.usual.program) : [] } };
  }

  #known(shape: string): Known | undefined {
    const { records } = this.device;
    const text = records?.find(this.#recordName, this.#recordKey(shape));
    const record = text === undefined ? undefined : readRecord(text, new Set(this.#families.map(({ key }) => key)));
    if (text !== undefined)
      emitEvent({ stream: "schedule", function: this.#name, fields: { shape, cache: record ? "hit" : "unusable, searched again" } });
    if (record) return { record, source: "cache" };
    if (!this.#open || this.#families.length === 0) return { reason: "no kernel has anything to choose" };
    if (this.#budget === 0) return { reason: "TEMPOGRAPH_AUTOTUNE_SECONDS is 0" };
    if (this.#spent >= this.#budget) return { reason: `the ${this.#budget} s of TEMPOGRAPH_AUTOTUNE_SECONDS were spent on other sizes` };
    return undefined;
  }

  async #searched(shape: string, request: RunRequest): Promise<Known> {
    const start = this.#clock();
    const events = new SearchEvents(this.#name, shape);
    try {
      return this.#outcome(shape, start, events, await drive(this.#search(start, request, events), this.#bench(request)));
    } catch (error) {
      return unbuilt(error);
    } finally {
      this.#spent += this.#clock() - start;
    }
  }

  #searchedSync(shape: string, request: RunRequest): Known {
    const start = this.#clock();
    const events = new SearchEvents(this.#name, shape);
    try {
      return this.#outcome(shape, start, events, driveSync(this.#search(start, request, events), this.#bench(request)));
    } catch (error) {
      return unbuilt(error);
    } finally {
      this.#spent += this.#clock() - start;
    }
  }

  #bench(request: RunRequest): Bench {
    return { device: this.device, request, stopped: () => this.#disposed };
  }

  #search(start: number, { sizes }: RunRequest, events: SearchEvents): Search<FamilyOutcome[]> {
    const { device } = this;
    const left = this.#budget - this.#spent;
    const passed = (): number => this.#clock() - start;
    events.begins(this.#families.length, left);
    return searchSchedules({
      open: this.#open as OpenGraph,
      families: this.#families,
      setting: { sizes, threads: device.capabilities.threads, target: device.target },
      over: () => passed() >= left,
      closing: () => passed() >= left * searchShare,
      onFamily: (outcome, of) => events.decided(outcome, of, passed()),
      onDropped: (outcome) => events.dropped(outcome),
    });
  }

  #outcome(shape: string, start: number, events: SearchEvents, outcomes: readonly FamilyOutcome[]): Known {
    const chosen = new Map<string, ChosenSchedule>();
    for (const { family, schedule, gain } of outcomes) if (gain > 0) chosen.set(family.key, { schedule, gain });
    const seconds = Number((this.#clock() - start).toFixed(3));
    const record = { seconds, candidates: outcomes.reduce((sum, { tried }) => sum + tried, 0), chosen };
    // A search that was over before it had tried anything is not worth remembering.
    const kept =
      record.candidates > 0 && (this.device.records?.add(this.#recordName, this.#recordKey(shape), printRecord(record)) ?? false);
    events.ends(chosen.size, record.candidates, seconds, kept);
    return { record, source: "search" };
  }

  /** The program with chosen schedules; undefined when they are the usual ones. A search that changed nothing costs no second program. */
  #compiled(shape: string, known: Known): CompiledGraph | undefined {
    if (!("record" in known)) return undefined;
    if (known.record.chosen.size === 0) {
      // Who makes a bundle wants to know that this class was searched.
      if (isHeard()) announceProgram(programKey(this.traced, true, this.device.target, shape), this.usual.program);
      return undefined;
    }
    const { launches } = this.usual.program;
    const { chosen } = known.record;
    return this.#open?.scheduled((_, index) => chosen.get(familyKey(launches[index] as KernelLaunch))?.schedule, shape);
  }

  #report(shape: string, known: Known): ScheduleReport {
    if (!("record" in known)) return { shape, source: "usual", reason: known.reason, seconds: 0, candidates: 0, kernels: [] };
    const { seconds, candidates, chosen } = known.record;
    const cached = known.source === "cache";
    return {
      shape,
      source: known.source,
      seconds: cached ? 0 : seconds,
      candidates: cached ? 0 : candidates,
      kernels: this.#families.map(({ key, symbol, label, members, usual }) => {
        const choice = chosen.get(key);
        const schedule = choice ? scheduleDifference(choice.schedule, usual) : "usual";
        return { kernel: symbol, label, launches: members.length, schedule, gain: choice?.gain ?? 0 };
      }),
    };
  }

  get #name(): string {
    return this.traced.name;
  }

  get #recordName(): string {
    return `schedule_${this.#name}`;
  }

  #recordKey(shape: string): string {
    const { device } = this;
    return recordKey(programKey(this.traced, true, device.target), this.usual.program, shape, device.machine ?? "");
  }

  #shapeOf({ sizes }: RunRequest): string {
    return shapeClassOf(this.#sizes, sizes);
  }

  /** A caller that repeats a call brings the very same sizes, whose class then needs not be worked out again. */
  #programFor(request: RunRequest): ShapeProgram | undefined {
    if (this.#last?.sizes === request.sizes) return this.#last.program;
    const program = this.#programs.get(this.#shapeOf(request));
    if (program) this.#last = { sizes: request.sizes, program };
    return program;
  }

  /** The program for a request; the usual one for a class that was not made ready. */
  #of(request: RunRequest): Executable {
    return (this.#programFor(request) ?? { executable: this.usualExecutable }).executable;
  }

  runSync(request: RunRequest): RunResult {
    return this.#of(request).runSync(request);
  }

  run(request: RunRequest): Promise<RunResult> {
    return this.#of(request).run(request);
  }

  chainLength(request: RunRequest): number {
    return this.isReady(request) ? (this.#of(request).chainLength?.(request) ?? 1) : 1;
  }

  runChain(chain: RunChain): Promise<void> {
    const made = this.#of(chain.first).runChain?.(chain);
    return made ?? Promise.reject(new Error(`runs of ${this.#name} are made one at a time`));
  }

  profile(request: RunRequest): ReturnType<Executable["profile"]> {
    return this.#of(request).profile(request);
  }

  runWatched(...[request, watch]: Parameters<Executable["runWatched"]>): RunResult {
    return this.#of(request).runWatched(request, watch);
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const executable of this.#executables) executable.dispose();
  }
}

/** A graph with its usual schedules, and what a search needs of it; a program made ahead of time cannot be searched. */
export interface UsualGraph {
  readonly usual: CompiledGraph;
  readonly open: OpenGraph | undefined;
}

export function lowerUsual(traced: Graph, device: Device): UsualGraph {
  const ahead = graphAhead(traced, device, mode);
  if (ahead) return { usual: ahead, open: undefined };
  const open = lowerOpen(traced, device, mode);
  return { usual: open.usual, open };
}

/** Schedules of a program that were chosen elsewhere, against the usual ones. */
function kernelsOf(program: Program, usual: Program): KernelScheduleReport[] {
  const before = new Map(usual.launches.map(({ symbol, schedule }) => [symbol, schedule]));
  const whole = (schedule: KernelSchedule): string =>
    Object.entries(schedule)
      .filter(([field]) => field !== "kind")
      .map(([field, value]) => `${field}=${value}`)
      .join(" ");
  const kernels = new Map<string, KernelScheduleReport>();
  for (const { symbol, label, schedule } of program.launches) {
    if (!schedule) continue;
    const known = before.get(symbol);
    const text = known ? scheduleDifference(schedule, known) || "usual" : whole(schedule);
    kernels.set(symbol, { kernel: symbol, label, launches: (kernels.get(symbol)?.launches ?? 0) + 1, schedule: text });
  }
  return [...kernels.values()];
}
