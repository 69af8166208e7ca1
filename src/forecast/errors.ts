/**
 * The one error class of bad input, as the forecast layer sees it.
 * Holds nothing of its own and must not know where an error is shown.
 */
export class InputError extends Error {
  override readonly name = "InputError";
  constructor(
    message: string,
    /** Stable, kebab-case; scripts may branch on it. */
    readonly code: string,
  ) {
    super(message);
  }
}
