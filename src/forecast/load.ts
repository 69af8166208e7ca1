/**
 * From a reference and settings to a loaded model. The only place of the forecast layer that knows the model registry.
 */
import { openCheckpoint } from "../io/checkpoint.js";
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
  /** Kronos only: folder or bundled name of its tokenizer. Default: the bundled model's own, or a folder `tokenizer` in or beside the model's. */
  tokenizer?: string;
  /** Hears why a slower device is used; default: one line on standard error. */
  onNote?: (note: string) => void;
}

/** Settings that are not in `options` come from the environment, see INTERFACES. Throws InputError. */
export async function loadModelFor(reference: string, options: LoadOptions): Promise<ForecastModel> {
  const { onNote = (note: string) => void process.stderr.write(`tempograph: ${note}\n`), tokenizer, ...settings } = options;
  const { values } = resolveSettings({ options: { model: reference, ...settings }, environment: process.env, folder: process.cwd() });
  // Deferred, so that commands which load no model start without the compiler.
  const { loadModel } = await import("../models/registry.js");
  return loadModel(reference, {
    device: values.device,
    mode: values.mode,
    threads: values.threads,
    kvCache: values.kvCache,
    ...(tokenizer === undefined ? {} : { tokenizer }),
    openFolder: openCheckpoint,
    onNote,
  });
}
