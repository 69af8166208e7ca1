/**
 * Errors of the native device. Each has a code that callers may branch on and a message that says what was found, where, and what to do.
 * Holds no logic of its own.
 */

export type NativeErrorCode =
  | "compiler-missing"
  | "compiler-failed"
  | "cache-unsafe"
  | "cache-unwritable"
  | "cache-noexec"
  | "library-failed"
  | "isa-unsupported"
  | "platform-unsupported"
  | "bundle-machine"
  | "bundle-damaged"
  | "bundle-exists"
  | "bundle-unwritable"
  | "out-of-memory"
  | "bad-argument";

/** The machine, its C compiler or the folder of compiled kernels is at fault; `code` says which. */
export class NativeError extends Error {
  override readonly name: string = "NativeError";

  constructor(
    readonly code: NativeErrorCode,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

/** The compiler ran and failed. `output` is what it printed; the file it was given stays at `sourcePath`. */
export class CompilerError extends NativeError {
  override readonly name = "CompilerError";

  constructor(
    message: string,
    readonly sourcePath: string,
    readonly output: string,
  ) {
    super("compiler-failed", message);
  }
}
