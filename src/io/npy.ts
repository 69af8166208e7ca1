/**
 * One-dimensional arrays in NumPy's .npy files (format 1.0 to 3.0, little-endian float32, float64, int32 or int64). Knows nothing of what they hold.
 */
import { InputError } from "./errors.js";
import { openRegularFile } from "./regular-file.js";

const magic = "\u0093NUMPY";

/** Bytes per element, and how they become numbers. */
const types: Readonly<Record<string, readonly [bytes: number, read: (buffer: ArrayBuffer) => ArrayLike<number>]>> = {
  "<f4": [4, (buffer) => new Float32Array(buffer)],
  "<f8": [8, (buffer) => new Float64Array(buffer)],
  "<i4": [4, (buffer) => new Int32Array(buffer)],
  "<i8": [8, (buffer) => Float64Array.from(new BigInt64Array(buffer), Number)],
};

/** Reads the whole array. Throws `InputError` naming the file for anything that is not a complete one-dimensional array of these types. */
export function readNpy(path: string): ArrayLike<number> {
  const file = openRegularFile(path, "NumPy file");
  try {
    const start = new Uint8Array(Math.min(12, file.size));
    file.readInto(start, 0);
    if (Buffer.from(start.subarray(0, 6)).toString("latin1") !== magic) throw wrong(path, "it does not begin with NUMPY");
    const isShort = start[6] === 1;
    const view = new DataView(start.buffer);
    const from = isShort ? 10 : 12;
    if (start.length < from) throw wrong(path, `it ends after ${start.length} bytes`);
    const headerLength = isShort ? view.getUint16(8, true) : view.getUint32(8, true);
    if (headerLength > 65536 || from + headerLength > file.size) throw wrong(path, `its header claims ${headerLength} bytes`);
    const header = new Uint8Array(headerLength);
    file.readInto(header, from);
    const text = Buffer.from(header).toString("latin1");
    const descr = /'descr':\s*'([^']*)'/.exec(text)?.[1] ?? "";
    const shape = /'shape':\s*\(\s*(\d+)\s*,?\s*\)/.exec(text)?.[1];
    const type = types[descr];
    if (type === undefined) throw wrong(path, `its elements are "${descr}", expected ${Object.keys(types).join(", ")}`);
    if (shape === undefined) throw wrong(path, "its shape is not one-dimensional");
    const bytes = Number(shape) * type[0];
    if (from + headerLength + bytes !== file.size) {
      throw wrong(path, `${shape} elements need ${bytes} bytes, there are ${file.size - from - headerLength}`);
    }
    const data = new Uint8Array(bytes);
    file.readInto(data, from + headerLength);
    return type[1](data.buffer);
  } finally {
    file.close();
  }
}

function wrong(path: string, why: string): InputError {
  return new InputError("npy", `${path} is not a NumPy array that can be read: ${why}`);
}
