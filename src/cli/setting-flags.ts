/**
 * Those of a command's flags that are settings, as text by setting name.
 */
import { SETTING_NAMES, SETTINGS, type SettingName } from "../forecast/settings.js";

export function settingFlags(flags: object): Partial<Record<SettingName, string>> {
  const given = flags as Readonly<Record<string, unknown>>;
  const result: Partial<Record<SettingName, string>> = {};
  for (const name of SETTING_NAMES) {
    const text = given[name];
    if (SETTINGS[name].flag !== undefined && typeof text === "string") result[name] = text;
  }
  return result;
}
