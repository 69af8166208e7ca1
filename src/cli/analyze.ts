/**
 * `tempograph analyze LOG...|-`: reads compiler logs and says what to change. Thin: reading, counting and advice are in diagnostics/logs.
 */
import { resolve } from "node:path";
import { analyzeLogs } from "../diagnostics/logs/analyze.js";
import type { LogAnalysis } from "../diagnostics/logs/answer.js";
import { SEVERITIES } from "../diagnostics/logs/causes.js";
import type { Severity } from "../diagnostics/logs/causes.js";
import { renderMarkdown, renderTerminal } from "../diagnostics/logs/render.js";
import { InputError } from "../io/errors.js";
import { writeAtomically } from "../io/atomic-write.js";
import type { CliContext } from "./context.js";
import { checkOutput } from "./output.js";

export interface AnalyzeCommandOptions {
  /** Same as `format: "json"`. */
  readonly json?: boolean;
  /** terminal (default), markdown or json. */
  readonly format?: string;
  /** A file that appears whole or not at all; "-" or nothing: stdout. */
  readonly output?: string;
  /** Exit code 1 from this severity on: good, investigate or bad (default). */
  readonly failOn?: string;
}

const FORMATS = ["terminal", "markdown", "json"] as const;

/**
 * Analyses `files` ("-" is stdin) together and writes the answer.
 * Returns 0, or 1 when a root cause is of severity `failOn` or worse. Throws `InputError` for unusable files and options, before it writes.
 */
export async function runAnalyzeCommand(
  files: readonly string[],
  options: AnalyzeCommandOptions,
  context: Pick<CliContext, "writeOut" | "folder" | "terminal">,
): Promise<number> {
  if (files.length === 0) throw new InputError("analyze-files", "name at least one log file, or - for stdin");
  const format = oneOf("--format", options.format ?? (options.json === true ? "json" : "terminal"), FORMATS);
  if (options.json === true && format !== "json")
    throw new InputError("analyze-format", `--json and --format ${format} exclude each other: give one of them`);
  const failOn = oneOf("--fail-on", options.failOn ?? "bad", SEVERITIES);
  const output = options.output === undefined || options.output === "-" ? undefined : resolve(context.folder, options.output);
  if (output !== undefined) checkOutput(output);

  const analysis = await analyzeLogs(files.map((file) => (file === "-" ? file : { name: file, path: resolve(context.folder, file) })));
  const text = render(analysis, format, output === undefined ? context.terminal : { columns: context.terminal.columns, colours: false });
  if (output === undefined) context.writeOut(text);
  else writeAtomically(output, (write) => write(Buffer.from(text)));
  return analysis.rootCauses.some((cause) => isAtLeast(cause.severity, failOn)) ? 1 : 0;
}

function render(analysis: LogAnalysis, format: (typeof FORMATS)[number], terminal: CliContext["terminal"]): string {
  switch (format) {
    case "json":
      return `${JSON.stringify(analysis, null, 2)}\n`;
    case "markdown":
      return renderMarkdown(analysis);
    case "terminal":
      return renderTerminal(analysis, terminal);
    default:
      return format satisfies never;
  }
}

function isAtLeast(severity: Severity, threshold: Severity): boolean {
  return SEVERITIES.indexOf(severity) >= SEVERITIES.indexOf(threshold);
}

function oneOf<Choice extends string>(flag: string, value: string, choices: readonly Choice[]): Choice {
  const choice = choices.find((candidate) => candidate === value);
  if (choice === undefined) throw new InputError("analyze-option", `${flag} is ${value}: expected one of ${choices.join(", ")}`);
  return choice;
}
