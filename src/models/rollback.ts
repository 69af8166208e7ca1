/**
 * Switching a running process to op by op and back, without touching a stance that the program set itself.
 * Process-wide, like stances; must not know where the wish comes from.
 */
import { currentStance, setStance, type Stance } from "../trace/entry.js";

/** The stance to return to; undefined while nothing is rolled back. */
let before: Stance | undefined;

/** With `eager`, every call of this process from now on runs op by op, with the same bits; without, whatever was before. Repeating it does nothing. */
export function rollBack(eager: boolean): void {
  if (eager && before === undefined) before = setStance("force_eager");
  else if (!eager && before !== undefined) {
    // A stance that was set in between stays.
    if (currentStance() === "force_eager") setStance(before);
    before = undefined;
  }
}
