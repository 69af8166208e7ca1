/**
 * Counting by key in bounded memory, and keeping keys without keeping the text they were cut from.
 */

/** Keys kept apart; what comes later is counted under `FURTHER`. */
const MOST_KEYS = 10_000;
export const FURTHER = "(further)";

/**
 * A copy of `text` with memory of its own. Engines represent a cut-out string as a view of the whole chunk it was cut from,
 * which would stay in memory as long as the key does.
 */
export function detached(text: string): string {
  return text.length < 13 ? text : Buffer.from(text, "utf8").toString("utf8");
}

/** How often each key was counted, in order of first appearance. */
export class Counter {
  total = 0;
  private readonly counts = new Map<string, number>();

  add(key: string, amount = 1): void {
    this.total += amount;
    const known = this.counts.has(key) ? key : this.counts.size < MOST_KEYS ? detached(key) : FURTHER;
    this.counts.set(known, (this.counts.get(known) ?? 0) + amount);
  }

  /** Most frequent first. */
  sorted(): [string, number][] {
    return [...this.counts].sort((a, b) => b[1] - a[1]);
  }

  /** The most frequent key, "" when nothing was counted. */
  top(): string {
    return this.sorted()[0]?.[0] ?? "";
  }

  toJSON(): Record<string, number> {
    return Object.fromEntries(this.sorted());
  }
}

/** Rows of equal events: bounded like `Counter`, each row remembers its first event. */
export class Rows<Event> {
  private readonly rows = new Map<string, { first: Event; count: number }>();

  /** Counts one more of `key`; `make` gives the event to remember and runs for the first only. */
  add(key: string, make: () => Event): void {
    const known = this.rows.has(key) ? key : this.rows.size < MOST_KEYS ? detached(key) : FURTHER;
    const row = this.rows.get(known);
    if (row !== undefined) row.count += 1;
    else this.rows.set(known, { first: make(), count: 1 });
  }

  values(): IterableIterator<{ first: Event; count: number }> {
    return this.rows.values();
  }
}
