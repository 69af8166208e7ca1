/** Carries out the steps of a search on a device, off the event loop or blocking, and stops when a signal says so. Must not know what is searched. */
import { AbortedError, type Device, type Executable, type KernelProfile, type RunRequest } from "../../runtime/device.js";
import type { Search, SearchStep } from "./steps.js";

export interface Bench {
  readonly device: Device;
  /** Inputs, states and sizes that the trials run with; they write to none of them. */
  readonly request: RunRequest;
  /** Ends the search between two steps; checked before each. */
  readonly stopped: () => boolean;
}

/** Milliseconds of each launch, or of a trial's own together: the launch that only waits belongs to those it waits for. */
function answerOf(step: Exclude<SearchStep, { kind: "build" }>, profile: readonly KernelProfile[]): number | number[] {
  const times = profile.map(({ milliseconds }) => milliseconds);
  if (step.kind === "profile") return times;
  const { before, after } = step.trial;
  return times.slice(before, after > 0 ? undefined : times.length).reduce((sum, time) => sum + time, 0);
}

function refuseStopped({ request, stopped }: Bench): void {
  if (request.signal?.aborted) throw new AbortedError(request.signal.reason);
  if (stopped()) throw new AbortedError("disposed");
}

/** Rejects as soon as the signal fires; what `work` still makes is then given to `discard`. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined, discard: (made: T) => void): Promise<T> {
  if (!signal) return work;
  let abort = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(new AbortedError(signal.reason));
    signal.addEventListener("abort", abort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } catch (error) {
    work.then(discard, () => undefined);
    throw error;
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

const disposeAll = (executables: readonly Executable[]): void => executables.forEach((executable) => executable.dispose());

async function loadAll(device: Device, step: SearchStep & { kind: "build" }): Promise<Executable[]> {
  const outcomes = await Promise.allSettled(step.trials.map(({ compiled }) => device.load(compiled)));
  const loaded = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
  const failed = outcomes.find((outcome) => outcome.status === "rejected");
  if (!failed) return loaded;
  disposeAll(loaded);
  throw failed.reason;
}

function loadAllSync(device: Device, { trials }: SearchStep & { kind: "build" }): Executable[] {
  const loaded: Executable[] = [];
  try {
    for (const { compiled } of trials) loaded.push(device.loadSync(compiled));
    return loaded;
  } catch (error) {
    disposeAll(loaded);
    throw error;
  }
}

/** Runs a search to its end, the event loop free. Throws AbortedError, and what building throws; the search has then let go of all it had. */
export async function drive<T>(search: Search<T>, bench: Bench): Promise<T> {
  const { device, request } = bench;
  let answer: unknown;
  try {
    for (;;) {
      const next = search.next(answer);
      // Also after the last step: what an aborted search found is not kept.
      refuseStopped(bench);
      if (next.done) return next.value;
      const step = next.value;
      if (step.kind === "build") answer = await unlessAborted(loadAll(device, step), request.signal, disposeAll);
      else {
        const { measure } = step.executable;
        answer = answerOf(step, await (measure ? measure.call(step.executable, request) : step.executable.profile(request)));
      }
    }
  } finally {
    search.return(undefined as T);
  }
}

/** The same on the calling thread. */
export function driveSync<T>(search: Search<T>, bench: Bench): T {
  const { device, request } = bench;
  let answer: unknown;
  try {
    for (;;) {
      const next = search.next(answer);
      // Also after the last step: what an aborted search found is not kept.
      refuseStopped(bench);
      if (next.done) return next.value;
      const step = next.value;
      answer = step.kind === "build" ? loadAllSync(device, step) : answerOf(step, step.executable.profile(request));
    }
  } finally {
    search.return(undefined as T);
  }
}
