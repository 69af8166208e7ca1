/**
 * Which of the guards that failed at one recompile is to blame. PyTorch names the variant it checked first, whose guard may be a mere
 * switch (gradients on or off) beside a value that never repeats. Knows no wording and no weights.
 */
import type { Diagnosis } from "./causes.js";
import type { RecompileEvent } from "./events.js";
import { placeOf } from "./ledger.js";

/** A guard that knows two states doubles the variants of a function; one with this many is what multiplies them. */
const TWO_STATES = 2;
const MANY_STATES = 4;

interface State {
  readonly diagnosis: Diagnosis;
  /** Different guards of this cause that have failed in the function. */
  readonly count: number;
}

export class Multipliers {
  private readonly statesByPlace = new Map<string, ReadonlyMap<string, State>>();

  constructor(private readonly diagnose: (recompile: RecompileEvent) => Diagnosis) {}

  /** The cause of the guard with ever new states if the recompile's own has two at most; else of its own. `guards`: all that failed in the function. */
  causeOf(recompile: RecompileEvent, guards: Iterable<string> | undefined): Diagnosis {
    const own = this.diagnose(recompile);
    const place = placeOf(recompile);
    const states = this.statesByPlace.get(place) ?? this.statesOf(recompile, guards ?? []);
    this.statesByPlace.set(place, states);
    const most = [...states.values()].sort((a, b) => b.count - a.count)[0];
    const isSwitch = (states.get(nameOf(own))?.count ?? 0) <= TWO_STATES;
    return isSwitch && most !== undefined && most.count >= MANY_STATES ? most.diagnosis : own;
  }

  private statesOf(recompile: RecompileEvent, guards: Iterable<string>): ReadonlyMap<string, State> {
    const states = new Map<string, State>();
    for (const reason of guards) {
      const diagnosis = this.diagnose({ ...recompile, reason, values: [] });
      const name = nameOf(diagnosis);
      states.set(name, { diagnosis, count: (states.get(name)?.count ?? 0) + 1 });
    }
    return states;
  }
}

/** Name of a diagnosis, equal for equal ones. */
export function nameOf({ cause, kind }: Diagnosis): string {
  return `${cause}/${kind}`;
}
