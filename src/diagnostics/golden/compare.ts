/**
 * Comparing tensors with their golden values, element by element.
 * Pure: knows nothing of files, devices or models. A NaN never passes, on either side; equal infinities do.
 */

import type { StoredData } from "../../models/tensor-source.js";
import type { GoldenCase, GoldenExpectation } from "./case.js";

/** taps: folds and pruning off, every tensor of a case. product: the programs that predict uses, final tensors at least. */
export type GoldenProgram = "taps" | "product";

/** A computed tensor, row-major. */
export interface GoldenAnswer {
  readonly data: StoredData | readonly number[];
  readonly shape: readonly number[];
}

export interface TensorResult {
  readonly name: string;
  readonly compare: "close" | "equal" | "bits";
  readonly pass: boolean;
  /** Largest |got - expected|; null when it is not a finite number or nothing could be compared. */
  readonly maxAbs: number | null;
  /** Largest distance in units in the last place of the stored dtype; null as above and for integers. */
  readonly maxUlp: number | null;
  /** The first element that does not pass, by row-major index. Numbers that JSON cannot hold are given as text. */
  readonly firstBad: { readonly index: number; readonly got: number | string; readonly expected: number | string } | null;
  /** Why it failed, for people; absent on a pass. */
  readonly reason?: string;
}

/** Compares every element of one tensor. */
export function compareTensor(expectation: GoldenExpectation, got: GoldenAnswer | undefined): TensorResult {
  const { name, compare, shape, data: expected, dtype, rtol } = expectation;
  const notCompared = { name, compare, pass: false, maxAbs: null, maxUlp: null, firstBad: null };
  if (!got) return { ...notCompared, reason: "missing" };
  if (got.shape.join() !== shape.join() || got.data.length !== expected.length) {
    const found = `shape [${got.shape.join(", ")}] with ${got.data.length} elements`;
    return { ...notCompared, reason: `${found}, expected shape [${shape.join(", ")}]` };
  }
  const absoluteAt = absoluteTolerance(expectation);
  const isFloat = dtype === "F32" || dtype === "F64";
  const ulps = dtype === "F64" ? doubleUlps : singleUlps;
  let maxAbs = 0;
  let maxUlp = 0;
  let bad = 0;
  let firstBad: TensorResult["firstBad"] = null;
  for (let index = 0; index < expected.length; index++) {
    const wanted = Number(expected[index]);
    const found = Number(got.data[index]);
    // NaN propagates through Math.max, so one NaN marks the whole tensor.
    const difference = found === wanted ? 0 : Math.abs(found - wanted);
    maxAbs = Math.max(maxAbs, difference);
    if (isFloat && found !== wanted) maxUlp = Math.max(maxUlp, ulps(found, wanted));
    const passes = compare === "close" ? isClose(found, wanted, difference, absoluteAt(index), rtol) : isSame(found, wanted);
    if (passes) continue;
    bad++;
    firstBad ??= { index, got: forJson(found), expected: forJson(wanted) };
  }
  const measured = {
    name,
    compare,
    pass: bad === 0,
    maxAbs: Number.isFinite(maxAbs) ? maxAbs : null,
    maxUlp: isFloat && Number.isFinite(maxUlp) ? maxUlp : null,
    firstBad,
  };
  if (!firstBad) return measured;
  const place = `[${coordinates(firstBad.index, shape).join(", ")}]`;
  const allowed = compare === "close" ? ` (tolerance ${allowedAt(expectation, absoluteAt(firstBad.index), firstBad.index)})` : "";
  return {
    ...measured,
    reason: `${bad} of ${expected.length} elements, first at ${place}: got ${firstBad.got}, expected ${firstBad.expected}${allowed}`,
  };
}

/** The rule of the goldens. The finite test comes first: with an infinite expectation the tolerance would be infinite too. */
function isClose(found: number, wanted: number, difference: number, absolute: number, relative: number): boolean {
  if (!Number.isFinite(found) || !Number.isFinite(wanted)) return found === wanted;
  return difference <= absolute + relative * Math.abs(wanted);
}

/** Same value including the sign of zero. */
function isSame(found: number, wanted: number): boolean {
  return Object.is(found, wanted) && !Number.isNaN(found);
}

function allowedAt({ data, rtol }: GoldenExpectation, absolute: number, index: number): number {
  return absolute + rtol * Math.abs(Number(data[index]));
}

/** Tolerance by element index: one number, or one per index along `atolBy.axes`. */
function absoluteTolerance({ atol, atolBy, shape }: GoldenExpectation): (index: number) => number {
  if (!atolBy) return () => atol;
  return (index) => {
    const at = coordinates(index, shape);
    const slot = atolBy.axes.reduce((position, axis) => position * (shape[axis] ?? 1) + (at[axis] ?? 0), 0);
    return atolBy.atol[slot] ?? 0;
  };
}

/** Position along every axis of the element at row-major `index`. */
export function coordinates(index: number, shape: readonly number[]): number[] {
  const at = new Array<number>(shape.length).fill(0);
  let rest = index;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = shape[axis] ?? 1;
    at[axis] = rest % size;
    rest = Math.floor(rest / size);
  }
  return at;
}

const singles = new Float32Array(2);
const singleBits = new Int32Array(singles.buffer);
const doubles = new Float64Array(2);
const doubleBits = new BigInt64Array(doubles.buffer);

/** How many float32 numbers lie between a and b, counting both zeros as one; NaN when either is NaN. */
function singleUlps(a: number, b: number): number {
  if (Number.isNaN(a) || Number.isNaN(b)) return NaN;
  singles[0] = a;
  singles[1] = b;
  const [first, second] = [singleBits[0]!, singleBits[1]!];
  // Bit patterns of negative numbers count downwards from the most negative integer; mirroring them makes one ordered line.
  return Math.abs((first < 0 ? -(first & 0x7fffffff) : first) - (second < 0 ? -(second & 0x7fffffff) : second));
}

/** The same for float64. */
function doubleUlps(a: number, b: number): number {
  if (Number.isNaN(a) || Number.isNaN(b)) return NaN;
  doubles[0] = a;
  doubles[1] = b;
  const ordered = (bits: bigint): bigint => (bits < 0n ? -(bits & 0x7fffffffffffffffn) : bits);
  const distance = Number(ordered(doubleBits[0]!) - ordered(doubleBits[1]!));
  return Math.abs(distance);
}

function forJson(value: number): number | string {
  return Number.isFinite(value) && !Object.is(value, -0) ? value : Object.is(value, -0) ? "-0" : String(value);
}

/** What a product program must give at least. Functions not listed: their last tensor. */
const finalTensors: Readonly<Record<string, RegExp>> = {
  "toto1.scaler": /^(loc|scale|z)$/,
  "toto1.decodeSamples": /^(samples|mean|quantile.*)$/,
  "toto1.head": /^(mean|logDensity|realLogDensity)$/,
  "toto2.scaler": /^(loc|scale|z|asinh|backfill.*)$/,
  "toto2.predict": /^quantiles\d+$/,
  "toto2.postprocess": /./,
  "toto2.impute": /./,
  "kronos.tokenizer": /^(s1|s2|reconstruction)$/,
  "kronos.logits": /^(s1Logits|s2Logits)$/,
  "kronos.filter": /./,
  "kronos.generate": /^(s1|s2|prediction)$/,
  "kronos.predict": /^(s1|s2|forecast)$/,
};

function isFinal(golden: GoldenCase, name: string): boolean {
  const pattern = finalTensors[golden.function];
  return pattern ? pattern.test(name) : name === golden.expected.at(-1)?.name;
}

/**
 * Compares the tensors of a case in the order of computation. On `taps` every expected tensor must be there; on `product` the final ones
 * must, and others are compared where given. Computed tensors that the case does not list are ignored.
 */
export function compareCase(golden: GoldenCase, got: ReadonlyMap<string, GoldenAnswer>, program: GoldenProgram = "taps"): TensorResult[] {
  return golden.expected
    .filter((expectation) => program === "taps" || got.has(expectation.name) || isFinal(golden, expectation.name))
    .map((expectation) => compareTensor(expectation, got.get(expectation.name)));
}
