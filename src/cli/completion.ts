/**
 * Completion scripts for shells, made from the commands themselves: words after a command are its flags and sub-commands, else files.
 */
import type { Command } from "commander";
import { InputError } from "../forecast/errors.js";

const SHELLS = ["bash", "zsh", "fish"] as const;

export function completionScript(shell: string, program: Command): string {
  const words = wordsByCommand(program);
  const top = words.get("") ?? [];
  const cases = [...words].filter(([path]) => path !== "");
  switch (SHELLS.find((name) => name === shell)) {
    case "bash":
      return bash(top, cases, "");
    case "zsh":
      return `autoload -U +X bashcompinit && bashcompinit\n${bash(top, cases, "")}`;
    case "fish":
      return [
        `complete -c tempograph -n "__fish_use_subcommand" -f -a "${top.join(" ")}"`,
        ...cases.map(([path, list]) => {
          const seen = path.split(" ").map((word) => `__fish_seen_subcommand_from ${word}`);
          return `complete -c tempograph -n "${seen.join("; and ")}" -a "${list.join(" ")}"`;
        }),
        "",
      ].join("\n");
    default:
      throw new InputError("bad-shell", `completion "${shell}" is unknown: use ${SHELLS.join(", ")}`);
  }
}

function bash(top: readonly string[], cases: readonly (readonly [string, readonly string[]])[], indent: string): string {
  // Longer paths first, so that `models pull` wins over `models`.
  const sorted = [...cases].sort(([left], [right]) => right.length - left.length);
  return [
    "_tempograph() {",
    '  local typed="${COMP_WORDS[*]:1:COMP_CWORD-1}" word="${COMP_WORDS[COMP_CWORD]}" words',
    '  case "$typed " in',
    ...sorted.map(([path, list]) => `    "${path} "*) words="${list.join(" ")}" ;;`),
    `    " ") words="${top.join(" ")}" ;;`,
    "  esac",
    '  COMPREPLY=($(compgen -W "$words" -- "$word"))',
    "}",
    "complete -o default -F _tempograph tempograph",
    "",
  ]
    .map((line) => indent + line)
    .join("\n");
}

/** What may follow each command path: names of sub-commands and flags. */
function wordsByCommand(program: Command): Map<string, string[]> {
  const words = new Map<string, string[]>();
  const visit = (command: Command, path: string): void => {
    const flags = command.options.filter(({ hidden }) => !hidden).flatMap(({ long }) => long ?? []);
    words.set(path, [...command.commands.map((part) => part.name()), ...flags, "--help"]);
    for (const part of command.commands) visit(part, `${path} ${part.name()}`.trim());
  };
  visit(program, "");
  return words;
}
