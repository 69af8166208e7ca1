/** The models the package can run: one row per bundled name and per family. Loading goes from a reference to a ForecastModel. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { cacheStrategies } from "../nn/caches/index.js";
import { isBundle, readBundleManifest } from "../runtime/native/bundle.js";
import { openDevice, type CheckSetting, type Mode } from "../trace/entry.js";
import { FallbackModel } from "./fallback.js";
import { formulaCheckpoint } from "./formula/checkpoint.js";
import { InputError } from "./input-error.js";
import { isKronosModel, isKronosTokenizer } from "./kronos/config.js";
import { KronosModel } from "./kronos/model.js";
import type { ForecastModel } from "./model.js";
import type { KvCacheStrategy, LoadedDevice, ModelOptions } from "./options.js";
import type { Checkpoint } from "./tensor-source.js";
import { Toto1Model } from "./toto1/model.js";
import { Toto2Model } from "./toto2/model.js";
import type { WeightStorage } from "./weights.js";

export interface LoadSettings {
  readonly device: string;
  readonly mode: Mode | (string & {});
  readonly threads?: number | undefined;
  readonly kvCache: KvCacheStrategy | (string & {});
  /** How weight matrices are stored; f32 when absent. */
  readonly weights?: WeightStorage | undefined;
  /** "bits": stop at the first value that differs from running op by op. */
  readonly check?: CheckSetting | undefined;
  /** Folder or bundled name of a Kronos model's tokenizer; absent: the bundled one's own, or the folder `tokenizer` inside or beside the model's. */
  readonly tokenizer?: string | undefined;
  /** Opens a checkpoint folder; the caller supplies the file reader. */
  readonly openFolder: (folder: string) => Checkpoint;
  /** Hears why a slower device is used. */
  readonly onNote?: (note: string) => void;
}

/** Bundled models by name; formula weights show the engine, not skill. */
const bundled: Readonly<Record<string, (settings: LoadSettings) => Checkpoint>> = {
  "toto1-formula": () => formulaCheckpoint("toto1-formula", { seed: 1 }),
  "toto1-nano": ({ openFolder }) => openFolder(packageModel("toto1-nano")),
  "toto2-nano": ({ openFolder }) => openFolder(packageModel("toto2-nano")),
  "kronos-formula": () => formulaCheckpoint("kronos-tiny", { seed: 1 }),
  "kronos-tokenizer-formula": () => formulaCheckpoint("kronos-tokenizer-tiny", { seed: 1 }),
  "kronos-nano": ({ openFolder }) => openFolder(packageModel("kronos-nano")),
  "kronos-tokenizer-nano": ({ openFolder }) => openFolder(packageModel("kronos-tokenizer-nano")),
};

/** Folder of a model that the package carries. */
const packageModel = (name: string): string => fileURLToPath(new URL(`../../models/${name}`, import.meta.url));

/** Names that load as a model, tokenizers left out. */
const isTokenizerName = (name: string): boolean => name.includes("-tokenizer-");

interface Family {
  readonly title: string;
  /** Key-value cache strategies it can run with. */
  readonly kvCaches: readonly string[];
  /** Whether a config.json belongs to this family. */
  readonly recognises: (config: Readonly<Record<string, unknown>>) => boolean;
  readonly load: (
    name: string,
    checkpoint: Checkpoint,
    loaded: LoadedDevice,
    options: ModelOptions,
    settings: LoadSettings,
  ) => ForecastModel;
}

const families: readonly Family[] = [
  {
    title: "Toto 1.0",
    kvCaches: ["none", ...Object.keys(cacheStrategies)],
    recognises: (config) => "embed_dim" in config && "spacewise_every_n_layers" in config,
    load: (name, checkpoint, loaded, options) => Toto1Model.load(name, checkpoint, loaded, options),
  },
  {
    title: "Toto 2.0",
    kvCaches: ["static"],
    recognises: (config) => "d_model" in config && "layer_group_size" in config,
    load: (name, checkpoint, loaded, options) => Toto2Model.load(name, checkpoint, loaded, options),
  },
  { title: "Kronos", kvCaches: ["none", "static"], recognises: isKronosModel, load: loadKronos },
];

export const bundledModels = (): readonly string[] =>
  Object.keys(bundled)
    .filter((name) => !isTokenizerName(name))
    .map((name) => `bundled:${name}`);

/** Loads `bundled:NAME` or a folder. Throws InputError for an unknown reference, and what the family finds wrong. */
export async function loadModel(reference: string, settings: LoadSettings): Promise<ForecastModel> {
  const onNote = settings.onNote ?? ((): void => undefined);
  if (!reference.startsWith("bundled:") && isBundle(reference)) return loadBundle(reference, settings);
  const loaded = openDevice(settings.device, settings.threads === undefined ? {} : { threads: settings.threads });
  if (loaded.note) onNote(loaded.note);
  const model = await Promise.resolve(loadOn(reference, settings, loaded));
  if (settings.device !== "auto" || loaded.device.name !== "native") return model;
  return new FallbackModel(model, () => loadOn(reference, settings, openDevice("reference")), onNote);
}

/** A model by its ahead-of-time bundle: programs and libraries come from the folder, weights from where its manifest says. */
async function loadBundle(folder: string, settings: LoadSettings): Promise<ForecastModel> {
  if (settings.device !== "auto" && settings.device !== "native")
    throw new InputError("bundle-device", `${folder} is a bundle, which runs on the native device, not on "${settings.device}".`);
  const { about } = readBundleManifest(folder);
  const [named, configHash] = [String(about["model"]), about["configHash"]];
  const reference = named.startsWith("bundled:") ? named : resolve(folder, named);
  const config = join(reference, "config.json");
  if (configHash !== undefined && existsSync(config) && createHash("sha256").update(readFileSync(config)).digest("hex") !== configHash)
    throw new InputError(
      "bundle-model",
      `${config} is not the configuration that the bundle ${folder} was made for. Make the bundle again.`,
    );
  const threads = settings.threads === undefined ? {} : { threads: settings.threads };
  return Promise.resolve(loadOn(reference, settings, openDevice("native", { ...threads, bundle: folder })));
}

function loadOn(reference: string, settings: LoadSettings, loaded: LoadedDevice): ForecastModel {
  const checkpoint = openCheckpointOf(reference, settings);
  try {
    const family = families.find(({ recognises }) => recognises(checkpoint.config));
    if (!family && isKronosTokenizer(checkpoint.config))
      throw new InputError("model-unknown", `${reference} is a Kronos tokenizer: name it with --tokenizer, and the model with --model.`);
    if (!family) {
      const fields = Object.keys(checkpoint.config).slice(0, 8).join(", ") || "none";
      throw new InputError(
        "model-unknown",
        `${reference}: config.json fits none of the known models (${families.map(({ title }) => title).join(", ")}). Found the fields ${fields}.`,
      );
    }
    if (!family.kvCaches.includes(settings.kvCache))
      throw new InputError(
        "kv-cache-unsupported",
        `${reference} (${family.title}) does not run with the kv-cache "${settings.kvCache}"; it has: ${family.kvCaches.join(", ")}.`,
      );
    const options = {
      mode: settings.mode as Mode,
      kvCache: settings.kvCache as KvCacheStrategy,
      weights: settings.weights,
      check: settings.check,
    };
    return family.load(reference, checkpoint, loaded, options, settings);
  } catch (error) {
    // Families name the field that is wrong; which folder it was in is known here.
    if (error instanceof InputError && error.code === "config") {
      const tokenizer = settings.tokenizer === undefined ? "" : ` with tokenizer ${settings.tokenizer}`;
      throw new InputError("config", `model ${reference}${tokenizer}: ${error.message}`, { cause: error });
    }
    throw error;
  } finally {
    checkpoint.source.close();
  }
}

function openCheckpointOf(reference: string, settings: LoadSettings): Checkpoint {
  if (reference.startsWith("bundled:")) {
    const make = bundled[reference.slice("bundled:".length)];
    if (!make) throw new InputError("model-unknown", `There is no bundled model "${reference}"; there are: ${bundledModels().join(", ")}.`);
    return make(settings);
  }
  if (!existsSync(reference))
    throw new InputError(
      "model-missing",
      `The model folder "${reference}" does not exist. Give a folder with config.json and model.safetensors, or one of: ${bundledModels().join(", ")}.`,
    );
  if (!statSync(reference).isDirectory())
    throw new InputError("model-missing", `${reference} is a file; a model is a folder with config.json and model.safetensors.`);
  return settings.openFolder(reference);
}

/** A Kronos model with the tokenizer it reads. */
function loadKronos(
  name: string,
  checkpoint: Checkpoint,
  loaded: LoadedDevice,
  options: ModelOptions,
  settings: LoadSettings,
): ForecastModel {
  const reference = settings.tokenizer ?? tokenizerOf(name);
  const tokenizer = openCheckpointOf(reference, settings);
  try {
    return KronosModel.load({ name, checkpoint }, { name: reference, checkpoint: tokenizer }, loaded, options);
  } finally {
    tokenizer.source.close();
  }
}

function tokenizerOf(model: string): string {
  if (model.startsWith("bundled:")) return model.replace("kronos-", "kronos-tokenizer-");
  const places = [join(model, "tokenizer"), join(model, "..", "tokenizer")];
  const found = places.find((folder) => existsSync(join(folder, "config.json")));
  if (found) return found;
  throw new InputError(
    "tokenizer-missing",
    `${model} is a Kronos model and needs its tokenizer: name its folder as tokenizer (--tokenizer FOLDER), or put it into ${places[0] as string}.`,
  );
}
