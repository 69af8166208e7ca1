/**
 * Flags in the spellings of the original tools (`--prediction_length`, `--num-samples`), rewritten to this package's own before parsing.
 * Knows words only; which command takes which flag is commands.ts's business.
 */
import { InputError } from "../forecast/errors.js";
import { OPTION_ALIASES } from "../forecast/options.js";

const kebab = (name: string): string =>
  `--${name
    .replaceAll("_", "-")
    .replace(/(?<=[a-z])[A-Z]/g, (letter) => `-${letter}`)
    .toLowerCase()}`;

/** Own flag by alias, both in kebab-case. */
const FLAGS: ReadonlyMap<string, string> = new Map(
  Object.entries(OPTION_ALIASES)
    .map(([alias, name]) => [alias === "T" ? "--T" : kebab(alias), kebab(name)] as const)
    .filter(([alias, flag]) => alias !== flag),
);

/** The words with every long flag in kebab-case and by its own name. Throws `InputError` when a flag is given under two names. */
export function ownSpellings(words: readonly string[]): string[] {
  const givenAs = new Map<string, string>();
  const end = words.indexOf("--");
  return words.map((word, index) => {
    const match = /^(--[A-Za-z][\w-]*)(=.*)?$/s.exec(word);
    if (!match || (end >= 0 && index >= end)) return word;
    const [, spelling = "", value = ""] = match;
    const dashed = spelling.replaceAll("_", "-");
    const flag = FLAGS.get(dashed) ?? dashed;
    const before = givenAs.get(flag);
    if (before !== undefined && before !== dashed)
      throw new InputError("option-conflict", `${before} and ${spelling} mean the same: give one of them`);
    givenAs.set(flag, dashed);
    return flag + value;
  });
}
