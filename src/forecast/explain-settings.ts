/**
 * Why a setting has its value: every source that says something about it, from the strongest to the weakest, and what became of it.
 * The rules themselves are in `resolve-settings.ts`; this only lists what they saw.
 */
import { DISABLE_VARIABLES, MODE_ALIASES, modelFamily, rowIsDecided } from "./aliases.js";
import { environmentFile, resolveSettings, type Environment, type SettingSources } from "./resolve-settings.js";
import { readSwitch, SETTINGS, type SettingName } from "./settings.js";

export interface SettingCandidate {
  /** As in `ResolvedSetting.source`. */
  readonly source: string;
  readonly text: string;
  readonly effect: "wins" | "overridden" | "no opinion";
}

export interface ExplainedSetting {
  readonly name: SettingName;
  readonly value: unknown;
  /** From the strongest to the weakest; the default is the last one. */
  readonly candidates: readonly SettingCandidate[];
}

/** One entry per setting, in the order of the table. Throws InputError like `resolveSettings`. */
export function explainSettings(sources: SettingSources): ExplainedSetting[] {
  const resolved = resolveSettings(sources);
  const file = environmentFile(sources);
  const isKronos = modelFamily(resolved.values.model) === "kronos";
  return resolved.settings.map(({ name, value, source: winner }) => {
    const said: (readonly [source: string, text: string, hasOpinion: boolean])[] = [];
    const places = [
      ["", sources.environment],
      [`${file.name} `, file.variables],
    ] as const;
    if (name === "mode")
      for (const [prefix, variables] of places)
        for (const variable of DISABLE_VARIABLES) sayVariable(said, prefix, variables, variable, readSwitch(variables[variable]) === true);
    const setting = SETTINGS[name];
    const flag = sources.flags?.[name];
    if (flag !== undefined && setting.flag !== undefined) said.push([setting.flag, flag, true]);
    const option = sources.options?.[name];
    if (option !== undefined) said.push([`option ${name}`, String(option), true]);
    for (const [prefix, variables] of places) {
      sayVariable(said, prefix, variables, setting.environment, true);
      if (name !== "mode") continue;
      for (const alias of MODE_ALIASES) {
        if (alias.family !== undefined && (alias.family === "kronos") !== isKronos) continue;
        const text = variables[alias.variable]?.trim() ?? "";
        sayVariable(said, prefix, variables, alias.variable, !rowIsDecided(alias, variables) && hasOpinion(() => alias.toMode(text)));
      }
    }
    said.push(["default", String(setting.defaultValue ?? setting.defaultText ?? "unset"), true]);
    const at = said.findIndex(([source]) => source === winner);
    const candidates = said.map(([source, text, opinion], index): SettingCandidate => {
      return { source, text, effect: index === at ? "wins" : opinion && index > at ? "overridden" : "no opinion" };
    });
    return { name, value, candidates };
  });
}

function sayVariable(
  said: (readonly [string, string, boolean])[],
  prefix: string,
  variables: Environment,
  variable: string,
  hasOpinion: boolean,
): void {
  const text = variables[variable]?.trim() ?? "";
  if (text !== "") said.push([prefix + variable, text, hasOpinion]);
}

/** A word that cannot be read and lost anyway counts as an opinion. */
function hasOpinion(read: () => unknown): boolean {
  try {
    return read() !== undefined;
  } catch {
    return true;
  }
}
