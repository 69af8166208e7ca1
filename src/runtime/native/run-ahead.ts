/** Parts of a chain, each handed over while the one before runs, so that nobody waits for JavaScript between them. Must not know what a part is. */

/** A part that has been handed over. */
export interface Part {
  /** When it has run. */
  readonly ended: Promise<unknown>;
  /** Hands its answers on. */
  readonly take: () => void;
}

/**
 * Hands parts over, as `next` makes them, until it answers undefined: a new one as soon as all but one have been taken. Rejects with the first error of a part, of
 * `next` or of a `take`, after it has called `stop` and every part that was handed over has ended.
 */
export async function runAhead(next: () => Part | undefined, stop: () => void): Promise<void> {
  // Of all that were handed over; an error among them is thrown in its turn.
  let ended: Promise<unknown> = Promise.resolve();
  const begin = (): Part | undefined => {
    const part = next();
    if (part) ended = Promise.allSettled([ended, part.ended]);
    return part;
  };
  try {
    for (let part = begin(); part;) {
      const following = begin();
      await part.ended;
      part.take();
      part = following;
    }
  } catch (error) {
    stop();
    await ended;
    throw error;
  }
}
