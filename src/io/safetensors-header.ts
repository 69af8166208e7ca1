/**
 * The header of a safetensors file: from its bytes to a checked table of tensors.
 * Pure: it must not open files or touch tensor data.
 */

import type { StoredDtype } from "../models/tensor-source.js";
import { InputError } from "./errors.js";
import { firstDuplicateKey } from "./json-keys.js";

export interface SafetensorsEntry {
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  /** Byte range within the data section, end exclusive. */
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
  readonly metadata: Readonly<Record<string, string>>;
}

export const bytesPerElement: Readonly<Record<StoredDtype, number>> = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, U8: 1, BOOL: 1 };

/** The format's own limit. */
export const longestHeader = 100_000_000;

/**
 * Parses and checks a header. `dataBytes` is the size of the data section; the tensors must cover it exactly, without gap or overlap.
 * Throws `InputError` naming `path`, the tensor and what was found.
 */
export function parseSafetensorsHeader(bytes: Uint8Array, dataBytes: number, path: string): SafetensorsHeader {
  const fail = (code: string, message: string): never => {
    throw new InputError(code, `${path}: ${message}`);
  };
  if (bytes[0] !== 0x7b) fail("safetensors-header", 'the header does not begin with "{"; is this a safetensors file?');
  let text: string;
  let parsed: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    parsed = JSON.parse(text);
  } catch (error) {
    throw new InputError(
      "safetensors-header",
      `${path}: the header is not valid JSON (${error instanceof Error ? error.message : String(error)})`,
      {
        cause: error,
      },
    );
  }
  const duplicate = firstDuplicateKey(text);
  if (duplicate) {
    const where = duplicate.path.length === 0 ? "the header" : `"${duplicate.path.join(".")}"`;
    fail("safetensors-duplicate", `key "${duplicate.key}" occurs twice in ${where}`);
  }

  const tensors = new Map<string, SafetensorsEntry>();
  let metadata: Readonly<Record<string, string>> = {};
  for (const [name, value] of Object.entries(parsed as Record<string, unknown>)) {
    if (name === "__metadata__") metadata = checkMetadata(value, path);
    else tensors.set(name, checkEntry(name, value, path));
  }
  checkCoverage(tensors, dataBytes, path);
  return { tensors, metadata };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function checkMetadata(value: unknown, path: string): Readonly<Record<string, string>> {
  if (!isRecord(value) || !Object.values(value).every((item) => typeof item === "string")) {
    throw new InputError("safetensors-header", `${path}: __metadata__ is ${summary(value)}, expected an object of strings`);
  }
  return value as Record<string, string>;
}

function summary(value: unknown): string {
  const text = JSON.stringify(value) ?? "missing";
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

const isSize = (value: unknown): value is number => typeof value === "number" && Number.isSafeInteger(value) && value >= 0;

function checkEntry(name: string, value: unknown, path: string): SafetensorsEntry {
  const at = `${path}: tensor "${name}"`;
  if (!isRecord(value)) throw new InputError("safetensors-header", `${at} is described by ${summary(value)}, expected an object`);
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== "string" || !Object.hasOwn(bytesPerElement, dtype)) {
    throw new InputError(
      "safetensors-dtype",
      `${at} has dtype ${summary(dtype)}, expected one of ${Object.keys(bytesPerElement).join(", ")}`,
    );
  }
  if (!Array.isArray(shape) || !shape.every(isSize)) {
    throw new InputError("safetensors-header", `${at} has shape ${summary(shape)}, expected a list of sizes`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw new InputError("safetensors-header", `${at} has data_offsets ${summary(offsets)}, expected [begin, end]`);
  }
  const [begin, end] = offsets as [number, number];
  const expected = shape.reduce((count, size) => count * size, bytesPerElement[dtype as StoredDtype]);
  if (end - begin !== expected) {
    throw new InputError(
      "safetensors-size",
      `${at} of dtype ${dtype} and shape [${shape.join(", ")}] needs ${expected} bytes, its data_offsets [${begin}, ${end}] hold ${end - begin}`,
    );
  }
  return { dtype: dtype as StoredDtype, shape, begin, end };
}

/** The tensors in file order must follow each other without gap or overlap and end where the file ends. */
function checkCoverage(tensors: ReadonlyMap<string, SafetensorsEntry>, dataBytes: number, path: string): void {
  const inOrder = [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let position = 0;
  let previous = "";
  for (const [name, { begin, end }] of inOrder) {
    if (end > dataBytes) {
      throw new InputError(
        "safetensors-truncated",
        `${path}: tensor "${name}" ends at data byte ${end}, but the file holds only ${dataBytes} data bytes; it is truncated or damaged`,
      );
    }
    if (begin < position) {
      throw new InputError(
        "safetensors-overlap",
        `${path}: tensors "${previous}" and "${name}" overlap (data byte ${begin} lies before ${position})`,
      );
    }
    if (begin > position) {
      throw new InputError("safetensors-gap", `${path}: data bytes ${position} to ${begin}, before tensor "${name}", belong to no tensor`);
    }
    position = end;
    previous = name;
  }
  if (position !== dataBytes) {
    throw new InputError("safetensors-gap", `${path}: the last ${dataBytes - position} data bytes belong to no tensor`);
  }
}
