/** One listener per AbortSignal, however many executables run under it: a signal may outlive them all. Must not know what a run is. */

const listening = new WeakMap<AbortSignal, Set<() => void>>();

/** Calls `abort` when the signal fires, until the function that is returned is called. */
export function whenAborted(signal: AbortSignal, abort: () => void): () => void {
  const callbacks = listening.get(signal) ?? listenTo(signal);
  callbacks.add(abort);
  return () => void callbacks.delete(abort);
}

function listenTo(signal: AbortSignal): Set<() => void> {
  const callbacks = new Set<() => void>();
  listening.set(signal, callbacks);
  signal.addEventListener("abort", () => callbacks.forEach((callback) => callback()), { once: true });
  return callbacks;
}
