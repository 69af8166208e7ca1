/**
 * Reading and writing safetensors files by position, without holding the whole file. Little-endian hosts only, as Node's platforms are.
 * Knows nothing of models; header rules are in safetensors-header.ts.
 */

import type { StoredData, StoredDtype } from "../models/tensor-source.js";
import { InputError } from "./errors.js";
import { writeAtomically } from "./atomic-write.js";
import { floatsFromStored } from "./float-formats.js";
import { openRegularFile } from "./regular-file.js";
import type { OpenFile } from "./regular-file.js";
import { bytesPerElement, longestHeader, parseSafetensorsHeader } from "./safetensors-header.js";
import type { SafetensorsEntry } from "./safetensors-header.js";

export type { SafetensorsEntry } from "./safetensors-header.js";

/** An open file; whoever opened it closes it. Every read returns memory of its own. */
export interface SafetensorsFile extends Disposable {
  readonly path: string;
  /** By name, in header order; `begin` and `end` are byte positions in the data section. */
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Row-major values as stored: F16 and BF16 as 16-bit patterns, BOOL as bytes. */
  read(name: string): StoredData;
  /** Row-major float32 values, converted from F16, BF16 or F64 where needed; throws `InputError` for integers. */
  readFloat32(name: string): Float32Array;
  /** Fills a Float32Array (converted, one element each) or a Uint8Array (bytes as stored) of exactly the tensor's size. */
  readInto(name: string, target: Float32Array | Uint8Array): void;
  /** Fills `target` with the elements from `first` on, converted. Throws `RangeError` beyond the tensor's end. */
  readRange(name: string, first: number, target: Float32Array): void;
  /** A second call does nothing; reading afterwards throws. */
  close(): void;
}

/** Opens and checks a safetensors file. Throws `InputError` for anything that is not one; no descriptor stays open then. */
export function openSafetensors(path: string): SafetensorsFile {
  const file = openRegularFile(path, "safetensors file");
  try {
    return readable(file);
  } catch (error) {
    file.close();
    throw error;
  }
}

function readable(file: OpenFile): SafetensorsFile {
  const { path, size } = file;
  if (size < 8)
    throw new InputError("safetensors-truncated", `${path}: the file has ${size} bytes, too few for a safetensors header; it is truncated`);
  const prefix = new Uint8Array(8);
  file.readInto(prefix, 0);
  const headerBytes = new DataView(prefix.buffer).getBigUint64(0, true);
  if (headerBytes > BigInt(longestHeader)) {
    throw new InputError(
      "safetensors-header",
      `${path}: the header length is ${headerBytes} bytes, more than the limit of ${longestHeader}; is this a safetensors file?`,
    );
  }
  const dataStart = 8 + Number(headerBytes);
  if (dataStart > size) {
    throw new InputError(
      "safetensors-truncated",
      `${path}: the header needs ${headerBytes} bytes, the file has ${size - 8} after its length field; it is truncated`,
    );
  }
  const header = new Uint8Array(Number(headerBytes));
  file.readInto(header, 8);
  const { tensors, metadata } = parseSafetensorsHeader(header, size - dataStart, path);

  const require = (name: string): SafetensorsEntry => {
    const entry = tensors.get(name);
    if (!entry) throw new InputError("checkpoint-tensor", `${path}: there is no tensor "${name}"`);
    return entry;
  };
  const readBytes = (entry: SafetensorsEntry, bytes: Uint8Array): void => file.readInto(bytes, dataStart + entry.begin);
  const read = (name: string): StoredData => {
    const entry = require(name);
    const data = allocate(entry.dtype, (entry.end - entry.begin) / bytesPerElement[entry.dtype]);
    readBytes(entry, bytesOf(data));
    return data;
  };
  const readInto = (name: string, target: Float32Array | Uint8Array): void => {
    const entry = require(name);
    const elements = (entry.end - entry.begin) / bytesPerElement[entry.dtype];
    const expected = target instanceof Float32Array ? elements : entry.end - entry.begin;
    if (target.length !== expected) {
      throw new RangeError(
        `${path}: tensor "${name}" has ${expected} ${target instanceof Float32Array ? "elements" : "bytes"}, the target has ${target.length}`,
      );
    }
    if (target instanceof Uint8Array || entry.dtype === "F32") readBytes(entry, bytesOf(target));
    else if (!floatsFromStored(entry.dtype, read(name), target)) {
      throw new InputError("checkpoint-tensor", `${path}: tensor "${name}" has dtype ${entry.dtype}, expected a floating-point tensor`);
    }
  };
  const readRange = (name: string, first: number, target: Float32Array): void => {
    const entry = require(name);
    const width = bytesPerElement[entry.dtype];
    const elements = (entry.end - entry.begin) / width;
    if (!Number.isInteger(first) || first < 0 || first + target.length > elements) {
      throw new RangeError(`${path}: tensor "${name}" has ${elements} elements, not ${target.length} from ${first} on`);
    }
    const at = dataStart + entry.begin + first * width;
    if (entry.dtype === "F32") return file.readInto(bytesOf(target), at);
    const stored = allocate(entry.dtype, target.length);
    file.readInto(bytesOf(stored), at);
    if (!floatsFromStored(entry.dtype, stored, target)) {
      throw new InputError("checkpoint-tensor", `${path}: tensor "${name}" has dtype ${entry.dtype}, expected a floating-point tensor`);
    }
  };
  return {
    path,
    tensors,
    metadata,
    read,
    readInto,
    readRange,
    readFloat32(name) {
      const entry = require(name);
      const target = new Float32Array((entry.end - entry.begin) / bytesPerElement[entry.dtype]);
      readInto(name, target);
      return target;
    },
    close: () => file.close(),
    [Symbol.dispose]: () => file.close(),
  };
}

function allocate(dtype: StoredDtype, elements: number): StoredData {
  switch (dtype) {
    case "F64":
      return new Float64Array(elements);
    case "F32":
      return new Float32Array(elements);
    case "F16":
    case "BF16":
      return new Uint16Array(elements);
    case "I64":
      return new BigInt64Array(elements);
    case "I32":
      return new Int32Array(elements);
    case "U8":
    case "BOOL":
      return new Uint8Array(elements);
  }
}

function bytesOf(data: StoredData): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** One tensor to write; `data` must be of the kind that `read` returns for `dtype`. It may be a function, called when its turn comes. */
export interface TensorToWrite {
  readonly name: string;
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  readonly data: StoredData | (() => StoredData);
}

/**
 * Writes a file that appears complete or not at all: widest dtype first, then by name, so that all data is aligned.
 * Throws `RangeError` for data that does not fit its shape and `InputError` when the place cannot be written.
 */
export function writeSafetensors(path: string, tensors: Iterable<TensorToWrite>, metadata: Readonly<Record<string, string>> = {}): void {
  const inOrder = [...tensors].sort((a, b) => bytesPerElement[b.dtype] - bytesPerElement[a.dtype] || (a.name < b.name ? -1 : 1));
  const entries = new Map<string, unknown>();
  if (Object.keys(metadata).length > 0) entries.set("__metadata__", metadata);
  let position = 0;
  for (const { name, dtype, shape } of inOrder) {
    if (entries.has(name) || name === "__metadata__") throw new RangeError(`${path}: tensor name "${name}" cannot be written twice`);
    const end = shape.reduce((count, size) => count * size, bytesPerElement[dtype]) + position;
    entries.set(name, { dtype, shape, data_offsets: [position, end] });
    position = end;
  }
  writeAtomically(path, (write) => {
    write(headerBytes(entries));
    for (const { name, dtype, shape, data } of inOrder) {
      const values = typeof data === "function" ? data() : data;
      const expected = shape.reduce((count, size) => count * size, 1);
      if (values.length !== expected || values.constructor !== allocate(dtype, 0).constructor) {
        throw new RangeError(
          `${path}: tensor "${name}" of dtype ${dtype} and shape [${shape.join(", ")}] got ${values.length} elements of ${values.constructor.name}`,
        );
      }
      write(bytesOf(values));
    }
  });
}

/** Length field and JSON, padded with spaces to a multiple of 8. `fromEntries` would drop no name: keys like __proto__ become own properties. */
function headerBytes(entries: ReadonlyMap<string, unknown>): Uint8Array {
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  const bytes = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(bytes.length - 8), true);
  bytes.set(json, 8);
  return bytes;
}
