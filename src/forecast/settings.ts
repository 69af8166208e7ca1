/**
 * The one table of settings: option = TEMPOGRAPH_* variable = CLI flag, with aliases, checks and defaults. No default lives anywhere else.
 * Knows names and values; which source wins is `resolve-settings.ts`, what a setting does is elsewhere.
 */
import { InputError } from "./errors.js";

/** Where kernels run; `auto` takes native where a C compiler or compiled kernels are there. */
export type Device = "auto" | "native" | "wasm" | "reference";
/** How much is compiled; every mode gives the same bits. */
export type Mode = "eager" | "default" | "reduce-overhead" | "max-autotune";
/** How past keys and values are kept between steps; every way gives the same numbers that its model supports. */
export type KvCache = "none" | "growing" | "functional" | "static" | "dynamic" | "host" | "paged";
/** How weight matrices are stored. */
export type Weights = "f32" | "bf16";
/** What compiled programs are checked against: nothing, or the bits of running op by op. */
export type Check = "bits" | "off";

/** Values every setting resolves to; undefined = left to the model or the machine. */
export interface SettingValues {
  model: string;
  device: Device;
  mode: Mode;
  kvCache: KvCache;
  weights: Weights;
  threads: number | undefined;
  horizon: number | undefined;
  context: number | undefined;
  samples: number | undefined;
  quantiles: readonly number[];
  seed: number;
  autotuneSeconds: number | undefined;
  cacheDir: string | undefined;
  cacheSize: string | undefined;
  logs: string | undefined;
  dump: string | undefined;
  check: Check | undefined;
  debug: boolean;
}

export type SettingName = keyof SettingValues;

export interface Setting<Name extends SettingName = SettingName> {
  readonly name: Name;
  readonly environment: string;
  /** Absent: set by variable only. */
  readonly flag?: string;
  readonly meaning: string;
  readonly defaultValue: SettingValues[Name];
  /** Shown for an undefined default. */
  readonly defaultText?: string;
  /** Text of a flag or variable to a value. Throws InputError naming `source`. */
  parse(text: string, source: string): SettingValues[Name];
}

/** What exists so far of what the flags name; a name outside is refused, never ignored. */
const DEVICES = { names: ["auto", "native", "wasm", "reference"], built: ["auto", "native", "reference"] } as const;
const MODES = {
  names: ["eager", "default", "reduce-overhead", "max-autotune"],
  built: ["eager", "default", "reduce-overhead", "max-autotune"],
} as const;
const KV_CACHES = {
  names: ["none", "growing", "functional", "static", "dynamic", "host", "paged"],
  built: ["none", "growing", "functional", "static", "dynamic", "host", "paged"],
} as const;

const WEIGHTS = { names: ["f32", "bf16"], built: ["f32", "bf16"] } as const;
const CHECKS = { names: ["bits", "off"], built: ["bits", "off"] } as const;

/** Words for how much to change at once, as people put it who come from a cache that recompiles. */
export const KV_CACHE_PRESETS: Readonly<Record<string, KvCache>> = { conservative: "host", moderate: "static", aggressive: "paged" };

export const SETTINGS: { readonly [Name in SettingName]: Setting<Name> } = {
  model: {
    name: "model",
    environment: "TEMPOGRAPH_MODEL",
    flag: "--model",
    meaning: "bundled:NAME, a folder, or a hub id",
    defaultValue: "bundled:toto2-nano",
    parse: (text) => text,
  },
  device: {
    name: "device",
    environment: "TEMPOGRAPH_DEVICE",
    flag: "--device",
    meaning: "where kernels run",
    defaultValue: "auto",
    parse: (text, source) => oneOf(text, source, "device", DEVICES),
  },
  mode: {
    name: "mode",
    environment: "TEMPOGRAPH_MODE",
    flag: "--mode",
    meaning: "how much is compiled; every mode gives the same bits",
    defaultValue: "reduce-overhead",
    parse: (text, source) => oneOf(text, source, "mode", MODES),
  },
  kvCache: {
    name: "kvCache",
    environment: "TEMPOGRAPH_KV_CACHE",
    flag: "--kv-cache",
    meaning: "how past keys and values are kept",
    defaultValue: "static",
    parse: (text, source) => KV_CACHE_PRESETS[text] ?? oneOf(text, source, "kv-cache", KV_CACHES),
  },
  weights: {
    name: "weights",
    environment: "TEMPOGRAPH_WEIGHTS",
    flag: "--weights",
    meaning: "how weight matrices are stored; bf16 halves their memory and rounds them, so numbers change",
    defaultValue: "f32",
    parse: (text, source) => oneOf(text, source, "weights", WEIGHTS),
  },
  threads: {
    name: "threads",
    environment: "TEMPOGRAPH_THREADS",
    flag: "--threads",
    meaning: "worker threads of the device; any number gives the same bits",
    defaultValue: undefined,
    defaultText: "the machine's cores",
    parse: (text, source) => wholeNumber(text, source, "threads", 1, 1024),
  },
  horizon: {
    name: "horizon",
    environment: "TEMPOGRAPH_HORIZON",
    flag: "--horizon",
    meaning: "steps to forecast",
    defaultValue: undefined,
    defaultText: "one seasonal period, else 24",
    parse: (text, source) => wholeNumber(text, source, "horizon", 1),
  },
  context: {
    name: "context",
    environment: "TEMPOGRAPH_CONTEXT",
    flag: "--context",
    meaning: "steps of history to use",
    defaultValue: undefined,
    defaultText: "all, up to the model's maximum",
    parse: (text, source) => wholeNumber(text, source, "context", 1),
  },
  samples: {
    name: "samples",
    environment: "TEMPOGRAPH_SAMPLES",
    flag: "--samples",
    meaning: "sample paths per series; 0 = deterministic decode",
    defaultValue: undefined,
    defaultText: "the model's own (256 for Toto 1)",
    parse: (text, source) => wholeNumber(text, source, "samples", 0, 65536),
  },
  quantiles: {
    name: "quantiles",
    environment: "TEMPOGRAPH_QUANTILES",
    flag: "--quantiles",
    meaning: "levels strictly between 0 and 1",
    defaultValue: [0.1, 0.5, 0.9],
    parse: quantileList,
  },
  seed: {
    name: "seed",
    environment: "TEMPOGRAPH_SEED",
    flag: "--seed",
    meaning: "seed of the sample paths",
    defaultValue: 0,
    parse: (text, source) => wholeNumber(text, source, "seed", 0),
  },
  autotuneSeconds: {
    name: "autotuneSeconds",
    environment: "TEMPOGRAPH_AUTOTUNE_SECONDS",
    meaning: "mode max-autotune: seconds a compiled function may search for schedules; 0 = use stored ones only",
    defaultValue: undefined,
    defaultText: "10",
    parse: readSeconds,
  },
  cacheDir: {
    name: "cacheDir",
    environment: "TEMPOGRAPH_CACHE_DIR",
    meaning: "folder of compiled kernels",
    defaultValue: undefined,
    defaultText: "the user's cache folder",
    parse: (text) => text,
  },
  cacheSize: {
    name: "cacheSize",
    environment: "TEMPOGRAPH_CACHE_SIZE",
    meaning: "size of the folder of compiled kernels beyond which the least recently used go, such as 500MB",
    defaultValue: undefined,
    defaultText: "2GB",
    parse: (text) => text,
  },
  logs: {
    name: "logs",
    environment: "TEMPOGRAPH_LOGS",
    meaning: "event streams to print: recompiles,graph_breaks,guards,cache,schedule,output_code,perf_hints,check",
    defaultValue: undefined,
    defaultText: "none",
    parse: (text) => text,
  },
  dump: {
    name: "dump",
    environment: "TEMPOGRAPH_DUMP",
    meaning: "folder that receives every compile stage as text",
    defaultValue: undefined,
    defaultText: "none",
    parse: (text) => text,
  },
  check: {
    name: "check",
    environment: "TEMPOGRAPH_CHECK",
    meaning: "bits = also run every program op by op and stop at the first value that differs; off",
    defaultValue: undefined,
    defaultText: "off",
    parse: (text, source) => oneOf(text, source, "check", CHECKS),
  },
  debug: {
    name: "debug",
    environment: "TEMPOGRAPH_DEBUG",
    meaning: "print the stack of internal errors",
    defaultValue: false,
    parse: (text) => readSwitch(text) ?? false,
  },
};

export const SETTING_NAMES = Object.keys(SETTINGS) as SettingName[];

/** true for 1/true/yes/on, false for 0/false/no/off, undefined for anything else: an unreadable switch counts as unset. */
export function readSwitch(text: string | undefined): boolean | undefined {
  const word = text?.trim().toLowerCase() ?? "";
  if (["1", "true", "yes", "on"].includes(word)) return true;
  if (["0", "false", "no", "off"].includes(word)) return false;
  return undefined;
}

function oneOf<Name extends string>(
  text: string,
  source: string,
  what: string,
  choice: { readonly names: readonly Name[]; readonly built: readonly Name[] },
): Name {
  const found = choice.names.find((name) => name === text);
  const expected = choice.built.join(", ");
  if (found === undefined) throw new InputError(`unknown-${what}`, `${source}: unknown ${what} "${text}": expected ${expected}`);
  if (!choice.built.includes(found)) {
    throw new InputError("not-available", `${source}: ${what} "${text}" is not available in this version: use ${expected}`);
  }
  return found;
}

function wholeNumber(text: string, source: string, what: string, minimum: number, maximum = Number.MAX_SAFE_INTEGER): number {
  const value = /^[+-]?\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value) && value >= minimum && value <= maximum) return value;
  const range = maximum === Number.MAX_SAFE_INTEGER ? `${minimum} or more` : `from ${minimum} to ${maximum}`;
  throw new InputError(`bad-${what}`, `${source}: ${what} "${text}" is not usable: expected a whole number, ${range}`);
}

function readSeconds(text: string, source: string): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (Number.isFinite(value) && value >= 0 && value <= 86400) return value;
  throw new InputError("bad-seconds", `${source}: "${text}" is not usable: expected seconds, from 0 to 86400`);
}

function quantileList(text: string, source: string): number[] {
  const levels = text.split(",").map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  const wrong = levels.findIndex((level) => !(level > 0 && level < 1));
  if (wrong >= 0) {
    const found = text.split(",")[wrong]?.trim() ?? "";
    throw new InputError(
      "bad-quantile",
      `${source}: quantile "${found}" is not usable: expected levels strictly between 0 and 1, such as 0.1,0.5,0.9`,
    );
  }
  if (new Set(levels).size !== levels.length) throw new InputError("bad-quantile", `${source}: "${text}" names a quantile twice`);
  return levels;
}
