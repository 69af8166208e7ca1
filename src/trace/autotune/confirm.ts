/**
 * The last word on chosen schedules: all searchable kernels of a program one after the other, once with what their families chose and once as usual. A kernel that is faster
 * among its own kind may be slower between the others, whose weights push its own out of the caches. Must not know how candidates are found.
 */
import type { SizeBindings } from "../../ir/dim.js";
import type { KernelSchedule } from "../../ir/schedule.js";
import type { Executable } from "../../runtime/device.js";
import type { OpenGraph, OrderedTrial } from "../lower.js";
import { bytesOf, type KernelFamily } from "./families.js";
import { fasterInTurns } from "./statistics.js";
import type { FamilyOutcome, Search } from "./steps.js";

export interface ConfirmRequest {
  readonly open: OpenGraph;
  readonly families: readonly KernelFamily[];
  readonly sizes: SizeBindings;
  /** Most bytes that the values of both programs may take together. */
  readonly most: number;
  readonly over: () => boolean;
  readonly onDropped: (outcome: FamilyOutcome) => void;
}

const rounds = 15;
/** Fewer say nothing, and what nobody confirmed is dropped. */
const leastRounds = 7;
/** Without those that one comparison drops, the others may be faster or slower than with them. */
const comparisons = 2;

/** Milliseconds of each launch, for every round. */
type Rounds = number[][];

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

/** Times of a family's launches in each round, with the launch after each: it waits for what they leave unfinished. */
function timesOf({ members }: KernelFamily, order: readonly number[], starts: readonly number[], timed: Rounds): number[] {
  const launches = new Set<number>();
  for (const member of members) {
    const at = order.indexOf(member);
    for (let launch = starts[at] as number; launch <= (starts[at + 1] as number); launch++) launches.add(launch);
  }
  return timed.map((times) => sum([...launches].map((launch) => times[launch] as number)));
}

interface Comparison {
  readonly whole: boolean;
  readonly faster: (family: KernelFamily) => boolean;
}

/** Both programs in turns; undefined when the budget ended too early or memory is too small for it. */
function* compare(won: readonly FamilyOutcome[], { open, families, sizes, most, over }: ConfirmRequest): Search<Comparison | undefined> {
  const order = families.flatMap(({ members }) => members).sort((a, b) => a - b);
  const chosen = new Map<number, KernelSchedule>(won.flatMap(({ family, schedule }) => family.members.map((member) => [member, schedule])));
  const trials = [open.inOrder(order, () => undefined), open.inOrder(order, (member) => chosen.get(member))] as const;
  if (sum(trials.map(({ compiled }) => bytesOf(compiled.program, sizes))) > most) return undefined;
  const executables = (yield { kind: "build", trials }) as readonly Executable[];
  const timed: readonly [Rounds, Rounds] = [[], []];
  try {
    for (let round = 0; round < rounds && !over(); round++)
      for (const side of round % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const))
        timed[side].push((yield { kind: "profile", executable: executables[side] as Executable }) as number[]);
  } finally {
    for (const executable of executables) executable.dispose();
  }
  if (timed[0].length < leastRounds) return undefined;
  const starts = (side: 0 | 1): readonly number[] => (trials[side] as OrderedTrial).starts;
  return {
    whole: fasterInTurns(timed[0].map(sum), timed[1].map(sum)),
    faster: (family) => fasterInTurns(timesOf(family, order, starts(0), timed[0]), timesOf(family, order, starts(1), timed[1])),
  };
}

/** The outcomes, those that are not faster between the program's other kernels with the usual schedule. */
export function* confirmed(outcomes: readonly FamilyOutcome[], request: ConfirmRequest): Search<FamilyOutcome[]> {
  let kept = [...outcomes];
  for (let turn = 1; turn <= comparisons; turn++) {
    const won = kept.filter(({ gain }) => gain > 0);
    if (won.length === 0) break;
    const comparison = yield* compare(won, request);
    const slower = won.filter(({ family }) => !comparison?.faster(family));
    if (slower.length === 0 && comparison?.whole) break;
    const lost = new Set(slower.length === 0 || turn === comparisons ? won : slower);
    lost.forEach(request.onDropped);
    kept = kept.map((outcome) => (lost.has(outcome) ? { ...outcome, schedule: outcome.family.usual, gain: 0 } : outcome));
  }
  return kept;
}
