/**
 * From counted events to ranked root causes. Each event is a vote for a cause, weighed by what it costs; causes that produce other
 * causes go before them. Knows nothing of log text.
 */
import { adviceFor } from "./advice.js";
import type { RootCause } from "./answer.js";
import { diagnoseBreak, diagnoseSkip } from "./break-reason.js";
import type { Cause, Diagnosis, Severity } from "./causes.js";
import { Counter } from "./counter.js";
import type { Evidence, FailureEvent, GraphBreakEvent, LimitEvent, RecompileEvent } from "./events.js";
import { diagnoseGuard, guardSubject, isCachePosition } from "./guard-reason.js";
import { placeOf } from "./ledger.js";
import type { Ledger } from "./ledger.js";
import { Multipliers, nameOf } from "./multipliers.js";
import { isLibrary, locationOf } from "./python-stack.js";
import { ScalarNames } from "./scalar-names.js";

/**
 * What one event weighs. A stopped program outweighs everything, a function that fell back for good outweighs any number of recompiles
 * below the limit. A recompile is paid once, a break on every call, a host read also makes the device wait. The first change of a size
 * is what automatic dynamic shapes are for.
 */
const WEIGHT = {
  failure: 100_000,
  overwritten: 500,
  limit: 1_000,
  recompile: 10,
  firstSize: 3,
  break: 12,
  scalarRead: 30,
  skip: 10,
  partition: 5,
  fallback: 10,
};
/** A cause and the causes it brings about: it is never ranked below those. */
const UPSTREAM: readonly (readonly [Cause, readonly Cause[]])[] = [["device-scalar-read", ["output-overwritten", "mutated-input"]]];
const MOST_LINES = 6;
/** PyTorch's default limit: a function that recompiles this often for one cause is on its way to any limit. */
const MANY_RECOMPILES = 8;

interface Group extends Diagnosis {
  weight: number;
  occurrences: number;
  recompiles: number;
  /** Recompiles that were not the first change of one size. */
  repeated: number;
  limitHits: number;
  failures: number;
  /** Graph breaks, reads and skips: paid on every call. */
  everyCall: number;
  readonly recompilesByPlace: Counter;
  readonly functions: Counter;
  readonly locations: Counter;
  readonly statements: Counter;
  readonly lines: Evidence[];
}

interface Vote {
  readonly diagnosis: Diagnosis;
  readonly weight: number;
  readonly count: number;
  readonly function: string;
  readonly location: string;
  readonly statement: string;
  readonly evidence: Evidence;
}

export function findRootCauses(ledger: Ledger): RootCause[] {
  const search = new RootCauseSearch(ledger);
  return search.run();
}

class RootCauseSearch {
  private readonly groups = new Map<string, Group>();
  private readonly scalars = new ScalarNames();
  /** Recompiles of each function by the name of their cause. */
  private readonly causesByFunction = new Map<string, Counter>();
  private readonly multipliers = new Multipliers((recompile) => this.diagnose(recompile));

  constructor(private readonly ledger: Ledger) {}

  run(): RootCause[] {
    this.noteScalarReads();
    this.voteBreaks();
    this.voteRecompiles();
    this.voteLimits();
    this.voteSkips();
    this.voteFailures();
    return ranked([...this.groups.values()]).map((group) => rootCause(group));
  }

  private noteScalarReads(): void {
    for (const { first } of this.ledger.scalarReads.values()) this.scalars.addRead(first.location, first.code);
    for (const { first } of this.ledger.breaks.values()) {
      if (diagnoseBreak(first.reason, first.detail).cause === "device-scalar-read") this.scalars.addRead(first.location, first.code);
    }
  }

  private voteBreaks(): void {
    let breaksOfReads = 0;
    for (const { first, count } of this.ledger.breaks.values()) {
      const diagnosis = diagnoseBreak(first.reason, first.detail);
      const isRead = diagnosis.cause === "device-scalar-read";
      if (isRead) breaksOfReads += count;
      const group = this.vote({
        diagnosis,
        weight: isRead ? WEIGHT.scalarRead : WEIGHT.break,
        count,
        function: first.function,
        location: userPlace(first),
        statement: `graph break: ${first.reason}`,
        evidence: first.evidence,
      });
      group.everyCall += count;
    }
    for (const { first, count } of this.ledger.scalarReads.values()) {
      // The warning stands once for a call made any number of times. Without the breaks themselves it weighs as much as all recompiles.
      const unknown = this.ledger.breaksTotal === 0 ? WEIGHT.recompile * (this.ledger.recompilesTotal + 1) : 0;
      const group = this.vote({
        diagnosis: { cause: "device-scalar-read", kind: "item" },
        weight: breaksOfReads > 0 ? 0 : WEIGHT.scalarRead + unknown,
        count: breaksOfReads > 0 ? 0 : count,
        function: first.function,
        location: first.location,
        statement: "warning: graph break from Tensor.item()",
        evidence: first.evidence,
      });
      group.everyCall += 1;
    }
  }

  private voteRecompiles(): void {
    const sizes = new Set<string>();
    for (const { first, count } of this.ledger.recompiles.values()) {
      const diagnosis = this.multipliers.causeOf(first, this.ledger.failedGuards.get(placeOf(first)));
      const size = /^tensor '(.+)' size mismatch at index (\d+)/.exec(first.reason);
      const key = size === null ? "" : `${first.location} ${size[1] ?? ""} ${size[2] ?? ""}`;
      const absorbed = size !== null && !sizes.has(key) ? 1 : 0;
      sizes.add(key);
      const group = this.vote({
        diagnosis,
        weight: (WEIGHT.firstSize * absorbed + WEIGHT.recompile * (count - absorbed)) / count,
        count,
        function: first.function,
        location: first.location,
        statement: `recompile: ${generalised(first.reason)}`,
        evidence: first.evidence,
      });
      group.recompiles += count;
      group.repeated += count - absorbed;
      group.recompilesByPlace.add(placeOf(first), count);
      const causes = this.causesByFunction.get(placeOf(first)) ?? new Counter();
      this.causesByFunction.set(placeOf(first), causes);
      causes.add(nameOf(diagnosis), count);
    }
  }

  /** A limit hit counts for the cause of most recompiles of the function; a log without those shows the last reason only. */
  private voteLimits(): void {
    for (const { first, count } of this.ledger.limits.values()) {
      const diagnosis =
        this.mostFrequent(first) ??
        (first.lastReason === "" ? undefined : this.diagnose({ ...first, reason: first.lastReason, values: [] }));
      if (diagnosis === undefined) continue;
      const group = this.vote({
        diagnosis,
        weight: WEIGHT.limit,
        count,
        function: first.function,
        location: first.location,
        statement: `recompile limit hit${first.limit === "" ? "" : ` (${first.limit})`}: ${first.lastReason}`,
        evidence: first.evidence,
      });
      group.limitHits += count;
    }
  }

  private mostFrequent(limit: LimitEvent): Diagnosis | undefined {
    const name = this.causesByFunction.get(placeOf(limit))?.top();
    return name === undefined ? undefined : this.groups.get(name);
  }

  private voteSkips(): void {
    for (const { first, count } of this.ledger.skips.values()) {
      const group = this.vote({
        diagnosis: diagnoseSkip(first.cause),
        weight: WEIGHT.skip,
        count,
        function: first.function,
        location: first.location,
        statement: `CUDA graphs skipped: ${first.cause}`,
        evidence: first.evidence,
      });
      group.everyCall += count;
    }
    // A partition is where a read took host work into the graph, if there is one; else host work itself is the cause.
    const read = this.groups.has("device-scalar-read/item");
    for (const { first, count } of this.ledger.partitions.values()) {
      this.vote({
        diagnosis: read ? { cause: "device-scalar-read", kind: "item" } : diagnoseSkip(first.label),
        weight: WEIGHT.partition,
        count,
        function: "",
        location: "",
        statement: `CUDA graph cut into partitions: ${first.label}`,
        evidence: first.evidence,
      });
    }
  }

  private voteFailures(): void {
    for (const { first, count } of this.ledger.failures.values()) {
      const group = this.vote({
        diagnosis: this.diagnoseFailure(first),
        weight: first.failure === "overwritten-output" ? WEIGHT.overwritten : WEIGHT.failure,
        count,
        function: first.function,
        location: first.location,
        statement: `error: ${first.reason}`,
        evidence: first.evidence,
      });
      group.failures += count;
    }
    for (const { first, count } of this.ledger.fallbacks.values()) {
      // A fallback after the limit, or one a stance asks for, has a line of its own that names the guard.
      if (/limit|stance/i.test(first.label)) continue;
      this.vote({
        diagnosis: { cause: "other", kind: "fallback" },
        weight: WEIGHT.fallback,
        count,
        function: "",
        location: "",
        statement: `fallback: ${first.label}`,
        evidence: first.evidence,
      });
    }
  }

  private diagnoseFailure(failure: FailureEvent): Diagnosis {
    switch (failure.failure) {
      case "stance":
        return { cause: "stance-violation", kind: "stance" };
      case "mark-dynamic":
        return { cause: "mark-dynamic-violation", kind: "constraint" };
      case "overwritten-output":
        return { cause: "output-overwritten", kind: "replay" };
      case "full-graph":
        return diagnoseBreak(failure.reason, failure.detail);
      default:
        return failure.failure satisfies never;
    }
  }

  private diagnose({
    reason,
    values,
    location,
    function: name,
  }: Pick<RecompileEvent, "reason" | "values" | "location" | "function">): Diagnosis {
    const diagnosis = diagnoseGuard(reason, values);
    if (diagnosis.cause !== "python-value-guard") return diagnosis;
    if (this.scalars.holds(guardSubject(reason), location)) return { cause: "device-scalar-read", kind: "item" };
    return isCachePosition(reason, name) ? { cause: "python-value-guard", kind: "cache-index" } : diagnosis;
  }

  private vote(vote: Vote): Group {
    const name = nameOf(vote.diagnosis);
    let group = this.groups.get(name);
    if (group === undefined) {
      group = {
        ...vote.diagnosis,
        weight: 0,
        occurrences: 0,
        recompiles: 0,
        repeated: 0,
        limitHits: 0,
        failures: 0,
        everyCall: 0,
        recompilesByPlace: new Counter(),
        functions: new Counter(),
        locations: new Counter(),
        statements: new Counter(),
        lines: [],
      };
      this.groups.set(name, group);
    }
    const weight = vote.weight * vote.count;
    group.weight += weight;
    group.occurrences += vote.count;
    if (vote.location !== "") {
      group.locations.add(vote.location, weight + 1);
      group.functions.add(`${vote.location} ${vote.function}`, weight + 1);
    } else if (vote.function !== "") group.functions.add(` ${vote.function}`, weight + 1);
    group.statements.add(vote.statement, Math.max(vote.count, 1));
    if (group.lines.length < MOST_LINES) group.lines.push(vote.evidence);
    return group;
  }
}

/** By the weight of the whole cause, then of its kind; then causes before what they bring about. */
function ranked(groups: readonly Group[]): Group[] {
  const byCause = new Map<Cause, number>();
  for (const group of groups) byCause.set(group.cause, (byCause.get(group.cause) ?? 0) + group.weight);
  const sorted = groups
    .filter((group) => group.occurrences > 0)
    .sort((a, b) => (byCause.get(b.cause) ?? 0) - (byCause.get(a.cause) ?? 0) || b.weight - a.weight);
  for (const [cause, consequences] of UPSTREAM) {
    const first = sorted.findIndex((group) => consequences.includes(group.cause));
    if (first < 0) continue;
    const later = sorted.filter((group, index) => group.cause === cause && index > first);
    const rest = sorted.filter((group) => !later.includes(group));
    sorted.splice(0, sorted.length, ...rest.slice(0, first), ...later, ...rest.slice(first));
  }
  return sorted;
}

function rootCause(group: Group): RootCause {
  const advice = adviceFor(group);
  const location = group.locations.top();
  const functions = group.functions.sorted().map(([name]) => name);
  const atLocation = functions.find((name) => name.startsWith(`${location} `) && name.length > location.length + 1) ?? functions[0] ?? "";
  return {
    cause: group.cause,
    kind: group.kind,
    function: atLocation.slice(atLocation.lastIndexOf(" ") + 1),
    location,
    evidence: [
      ...group.statements
        .sorted()
        .slice(0, MOST_LINES)
        .map(([statement, count]) => (count > 1 ? `${statement} (${count} times)` : statement)),
      ...group.lines.map(({ source, line, text }) => `${source}:${line}: ${text.trim()}`),
    ],
    severity: severityOf(group),
    fix: advice.fix,
    title: advice.title,
    explanation: advice.explanation,
    example: advice.example,
    pattern: advice.pattern,
    occurrences: group.occurrences,
  };
}

/**
 * bad: the program stopped, a function fell back for good, the host waits for the device, or the cause recompiled as often as a limit allows.
 * good: nothing but sizes that changed once each, which automatic dynamic shapes absorb.
 */
function severityOf(group: Group): Severity {
  if (group.failures > 0 || group.limitHits > 0 || group.cause === "device-scalar-read") return "bad";
  if ((group.recompilesByPlace.sorted()[0]?.[1] ?? 0) >= MANY_RECOMPILES) return "bad";
  const absorbed = group.repeated === 0 && group.everyCall === 0 && group.recompiles > 0;
  if (group.cause === "dynamic-size" && absorbed) return "good";
  return group.kind === "training" ? "good" : "investigate";
}

/** The line of the user's code that led to a break inside a library. */
function userPlace({ location, code }: GraphBreakEvent): string {
  const innermost = code.at(-1);
  return innermost !== undefined && isLibrary(location) ? locationOf(innermost) : location;
}

/** Guards that differ in an index only are one statement. */
function generalised(reason: string): string {
  return reason.replace(/\[\d+\](?= |$|\.|\[)/g, "[*]").replace(/ == -?\d+\.\d{4,}(?:e-?\d+)?$/, " == *");
}
