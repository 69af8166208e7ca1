/**
 * Variables that users of the original Toto and Kronos tools set, and what they mean here. Order is precedence.
 * A table: the rules of precedence against other sources are in `resolve-settings.ts`.
 */
import { InputError } from "./errors.js";
import { readSwitch, SETTINGS, type Mode } from "./settings.js";

/** Any of these true switches compilation off, over every other source. */
export const DISABLE_VARIABLES = ["TEMPOGRAPH_DISABLE_COMPILE", "TOTO_DISABLE_COMPILE", "MARKETSIM_TOTO_DISABLE_COMPILE"] as const;

export type ModelFamily = "toto" | "kronos";

export interface ModeAlias {
  readonly variable: string;
  /** Families it applies to; absent: every family. */
  readonly family?: ModelFamily;
  /** Variables of one row mean one thing: the first with a readable value decides, the others are not looked at. */
  readonly row?: string;
  /** The mode it asks for; undefined = it has no opinion. Throws InputError for an unknown word. */
  toMode(text: string): Mode | undefined;
}

/** PyTorch's name for "tuned, but not replayed in one call" has no counterpart of its own; `default` keeps its point: no replay. */
function modeOf(variable: string): (text: string) => Mode | undefined {
  return (text) => (text === "max-autotune-no-cudagraphs" ? "default" : SETTINGS.mode.parse(text, variable));
}

function backendOf(variable: string): (text: string) => Mode | undefined {
  return (text) => {
    if (text === "eager" || text === "aot_eager") return "eager";
    if (text === "inductor") return undefined;
    throw new InputError("unknown-backend", `${variable}: unknown backend "${text}": expected inductor, eager or aot_eager`);
  };
}

/** "Compile off" is the eager mode; "on" leaves the choice of mode to the next source. */
function switchToMode(text: string): Mode | undefined {
  return readSwitch(text) === false ? "eager" : undefined;
}

export const MODE_ALIASES: readonly ModeAlias[] = [
  { variable: "TOTO_COMPILE", family: "toto", row: "compile", toMode: switchToMode },
  { variable: "MARKETSIM_TOTO_COMPILE", family: "toto", row: "compile", toMode: switchToMode },
  { variable: "REAL_TOTO_COMPILE_MODE", family: "toto", toMode: modeOf("REAL_TOTO_COMPILE_MODE") },
  { variable: "TOTO_COMPILE_MODE", family: "toto", toMode: modeOf("TOTO_COMPILE_MODE") },
  { variable: "REAL_TOTO_COMPILE_BACKEND", family: "toto", row: "backend", toMode: backendOf("REAL_TOTO_COMPILE_BACKEND") },
  { variable: "TOTO_COMPILE_BACKEND", family: "toto", row: "backend", toMode: backendOf("TOTO_COMPILE_BACKEND") },
  { variable: "TORCH_COMPILE_MODE", toMode: modeOf("TORCH_COMPILE_MODE") },
  { variable: "KRONOS_COMPILE", family: "kronos", row: "compile", toMode: switchToMode },
  { variable: "MARKETSIM_KRONOS_COMPILE", family: "kronos", row: "compile", toMode: switchToMode },
  { variable: "KRONOS_COMPILE_MODE", family: "kronos", toMode: modeOf("KRONOS_COMPILE_MODE") },
  { variable: "KRONOS_COMPILE_BACKEND", family: "kronos", toMode: backendOf("KRONOS_COMPILE_BACKEND") },
];

/** Whether a stronger variable of the same row and family already decides among `variables`. */
export function rowIsDecided(alias: ModeAlias, variables: Readonly<Record<string, string | undefined>>): boolean {
  if (alias.row === undefined) return false;
  const isReadable = (text: string): boolean => (alias.row === "compile" ? readSwitch(text) !== undefined : text !== "");
  return MODE_ALIASES.slice(0, MODE_ALIASES.indexOf(alias)).some(
    ({ row, family, variable }) => row === alias.row && family === alias.family && isReadable(variables[variable]?.trim() ?? ""),
  );
}

/** Family whose variables apply to a model, by its name: the files are not open yet. */
export function modelFamily(model: string): ModelFamily {
  return /kronos/i.test(model) ? "kronos" : "toto";
}

/** Known from the original tools, without a counterpart here. `tempograph config` names those that are set. */
export const UNUSED_VARIABLES: readonly string[] = [
  "TORCHDYNAMO_RECOMPILE_LIMIT",
  "TORCHDYNAMO_CACHE_SIZE_LIMIT",
  "TORCH_DYNAMO_RECOMPILE_LIMIT",
  "TORCH_CUDAGRAPHS",
  "TORCHDYNAMO_CAPTURE_SCALAR_OUTPUTS",
  "COMPILED_MODELS_DIR",
  "COMPILED_MODELS_FALLBACK_DIRS",
  "COMPILED_MODELS_MIN_FREE_BYTES",
  "TORCHINDUCTOR_CACHE_DIR",
  "TORCH_LOGS",
  "TORCH_COMPILE_DEBUG",
  "TORCHDYNAMO_VERBOSE",
  "KRONOS_DTYPE",
  "TOTO_DTYPE",
  "TORCH_COMPILED",
  "CHRONOS_COMPILE",
  "CHRONOS_COMPILE_MODE",
  "CHRONOS_COMPILE_BACKEND",
  "CHRONOS_DTYPE",
  "CHRONOS_COMPILE_AGGRESSIVE",
  "TOTO_MODEL_ID",
  "TOTO_NUM_SAMPLES",
  "TOTO_SAMPLES_PER_BATCH",
  "TOTO_AGGREGATION_SPEC",
  "MARKETSIM_TOTO_DEVICE",
  "MARKETSIM_ALLOW_CPU_FALLBACK",
  "MARKETSIM_TOTO_MIN_NUM_SAMPLES",
  "MARKETSIM_TOTO_MAX_NUM_SAMPLES",
  "MARKETSIM_TOTO_MIN_SAMPLES_PER_BATCH",
  "MARKETSIM_TOTO_MAX_SAMPLES_PER_BATCH",
  "MARKETSIM_TOTO_MAX_OOM_RETRIES",
  "MARKETSIM_TOTO_BACKTEST_MAX_RETRIES",
  "MARKETSIM_TOTO_KEEPALIVE_SECONDS",
  "MARKETSIM_KRONOS_KEEPALIVE_SECONDS",
  "MARKETSIM_FORCE_RELEASE_MODELS",
  "MARKETSIM_KRONOS_SAMPLE_COUNT",
  "KRONOS_PREDICTION_CACHE_ENABLED",
  "KRONOS_PREDICTION_CACHE_TTL",
  "KRONOS_PREDICTION_CACHE_MAX_SIZE_MB",
  "KRONOS_CACHE_DECIMALS",
  "MARKETSIM_WARMUP_MODELS",
  "MARKETSIM_FORCE_TOTO",
  "MARKETSIM_FORCE_KRONOS",
  "ONLY_CHRONOS2",
  "FAST_TESTING",
  "REAL_TESTING",
  "MARKETSIM_FAST_SIMULATE",
  "MARKETSIM_FAST_OPTIMIZE",
  "MARKETSIM_BACKTEST_SIMULATIONS",
  "MARKETSIM_GPU_METRICS_MODE",
  "ADD_LATEST",
  "PAPER",
  "STATE_DIR",
  "TRADE_STATE_SUFFIX",
  "TESTING",
  "TOTO_COMPILE_QUICK",
];
