/**
 * The commands and flags of `tempograph`, and how any failure becomes one sentence and an exit code.
 * Knows commander; what a command does is in its own file, loaded when it runs.
 */
import { Command, CommanderError, Option } from "commander";
import { readFileSync } from "node:fs";
import { InputError } from "../forecast/errors.js";
import { resolveSettings } from "../forecast/resolve-settings.js";
import { readSwitch, SETTINGS, type SettingName } from "../forecast/settings.js";
import type { CliContext } from "./context.js";
import { note } from "./context.js";
import type { ForecastFlags } from "./forecast.js";
import { settingFlags } from "./setting-flags.js";

const REFUSED_FLAGS = [
  "--known <file>",
  "--last <k>",
  "--tokenizer <reference>",
  "--temperature <number>",
  "--top-k <count>",
  "--top-p <share>",
  "--revision <name>",
  "--offline",
];

/** Runs one command line (without node and script). Returns the exit code; never throws. */
export async function runProgram(words: readonly string[], context: CliContext): Promise<number> {
  let code = 0;
  const program = buildProgram(context, (result) => {
    code = result;
  });
  try {
    await program.parseAsync([...words], { from: "user" });
    return code;
  } catch (error) {
    return failure(error, context);
  }
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
  note(
    context,
    error instanceof InputError
      ? error.message
      : `internal error, please report it: ${error instanceof Error ? error.message : String(error)}`,
  );
  if (!(error instanceof InputError) && readSwitch(context.environment[SETTINGS.debug.environment]) === true && error instanceof Error)
    context.writeError(`${error.stack}\n`);
  return 2;
}

function buildProgram(context: CliContext, finish: (code: number) => void): Command {
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

  const forecast = inherit(program.command("forecast"))
    .description("forecast the series of a CSV or JSON file")
    .argument("<file>", "the file, or - for standard input");
  for (const name of ["model", "horizon", "context", "samples", "quantiles", "seed", "device", "mode", "kvCache", "threads"] as const) {
    settingOption(forecast, name);
  }
  forecast
    .option("--time <column>", "column of timestamps")
    .option("--target <columns>", "columns to forecast, with commas between")
    .option("--id <column>", "column that tells series apart (long tables)")
    .option("--frequency <step>", "calendar step such as 1h, 15min, D; missing steps become gaps")
    .option("--past <columns>", "columns used as past covariates")
    .option("--joint", "columns are variates of one series")
    .option("--paths", "put sample paths into the JSON")
    .option("--no-report", "leave the report out; equal inputs then give equal bytes")
    .option("--format <name>", "table, json, csv or chart", "table")
    .option("--output <file>", "write there instead of standard output")
    .option("--quiet", "no notes on standard error");
  // Names that later versions use: read so that they can be refused with a reason, and left out of the help.
  for (const flag of REFUSED_FLAGS) forecast.addOption(new Option(flag).hideHelp());
  forecast.action(async (file: string, flags: ForecastFlags) => {
    const { runForecast } = await import("./forecast.js");
    finish(await runForecast(file, flags, context));
  });

  inherit(program.command("demo"))
    .description("forecast the example series and show what the engine did")
    .action(async () => {
      const { runDemo } = await import("./demo.js");
      finish(await runDemo(context));
    });

  const golden = inherit(program.command("golden"))
    .description("run golden cases and compare every tensor (for developers)")
    .argument("<directories...>", "case folders, or folders of cases");
  settingOption(golden, "device");
  settingOption(golden, "mode");
  golden.option("--json", "as JSON").action(async (directories: string[], flags: { device?: string; mode?: string; json?: boolean }) => {
    const [{ runGoldenCommand }, { goldenFunctions }] = await Promise.all([
      import("./golden.js"),
      import("../diagnostics/golden/functions.js"),
    ]);
    const { device, mode } = resolveSettings({
      flags: settingFlags(flags),
      environment: context.environment,
      folder: context.folder,
    }).values;
    finish(await runGoldenCommand(directories, { device, mode, json: flags.json ?? false, functions: goldenFunctions }, context));
  });

  inherit(program.command("config"))
    .description("list every setting with its value and where the value came from")
    .option("--json", "as JSON")
    .action(async (flags: { json?: boolean }) => {
      const { runConfig } = await import("./config.js");
      finish(runConfig(context, flags));
    });
  return program;

  function inherit(command: Command): Command {
    return command.copyInheritedSettings(program).helpOption("--help", "print help").allowExcessArguments(false);
  }
}

function settingOption(command: Command, name: SettingName): void {
  const setting = SETTINGS[name];
  if (setting.flag === undefined) throw new Error(`setting ${name} has no flag`);
  const text = setting.defaultValue === undefined ? setting.defaultText : String(setting.defaultValue);
  command.option(`${setting.flag} <value>`, `${setting.meaning} (default: ${text ?? "unset"})`);
}

function packageVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  return String((manifest as { version: unknown }).version);
}
