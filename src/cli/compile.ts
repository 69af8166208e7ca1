/**
 * `tempograph compile MODEL --out DIR`: runs small forecasts and keeps every program and library they needed as a bundle, which a machine without a compiler loads by
 * naming the folder as its model.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { InputError } from "../forecast/errors.js";
import { resolveSettings } from "../forecast/resolve-settings.js";
import type { SettingName } from "../forecast/settings.js";
import type { Forecaster } from "../index.js";
import { onProgram, openDevice } from "../internals.js";
import { note, type CliContext } from "./context.js";
import { exampleSeries } from "./inspect.js";
import { settingFlags } from "./setting-flags.js";

export interface CompileFlags extends Partial<Record<SettingName, string>> {
  out?: string;
  variates?: string;
  withWeights?: boolean;
  quiet?: boolean;
}

type Programs = Map<string, Parameters<Parameters<typeof onProgram>[0]>[1]>;

export async function runCompile(model: string, flags: CompileFlags, context: CliContext): Promise<number> {
  const out = flags.out;
  if (out === undefined || out === "") throw new InputError("bundle-out", "name the folder of the bundle: --out DIR");
  const target = resolve(context.folder, out);
  if (existsSync(target)) throw new InputError("bundle-exists", `--out ${out} exists already: name a new folder, or remove it`);
  const variates = counts(flags.variates ?? "1");
  const { values } = resolveSettings({
    flags: settingFlags({ ...flags, model }),
    environment: context.environment,
    folder: context.folder,
  });
  const { about, files } = weightsOf(values.model, target, flags.withWeights ?? false, context);
  const programs: Programs = new Map();
  const stop = onProgram((key, program) => programs.set(key, program));
  try {
    const forecaster = await context.load(values.model, {
      device: "native",
      mode: values.mode,
      kvCache: values.kvCache,
      weights: values.weights,
    });
    try {
      for (const count of variates) await warm(forecaster, count, values, context);
      const { device } = openDevice("native");
      if (!device.writeBundle) throw new InputError("bundle-device", "the native device writes bundles, and it cannot be used here");
      device.writeBundle(
        target,
        programs,
        { ...about, family: forecaster.family, mode: values.mode, kvCache: values.kvCache, weights: values.weights, variates },
        files,
      );
      if (!flags.quiet) note(context, `${out}: ${programs.size} programs for ${device.target}; load it with --model ${out}`);
    } finally {
      forecaster.dispose();
    }
  } finally {
    stop();
  }
  return 0;
}

/** Forecasts that need every program of a model: with sample paths and without. */
async function warm(
  forecaster: Forecaster,
  variates: number,
  values: ReturnType<typeof resolveSettings>["values"],
  context: CliContext,
): Promise<void> {
  const length = values.context ?? 512;
  const one = exampleSeries(forecaster.takes, length);
  if (forecaster.takes === "candles" && variates > 1)
    throw new InputError("bundle-variates", "--variates is for models of series; candles have their columns");
  const series = variates === 1 ? one : { id: "example", values: Array.from({ length: variates }, () => one.values as number[]) };
  // Mode max-autotune chooses schedules for the sizes it meets, so the number of samples that will be asked for is worth saying.
  const asked = forecaster.quantileLevels ? [undefined] : [values.samples || 2, 0];
  for (const samples of asked)
    await forecaster.predict(series, {
      horizon: values.horizon ?? 192,
      context: length,
      signal: context.signal,
      ...(samples === undefined ? {} : { samples }),
    });
}

function counts(text: string): number[] {
  const list = text.split(",").map(Number);
  if (list.some((count) => !Number.isInteger(count) || count < 1 || count > 1024))
    throw new InputError("bundle-variates", `--variates "${text}" is not usable: whole numbers from 1 to 1024 with commas between`);
  return list;
}

/** How the bundle finds its weights: the package's own by name, a folder by its path, or files taken along. */
function weightsOf(
  model: string,
  target: string,
  withWeights: boolean,
  context: CliContext,
): { about: Record<string, unknown>; files: Map<string, string> } {
  if (model.startsWith("bundled:")) return { about: { model }, files: new Map() };
  const folder = resolve(context.folder, model);
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new InputError(
      "bundle-model",
      `${model} is no folder: a bundle is made of bundled:NAME or a model folder (models pull tells where a hub model lies)`,
    );
  const config = join(folder, "config.json");
  const configHash = existsSync(config) ? { configHash: createHash("sha256").update(readFileSync(config)).digest("hex") } : {};
  if (!withWeights) return { about: { model: relative(target, folder), ...configHash }, files: new Map() };
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => /\.(json|safetensors)$/.test(name));
  return { about: { model: "model", ...configHash }, files: new Map(names.map((name) => [join("model", name), join(folder, name)])) };
}
