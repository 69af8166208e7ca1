/**
 * The search for schedules: which families are worth it, candidates timed against the usual schedule in alternating order, and when one replaces it. A sequence of
 * builds and timings that somebody else carries out, blocking or not. Must not know devices, clocks or files.
 */
import type { SizeBindings } from "../../ir/dim.js";
import type { Kernel, Program } from "../../ir/kernel.js";
import { scheduleDifference, type KernelSchedule } from "../../ir/schedule.js";
import type { Executable } from "../../runtime/device.js";
import type { OpenGraph, Trial } from "../lower.js";
import { candidatesOf, combined, type Setting } from "./candidates.js";
import { confirmed } from "./confirm.js";
import { bytesOf, workOf, type KernelFamily } from "./families.js";
import { gainBeyondSpread, median } from "./statistics.js";
import type { FamilyOutcome, Search } from "./steps.js";

export interface SearchRequest {
  readonly open: OpenGraph;
  readonly families: readonly KernelFamily[];
  readonly setting: Setting;
  /** Whether the budget is spent; asked before every step. */
  readonly over: () => boolean;
  /** Whether so much of it is spent that the rest is for confirming what was chosen. */
  readonly closing: () => boolean;
  readonly onFamily: (outcome: FamilyOutcome, of: number) => void;
  /** A choice that was not faster between the program's other kernels. */
  readonly onDropped: (outcome: FamilyOutcome) => void;
}

/** Bytes of weights and multiply-adds beyond which further members of a family tell nothing new: caches are overrun by then. */
const enoughBytes = 64e6;
const enoughFlops = 1e9;
/** Share of the families' time below which one is not worth a search. */
const leastShare = 0.02;
const firstRounds = 3;
const finalRounds = 9;
/** Most bytes of scratch that the programs of one family may hold together. */
const scratchBytes = 1e9;
/** Candidates that get the final rounds. */
const finalists = 3;

interface Contender {
  readonly schedule: KernelSchedule | undefined;
  readonly trial: Trial;
  readonly executable: Executable;
  readonly times: number[];
}

class FamilySearch {
  readonly #members: readonly Kernel[];
  #built: Executable[] = [];
  #bytes = 0;

  constructor(
    readonly family: KernelFamily,
    private readonly request: SearchRequest,
  ) {
    this.#members = membersOf(family, request.open, request.setting.sizes);
  }

  get kernel(): Kernel {
    return this.#members[0] as Kernel;
  }

  get #closing(): boolean {
    return this.request.closing();
  }

  /** Time of all of the family's launches under the usual schedule, in ms. */
  *usualTime(): Search<number> {
    const contenders = yield* this.#build([undefined]);
    this.#bytes = bytesOf((contenders[0] as Contender).trial.compiled.program, this.request.setting.sizes);
    if (!(yield* this.#rounds(contenders, firstRounds))) return 0;
    return (median((contenders[0] as Contender).times) * this.family.members.length) / this.#members.length;
  }

  *best(candidates: readonly KernelSchedule[]): Search<FamilyOutcome> {
    const usual: FamilyOutcome = { family: this.family, schedule: this.family.usual, gain: 0, tried: 0 };
    const room = Math.floor(scratchBytes / Math.max(1, this.#bytes)) - 2;
    if (room < 1) return usual;
    const [base, ...others] = (yield* this.#build([undefined, ...candidates.slice(0, room)])) as [Contender, ...Contender[]];
    if (!(yield* this.#rounds([base, ...others], firstRounds))) return usual;
    const better = others.filter(({ times }) => median(times) < median(base.times)).sort((a, b) => median(a.times) - median(b.times));
    const tried = others.length;
    if (better.length === 0) return { ...usual, tried };
    const last = better.slice(0, finalists);
    const together = this.#together(better);
    if (together) last.push(...(yield* this.#build([together])));
    if (!(yield* this.#rounds([base, ...last], finalRounds))) return { ...usual, tried };
    const count = tried + (together ? 1 : 0);
    const gains = last.map((contender) => ({ contender, gain: gainBeyondSpread(base.times, contender.times) }));
    const [winner] = gains.sort((a, b) => b.gain - a.gain);
    if (!winner || winner.gain === 0) return { ...usual, tried: count };
    return { family: this.family, schedule: winner.contender.schedule as KernelSchedule, gain: winner.gain, tried: count };
  }

  /** The best change of each decision at once; undefined when that is none of its own. */
  #together(better: readonly Contender[]): KernelSchedule | undefined {
    const { usual } = this.family;
    const together = combined(usual, better.map(({ schedule }) => schedule as KernelSchedule).reverse());
    const known = better.some(
      ({ schedule }) => scheduleDifference(schedule as KernelSchedule, usual) === scheduleDifference(together, usual),
    );
    return known ? undefined : together;
  }

  /** The usual schedule, undefined, can only come first; its kernels are built already. */
  *#build(schedules: readonly (KernelSchedule | undefined)[]): Search<Contender[]> {
    const usual = schedules[0] === undefined ? 1 : 0;
    const trials = [
      ...this.request.open.trials(this.#members, schedules.slice(0, usual)),
      ...this.request.open.trials(this.#members, schedules.slice(usual)),
    ];
    const executables = (yield { kind: "build", trials }) as readonly Executable[];
    this.#built.push(...executables);
    return trials.map((trial, index) => ({ schedule: schedules[index], trial, executable: executables[index] as Executable, times: [] }));
  }

  /** Every contender once a round, in turns forwards and backwards; false when the budget ended before the last round did. */
  *#rounds(contenders: readonly Contender[], rounds: number): Search<boolean> {
    for (let round = 0; round < rounds; round++) {
      for (const { executable, trial, times } of round % 2 === 0 ? contenders : [...contenders].reverse()) {
        if (this.#closing) return false;
        times.push((yield { kind: "time", executable, trial }) as number);
      }
    }
    return true;
  }

  dispose(): void {
    for (const executable of this.#built) executable.dispose();
    this.#built = [];
  }
}

/** As many members as it takes to overrun the caches the way the whole program does. */
function membersOf({ members }: KernelFamily, { usual, kernels }: OpenGraph, sizes: SizeBindings): Kernel[] {
  const chosen: Kernel[] = [];
  let [bytes, flops] = [0, 0];
  for (const member of members) {
    chosen.push(kernels[member] as Kernel);
    const work = workOf((usual.program as Program).launches[member] as Program["launches"][number], sizes);
    bytes += work.bytes;
    flops += work.flops;
    if (bytes >= enoughBytes || flops >= enoughFlops) break;
  }
  return chosen;
}

/** Families in the order of their time, each searched until the budget closes; then what they chose is confirmed. Answers one outcome per family that was looked at. */
export function* searchSchedules(request: SearchRequest): Search<FamilyOutcome[]> {
  const outcomes: FamilyOutcome[] = [];
  const open = new Set<FamilySearch>();
  try {
    const timed: { search: FamilySearch; candidates: readonly KernelSchedule[]; time: number }[] = [];
    for (const family of request.families) {
      if (request.closing()) break;
      const search = new FamilySearch(family, request);
      open.add(search);
      const candidates = candidatesOf(search.kernel, family.usual, request.setting);
      timed.push({ search, candidates, time: yield* search.usualTime() });
      search.dispose();
    }
    const total = timed.reduce((sum, { time }) => sum + time, 0);
    const worthwhile = timed.filter(({ candidates, time }) => candidates.length > 0 && time > leastShare * total);
    for (const { search, candidates } of worthwhile.sort((a, b) => b.time - a.time)) {
      if (request.closing()) break;
      const outcome = yield* search.best(candidates);
      search.dispose();
      outcomes.push(outcome);
      request.onFamily(outcome, worthwhile.length);
    }
  } finally {
    for (const search of open) search.dispose();
  }
  return yield* confirmed(outcomes, { ...request, sizes: request.setting.sizes, most: scratchBytes });
}
