/**
 * Reading fields of a preset's configuration, which callers may have overridden with anything.
 * Checks only what the layouts need to compute shapes; the models check their configurations themselves.
 */

import { InputError } from "../input-error.js";

export type ConfigRecord = Readonly<Record<string, unknown>>;

function wrong(key: string, found: unknown, expected: string): InputError {
  return new InputError(
    "formula-config",
    `formula weights: config field "${key}" is ${JSON.stringify(found) ?? "missing"}, expected ${expected}`,
  );
}

/** A finite number; `fallback` stands in when the field is absent or null. */
export function numberField(config: ConfigRecord, key: string, fallback?: number): number {
  const value = config[key] ?? fallback;
  if (typeof value !== "number" || !Number.isFinite(value)) throw wrong(key, value, "a number");
  return value;
}

export function stringListField(config: ConfigRecord, key: string): readonly string[] {
  const value = config[key];
  if (!Array.isArray(value) || !value.every((item): item is string => typeof item === "string"))
    throw wrong(key, value, "a list of strings");
  return value;
}

/** A nested object; an absent one counts as empty. */
export function recordField(config: ConfigRecord, key: string): ConfigRecord {
  const value = config[key] ?? {};
  if (typeof value !== "object" || Array.isArray(value)) throw wrong(key, value, "an object");
  return value as ConfigRecord;
}
