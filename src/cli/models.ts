/**
 * `tempograph models list|info|pull|remove`: what can be run, what is in the cache, downloads. Downloading is io/hub.ts.
 */
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { CATALOGUE } from "../forecast/catalogue.js";
import { InputError } from "../forecast/errors.js";
import { openCheckpoint } from "../io/checkpoint.js";
import { cachedModels, hubCacheFolder, isHubId, removeCachedModel, resolveHubModel } from "../io/hub.js";
import { note, type CliContext } from "./context.js";
import { bytes } from "./numbers.js";
import { startProgress } from "./progress.js";
import { renderTable } from "./table.js";

export interface ModelsFlags {
  revision?: string;
  offline?: boolean;
  json?: boolean;
  quiet?: boolean;
}

/** What is known, and what lies in the cache. */
export function runModelsList(flags: ModelsFlags, context: CliContext): number {
  const cached = cachedModels(context.environment);
  const here = (reference: string): string => {
    if (reference.startsWith("bundled:")) return "in the package";
    const found = cached.find(({ id }) => id === reference);
    return found === undefined ? "to download" : `in the cache, ${bytes(found.bytes)}`;
  };
  const others = cached.filter(({ id }) => !CATALOGUE.some(({ reference }) => reference === id));
  if (flags.json === true) {
    const models = CATALOGUE.map((entry) => ({ ...entry, where: here(entry.reference) }));
    context.writeOut(`${JSON.stringify({ models, cache: { folder: hubCacheFolder(context.environment), models: cached } })}\n`);
    return 0;
  }
  const titles = ["model", "family", "parameters", "context", "licence", "where", "good at"];
  const rows = CATALOGUE.map((entry) => [
    entry.reference,
    entry.family,
    entry.parameters,
    String(entry.context),
    entry.licence,
    here(entry.reference),
    entry.goodAt,
  ]);
  const more = others.map(({ id, bytes: size }) => [id, "-", "-", "-", "-", `in the cache, ${bytes(size)}`, "-"]);
  context.writeOut(
    `${renderTable(
      titles.map((title) => ({ title })),
      [...rows, ...more],
    )}\n`,
  );
  context.writeOut(`cache: ${hubCacheFolder(context.environment)}\n`);
  return 0;
}

/** Downloads a hub model, or says that it is there already. Prints its folder. */
export async function runModelsPull(id: string, flags: ModelsFlags, context: CliContext): Promise<number> {
  if (!isHubId(id))
    throw new InputError("hub-id", `"${id}" is no hub id: expected OWNER/NAME; bundled models and folders need no download`);
  const wanted = [id, ...CATALOGUE.filter(({ reference }) => reference === id).flatMap(({ tokenizer }) => tokenizer ?? [])];
  for (const [index, part] of wanted.entries()) {
    const progress = startProgress(context, `downloading ${part}`, flags.quiet);
    let size = 0;
    try {
      const folder = await resolveHubModel(part, {
        environment: context.environment,
        // Branches move: pull is the one command that looks again.
        refresh: flags.offline !== true,
        signal: context.signal,
        ...(flags.offline === undefined ? {} : { offline: flags.offline }),
        ...(flags.revision === undefined || index > 0 ? {} : { revision: flags.revision }),
        onProgress: (done, total) => {
          size = total;
          progress.update(done, total, bytes);
        },
      });
      context.writeOut(`${part}: ${folder}${size > 0 ? `, ${bytes(size)}` : ""}\n`);
    } finally {
      progress.end();
    }
  }
  return 0;
}

export function runModelsRemove(id: string, flags: ModelsFlags, context: CliContext): number {
  const freed = removeCachedModel(id, context.environment);
  if (flags.quiet !== true) note(context, `removed ${id}, ${bytes(freed)}`);
  return 0;
}

/** Configuration, tensors and card of a model that is here: bundled, a folder, or in the cache. Never downloads. */
export async function runModelsInfo(reference: string, flags: ModelsFlags, context: CliContext): Promise<number> {
  const entry = CATALOGUE.find((known) => known.reference === reference);
  const folder = await folderOf(reference, flags, context);
  const stored = folder === undefined ? undefined : storedModel(folder);
  if (entry === undefined && stored === undefined) throw new InputError("model-unknown", `nothing is known of ${reference}`);
  const info = {
    reference,
    ...(entry === undefined ? {} : { family: entry.family, licence: entry.licence, goodAt: entry.goodAt, context: entry.context }),
    ...(folder === undefined ? {} : { folder }),
    ...stored,
  };
  if (flags.json === true) context.writeOut(`${JSON.stringify(info)}\n`);
  else
    for (const [name, value] of Object.entries(info))
      context.writeOut(`${name}: ${typeof value === "object" ? JSON.stringify(value) : value}\n`);
  return 0;
}

async function folderOf(reference: string, flags: ModelsFlags, context: CliContext): Promise<string | undefined> {
  if (reference.startsWith("bundled:")) {
    const folder = new URL(`../../models/${reference.slice("bundled:".length)}`, import.meta.url).pathname;
    return existsSync(folder) ? folder : undefined;
  }
  if (isHubId(reference)) {
    const known = CATALOGUE.some((entry) => entry.reference === reference);
    const revision = flags.revision === undefined ? {} : { revision: flags.revision };
    try {
      return await resolveHubModel(reference, { environment: context.environment, offline: true, ...revision });
    } catch (error) {
      if (known) return undefined;
      throw error;
    }
  }
  return reference;
}

interface StoredModel {
  readonly parameters: number;
  readonly weightBytes: number;
  readonly tensors: number;
  readonly card: string;
  readonly config: Readonly<Record<string, unknown>>;
}

/** Opens the checkpoint, which checks that it is complete. */
function storedModel(folder: string): StoredModel {
  const { config, source } = openCheckpoint(folder);
  try {
    const names = source.names();
    const parameters = names.reduce((sum, name) => sum + (source.info(name)?.shape ?? []).reduce((product, size) => product * size, 1), 0);
    const weights = join(folder, "model.safetensors");
    const card = join(folder, "README.md");
    const title = existsSync(card) ? (/^# .*\n+([^\n]*)/m.exec(readFileSync(card, "utf8"))?.[1] ?? "") : "";
    return { parameters, weightBytes: existsSync(weights) ? statSync(weights).size : 0, tensors: names.length, card: title, config };
  } finally {
    source.close();
  }
}
