#!/usr/bin/env node
/**
 * The `tempograph` executable: binds commands to this process - streams, terminal, Ctrl-C, broken pipes - and sets the exit code.
 */
import { writeSync } from "node:fs";
import { addAbortSignal } from "node:stream";
// Not through index.ts: commands that run no model should not load the compiler.
import { Forecaster } from "../forecast/forecaster.js";
import type { CliContext } from "./context.js";
import { runProgram } from "./program.js";

const GRACE_MILLISECONDS = 5000;

const interrupt = new AbortController();
process.on("SIGINT", () => {
  // The first Ctrl-C lets the run stop at its next step and clean up; a second one does not wait.
  if (interrupt.signal.aborted) process.exit(130);
  interrupt.abort();
  // A step that takes this long is not going to stop by itself.
  setTimeout(() => process.exit(130), GRACE_MILLISECONDS).unref();
});

/** The reader went away (`| head`): nobody is left to tell, and nothing is wrong. */
process.stderr.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 2));
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  writeSync(2, `tempograph: cannot write standard output: ${error.message}\n`);
  process.exit(2);
});

const context: CliContext = {
  writeOut: (text) => void process.stdout.write(text),
  ...(process.stdout.isTTY === true ? {} : { writeBytes: (bytes: Uint8Array) => void process.stdout.write(bytes) }),
  writeError: (text) => void process.stderr.write(text),
  standardInput: () => addAbortSignal(interrupt.signal, process.stdin),
  environment: process.env,
  folder: process.cwd(),
  terminal: {
    columns: process.stdout.columns ?? 80,
    colours: process.stdout.isTTY === true && (process.env["NO_COLOR"] ?? "") === "" && process.env["TERM"] !== "dumb",
  },
  errorTerminal: process.stderr.isTTY === true,
  signal: interrupt.signal,
  load: async (reference, options) => {
    const forecaster = await Forecaster.load(reference, options);
    if (options.mode === "max-autotune") (await import("./search-progress.js")).showSearches(context);
    return forecaster;
  },
};

process.exitCode = await runProgram(process.argv.slice(2), context);
