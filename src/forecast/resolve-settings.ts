/**
 * Which source of a setting wins: disable variable > flag > option > TEMPOGRAPH_* > aliases in table order > .env.compile > default.
 * Knows sources and their order; what settings exist is `settings.ts`.
 */
import { readFileSync } from "node:fs";
import { DISABLE_VARIABLES, MODE_ALIASES, modelFamily, rowIsDecided, UNUSED_VARIABLES, type ModelFamily } from "./aliases.js";
import { InputError } from "./errors.js";
import { readSwitch, SETTING_NAMES, SETTINGS, type SettingName, type SettingValues } from "./settings.js";

export type Environment = Readonly<Record<string, string | undefined>>;

export interface SettingSources {
  /** Text of CLI flags by setting name. */
  readonly flags?: Readonly<Partial<Record<SettingName, string>>>;
  /** The option object of an API call. */
  readonly options?: Partial<SettingValues>;
  readonly environment: Environment;
  /** Folder in which `.env.compile` is looked for; TEMPOGRAPH_ENV_FILE names another file. Absent: no file is read. */
  readonly folder?: string;
  /** Leave the disable variables out: the mode that holds once none of them is true. */
  readonly ignoreDisable?: boolean;
}

export interface ResolvedSetting<Name extends SettingName = SettingName> {
  readonly name: Name;
  readonly value: SettingValues[Name];
  /** Where the value came from: "default", "--mode", "option mode", "TEMPOGRAPH_MODE", ".env.compile TOTO_COMPILE" ... */
  readonly source: string;
}

export interface ResolvedSettings {
  readonly values: SettingValues;
  readonly settings: readonly ResolvedSetting[];
  /** Variables of the original tools that are set but have no effect here. */
  readonly knownButUnused: readonly string[];
}

const DEFAULT_ENVIRONMENT_FILE = ".env.compile";

/** Throws InputError for a value that cannot be read, naming its source; values that lose are not looked at. */
export function resolveSettings(sources: SettingSources): ResolvedSettings {
  const file = environmentFile(sources);
  const model = resolveOne("model", sources, file, "toto");
  const family = modelFamily(model.value);
  const settings = SETTING_NAMES.map((name) => (name === "model" ? model : resolveOne(name, sources, file, family)));
  const values = Object.fromEntries(settings.map((setting) => [setting.name, setting.value])) as unknown as SettingValues;
  const knownButUnused = UNUSED_VARIABLES.filter((variable) => isSet(sources.environment[variable]) || isSet(file.variables[variable]));
  return { values, settings, knownButUnused };
}

export interface EnvironmentFile {
  /** How it is called in sources. */
  readonly name: string;
  readonly variables: Environment;
}

function resolveOne<Name extends SettingName>(
  name: Name,
  sources: SettingSources,
  file: EnvironmentFile,
  family: ModelFamily,
): ResolvedSetting<Name> {
  const setting = SETTINGS[name];
  if (name === "mode" && sources.ignoreDisable !== true) {
    const disabled = disabledBy(sources.environment, "") ?? disabledBy(file.variables, `${file.name} `);
    if (disabled !== undefined) return { name, value: "eager" as SettingValues[Name], source: disabled };
  }
  const flag = sources.flags?.[name];
  if (flag !== undefined && setting.flag !== undefined) return { name, value: setting.parse(flag, setting.flag), source: setting.flag };
  const option = sources.options?.[name];
  if (option !== undefined) return { name, value: checkOption(setting.name, option) as SettingValues[Name], source: `option ${name}` };
  return (
    fromVariables(name, sources.environment, "", family) ??
    fromVariables(name, file.variables, `${file.name} `, family) ?? { name, value: setting.defaultValue, source: "default" }
  );
}

function fromVariables<Name extends SettingName>(
  name: Name,
  variables: Environment,
  prefix: string,
  family: ModelFamily,
): ResolvedSetting<Name> | undefined {
  const setting = SETTINGS[name];
  const own = variables[setting.environment];
  if (isSet(own)) {
    const source = prefix + setting.environment;
    return { name, value: setting.parse(own.trim(), source), source };
  }
  if (name !== "mode") return undefined;
  for (const alias of MODE_ALIASES) {
    const text = variables[alias.variable];
    if (!isSet(text) || (alias.family !== undefined && alias.family !== family) || rowIsDecided(alias, variables)) continue;
    const mode = alias.toMode(text.trim());
    if (mode !== undefined) return { name, value: mode as SettingValues[Name], source: prefix + alias.variable };
  }
  return undefined;
}

/** Options arrive typed, but from plain JavaScript anything can arrive: they pass the same checks as text. */
function checkOption(name: SettingName, option: unknown): unknown {
  return SETTINGS[name].parse(Array.isArray(option) ? option.join(",") : String(option), `option ${name}`);
}

function disabledBy(variables: Environment, prefix: string): string | undefined {
  const variable = DISABLE_VARIABLES.find((name) => readSwitch(variables[name]) === true);
  return variable === undefined ? undefined : prefix + variable;
}

function isSet(text: string | undefined): text is string {
  return text !== undefined && text.trim() !== "";
}

/** `.env.compile`, or the file that TEMPOGRAPH_ENV_FILE names; without variables when there is none. Throws InputError when a named one cannot be read. */
export function environmentFile(sources: SettingSources): EnvironmentFile {
  const named = sources.environment["TEMPOGRAPH_ENV_FILE"];
  const path = isSet(named) ? named : sources.folder === undefined ? undefined : `${sources.folder}/${DEFAULT_ENVIRONMENT_FILE}`;
  const name = isSet(named) ? named : DEFAULT_ENVIRONMENT_FILE;
  if (path === undefined) return { name, variables: {} };
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (!isSet(named)) return { name, variables: {} };
    throw new InputError(
      "settings-file",
      `TEMPOGRAPH_ENV_FILE names ${named}, which cannot be read (${(error as NodeJS.ErrnoException).code}): fix the path or unset it`,
    );
  }
  return { name, variables: parseEnvironmentFile(text) };
}

/** Lines `NAME=value`, with or without `export`, quotes and comments. Lines that are neither are left alone: the file is a shell script. */
export function parseEnvironmentFile(text: string): Environment {
  const variables: Record<string, string> = {};
  for (const line of text.split(/\r?\n/)) {
    const match = /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=("([^"]*)"|'([^']*)'|[^\s#]*)\s*(?:#.*)?$/.exec(line);
    const name = match?.[1];
    if (match && name !== undefined) variables[name] = match[3] ?? match[4] ?? match[2] ?? "";
  }
  return variables;
}
