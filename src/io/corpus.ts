/**
 * A corpus folder: pairs NAME.json and NAME.npy, the first listing series, the second their values one after another.
 * Knows the format; what is evaluated how is the forecast layer's business.
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { readJsonObject } from "./checkpoint.js";
import { InputError } from "./errors.js";
import { readNpy } from "./npy.js";
import { reasonOf } from "./regular-file.js";

export interface CorpusSeries {
  /** NAME of the pair of files. */
  readonly source: string;
  readonly id: string;
  /** As the file states it: "5min", "H", "30min-daytime", "other", "irregular" ... */
  readonly frequency: string;
  /** Usual seasonal period in steps; 1 = none. */
  readonly period: number;
  /** [L] NaN = missing. */
  readonly values: Float32Array;
}

const entrySchema = z.object({
  id: z.string(),
  offset: z.number().int().nonnegative(),
  length: z.number().int().positive(),
  freq: z.string(),
  period: z.number().int().positive(),
});

const indexSchema = z.object({ series: z.array(entrySchema) });

/** Whether `path` is a folder that holds corpus pairs. */
export function isCorpusFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true && pairNames(path).length > 0;
}

/** Every series of the folder, files in the order of their names. Throws `InputError` naming file and entry. */
export function readCorpus(folder: string): CorpusSeries[] {
  const names = pairNames(folder);
  if (names.length === 0)
    throw new InputError("corpus", `${folder} holds no corpus: expected pairs NAME.json and NAME.npy, or name a CSV, JSON or Parquet file`);
  return names.flatMap((name) => readPair(folder, name));
}

function pairNames(folder: string): string[] {
  let entries: readonly string[];
  try {
    entries = readdirSync(folder);
  } catch (error) {
    throw new InputError("corpus", `cannot read folder ${folder}: ${reasonOf(error)}`, { cause: error });
  }
  return entries
    .filter((entry) => entry.endsWith(".json") && entries.includes(entry.replace(/json$/, "npy")))
    .map((entry) => entry.slice(0, -".json".length))
    .sort();
}

function readPair(folder: string, name: string): CorpusSeries[] {
  const path = join(folder, `${name}.json`);
  const index = indexSchema.safeParse(readJsonObject(path, "corpus index"));
  if (!index.success) {
    const issue = index.error.issues[0];
    throw new InputError("corpus", `${path}: ${issue?.path.join(".")}: ${issue?.message}`);
  }
  const values = readNpy(join(folder, `${name}.npy`));
  const all = values instanceof Float32Array ? values : Float32Array.from(values);
  return index.data.series.map(({ id, offset, length, freq, period }) => {
    if (offset + length > all.length) {
      throw new InputError("corpus", `${path}: series "${id}" ends at value ${offset + length}, ${name}.npy holds ${all.length}`);
    }
    return { source: name, id, frequency: freq, period, values: all.subarray(offset, offset + length) };
  });
}
