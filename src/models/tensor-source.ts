/**
 * What a model needs from its weights, wherever they come from: names, shapes and values.
 * Types only; it must not know files, formulas or devices.
 */

/** Element types of stored tensors, in the spelling of the safetensors format. */
export type StoredDtype = "F64" | "F32" | "F16" | "BF16" | "I64" | "I32" | "U8" | "BOOL";

/** Values as stored: F16 and BF16 keep their 16-bit patterns, BOOL is one byte per element. */
export type StoredData = Float64Array | Float32Array | Uint16Array | BigInt64Array | Int32Array | Uint8Array;

export interface TensorInfo {
  readonly dtype: StoredDtype;
  /** Outermost axis first; [] for a scalar. */
  readonly shape: readonly number[];
}

/** Named tensors, read one at a time. Every read returns memory of its own, owned by the caller. */
export interface TensorSource {
  /** Where the tensors come from, for error messages: a path or a preset name. */
  readonly label: string;
  /** All tensor names in a stable order. */
  names(): readonly string[];
  /** Dtype and shape, or undefined when there is no such tensor. */
  info(name: string): TensorInfo | undefined;
  /** Row-major float32 values; F16, BF16 and F64 are converted. Throws `InputError` for an unknown name or a non-float tensor. */
  read(name: string): Float32Array;
  /** Like `read`, into memory of the caller with exactly the tensor's element count. */
  readInto(name: string, target: Float32Array): void;
  /** Fills `target` with the row-major elements from `first` on, converted like `read`. Throws `RangeError` beyond the tensor's end. */
  readRange(name: string, first: number, target: Float32Array): void;
  /** Values in their stored dtype. Throws `InputError` for an unknown name. */
  readStored(name: string): StoredData;
  /** Releases files; a second call does nothing. Reading afterwards throws. */
  close(): void;
}

/** A model's configuration as parsed JSON, not yet checked by the model, with its weights. Whoever receives it closes `source`. */
export interface Checkpoint {
  readonly config: Readonly<Record<string, unknown>>;
  readonly source: TensorSource;
}
