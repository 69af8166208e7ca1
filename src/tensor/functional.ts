/** Operations with several operands or states, as plain functions over Tensor: the words model code is written in. */
import { apply, type Tensor } from "./tensor.js";
import { keyLanes } from "../ir/ops/state.js";
import { Value, type State } from "../trace/entry.js";

const reads = (state: State): { state: State; writes: false } => ({ state, writes: false });
const writes = (state: State): { state: State; writes: true } => ({ state, writes: true });

/** The value of a state, [state's shape]. Free for constant states; a copy of the current version for mutable ones. */
export const readState = (state: State): Tensor => apply("read", [], { dtype: state.declaration.dtype }, [reads(state)], state.name);

/** x [..., depth] times weight [out, depth] transposed, plus bias [out]: [..., out]. */
export function linear(x: Tensor, weight: State, bias?: State): Tensor {
  return apply("linear", bias ? [x, readState(bias)] : [x], {}, [reads(weight)], weight.name);
}

/** x / sqrt(mean(x^2) + epsilon), times weight [n] when given; over the last axis. */
export function rmsNorm(x: Tensor, weight: State | undefined, epsilon: number): Tensor {
  return apply("rmsNorm", weight ? [x, readState(weight)] : [x], { epsilon });
}

/** Operands one after the other along the last axis. */
export const concat = (parts: readonly Tensor[]): Tensor => apply("concat", parts);

/** Row r of the result is row index[r] of x, or row -1 - index[r] of `other` for a negative index. */
export const gatherRows = (x: Tensor, index: Tensor, other?: Tensor): Tensor => apply("gatherRows", other ? [x, index, other] : [x, index]);

/** Cosines and sines by position, and the factors of extrapolation where a model has them. */
export interface RotaryTables {
  /** [positions, d]: cosines, each pair's two entries equal, 1 beyond the rotated width. */
  readonly cosine: State;
  /** [positions, d]: sines, negative at the pair's first entry, 0 beyond the rotated width. */
  readonly sine: State;
  /** [entries, d]: xPos multipliers. */
  readonly multiplier?: State;
}

/** Which dims of a head are rotated, and how they pair. */
export interface RotaryForm {
  /** Rotated dims of each head, from the first on. */
  readonly width: number;
  /** Which dims form a pair: 2i and 2i + 1, or i and i + width / 2. */
  readonly pairing: "interleaved" | "half";
}

/** Rotary code of x [tokens, heads, d] at position [tokens]; `decay` [tokens] picks the multiplier row. */
export function rope(x: Tensor, position: Tensor, form: RotaryForm, tables: RotaryTables, decay?: Tensor): Tensor {
  const inputs = [x, position, readState(tables.cosine), readState(tables.sine)];
  if (tables.multiplier && decay) inputs.push(readState(tables.multiplier), decay);
  return apply("rope", inputs, { width: form.width, pairing: form.pairing });
}

/** Keys [rows, heads, blocks, d, 16] and values [rows, heads, slots, d padded to 16] of one cache. */
export interface KeyValueState {
  readonly keys: State;
  readonly values: State;
  /** Block table i32 [table rows, blocks]: the states then hold pages of 16 slots, and block b of a row is page table[row][b]. */
  readonly table?: Tensor;
}

/** The same as values: appending gives new ones. */
export interface KeyValueTensors {
  readonly keys: Tensor;
  readonly values: Tensor;
}

/** The cache with k and v [tokens, heads, d] at row[n], slot[n]; with `slots` it has that many, at least those of the old one. */
export function appendedCache(cache: KeyValueTensors, k: Tensor, v: Tensor, row: Tensor, slot: Tensor, slots?: number): KeyValueTensors {
  const extent = (count: number): { extent?: number } => (slots === undefined ? {} : { extent: count });
  return {
    keys: apply("appendedKeys", [cache.keys, k, row, slot], extent(Math.ceil((slots ?? 0) / keyLanes))),
    values: apply("appendedValues", [cache.values, v, row, slot], extent(slots ?? 0)),
  };
}

/** Writes k and v [tokens, heads, d] to row[n], slot[n] of a cache. */
export function appendToCache(cache: KeyValueState, k: Tensor, v: Tensor, row: Tensor, slot: Tensor): void {
  apply("appendKeys", [k, row, slot], {}, [writes(cache.keys)]);
  apply("appendValues", [v, row, slot], {}, [writes(cache.values)]);
}

export interface SharedPrefix {
  readonly cache: KeyValueState;
  /** Row and length of each token's prefix, i32 [tokens]. */
  readonly row: Tensor;
  readonly length: Tensor;
}

/** Attention of q [tokens, heads, d] over keys 0 .. length[n] - 1 of row[n], those below prefix.length[n] taken from the shared prefix. */
export function attention(
  q: Tensor,
  cache: KeyValueState | KeyValueTensors,
  row: Tensor,
  length: Tensor,
  options: { readonly scale: number; readonly valueWidth: number },
  prefix?: SharedPrefix,
): Tensor {
  const inputs = prefix ? [q, row, length, prefix.row, prefix.length] : [q, row, length];
  const form = { scale: options.scale, valueWidth: options.valueWidth };
  const prefixStates = prefix ? [reads(prefix.cache.keys), reads(prefix.cache.values)] : [];
  if (cache.keys instanceof Value) {
    const { keys, values } = cache as KeyValueTensors;
    return apply("attention", [...inputs, keys, values], { ...form, cache: "values" }, prefixStates);
  }
  const { keys, values, table } = cache as KeyValueState;
  const states = [reads(keys), reads(values), ...prefixStates];
  if (!table) return apply("attention", inputs, form, states);
  const tables = prefix ? [table, prefix.cache.table ?? table] : [table];
  return apply("attention", [...inputs, ...tables], { ...form, cache: "paged" }, states);
}

/** Full attention among tokens first[n] + u * stride[n], u < variates, with equal ids; q, k, v [tokens, heads, d]. */
export const groupAttention = (
  q: Tensor,
  k: Tensor,
  v: Tensor,
  first: Tensor,
  stride: Tensor,
  ids: Tensor,
  options: { readonly scale: number; readonly variates: number },
): Tensor => apply("groupAttention", [q, k, v, first, stride, ids], { scale: options.scale, variates: options.variates });

/** state[index[r]] = value[r]; an index outside is skipped. */
export function writeRows(state: State, value: Tensor, index: Tensor): void {
  apply("writeRows", [value, index], {}, [writes(state)]);
}

/** target[r] = source[index[r]] for the first rows of target. */
export function copyRows(target: State, source: State, index: Tensor): void {
  apply("copyRows", [index], {}, [writes(target), reads(source)]);
}

export interface ScalerOptions {
  /** Start from zero instead of continuing the state's moments. */
  readonly fresh: boolean;
  readonly addedVariance: number;
  readonly minimumScale: number;
  readonly clamp: boolean;
  readonly lowFactor: number;
  readonly highFactor: number;
}

/** Causal patch statistics: values and mask [tokens, patch], sequences as first, count, prefix, row [sequences]; result [tokens, 2] = location, scale. */
export function causalScaler(
  values: Tensor,
  mask: Tensor,
  sequences: { readonly first: Tensor; readonly count: Tensor; readonly prefix: Tensor; readonly row: Tensor },
  moments: State,
  options: ScalerOptions,
): Tensor {
  return apply("causalScaler", [values, mask, sequences.first, sequences.count, sequences.prefix, sequences.row], { ...options }, [
    writes(moments),
  ]);
}

export interface InjectedDraws {
  readonly component: Tensor;
  readonly normal: Tensor;
  readonly chiSquare: Tensor;
}

/** One Student-t mixture draw per row and sample position: raw [sources, patch, parameters], result [rows, patch]. */
export function mixtureDraw(
  raw: Tensor,
  source: Tensor,
  keys: Tensor,
  start: Tensor,
  seed: Tensor,
  components: number,
  injected?: InjectedDraws,
): Tensor {
  const draws = injected ? [injected.component, injected.normal, injected.chiSquare] : [];
  return apply("mixtureDraw", [raw, source, keys, start, seed, ...draws], { components });
}
