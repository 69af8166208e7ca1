/**
 * What a command sees of the process it runs in, so that tests can run commands without one.
 */
import type { Forecaster, LoadOptions } from "../forecast/forecaster.js";
import type { Environment } from "../forecast/resolve-settings.js";

export interface CliContext {
  readonly writeOut: (text: string) => void;
  /** Absent when stdout is a terminal. */
  readonly writeBytes?: (bytes: Uint8Array) => void;
  readonly writeError: (text: string) => void;
  /** Called when a command reads `-`; ends with an error when `signal` aborts. */
  readonly standardInput: () => AsyncIterable<Uint8Array>;
  readonly environment: Environment;
  /** Where `.env.compile` is looked for. */
  readonly folder: string;
  /** Width in columns, and whether stdout takes colours. */
  readonly terminal: { readonly columns: number; readonly colours: boolean };
  /** Whether stderr is a terminal: progress is shown there only. */
  readonly errorTerminal?: boolean;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
  readonly load: (reference: string, options: LoadOptions) => Promise<Forecaster>;
}

/** One line for people on stderr; commands with --quiet leave it out. */
export function note(context: CliContext, text: string): void {
  context.writeError(`tempograph: ${text}\n`);
}
