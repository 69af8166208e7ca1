/** The models the package can run: one row per bundled name and per family. Loading goes from a reference to a ForecastModel. */
import { existsSync, statSync } from "node:fs";
import { openDevice, type Mode } from "../trace/entry.js";
import { FallbackModel } from "./fallback.js";
import { formulaCheckpoint } from "./formula/checkpoint.js";
import { InputError } from "./input-error.js";
import type { ForecastModel } from "./model.js";
import type { KvCacheStrategy, LoadedDevice, ModelOptions } from "./options.js";
import type { Checkpoint } from "./tensor-source.js";
import { Toto1Model } from "./toto1/model.js";

export interface LoadSettings {
  readonly device: string;
  readonly mode: Mode | (string & {});
  readonly threads?: number | undefined;
  readonly kvCache: KvCacheStrategy | (string & {});
  /** Opens a checkpoint folder; the caller supplies the file reader. */
  readonly openFolder: (folder: string) => Checkpoint;
  /** Hears why a slower device is used. */
  readonly onNote?: (note: string) => void;
}

/** Bundled models by name; formula weights show the engine, not skill. */
const bundled: Readonly<Record<string, () => Checkpoint>> = {
  "toto1-formula": () => formulaCheckpoint("toto1-formula", { seed: 1 }),
};

interface Family {
  readonly title: string;
  /** Whether a config.json belongs to this family. */
  readonly recognises: (config: Readonly<Record<string, unknown>>) => boolean;
  readonly load: (name: string, checkpoint: Checkpoint, loaded: LoadedDevice, options: ModelOptions) => ForecastModel;
}

const families: readonly Family[] = [
  {
    title: "Toto 1.0",
    recognises: (config) => "embed_dim" in config && "spacewise_every_n_layers" in config,
    load: (...parts) => Toto1Model.load(...parts),
  },
];

export const bundledModels = (): readonly string[] => Object.keys(bundled).map((name) => `bundled:${name}`);

/** Loads `bundled:NAME` or a folder. Throws InputError for an unknown reference, and what the family finds wrong. */
export async function loadModel(reference: string, settings: LoadSettings): Promise<ForecastModel> {
  const onNote = settings.onNote ?? ((): void => undefined);
  const loaded = openDevice(settings.device, settings.threads === undefined ? {} : { threads: settings.threads });
  if (loaded.note) onNote(loaded.note);
  const model = await Promise.resolve(loadOn(reference, settings, loaded));
  if (settings.device !== "auto" || loaded.device.name !== "native") return model;
  return new FallbackModel(model, () => loadOn(reference, settings, openDevice("reference")), onNote);
}

function loadOn(reference: string, settings: LoadSettings, loaded: LoadedDevice): ForecastModel {
  const checkpoint = openCheckpointOf(reference, settings);
  try {
    const family = families.find(({ recognises }) => recognises(checkpoint.config));
    if (!family) {
      const fields = Object.keys(checkpoint.config).slice(0, 8).join(", ") || "none";
      throw new InputError(
        "model-unknown",
        `${reference}: config.json fits none of the known models (${families.map(({ title }) => title).join(", ")}). Found the fields ${fields}.`,
      );
    }
    return family.load(reference, checkpoint, loaded, { mode: settings.mode as Mode, kvCache: settings.kvCache as KvCacheStrategy });
  } finally {
    checkpoint.source.close();
  }
}

function openCheckpointOf(reference: string, settings: LoadSettings): Checkpoint {
  if (reference.startsWith("bundled:")) {
    const make = bundled[reference.slice("bundled:".length)];
    if (!make) throw new InputError("model-unknown", `There is no bundled model "${reference}"; there are: ${bundledModels().join(", ")}.`);
    return make();
  }
  if (!existsSync(reference))
    throw new InputError(
      "model-missing",
      `The model folder ${reference} does not exist. Give a folder with config.json and model.safetensors, or one of: ${bundledModels().join(", ")}.`,
    );
  if (!statSync(reference).isDirectory())
    throw new InputError("model-missing", `${reference} is a file; a model is a folder with config.json and model.safetensors.`);
  return settings.openFolder(reference);
}
