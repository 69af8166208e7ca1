/** The examples at the end of each command's help. A test runs every one of them on files of these names. */

/** By command path: a command line without `tempograph`, and what it is for. */
export const HELP_EXAMPLES: Readonly<Record<string, readonly (readonly [line: string, purpose: string])[]>> = {
  forecast: [
    ["forecast load.csv", "a table of the next day, from hourly data"],
    ["forecast load.csv --horizon 48 --format chart", "a drawing in the terminal"],
    ["forecast load.csv --target value --format json --no-report --output forecast.json", "a file, the same bytes every time"],
    ["forecast load.csv --last 3 --horizon 12 --format csv", "windows whose end is known"],
    ["forecast candles.csv --model bundled:kronos-nano --horizon 5 --samples 4", "price candles"],
  ],
  evaluate: [
    ["evaluate load.csv --windows 3", "scores against naive forecasts"],
    ["evaluate load.csv --horizon 12 --json", "the same as JSON"],
  ],
  demo: [["demo", "needs nothing"]],
  analyze: [
    ["analyze train.log", "what recompiled, and what to change"],
    ["analyze train.log --format markdown --output report.md --fail-on bad", "for a build"],
  ],
  models: [
    ["models list", "what can be run"],
    ["models info bundled:toto2-nano", "size, context, licence"],
  ],
  config: [
    ["config", "every setting, its value and source"],
    ["config explain", "which source won over which"],
  ],
  "config explain": [["config explain --mode eager", "what this flag would override"]],
  golden: [["golden cases --device reference", "every case folder in cases/"]],
  inspect: [["inspect bundled:toto2-nano --device reference", "programs and memory of a model"]],
  compile: [["compile bundled:toto2-nano --out bundle", "a folder that runs without a compiler"]],
  cache: [
    ["cache list", "what is compiled"],
    ["cache clear --keep 500MB", "the least recently used go"],
  ],
  completion: [["completion bash", "source it, or put it into ~/.local/share/bash-completion/completions"]],
};

/** Text for the end of a command's help; empty without examples. */
export function examplesText(path: string): string {
  const examples = HELP_EXAMPLES[path] ?? [];
  if (examples.length === 0) return "";
  return `\nExamples:\n${examples.map(([line, purpose]) => `  # ${purpose}\n  $ tempograph ${line}`).join("\n")}\n`;
}
