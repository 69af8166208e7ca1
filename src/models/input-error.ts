/**
 * The one error class for bad user input: files, weights, configurations, arguments. Commands turn it into exit code 2 without a stack trace.
 * Lives here because both the models and the file readers throw it; it must not know who catches it.
 */

/** Something the user gave is wrong. The message says what was found, where, what was expected and what to do. */
export class InputError extends Error {
  /** Stable machine-readable kind, for example `file-missing`, `safetensors-header`, `checkpoint-tensor`. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "InputError";
    this.code = code;
  }
}
