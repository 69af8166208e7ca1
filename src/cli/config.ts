/**
 * `tempograph config`: every setting with its value and where the value came from.
 */
import { resolveSettings } from "../forecast/resolve-settings.js";
import { SETTINGS } from "../forecast/settings.js";
import type { CliContext } from "./context.js";
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
