/**
 * How a command line becomes an exit code: parsing, and how any failure becomes one sentence. Knows commander; the commands are in commands.ts.
 */
import { Command, CommanderError } from "commander";
import { readFileSync } from "node:fs";
import { InputError } from "../forecast/errors.js";
import { readSwitch, SETTINGS } from "../forecast/settings.js";
import { addCommands } from "./commands.js";
import type { CliContext } from "./context.js";
import { note } from "./context.js";
import { ownSpellings } from "./flag-aliases.js";

/** Error classes whose message already says what was found and what to do; they are not ours to call internal. */
const EXPECTED_CODES: readonly string[] = ["device-unavailable", "recompile", "bits-differ"];

/** A check that fell short is an answer of its own, apart from input that is wrong. */
const fellShort = (error: unknown): boolean => error instanceof Error && "code" in error && error.code === "bits-differ";

/** Runs one command line (without node and script). Returns the exit code; never throws. */
export async function runProgram(words: readonly string[], context: CliContext): Promise<number> {
  let code = 0;
  const program = buildProgram(context, (result) => {
    code = result;
  });
  try {
    await program.parseAsync(ownSpellings(words), { from: "user" });
    return code;
  } catch (error) {
    return failure(error, context);
  }
}

/** The command tree, for parsing and for whoever lists it (completion, tests). `finish` hears the exit code. */
export function buildProgram(context: CliContext, finish: (code: number) => void): Command {
  const program = new Command("tempograph")
    .description("Forecasts time series with open foundation models, on a small compiler of its own.")
    .version(packageVersion(), "--version", "print the version")
    .helpOption("--help", "print help")
    .exitOverride()
    .configureOutput({
      writeOut: context.writeOut,
      writeErr: context.writeError,
      // Failures are printed in one place, by `failure`.
      outputError: () => undefined,
      getOutHelpWidth: () => context.terminal.columns,
      getErrHelpWidth: () => context.terminal.columns,
      getOutHasColors: () => context.terminal.colours,
      getErrHasColors: () => false,
    });
  addCommands(program, context, finish);
  return program;
}

function failure(error: unknown, context: CliContext): number {
  if (error instanceof CommanderError) {
    // Help and version end this way too, with code 0.
    if (error.exitCode === 0) return 0;
    if (error.code !== "commander.help") note(context, error.message.replace(/^error: /, "").replaceAll("\n", " "));
    return 2;
  }
  if (context.signal.aborted) {
    note(context, "interrupted");
    return 130;
  }
  const message = error instanceof Error ? error.message : String(error);
  note(context, isExpected(error) ? message : `internal error, please report it: ${message}`);
  const debug = readSwitch(context.environment[SETTINGS.debug.environment]) === true;
  if (!(error instanceof InputError) && debug && error instanceof Error) context.writeError(`${error.stack}\n`);
  return fellShort(error) ? 1 : 2;
}

function isExpected(error: unknown): boolean {
  if (error instanceof InputError) return true;
  // The native runtime's own errors name compilers, folders and files.
  if (error instanceof Error && ["NativeError", "CompilerError"].includes(error.name)) return true;
  return error instanceof Error && "code" in error && EXPECTED_CODES.includes(String(error.code));
}

function packageVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  return String((manifest as { version: unknown }).version);
}
