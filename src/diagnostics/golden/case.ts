/**
 * Golden cases on disk: case.json (what was run) and tensors.safetensors (inputs and expected values), read and checked against each other.
 * Knows nothing of how a case is run or compared.
 */

import { readdirSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { openCheckpoint, readJsonObject } from "../../io/checkpoint.js";
import { InputError } from "../../io/errors.js";
import { openSafetensors } from "../../io/safetensors.js";
import type { SafetensorsFile } from "../../io/safetensors.js";
import { formulaCheckpoint } from "../../models/formula/checkpoint.js";
import type { Checkpoint, StoredData } from "../../models/tensor-source.js";

const shapeSchema = z.array(z.int().min(0));
const dtypeSchema = z.enum(["F32", "F64", "I64", "BOOL"]);
const tensorSchema = z.object({ name: z.string(), dtype: dtypeSchema, shape: shapeSchema, meaning: z.string().default("") });
const tolerance = z.number().min(0);
const expectedSchema = tensorSchema.extend({
  compare: z.enum(["close", "equal", "bits"]),
  atol: tolerance.default(0),
  rtol: tolerance.default(0),
  atolBy: z.object({ axes: z.array(z.int().min(0)), atol: z.array(tolerance) }).optional(),
});
/** Weights by formula, or a trained model of the package; the case then lies in that model's folder. */
const checkpointSchema = z.union([
  z.object({ preset: z.string(), seed: z.int().default(0), set: z.record(z.string(), z.unknown()).default({}) }),
  z.object({ bundled: z.string() }),
]);
const caseSchema = z.object({
  format: z.literal(1),
  name: z.string(),
  family: z.string().default(""),
  function: z.string(),
  summary: z.string().default(""),
  spec: z.string().default(""),
  checkpoint: z.record(z.string(), checkpointSchema),
  options: z.record(z.string(), z.unknown()),
  inputs: z.array(tensorSchema),
  expected: z.array(expectedSchema).min(1),
  margins: z.record(z.string(), z.unknown()).default({}),
});

/** One stored tensor, row-major. */
export interface GoldenTensor extends z.infer<typeof tensorSchema> {
  readonly data: StoredData;
}

/** A stored tensor with the way to compare against it. */
export interface GoldenExpectation extends z.infer<typeof expectedSchema> {
  readonly data: StoredData;
}

export interface GoldenCase extends Omit<z.infer<typeof caseSchema>, "inputs" | "expected"> {
  readonly folder: string;
  readonly inputs: ReadonlyMap<string, GoldenTensor>;
  /** In the order of computation. */
  readonly expected: readonly GoldenExpectation[];
}

/**
 * Case folders named by `directories`: each is a case itself or holds cases one level down. Sorted by name within a directory, each once.
 * Throws `InputError` for a directory that does not exist or has no case.
 */
export function findGoldenCases(directories: readonly string[]): string[] {
  const found = new Set<string>();
  for (const directory of directories) {
    const stats = statSync(directory, { throwIfNoEntry: false });
    if (!stats) throw new InputError("golden-folder", `cannot open golden folder ${directory}: it does not exist`);
    if (!stats.isDirectory()) throw new InputError("golden-folder", `cannot open golden folder ${directory}: it is not a folder`);
    const folders = isCase(directory) ? [directory] : childFolders(directory).filter(isCase);
    if (folders.length === 0) {
      throw new InputError("golden-folder", `${directory} holds no golden case: expected case.json in it or in its folders`);
    }
    for (const folder of folders) found.add(folder);
  }
  return [...found];
}

function isCase(folder: string): boolean {
  return statSync(join(folder, "case.json"), { throwIfNoEntry: false }) !== undefined;
}

function childFolders(directory: string): string[] {
  const entries = readdirSync(directory, { withFileTypes: true });
  return entries
    .filter((entry) => !entry.isFile())
    .map((entry) => join(directory, entry.name))
    .sort();
}

/** Reads one case folder. Throws `InputError` for anything that does not fit together. */
export function loadGoldenCase(folder: string): GoldenCase {
  const path = join(folder, "case.json");
  const parsed = caseSchema.safeParse(readJsonObject(path, "golden case"));
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new InputError("golden-case", `${path}: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? "invalid"}`);
  }
  const description = parsed.data;
  for (const tensor of description.expected) checkTolerances(path, tensor);
  const file = openSafetensors(join(folder, "tensors.safetensors"));
  try {
    const inputs = description.inputs.map((tensor) => ({ ...tensor, data: readChecked(file, tensor) }));
    const expected = description.expected.map((tensor) => ({ ...tensor, data: readChecked(file, tensor) }));
    return { ...description, folder, inputs: new Map(inputs.map((tensor) => [tensor.name, tensor])), expected };
  } finally {
    file.close();
  }
}

function checkTolerances(path: string, { name, shape, atolBy }: z.infer<typeof expectedSchema>): void {
  if (!atolBy) return;
  if (atolBy.axes.some((axis) => axis >= shape.length)) {
    throw new InputError("golden-case", `${path}: ${name}: atolBy.axes [${atolBy.axes.join(", ")}] exceed shape [${shape.join(", ")}]`);
  }
  const count = atolBy.axes.reduce((product, axis) => product * (shape[axis] ?? 1), 1);
  if (atolBy.atol.length !== count) {
    throw new InputError("golden-case", `${path}: ${name}: atolBy has ${atolBy.atol.length} tolerances, its axes need ${count}`);
  }
}

function readChecked(file: SafetensorsFile, { name, dtype, shape }: z.infer<typeof tensorSchema>): StoredData {
  const entry = file.tensors.get(name);
  if (!entry) throw new InputError("golden-case", `${file.path}: there is no tensor "${name}", which case.json lists`);
  if (entry.dtype !== dtype || entry.shape.join() !== shape.join()) {
    throw new InputError(
      "golden-case",
      `${file.path}: "${name}" is ${entry.dtype} [${entry.shape.join(", ")}], case.json says ${dtype} [${shape.join(", ")}]`,
    );
  }
  return file.read(name);
}

/** Name for reports when a case could not even be read. */
export function goldenCaseName(folder: string): string {
  return basename(folder);
}

/** The checkpoint a case names for `role` ("model", "tokenizer"). Throws `InputError` when it names none or an unknown preset. */
export function goldenCheckpoint(golden: GoldenCase, role: string): Checkpoint {
  const named = golden.checkpoint[role];
  if (!named) throw new InputError("golden-case", `golden case ${golden.name}: no checkpoint for role "${role}"`);
  if ("bundled" in named) return openCheckpoint(fileURLToPath(new URL(`../../../models/${named.bundled}`, import.meta.url)));
  return formulaCheckpoint(named.preset, { seed: named.seed, set: named.set });
}

/** An input tensor. Throws `InputError` when the case has none of that name; `inputs.get` gives undefined instead. */
export function goldenInput(golden: GoldenCase, name: string): GoldenTensor {
  const tensor = golden.inputs.get(name);
  if (!tensor) throw new InputError("golden-case", `golden case ${golden.name}: no input tensor "${name}"`);
  return tensor;
}

/** Throws `InputError` for an option that the function does not know: an option must never be ignored silently. */
export function checkGoldenOptions(golden: GoldenCase, known: readonly string[]): void {
  const unknown = Object.keys(golden.options).filter((key) => !known.includes(key));
  if (unknown.length === 0) return;
  const listed = unknown.map((key) => `"${key}"`).join(", ");
  throw new InputError(
    "golden-option",
    `golden case ${golden.name}: ${golden.function} knows no option ${listed}; known: ${known.join(", ")}`,
  );
}
