/**
 * Order of runs off the event loop: those that share a mutable State follow each other, in the order of the calls (one that has to compile first
 * takes its place when it is ready); a blocking call, which cannot wait, is refused
 * while one is under way. Must not know what runs.
 */
import { type State } from "./state.js";

/** Runs `body` once every earlier run on any of the states has ended. */
export function inOrder<T>(states: readonly State[], body: () => Promise<T>): Promise<T> {
  const mutable = states.filter(({ declaration }) => declaration.kind === "mutable");
  const before = new Set(mutable.flatMap(({ run }) => run ?? []));
  const run = before.size === 0 ? body() : Promise.allSettled(before).then(body);
  for (const state of mutable) state.run = run;
  const ended = (): void => {
    for (const state of mutable) if (state.run === run) state.run = undefined;
  };
  run.then(ended, ended);
  return run;
}

/** Throws when a run off the event loop uses one of the states. */
export function refuseWhileRunning(what: string, states: readonly State[]): void {
  const busy = states.find((state) => state.run !== undefined);
  if (busy)
    throw new Error(
      `${what} would use the state "${busy.name}" while a run off the event loop is using it; a blocking call cannot wait for that. Await the run first.`,
    );
}
