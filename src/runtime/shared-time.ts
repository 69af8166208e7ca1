/**
 * Time that several measurements share: while more than one is under way, each gets an equal part, so that their sum is what a caller waited. Must not know what is
 * measured.
 */

export class SharedTime {
  readonly #running = new Set<{ milliseconds: number }>();
  #settled = 0;

  constructor(private readonly now: () => number = () => performance.now()) {}

  /** Begins a measurement; the answer ends it and gives its milliseconds. */
  begin(): () => number {
    const own = { milliseconds: 0 };
    this.#settle();
    this.#running.add(own);
    return () => {
      this.#settle();
      this.#running.delete(own);
      return own.milliseconds;
    };
  }

  #settle(): void {
    const now = this.now();
    for (const one of this.#running) one.milliseconds += (now - this.#settled) / this.#running.size;
    this.#settled = now;
  }
}
