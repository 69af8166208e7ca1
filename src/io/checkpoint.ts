/**
 * Opening a checkpoint folder: config.json and the weights, in one safetensors file or in shards.
 * Knows no model: what the configuration means and which tensors must exist is the model's business.
 */

import { readFileSync, readdirSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import type { Checkpoint, StoredData, TensorInfo, TensorSource } from "../models/tensor-source.js";
import { InputError } from "./errors.js";
import { firstDuplicateKey } from "./json-keys.js";
import { checkRegularFile, reasonOf } from "./regular-file.js";
import { openSafetensors } from "./safetensors.js";
import type { SafetensorsFile } from "./safetensors.js";

const configName = "config.json";
const weightsName = "model.safetensors";
const indexName = "model.safetensors.index.json";

/**
 * Opens `folder`: config.json with model.safetensors or, in its absence, the shards that model.safetensors.index.json lists.
 * Throws `InputError` naming the file and the fault; nothing stays open then. The caller closes `source`.
 */
export function openCheckpoint(folder: string): Checkpoint {
  const entries = entriesOf(folder);
  if (!entries.includes(configName)) throw missing(folder, entries, configName);
  const config = readJsonObject(join(folder, configName), "model configuration");
  if (entries.includes(weightsName)) {
    const file = openSafetensors(join(folder, weightsName));
    return { config, source: sourceOf(file.path, [file], new Map([...file.tensors.keys()].map((name) => [name, file]))) };
  }
  if (!entries.includes(indexName)) throw missing(folder, entries, `${weightsName} or ${indexName}`);
  return { config, source: openShards(folder) };
}

function entriesOf(folder: string): readonly string[] {
  try {
    if (statSync(folder).isDirectory()) return readdirSync(folder);
  } catch (error) {
    throw new InputError("checkpoint-folder", `cannot open model folder ${folder}: ${reasonOf(error)}`, { cause: error });
  }
  throw new InputError(
    "checkpoint-folder",
    `cannot open model folder ${folder}: it is a file, expected a folder with ${configName} and ${weightsName}`,
  );
}

function missing(folder: string, entries: readonly string[], what: string): InputError {
  const shown = entries.length === 0 ? "it is empty" : `found ${entries.slice(0, 8).join(", ")}${entries.length > 8 ? ", ..." : ""}`;
  return new InputError("checkpoint-folder", `model folder ${folder} has no ${what} (${shown})`);
}

/** Parses a JSON file whose top level must be an object without repeated keys. `what` names its role for messages. */
export function readJsonObject(path: string, what: string): Record<string, unknown> {
  checkRegularFile(path, what);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new InputError("file-unreadable", `cannot read ${what} ${path}: ${reasonOf(error)}`, { cause: error });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InputError("json", `${what} ${path} is not valid JSON: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new InputError("json", `${what} ${path} holds ${Array.isArray(value) ? "a list" : JSON.stringify(value)}, expected an object`);
  }
  const duplicate = firstDuplicateKey(text);
  if (duplicate) throw new InputError("json", `${what} ${path}: key "${[...duplicate.path, duplicate.key].join(".")}" occurs twice`);
  return value as Record<string, unknown>;
}

function openShards(folder: string): TensorSource {
  const indexPath = join(folder, indexName);
  const weightMap = readJsonObject(indexPath, "weight index")["weight_map"];
  if (typeof weightMap !== "object" || weightMap === null || Array.isArray(weightMap)) {
    throw new InputError("checkpoint-index", `${indexPath} has no object "weight_map" from tensor names to file names`);
  }
  const files = new Map<string, SafetensorsFile>();
  try {
    const owners = new Map<string, SafetensorsFile>();
    for (const [name, fileName] of Object.entries(weightMap)) {
      // A name with a folder in it could reach outside the checkpoint.
      if (typeof fileName !== "string" || basename(fileName) !== fileName || fileName === "." || fileName === "..") {
        throw new InputError(
          "checkpoint-index",
          `${indexPath}: tensor "${name}" is in ${JSON.stringify(fileName)}, expected a file name in the same folder`,
        );
      }
      let file = files.get(fileName);
      if (!file) files.set(fileName, (file = openSafetensors(join(folder, fileName))));
      if (!file.tensors.has(name)) throw new InputError("checkpoint-index", `${indexPath}: tensor "${name}" is not in ${fileName}`);
      owners.set(name, file);
    }
    for (const [fileName, file] of files) {
      for (const name of file.tensors.keys()) {
        const owner = owners.get(name);
        if (owner !== file) {
          throw new InputError(
            "checkpoint-index",
            `${indexPath}: tensor "${name}" is in ${fileName}, but ${owner ? `listed in ${basename(owner.path)}` : "not listed"}`,
          );
        }
      }
    }
    return sourceOf(folder, [...files.values()], owners);
  } catch (error) {
    for (const file of files.values()) file.close();
    throw error;
  }
}

function sourceOf(label: string, files: readonly SafetensorsFile[], owners: ReadonlyMap<string, SafetensorsFile>): TensorSource {
  const require = (name: string): SafetensorsFile => {
    const file = owners.get(name);
    if (!file) throw new InputError("checkpoint-tensor", `${label}: there is no tensor "${name}"`);
    return file;
  };
  return {
    label,
    names: (): readonly string[] => [...owners.keys()],
    info: (name): TensorInfo | undefined => owners.get(name)?.tensors.get(name),
    read: (name): Float32Array => require(name).readFloat32(name),
    readInto: (name, target): void => require(name).readInto(name, target),
    readRange: (name, first, target): void => require(name).readRange(name, first, target),
    readStored: (name): StoredData => require(name).read(name),
    close: (): void => files.forEach((file) => file.close()),
  };
}
