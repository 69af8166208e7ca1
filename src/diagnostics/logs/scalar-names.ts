/**
 * Names of variables that hold a number read from a device. A guard on such a name is a consequence of the read, not a cause of its own.
 */
import type { CodeLine } from "./events.js";

/** `n, m = x.sum().item(), 3`: the names left of the first single `=`. */
const ASSIGNMENT = /^\s*([A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)*)\s*=(?!=)/;

export class ScalarNames {
  /** "file name" pairs. */
  private readonly names = new Set<string>();
  private readonly places = new Set<string>();

  /** A read at `location` with the stack that led to it: each caller may assign what it got back. */
  addRead(location: string, code: readonly CodeLine[]): void {
    if (location !== "") this.places.add(location);
    for (const frame of code) {
      for (const name of (ASSIGNMENT.exec(frame.text)?.[1] ?? "").split(","))
        if (name.trim() !== "") this.names.add(`${frame.file} ${name.trim()}`);
    }
  }

  /** Whether a guard on `subject` in the function at `location` is about a number that was read. */
  holds(subject: string, location: string): boolean {
    // A function resumed at the line of a read starts with the value on its stack.
    if (/^___stack\d/.test(subject)) return this.places.has(location);
    return this.names.has(`${location.slice(0, location.lastIndexOf(":"))} ${subject}`);
  }
}
