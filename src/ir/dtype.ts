/** Element types: what is stored, what is computed with, and how a host array holds them. Must not know of devices. */

/** Storage dtypes. Compute happens in f32, f64 or i32; bf16 is storage only and widens exactly to f32. */
export type DType = "f32" | "f64" | "i32" | "bf16";

export type HostArray = Float32Array | Float64Array | Int32Array | Uint16Array;

export const dtypes: Record<DType, { readonly bytes: number; readonly compute: "f32" | "f64" | "i32" }> = {
  f32: { bytes: 4, compute: "f32" },
  f64: { bytes: 8, compute: "f64" },
  i32: { bytes: 4, compute: "i32" },
  bf16: { bytes: 2, compute: "f32" },
};

/** A zeroed host array of `length` elements; bf16 is held as its 16 bits. */
export function hostArray(dtype: DType, length: number): HostArray {
  if (dtype === "f32") return new Float32Array(length);
  if (dtype === "f64") return new Float64Array(length);
  if (dtype === "i32") return new Int32Array(length);
  return new Uint16Array(length);
}

/** A view of `length` elements at byte `offset` of `buffer`; shares memory. */
export function viewAs(dtype: DType, buffer: ArrayBuffer, offset: number, length: number): HostArray {
  if (dtype === "f32") return new Float32Array(buffer, offset, length);
  if (dtype === "f64") return new Float64Array(buffer, offset, length);
  if (dtype === "i32") return new Int32Array(buffer, offset, length);
  return new Uint16Array(buffer, offset, length);
}

export function dtypeOf(array: HostArray): DType {
  if (array instanceof Float32Array) return "f32";
  if (array instanceof Float64Array) return "f64";
  if (array instanceof Int32Array) return "i32";
  return "bf16";
}
