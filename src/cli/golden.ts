/**
 * `tempograph golden DIR...`: runs golden cases and prints what passed. Thin: loading, running and comparing are in diagnostics/golden.
 */

import { basename } from "node:path";
import { findGoldenCases } from "../diagnostics/golden/case.js";
import { runGoldenCases } from "../diagnostics/golden/run.js";
import type { CaseResult, GoldenFunctions, GoldenReport } from "../diagnostics/golden/run.js";
import type { CliContext } from "./context.js";

export interface GoldenCommandOptions {
  readonly device: string;
  readonly mode: string;
  /** Print the report as JSON on stdout; the closing line then goes to stderr. */
  readonly json: boolean;
  readonly functions: GoldenFunctions;
}

/**
 * Runs the cases of `directories`, each on both programs. Returns 0 when all passed, 1 when one differed, 2 when one could not be run.
 * Throws `InputError` for a directory without cases.
 */
export async function runGoldenCommand(
  directories: readonly string[],
  options: GoldenCommandOptions,
  context: Pick<CliContext, "writeOut" | "writeError" | "signal">,
): Promise<number> {
  const folders = findGoldenCases(directories);
  const nameWidth = Math.max(...folders.map((folder) => basename(folder).length));
  const report = await runGoldenCases(folders, {
    device: options.device,
    mode: options.mode,
    functions: options.functions,
    signal: context.signal,
    ...(!options.json && { onResult: (result) => context.writeOut(`${line(result, nameWidth)}\n`) }),
  });
  const closing = `${report.passed} passed, ${report.failed} failed\n`;
  if (report.errors > 0) context.writeError(`tempograph: ${report.errors} of ${report.cases.length} runs could not be measured\n`);
  if (options.json) {
    context.writeOut(`${JSON.stringify(report, null, 2)}\n`);
    context.writeError(closing);
  } else context.writeOut(closing);
  return exitCode(report);
}

function exitCode(report: GoldenReport): number {
  if (report.errors > 0) return 2;
  return report.failed > 0 ? 1 : 0;
}

/** One run on one line: verdict, case, program, and either the largest distances or what went wrong. */
function line(result: CaseResult, nameWidth: number): string {
  const start = `${result.status.padEnd(5)}  ${result.name.padEnd(nameWidth)}  ${result.program.padEnd(7)}`;
  if (result.reason !== undefined) return `${start}  ${result.reason}`;
  const abs = Math.max(...result.tensors.map((tensor) => tensor.maxAbs ?? 0));
  const ulp = Math.max(...result.tensors.map((tensor) => tensor.maxUlp ?? 0));
  const count = `${result.tensors.length} tensor${result.tensors.length === 1 ? "" : "s"}`;
  return `${start}  ${count.padStart(10)}  max ${abs.toExponential(1)}, ${ulp} ulp`;
}
