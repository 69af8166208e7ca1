/**
 * From a reference and settings to a loaded model. The only place of the forecast layer that knows the model registry.
 */
import { openCheckpoint } from "../io/checkpoint.js";
import { isHubId, resolveHubModel, type HubOptions } from "../io/hub.js";
import type { ForecastModel } from "../models/model.js";
import { CATALOGUE } from "./catalogue.js";
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
  /** Hub models: branch, tag or commit. Default "main". */
  revision?: string;
  /** Hub models: use the cache only. Default: HF_HUB_OFFLINE. */
  offline?: boolean;
  /** Stops a download; the promise then rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Bytes of a hub model's download. */
  onDownload?: (done: number, total: number) => void;
  /** Hears why a slower device is used; default: one line on standard error. */
  onNote?: (note: string) => void;
}

/** Settings that are not in `options` come from the environment, see INTERFACES. Throws InputError. */
export async function loadModelFor(reference: string, options: LoadOptions): Promise<ForecastModel> {
  const {
    onNote = (note: string) => void process.stderr.write(`tempograph: ${note}\n`),
    tokenizer,
    revision,
    offline,
    signal,
    onDownload,
    ...settings
  } = options;
  const { values } = resolveSettings({ options: { model: reference, ...settings }, environment: process.env, folder: process.cwd() });
  const hub = {
    environment: process.env,
    ...(offline === undefined ? {} : { offline }),
    ...(signal === undefined ? {} : { signal }),
    ...(onDownload === undefined ? {} : { onProgress: onDownload }),
  };
  const needed = tokenizer ?? CATALOGUE.find((entry) => entry.reference === reference)?.tokenizer;
  const folder = await folderOf(reference, { ...hub, ...(revision === undefined ? {} : { revision }) });
  const tokenizerFolder = needed === undefined ? undefined : await folderOf(needed, hub);
  // Deferred, so that commands which load no model start without the compiler.
  const { loadModel } = await import("../models/registry.js");
  return loadModel(folder, {
    device: values.device,
    mode: values.mode,
    threads: values.threads,
    kvCache: values.kvCache,
    ...(tokenizerFolder === undefined ? {} : { tokenizer: tokenizerFolder }),
    openFolder: openCheckpoint,
    onNote,
  });
}

/** The folder of a hub id; any other reference as it is. */
async function folderOf(reference: string, options: HubOptions): Promise<string> {
  return isHubId(reference) ? resolveHubModel(reference, options) : reference;
}
