/**
 * From a reference and settings to a loaded model. The only place of the forecast layer that knows the model registry.
 */
import { openCheckpoint } from "../io/checkpoint.js";
import { isHubId, resolveHubModel, type HubOptions } from "../io/hub.js";
import type { ForecastModel } from "../models/model.js";
import { CATALOGUE } from "./catalogue.js";
import { InputError } from "./errors.js";
import { resolveSettings, type SettingSources } from "./resolve-settings.js";
import type { Check, Device, KvCache, Mode, Weights } from "./settings.js";

/** How a model is loaded. What is left out comes from the environment, then from the defaults: docs/settings.md. */
export interface LoadOptions {
  /** Default "auto": native when a C compiler exists. */
  device?: Device;
  /** Default "reduce-overhead". Every mode gives the same bits. */
  mode?: Mode;
  /** Default: the machine's cores. */
  threads?: number;
  /** Default "static". */
  kvCache?: KvCache;
  /** How weight matrices are stored. "bf16" halves their memory and rounds each weight to 8 significant bits: other numbers. Default "f32". */
  weights?: Weights;
  /** "bits": also run every program op by op and reject at the first value whose bits differ. Slow. Default "off". */
  check?: Check;
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

/** A model, and what decides before each request whether it runs op by op. */
export interface LoadedModel {
  readonly model: ForecastModel;
  /** Looks at the environment and its file again: true when they ask for op by op, so that a running process can be rolled back, and forward, by editing the file. */
  readonly followSettings: () => boolean;
}

/** Settings that are not in `options` come from the environment and its file; docs/settings.md says which wins. Throws InputError. */
export async function loadModelFor(reference: string, options: LoadOptions): Promise<LoadedModel> {
  const {
    onNote = (note: string) => void process.stderr.write(`tempograph: ${note}\n`),
    tokenizer,
    revision,
    offline,
    signal,
    onDownload,
    ...settings
  } = options;
  const sources: SettingSources = { options: { model: reference, ...settings }, environment: process.env, folder: process.cwd() };
  const { values } = resolveSettings(sources);
  // A model that starts disabled is loaded in the mode it goes to once it is enabled; until then every request runs op by op.
  const { mode } = resolveSettings({ ...sources, ignoreDisable: true }).values;
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
  const model = await loadModel(folder, {
    device: values.device,
    mode,
    threads: values.threads,
    kvCache: values.kvCache,
    weights: values.weights,
    check: values.check,
    ...(tokenizerFolder === undefined ? {} : { tokenizer: tokenizerFolder }),
    openFolder: openCheckpoint,
    onNote,
  });
  let eager = false;
  return { model, followSettings: () => (eager = wantsEager(sources, eager)) };
}

/** Whether the settings, read again, ask for op by op. A file that is gone or being replaced changes nothing: a running process goes on as it was. */
function wantsEager(sources: SettingSources, before: boolean): boolean {
  try {
    return resolveSettings(sources).values.mode === "eager";
  } catch (error) {
    if (error instanceof InputError && error.code === "settings-file") return before;
    throw error;
  }
}

/** The folder of a hub id; any other reference as it is. */
async function folderOf(reference: string, options: HubOptions): Promise<string> {
  return isHubId(reference) ? resolveHubModel(reference, options) : reference;
}
