/** One listener per AbortSignal, however many executables run under it: a signal may outlive them all. Must not know what a run is. */

const listening = new WeakMap<AbortSignal, Set<() => void>>();

/** Calls `abort` when the signal fires, until the function that is returned is called. */
export function whenAborted(signal: AbortSignal, abort: () => void): () => void {
  let callbacks = listening.get(signal);
  if (!callbacks) {
    const added = new Set<() => void>();
    listening.set(signal, (callbacks = added));
    signal.addEventListener("abort", () => added.forEach((callback) => callback()), { once: true });
  }
  callbacks.add(abort);
  return () => void listening.get(signal)?.delete(abort);
}
