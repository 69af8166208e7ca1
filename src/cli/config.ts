/**
 * `tempograph config`: every setting with its value and where the value came from. `config explain`: also what it won over.
 */
import { explainSettings } from "../forecast/explain-settings.js";
import { resolveSettings } from "../forecast/resolve-settings.js";
import { SETTINGS } from "../forecast/settings.js";
import type { CliContext } from "./context.js";
import { settingFlags } from "./setting-flags.js";
import { renderTable } from "./table.js";

export function runConfig(context: CliContext, options: { json?: boolean }): number {
  const resolved = resolveSettings({ environment: context.environment, folder: context.folder });
  if (options.json === true) {
    const settings = resolved.settings.map(({ name, value, source }) => ({ name, value: value ?? null, source }));
    context.writeOut(`${JSON.stringify({ settings, knownButUnused: resolved.knownButUnused })}\n`);
    return 0;
  }
  const rows = resolved.settings.map(({ name, value, source }) => {
    const setting = SETTINGS[name];
    const text = value === undefined ? `(${setting.defaultText ?? "unset"})` : Array.isArray(value) ? value.join(",") : String(value);
    return [name, text, source, setting.environment, setting.flag ?? "-", setting.meaning];
  });
  const titles = ["name", "value", "source", "variable", "flag", "meaning"];
  context.writeOut(
    `${renderTable(
      titles.map((title) => ({ title })),
      rows,
    )}\n`,
  );
  for (const variable of resolved.knownButUnused) context.writeOut(`${variable}: known, not used here\n`);
  return 0;
}

/** Every source of every setting from the strongest to the weakest, and what became of it. */
export function runConfigExplain(context: CliContext, flags: { json?: boolean }): number {
  const sources = { flags: settingFlags(flags), environment: context.environment, folder: context.folder };
  const explained = explainSettings(sources);
  const { knownButUnused } = resolveSettings(sources);
  if (flags.json === true) {
    const settings = explained.map(({ name, value, candidates }) => ({ name, value: value ?? null, candidates }));
    context.writeOut(`${JSON.stringify({ settings, knownButUnused })}\n`);
    return 0;
  }
  const rows = explained.flatMap(({ name, candidates }) =>
    candidates.map(({ source, text, effect }, index) => [index === 0 ? name : "", source, text, effect]),
  );
  const table = renderTable(
    ["setting", "source", "value", "effect"].map((title) => ({ title })),
    rows,
  );
  context.writeOut(`${table}\n`);
  for (const variable of knownButUnused) context.writeOut(`${variable}: known, not used here\n`);
  return 0;
}
