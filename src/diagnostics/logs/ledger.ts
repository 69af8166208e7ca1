/**
 * Counts events as they come, in memory bounded by the number of different ones, and keeps what the search for root causes needs.
 * Decides nothing about causes.
 */
import type { Counts, LogAnalysis, ValuesSeen } from "./answer.js";
import { CompileIds, TwiceLogged } from "./compile-ids.js";
import { Counter, Rows, detached } from "./counter.js";
import type {
  CudagraphSkipEvent,
  EventSink,
  FailureEvent,
  GraphBreakEvent,
  LimitEvent,
  LogEvent,
  RecompileEvent,
  ScalarReadEvent,
  TickEvent,
} from "./events.js";
import { guardTemplate } from "./guard-reason.js";

const MOST_VALUES = 32;
const MOST_LAST_REASONS = 1_000;
const MOST_VALUE_ROWS = 2_000;
const MOST_PLACES = 2_000;
const MOST_GUARDS = 64;

/** The counts of the answer, without causes and without what only the reader of lines knows. */
export type Tally = Omit<LogAnalysis, "rootCauses" | "unrecognisedLines" | "lines" | "inputs" | "trace" | "notes">;

interface MutableValues {
  readonly function: string;
  readonly location: string;
  readonly guard: string;
  count: number;
  readonly values: Set<string>;
}

export class Ledger implements EventSink {
  readonly recompiles = new Rows<RecompileEvent>();
  readonly limits = new Rows<LimitEvent>();
  readonly breaks = new Rows<GraphBreakEvent>();
  readonly scalarReads = new Rows<ScalarReadEvent>();
  readonly skips = new Rows<CudagraphSkipEvent>();
  readonly failures = new Rows<FailureEvent>();
  readonly partitions = new Rows<TickEvent>();
  readonly fallbacks = new Rows<TickEvent>();
  /** Different guards that failed, by `placeOf` their function. */
  readonly failedGuards = new Map<string, Set<string>>();

  private readonly recompilesByFunction = new Counter();
  private readonly recompilesByReason = new Counter();
  private readonly recompilesByLocation = new Counter();
  private readonly limitsByFunction = new Counter();
  private readonly limitsByLimit = new Counter();
  private readonly lastReasons: string[] = [];
  private readonly breaksByReason = new Counter();
  private readonly breaksByLocation = new Counter();
  private readonly skipsByCause = new Counter();
  private readonly ticks = new Counter();
  private readonly fallbackReasons = new Counter();
  private readonly hints = new Counter();
  private readonly compileSeconds = new Counter();
  private readonly values = new Map<string, MutableValues>();
  private readonly ids = new CompileIds();
  private readonly twice = new TwiceLogged();
  private limitTotal = 0;
  private overwritten = 0;

  compileSeen(process: string, compileId: string): void {
    this.ids.seen(process, compileId);
  }

  event(event: LogEvent): void {
    switch (event.kind) {
      case "recompile":
        return this.recompile(event);
      case "failedGuard":
        return this.noteGuard(event);
      case "limit":
        return this.limit(event);
      case "graphBreak":
        return this.graphBreak(event);
      case "scalarRead":
        return this.scalarReads.add(event.location, () => kept(event));
      case "cudagraphSkip":
        return this.skip(event);
      case "failure":
        if (event.failure === "overwritten-output") this.overwritten += 1;
        return this.failures.add(`${event.failure} ${event.location} ${event.reason}`, () => kept(event));
      case "tick":
        return this.tick(event);
      case "compileTime":
        return this.compileSeconds.add(event.function, event.seconds);
      default:
        event satisfies never;
    }
  }

  /** Graph breaks were switched on, as far as the log shows. */
  get breaksTotal(): number {
    return this.breaksByReason.total;
  }

  get recompilesTotal(): number {
    return this.recompilesByFunction.total;
  }

  tally(): Tally {
    const compile = this.compileSeconds;
    const ticks = this.ticks.toJSON();
    const tick = (what: TickEvent["what"]): number => ticks[what] ?? 0;
    return {
      recompiles: {
        total: this.recompilesByFunction.total,
        byFunction: this.recompilesByFunction.toJSON(),
        byReason: this.recompilesByReason.toJSON(),
        byLocation: this.recompilesByLocation.toJSON(),
      },
      recompileLimitHits: {
        total: this.limitTotal,
        byFunction: this.limitsByFunction.toJSON(),
        byLimit: this.limitsByLimit.toJSON(),
        lastReasons: this.lastReasons,
      },
      graphBreaks: { total: this.breaksByReason.total, byReason: this.breaksByReason.toJSON(), byLocation: this.breaksByLocation.toJSON() },
      cudagraphSkips: { total: this.skipsByCause.total, byCause: this.skipsByCause.toJSON() },
      cudagraphPartitions: tick("cudagraphPartition"),
      processes: this.ids.names().filter((name) => name !== "?"),
      valuesSeen: [...this.values.values()].sort((a, b) => b.count - a.count).map(seenValues),
      phases: this.ids.phases(),
      overwrittenOutputs: this.overwritten,
      symbolicShapes: { symbols: tick("symbol"), guards: tick("symbolicGuard"), specializations: tick("specialization") },
      compileSeconds: compile.sorted().length === 0 ? null : { total: rounded(compile.total), byFunction: roundedCounts(compile.toJSON()) },
      cache: { hits: tick("cacheHit"), misses: tick("cacheMiss"), bypasses: tick("cacheBypass") },
      fallbacks: this.fallbackReasons.toJSON(),
      performanceHints: this.hints.toJSON(),
      missingCompileIds: this.ids.missing(),
    };
  }

  private recompile(event: RecompileEvent): void {
    if (!this.isNew(event, event.reason)) return;
    this.ids.recompiled(event.process, event.compileId);
    this.recompilesByFunction.add(event.function);
    this.recompilesByReason.add(event.reason);
    this.recompilesByLocation.add(event.location);
    this.recompiles.add(`${event.function} ${event.location} ${event.reason}`, () => kept(event));
    this.noteValues(event);
    this.noteGuard(event);
  }

  private noteGuard(event: Pick<RecompileEvent, "function" | "location" | "reason">): void {
    const place = placeOf(event);
    let guards = this.failedGuards.get(place);
    if (guards === undefined) {
      if (this.failedGuards.size >= MOST_PLACES) return;
      this.failedGuards.set(detached(place), (guards = new Set()));
    }
    if (guards.size < MOST_GUARDS && !guards.has(event.reason)) guards.add(detached(event.reason));
  }

  private noteValues(event: RecompileEvent): void {
    const guard = guardTemplate(event.reason);
    const key = `${event.function} ${event.location} ${guard}`;
    let row = this.values.get(key);
    if (row === undefined) {
      if (this.values.size >= MOST_VALUE_ROWS) return;
      row = { function: detached(event.function), location: detached(event.location), guard: detached(guard), count: 0, values: new Set() };
      this.values.set(detached(key), row);
    }
    row.count += 1;
    for (const value of event.values) if (row.values.size < MOST_VALUES) row.values.add(detached(value));
  }

  private limit(event: LimitEvent): void {
    if (!this.isNew(event, event.function)) return;
    this.limitTotal += 1;
    if (event.function !== "") this.limitsByFunction.add(event.function);
    if (event.limit !== "") this.limitsByLimit.add(event.limit);
    if (event.lastReason !== "" && this.lastReasons.length < MOST_LAST_REASONS) this.lastReasons.push(detached(event.lastReason));
    this.limits.add(`${event.function} ${event.location} ${event.lastReason}`, () => kept(event));
  }

  private graphBreak(event: GraphBreakEvent): void {
    if (!this.isNew(event, event.location)) return;
    this.breaksByReason.add(event.reason);
    if (event.location !== "") this.breaksByLocation.add(event.location);
    // A repeated break comes without its stack: the first row of a place is the one with code.
    this.breaks.add(`${event.location} ${event.reason}`, () => kept(event));
  }

  private skip(event: CudagraphSkipEvent): void {
    if (!this.isNew(event, event.cause)) return;
    this.skipsByCause.add(event.cause, event.instances);
    this.skips.add(`${event.cause} ${event.location}`, () => kept(event));
  }

  private tick(event: TickEvent): void {
    this.ticks.add(event.what);
    if (event.what === "performanceHint") this.hints.add(event.label);
    if (event.what === "cudagraphPartition") this.partitions.add(event.label, () => kept(event));
    if (event.what === "fallback") {
      this.fallbackReasons.add(event.label);
      this.fallbacks.add(event.label, () => kept(event));
    }
  }

  private isNew(event: LogEvent, what: string): boolean {
    // Ranks are written differently in text and in traces; the process id is the same in both.
    const pid = event.process.slice(event.process.lastIndexOf("/") + 1);
    if (event.compileId === undefined) return true;
    return this.twice.isNew(event.flavour, detached(`${event.kind} ${pid} ${event.compileId} ${what}`));
  }
}

/** Name of a function where it stands, which is what is compiled and limited. */
export function placeOf({ function: name, location }: Pick<RecompileEvent, "function" | "location">): string {
  return `${location} ${name}`;
}

/** A copy of an event whose strings do not keep the chunk of log they were cut from in memory. */
function kept<Event extends LogEvent>(event: Event): Event {
  return JSON.parse(JSON.stringify(event)) as Event;
}

function seenValues(row: MutableValues): ValuesSeen {
  return { ...row, values: [...row.values] };
}

function rounded(seconds: number): number {
  return Math.round(seconds * 1e6) / 1e6;
}

function roundedCounts(counts: Counts): Counts {
  return Object.fromEntries(Object.entries(counts).map(([key, value]) => [key, rounded(value)]));
}
