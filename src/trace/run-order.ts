/**
 * Order of runs off the event loop: those that share a mutable State follow each other, in the order of the calls (one that has to compile first
 * takes its place when it is ready); a blocking call, which cannot wait, is refused
 * while one is under way. Must not know what runs.
 */
import { type State } from "./state.js";

interface UnderWay {
  readonly states: ReadonlySet<State>;
  readonly ended: Promise<unknown>;
}

const underWay = new Set<UnderWay>();

const sharesState = (a: ReadonlySet<State>, b: ReadonlySet<State>): boolean => {
  for (const state of a) if (b.has(state)) return true;
  return false;
};

/** The states whose runs have to follow each other. */
export const mutableStates = (states: readonly State[]): ReadonlySet<State> =>
  new Set(states.filter(({ declaration }) => declaration.kind === "mutable"));

const endsOf = (states: ReadonlySet<State>): Promise<unknown>[] =>
  [...underWay].filter((run) => sharesState(run.states, states)).map(({ ended }) => ended);

/** Runs `body` once every earlier run on any of the states, all mutable, has ended. */
export function inOrder<T>(states: ReadonlySet<State>, body: () => Promise<T>): Promise<T> {
  const run = isFree(states) ? body() : Promise.allSettled(endsOf(states)).then(body);
  const entry = { states, ended: run };
  underWay.add(entry);
  const ended = (): void => void underWay.delete(entry);
  run.then(ended, ended);
  return run;
}

/** Whether a run on these states, all mutable, need not wait for another. */
export function isFree(states: ReadonlySet<State>): boolean {
  for (const run of underWay) if (sharesState(run.states, states)) return false;
  return true;
}

/** Throws when a run off the event loop uses one of the states, all mutable. */
export function refuseWhileRunning(what: string, states: ReadonlySet<State>): void {
  if (underWay.size === 0) return;
  for (const run of underWay) {
    const busy = [...states].find((state) => run.states.has(state));
    if (busy)
      throw new Error(
        `${what} would use the state "${busy.name}" while a run off the event loop is using it; a blocking call cannot wait for that. Await the run first.`,
      );
  }
}
