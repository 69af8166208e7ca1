/** Process-wide stances: what happens on a guard miss. The words are PyTorch's. */

export type Stance = "default" | "force_eager" | "eager_on_recompile" | "fail_on_recompile";

/** Every stance, by the words PyTorch uses. */
export const stances: readonly Stance[] = ["default", "force_eager", "eager_on_recompile", "fail_on_recompile"];

let current: Stance = "default";

/** Sets the stance for all calls from now on and returns the one before. */
export function setStance(stance: Stance): Stance {
  if (!stances.includes(stance)) throw new Error(`unknown stance "${String(stance)}"; known are: ${stances.join(", ")}`);
  const before = current;
  current = stance;
  return before;
}

/** The stance that calls are under now. */
export const currentStance = (): Stance => current;

/** Thrown under `fail_on_recompile`; names the guard that failed. */
export class RecompileError extends Error {
  override readonly name = "RecompileError";
  readonly code = "recompile";
}

/** Thrown by a graph break under `fullGraph`, and by other uses that traced code must not make. */
export class TraceError extends Error {
  override readonly name = "TraceError";
  readonly code = "trace";
}
