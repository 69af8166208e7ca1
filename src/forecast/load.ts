/**
 * From a reference and settings to a loaded model. The only place of the forecast layer that knows the model registry.
 */
import type { ForecastModel } from "../models/model.js";
import { resolveSettings } from "./resolve-settings.js";
import type { Device, KvCache, Mode } from "./settings.js";

export interface LoadOptions {
  /** Default "auto": native when a C compiler exists. */
  device?: Device;
  /** Default "reduce-overhead". Every mode gives the same bits. */
  mode?: Mode;
  /** Default: the machine's cores. */
  threads?: number;
  /** Default "static". */
  kvCache?: KvCache;
}

/** What the registry offers; stated here so that loading can be deferred until a model is asked for. */
interface Registry {
  loadModel(
    reference: string,
    options: { device: Device; mode: Mode; threads: number | undefined; kvCache: KvCache },
  ): Promise<ForecastModel>;
}

/** Settings that are not in `options` come from the environment, see INTERFACES. Throws InputError. */
export async function loadModelFor(reference: string, options: LoadOptions): Promise<ForecastModel> {
  const { values } = resolveSettings({ options: { model: reference, ...options }, environment: process.env, folder: process.cwd() });
  const path = "../models/registry.js";
  const registry = (await import(path)) as Registry;
  return registry.loadModel(reference, { device: values.device, mode: values.mode, threads: values.threads, kvCache: values.kvCache });
}
