/**
 * The commands and flags of `tempograph`. What a command does is in its own file, loaded when it runs.
 */
import type { Command } from "commander";
import { resolveSettings } from "../forecast/resolve-settings.js";
import { SETTING_NAMES, SETTINGS, type SettingName } from "../forecast/settings.js";
import type { AnalyzeCommandOptions } from "./analyze.js";
import type { CliContext } from "./context.js";
import type { EvaluateFlags } from "./evaluate.js";
import type { ForecastFlags } from "./forecast.js";
import type { CacheFlags } from "./cache.js";
import type { CompileFlags } from "./compile.js";
import type { InspectFlags } from "./inspect.js";
import type { ModelsFlags } from "./models.js";
import { examplesText } from "./help-examples.js";
import { settingFlags } from "./setting-flags.js";

type Finish = (code: number) => void;

export function addCommands(program: Command, context: CliContext, finish: Finish): void {
  const add = (name: string): Command =>
    program
      .command(name)
      .copyInheritedSettings(program)
      .helpOption("--help", "print help")
      .allowExcessArguments(false)
      .addHelpText("after", examplesText(name));
  forecastCommand(add("forecast"), context, finish);
  evaluateCommand(add("evaluate"), context, finish);
  demoCommand(add("demo"), context, finish);
  analyzeCommand(add("analyze"), context, finish);
  modelsCommand(add("models"), context, finish);
  configCommand(add("config"), context, finish);
  goldenCommand(add("golden"), context, finish);
  inspectCommand(add("inspect"), context, finish);
  compileCommand(add("compile"), context, finish);
  cacheCommand(add("cache"), context, finish);
  completionCommand(add("completion"), program, context, finish);
}

function completionCommand(command: Command, program: Command, context: CliContext, finish: Finish): void {
  command
    .description("print a completion script for bash, zsh or fish")
    .argument("<shell>", "bash, zsh or fish")
    .action(async (shell: string) => {
      const { completionScript } = await import("./completion.js");
      context.writeOut(completionScript(shell, program));
      finish(0);
    });
}

function forecastCommand(command: Command, context: CliContext, finish: Finish): void {
  command
    .description("forecast the series of a CSV, JSON, JSON Lines or Parquet file")
    .argument("<file>", "the file, or - for standard input");
  settingOptions(command, [
    "model",
    "horizon",
    "context",
    "samples",
    "quantiles",
    "seed",
    "device",
    "mode",
    "kvCache",
    "weights",
    "threads",
  ]);
  command
    .option("--time <column>", "column of timestamps")
    .option("--target <columns>", "columns to forecast, with commas between")
    .option("--id <column>", "column that tells series apart (long tables)")
    .option("--frequency <step>", "calendar step such as 1h, 15min, D; missing steps become gaps")
    .option("--past <columns>", "columns used as past covariates")
    .option("--known <file>", "file of covariates known ahead: the same time (and id) column, values for the past and the horizon")
    .option("--decimal-comma", "CSV numbers are written 3,14; columns are separated by semicolons or tabs")
    .option("--last <count>", "forecast the last windows of the file, one horizon apart, instead of its future")
    .option("--revision <name>", "revision of a hub model: a branch, tag or commit (default: main)")
    .option("--offline", "take hub models from the cache only")
    .option("--joint", "columns are variates of one series")
    .option("--tokenizer <reference>", "tokenizer of a Kronos model: a folder or bundled name")
    .option("--temperature <number>", "Kronos: above 0, default 1")
    .option("--top-k <count>", "Kronos: draw among the likeliest tokens only, 0 = all; switches --top-p off")
    .option("--top-p <share>", "Kronos: draw among this share of probability, default 0.9")
    .option("--clip <bound>", "Kronos: bound of normalised values, default 5")
    .option("--max-context <candles>", "Kronos: candles the model sees at once (default: its own)")
    .option("--time-zone <name>", "Kronos: zone of the time features and the calendar, such as America/New_York")
    .option("--calendar <rule>", "Kronos: auto (what the timestamps show) or 24/7")
    .option("--consistent", "Kronos: candles whose high and low hold open and close, no negative volume")
    .option(
      "--decode-block-size <samples>",
      "Toto 2: decode so many samples at a time and feed their medians back, 0 = all at once (default)",
    )
    .option("--decoding-preset <name>", "Toto 2: published defaults to start from, wrapper (default) or forecast")
    .option("--imputation <rule>", "Toto 2: what missing values at the end of the context become, ffill (default), linear or none")
    .option("--paths", "put sample paths into the JSON")
    .option("--no-report", "leave the report out; equal inputs then give equal bytes")
    .option("--format <name>", "table, json, csv, parquet or chart (SVG when --output ends in .svg)", "table")
    .option("--output <file>", "write there instead of standard output")
    .option("--quiet", "no notes on standard error");
  command.action(async (file: string, flags: ForecastFlags) => {
    const { runForecast } = await import("./forecast.js");
    finish(await runForecast(file, flags, context));
  });
}

function evaluateCommand(command: Command, context: CliContext, finish: Finish): void {
  command
    .description("score a model on the known ends of series, against forecasts anyone can make without one")
    .argument("<paths...>", "CSV or JSON files, corpus folders (pairs NAME.json and NAME.npy), or - for standard input");
  settingOptions(command, ["model", "horizon", "context", "samples", "seed", "device", "mode", "kvCache", "weights", "threads"]);
  command
    .option("--time <column>", "column of timestamps")
    .option("--target <columns>", "columns to evaluate, with commas between")
    .option("--id <column>", "column that tells series apart (long tables)")
    .option("--frequency <step>", "calendar step such as 1h, 15min, D; decides the group")
    .option("--period <steps>", "seasonal period (default: the usual one of the frequency)")
    .option("--windows <count>", "windows at the end of each series, one horizon apart (default: 1)")
    .option("--every <n>", "evaluate every n-th series of each group only (default: 1)")
    .option("--json", "as JSON")
    .option("--picture <file>", "draw forecasts of each group as SVG")
    .option("--output <file>", "write there instead of standard output")
    .option("--quiet", "no notes and no progress on standard error")
    .action(async (paths: string[], flags: EvaluateFlags) => {
      const { runEvaluate } = await import("./evaluate.js");
      finish(await runEvaluate(paths, flags, context));
    });
}

function demoCommand(command: Command, context: CliContext, finish: Finish): void {
  command.description("forecast the example series and show what the engine did").action(async () => {
    const { runDemo } = await import("./demo.js");
    finish(await runDemo(context));
  });
}

function analyzeCommand(command: Command, context: CliContext, finish: Finish): void {
  command
    .description("read compiler logs (TORCH_LOGS, TORCH_TRACE, TEMPOGRAPH_LOGS) and say what to change")
    .argument("<logs...>", "log files, plain or gzipped, or - for standard input")
    .option("--json", "the same as --format json")
    .option("--format <name>", "terminal, markdown or json (default: terminal)")
    .option("--output <file>", "write there instead of standard output")
    .option("--fail-on <severity>", "exit with 1 from this severity on: good, investigate or bad (default: bad)")
    .action(async (logs: string[], flags: AnalyzeCommandOptions) => {
      const { runAnalyzeCommand } = await import("./analyze.js");
      finish(await runAnalyzeCommand(logs, flags, context));
    });
}

function modelsCommand(models: Command, context: CliContext, finish: Finish): void {
  models.description("list, describe, download and remove models");
  const add = (name: string): Command =>
    models.command(name).copyInheritedSettings(models).helpOption("--help", "print help").allowExcessArguments(false);
  add("list")
    .description("models that can be run, and what is in the cache")
    .option("--json", "as JSON")
    .action(async (flags: ModelsFlags) => {
      const { runModelsList } = await import("./models.js");
      finish(runModelsList(flags, context));
    });
  add("info")
    .description("configuration, size and card of a model that is here")
    .argument("<model>", "bundled:NAME, a folder, or a hub id in the cache")
    .option("--revision <name>", "branch, tag or commit (default: main)")
    .option("--json", "as JSON")
    .action(async (model: string, flags: ModelsFlags) => {
      const { runModelsInfo } = await import("./models.js");
      finish(await runModelsInfo(model, flags, context));
    });
  add("pull")
    .description("download a model from the hub, or bring it up to date")
    .argument("<id>", "hub id, OWNER/NAME")
    .option("--revision <name>", "branch, tag or commit (default: main)")
    .option("--offline", "only check that it is in the cache")
    .option("--quiet", "no progress on standard error")
    .action(async (id: string, flags: ModelsFlags) => {
      const { runModelsPull } = await import("./models.js");
      finish(await runModelsPull(id, flags, context));
    });
  add("remove")
    .description("delete a downloaded model from the cache")
    .argument("<id>", "hub id, OWNER/NAME")
    .option("--quiet", "no note on standard error")
    .action(async (id: string, flags: ModelsFlags) => {
      const { runModelsRemove } = await import("./models.js");
      finish(runModelsRemove(id, flags, context));
    });
}

function configCommand(command: Command, context: CliContext, finish: Finish): void {
  command
    .description("list every setting with its value and where the value came from")
    .option("--json", "as JSON")
    .action(async (flags: { json?: boolean }) => {
      const { runConfig } = await import("./config.js");
      finish(runConfig(context, flags));
    });
  const explain = command
    .command("explain")
    .copyInheritedSettings(command)
    .helpOption("--help", "print help")
    .allowExcessArguments(false)
    .addHelpText("after", examplesText("config explain"))
    .description("list every source of every setting, from the strongest to the weakest, and what became of it");
  settingOptions(
    explain,
    SETTING_NAMES.filter((name) => SETTINGS[name].flag !== undefined),
  );
  explain.option("--json", "as JSON").action(async (flags: { json?: boolean }, explaining: Command) => {
    const { runConfigExplain } = await import("./config.js");
    // `config --json explain` is read as the outer command's flag.
    finish(runConfigExplain(context, { ...flags, ...explaining.optsWithGlobals<{ json?: boolean }>() }));
  });
}

function goldenCommand(command: Command, context: CliContext, finish: Finish): void {
  command
    .description("run golden cases and compare every tensor (for developers)")
    .argument("<directories...>", "case folders, or folders of cases");
  settingOptions(command, ["device", "mode"]);
  command.option("--json", "as JSON").action(async (directories: string[], flags: { device?: string; mode?: string; json?: boolean }) => {
    const [{ runGoldenCommand }, { goldenFunctions }] = await Promise.all([
      import("./golden.js"),
      import("../diagnostics/golden/functions.js"),
    ]);
    const sources = { flags: settingFlags(flags), environment: context.environment, folder: context.folder };
    const { device, mode } = resolveSettings(sources).values;
    finish(await runGoldenCommand(directories, { device, mode, json: flags.json ?? false, functions: goldenFunctions }, context));
  });
}

function inspectCommand(command: Command, context: CliContext, finish: Finish): void {
  command
    .description("run one small forecast and show its programs, kernels, memory, compile time and guards")
    .argument("[model]", "bundled:NAME or a folder (default: the setting --model)");
  settingOptions(command, ["horizon", "context", "samples", "seed", "device", "mode", "kvCache", "weights", "threads"]);
  command
    .option("--profile", "time, arithmetic and memory traffic of each part of the model")
    .option("--json", "as JSON")
    .action(async (model: string | undefined, flags: InspectFlags) => {
      const { runInspect } = await import("./inspect.js");
      finish(await runInspect(model, flags, context));
    });
}

function compileCommand(command: Command, context: CliContext, finish: Finish): void {
  command
    .description("compile a model ahead of time into a bundle that runs without a compiler")
    .argument("<model>", "bundled:NAME or a folder")
    .option("--out <folder>", "new folder of the bundle");
  settingOptions(command, ["horizon", "context", "samples", "mode", "kvCache", "weights"]);
  command
    .option("--variates <counts>", "numbers of variates to compile for, with commas between (default: 1)")
    .option("--with-weights", "copy the weights into the bundle instead of naming their folder")
    .option("--quiet", "no note on standard error")
    .action(async (model: string, flags: CompileFlags) => {
      const { runCompile } = await import("./compile.js");
      finish(await runCompile(model, flags, context));
    });
}

function cacheCommand(cache: Command, context: CliContext, finish: Finish): void {
  cache.description("list or remove compiled kernels");
  const add = (name: string): Command =>
    cache.command(name).copyInheritedSettings(cache).helpOption("--help", "print help").allowExcessArguments(false);
  add("list")
    .description("kernels in the artifact cache, last used first")
    .option("--all", "every kernel, not only the first 20")
    .option("--json", "as JSON")
    .action(async (flags: CacheFlags) => {
      const { runCacheList } = await import("./cache.js");
      finish(runCacheList(flags, context));
    });
  add("clear")
    .description("remove compiled kernels; they are built again when needed")
    .option("--keep <size>", "remove only what was not used for longest, until this much is left, such as 500MB")
    .option("--quiet", "no note on standard error")
    .action(async (flags: CacheFlags) => {
      const { runCacheClear } = await import("./cache.js");
      finish(runCacheClear(flags, context));
    });
}

function settingOptions(command: Command, names: readonly SettingName[]): void {
  for (const name of names) {
    const setting = SETTINGS[name];
    if (setting.flag === undefined) throw new Error(`setting ${name} has no flag`);
    const text = setting.defaultValue === undefined ? setting.defaultText : String(setting.defaultValue);
    command.option(`${setting.flag} <value>`, `${setting.meaning} (default: ${text ?? "unset"})`);
  }
}
