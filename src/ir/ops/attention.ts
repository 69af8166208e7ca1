/** Attention ops and the rotary code. Keys are visited in ascending absolute position; masked keys count as not visited. */
import { printShape, sameDim, sameShape, type Dim } from "../dim.js";
import type { Attributes, Node, StateDeclaration } from "../graph.js";
import type { Evaluation, OpSpec, Value } from "../ops.js";
import { clamp, refuse } from "./shapes.js";
import { keyLanes, padded } from "./state.js";

/** Where attention finds its keys: states (no attribute), values given as operands, or states of pages behind a block table. */
export type AttentionForm = "states" | "values" | "paged";

export const attentionForm = (attributes: Attributes): AttentionForm => (attributes["cache"] as AttentionForm | undefined) ?? "states";

/** Operands of an attention by role: q, row, length, with a prefix its row and length, then what the form adds. */
export function attentionOperands<T>(
  inputs: readonly T[],
  attributes: Attributes,
): {
  readonly vectors: readonly T[];
  readonly shared: boolean;
  /** Form "values": keys and values of the own cache. */
  readonly values: readonly T[];
  /** Form "paged": block tables of the own cache and of the prefix. */
  readonly tables: readonly T[];
} {
  const form = attentionForm(attributes);
  const rest = inputs.slice(1);
  const added = form === "values" ? 2 : form === "paged" ? (rest.length > 3 ? 2 : 1) : 0;
  const vectors = rest.slice(0, rest.length - added);
  const extra = rest.slice(rest.length - added);
  return { vectors, shared: vectors.length === 4, values: form === "values" ? extra : [], tables: form === "paged" ? extra : [] };
}

/** A reader of one cache: key and value elements of (row, head, slot); with a table, slot 16 b + l of a row is slot l of page table[row][b]. */
function cacheReader(
  keys: Value,
  values: Value,
  table?: Value,
): { key(row: number, head: number, slot: number, j: number): number; value(row: number, head: number, slot: number, j: number): number } {
  const [, heads, blocks, width] = keys.shape as [number, number, number, number];
  const [, , capacity, stored] = values.shape as [number, number, number, number];
  if (table) {
    const pages = cacheReader(keys, values);
    const [tableRows, tableBlocks] = table.shape as [number, number];
    const pageOf = (row: number, slot: number): number =>
      clamp(
        table.data[clamp(row, 0, tableRows - 1) * tableBlocks + Math.floor(slot / keyLanes)] as number,
        0,
        (keys.shape[0] as number) - 1,
      );
    return {
      key: (row, head, slot, j) => pages.key(pageOf(row, slot), head, slot % keyLanes, j),
      value: (row, head, slot, j) => pages.value(pageOf(row, slot), head, slot % keyLanes, j),
    };
  }
  return {
    key: (row, head, slot, j) =>
      keys.data[(((row * heads + head) * blocks + Math.floor(slot / keyLanes)) * width + j) * keyLanes + (slot % keyLanes)] as number,
    value: (row, head, slot, j) => values.data[((row * heads + head) * capacity + slot) * stored + j] as number,
  };
}

/** out = softmax(scores) . values with f64 inside; `score` is undefined for a masked key. */
function attendOne(
  count: number,
  valueWidth: number,
  score: (key: number) => number | undefined,
  value: (key: number, j: number) => number,
  out: (j: number, value: number) => void,
): void {
  const scores: (number | undefined)[] = [];
  let largest = -Infinity;
  for (let key = 0; key < count; key++) {
    const s = score(key);
    scores.push(s);
    if (s !== undefined && (s > largest || Number.isNaN(s))) largest = s;
  }
  const weights = scores.map((s) => (s === undefined ? undefined : Math.exp(s - largest)));
  const total = weights.reduce<number>((sum, w) => sum + (w ?? 0), 0);
  for (let j = 0; j < valueWidth; j++) {
    let sum = 0;
    weights.forEach((w, key) => {
      if (w !== undefined) sum += (w / total) * value(key, j);
    });
    out(j, sum);
  }
}

function evaluateAttention({ inputs, states, attributes, shape, output }: Evaluation): void {
  const { vectors, shared, values, tables } = attentionOperands(inputs, attributes);
  const q = inputs[0] as Value;
  const [row, length, prefixRow, prefixLength] = vectors as [Value, Value, Value | undefined, Value | undefined];
  const [tokens, heads, valueWidth] = shape as [number, number, number];
  const width = q.shape[2] as number;
  const [ownKeys, ownValues, prefixKeys, prefixValues] = [...values, ...states] as [Value, Value, Value | undefined, Value | undefined];
  const own = cacheReader(ownKeys, ownValues, tables[0]);
  const prefix = shared && prefixKeys && prefixValues ? cacheReader(prefixKeys, prefixValues, tables[1]) : own;
  const group = heads / (ownKeys.shape[1] as number);
  const scale = attributes["scale"] as number;
  const tableOf = (keys: Value): Value | undefined => (keys === ownKeys ? tables[0] : tables[1]);
  const rowOf = (vector: Value, keys: Value, n: number): number =>
    clamp(vector.data[n] as number, 0, ((tableOf(keys) ?? keys).shape[0] as number) - 1);
  const capacity = (keys: Value): number => {
    const table = tableOf(keys);
    if (table) return (table.shape[1] as number) * keyLanes;
    const blocks = (keys.shape[2] as number) * keyLanes;
    return keys === ownKeys && values.length > 0 ? Math.min(blocks, ownValues.shape[2] as number) : blocks;
  };
  for (let n = 0; n < tokens; n++) {
    const start = prefixLength && prefixKeys ? clamp(prefixLength.data[n] as number, 0, capacity(prefixKeys)) : 0;
    const base = Math.floor(start / keyLanes) * keyLanes;
    for (let h = 0; h < heads; h++) {
      const kvHead = Math.floor(h / group);
      const locate = (key: number): [typeof own, number, number] =>
        key < start && prefixRow && prefixKeys ? [prefix, rowOf(prefixRow, prefixKeys, n), key] : [own, rowOf(row, ownKeys, n), key - base];
      attendOne(
        clamp(length.data[n] as number, 0, base + capacity(ownKeys)),
        valueWidth,
        (key) => {
          const [cache, r, slot] = locate(key);
          let sum = 0;
          for (let j = 0; j < width; j++) sum += (q.data[(n * heads + h) * width + j] as number) * cache.key(r, kvHead, slot, j);
          return sum * scale;
        },
        (key, j) => {
          const [cache, r, slot] = locate(key);
          return cache.value(r, kvHead, slot, j);
        },
        (j, value) => {
          output[(n * heads + h) * valueWidth + j] = value;
        },
      );
    }
  }
}

function evaluateGroupAttention({ inputs, attributes, shape, output }: Evaluation): void {
  const [q, k, v, first, stride, ids] = inputs as [Value, Value, Value, Value, Value, Value];
  const [tokens, heads, valueWidth] = shape as [number, number, number];
  const { variates, scale } = attributes as { variates: number; scale: number };
  const [, keyHeads, width] = k.shape as [number, number, number];
  for (let n = 0; n < tokens; n++) {
    const tokenOf = (u: number): number => clamp((first.data[n] as number) + u * (stride.data[n] as number), 0, tokens - 1);
    for (let h = 0; h < heads; h++) {
      const keyHead = Math.floor((h * keyHeads) / heads);
      const keyAt = (token: number, size: number): number => (token * keyHeads + keyHead) * size;
      attendOne(
        variates,
        valueWidth,
        (u) => {
          if (ids.data[tokenOf(u)] !== ids.data[n]) return undefined;
          let sum = 0;
          for (let j = 0; j < width; j++)
            sum += (q.data[(n * heads + h) * width + j] as number) * (k.data[keyAt(tokenOf(u), width) + j] as number);
          return sum * scale;
        },
        (u, j) => v.data[keyAt(tokenOf(u), valueWidth) + j] as number,
        (j, value) => {
          output[(n * heads + h) * valueWidth + j] = value;
        },
      );
    }
  }
}

function evaluateRope({ inputs, attributes, output }: Evaluation): void {
  const [x, position, cosine, sine, multiplier, decay] = inputs as [Value, Value, Value, Value, Value | undefined, Value | undefined];
  const [tokens, heads, d] = x.shape as [number, number, number];
  const { width, pairing } = attributes as { width: number; pairing: string };
  const half = width / 2;
  const partner = (j: number): number => (pairing === "half" ? (j < half ? j + half : j - half) : j ^ 1);
  const tableRow = (row: number, table: Value): number => clamp(row, 0, (table.shape[0] as number) - 1) * d;
  for (let n = 0; n < tokens; n++) {
    const angle = tableRow(position.data[n] as number, cosine);
    const grow = multiplier && decay ? tableRow(decay.data[n] as number, multiplier) : 0;
    for (let h = 0; h < heads; h++) {
      const at = (n * heads + h) * d;
      for (let j = 0; j < d; j++) {
        const other = j < width ? (x.data[at + partner(j)] as number) : 0;
        const turned = (x.data[at + j] as number) * (cosine.data[angle + j] as number) + other * (sine.data[angle + j] as number);
        output[at + j] = turned * (multiplier ? (multiplier.data[grow + j] as number) : 1);
      }
    }
  }
}

/** [rows, heads, slots, stored] with whole vectors of at least the value width. */
const isValueCache = ({ shape }: StateDeclaration, attributes: Attributes): boolean =>
  shape.length === 4 && typeof shape[3] === "number" && shape[3] === padded(attributes["valueWidth"] as number);

const perToken = (node: Node | undefined, tokens: Dim): boolean =>
  node?.dtype === "i32" && node.shape.length === 1 && sameDim(node.shape[0] as Dim, tokens);

export const attentionOps: readonly OpSpec[] = [
  {
    /**
     * q [tokens, heads, d] over cached keys 0 .. length[n] - 1 of row[n]. Operands: q, row, length and, with a shared prefix, prefixRow and prefixLength:
     * keys below prefixLength[n] come from the prefix cache, the others from the own cache, whose slot 0 is prefixLength rounded down to 16.
     * States: keys, values, then prefix keys, prefix values. Attributes: scale, valueWidth. Fewer key heads than query heads = grouped queries.
     * Rows and lengths beyond a cache are clamped into it; with length 0 the result is 0.
     * Attribute `cache`: "values" = the own cache is given as two last operands instead of states; "paged" = states hold pages of 16 slots, and the last
     * operands are i32 block tables [table rows, blocks] of the own cache and of the prefix.
     */
    name: "attention",
    class: "attention",
    shape(inputs, attributes, states, label) {
      const q = inputs[0] as Node;
      const { vectors, values, tables } = attentionOperands(inputs, attributes);
      const [tokens, heads, d] = q.shape as [Dim, number, number];
      if (q.shape.length !== 3 || q.dtype !== "f32") refuse("attention", label, inputs, "q must be f32 [tokens, heads, d]");
      if (vectors.length !== 2 && vectors.length !== 4)
        refuse("attention", label, inputs, "needs row and length, or these and prefixRow and prefixLength");
      if (!vectors.every((vector) => perToken(vector, tokens)))
        refuse("attention", label, inputs, "row, length and prefix vectors must be i32 [tokens]");
      if (states.length !== vectors.length - values.length)
        refuse("attention", label, inputs, `needs ${vectors.length - values.length} cache states, got ${states.length}`);
      for (const table of tables)
        if (table.dtype !== "i32" || table.shape.length !== 2)
          refuse("attention", label, inputs, "a block table must be i32 [rows, blocks]");
      const given = values.map((value, index): StateDeclaration => {
        const { shape, dtype } = value;
        return { name: index === 0 ? "keys operand" : "values operand", shape, dtype, kind: "mutable", layout: "plain" };
      });
      const caches = [...given, ...states];
      caches.forEach((state, index) => {
        const cacheHeads = state.shape[1] as number;
        const fits =
          index % 2 === 0
            ? state.shape.length === 5 && state.shape[3] === d && state.shape[4] === keyLanes
            : isValueCache(state, attributes);
        if (state.dtype !== "f32" || state.layout !== "plain" || !fits || heads % cacheHeads !== 0 || cacheHeads !== caches[0]?.shape[1])
          refuse("attention", label, inputs, `the cache ${state.name} ${printShape(state.shape)} does not fit`);
      });
      return [tokens, heads, attributes["valueWidth"] as number];
    },
    dtype: () => "f32",
    evaluate: evaluateAttention,
  },
  {
    /**
     * Full attention among the `variates` tokens first[n] + u * stride[n] with equal ids. Operands: q [tokens, heads, d], k [tokens, key heads, d],
     * v [tokens, key heads, value width], first, stride, ids [tokens]. Fewer key heads than query heads = grouped queries.
     */
    name: "groupAttention",
    class: "attention",
    shape(inputs, _attributes, _states, label) {
      const [q, k, v, ...vectors] = inputs as [Node, Node, Node, ...Node[]];
      const [tokens, heads, d] = q.shape as [Dim, number, Dim];
      const [, keyHeads, valueWidth] = v.shape as [Dim, number, number];
      if (![q, k, v].every((x) => x.dtype === "f32" && x.shape.length === 3 && sameDim(x.shape[0] as Dim, tokens)))
        refuse("groupAttention", label, inputs, "q, k and v must be f32 [tokens, heads, d]");
      if (!sameShape(k.shape, [tokens, keyHeads, d]) || heads % keyHeads !== 0)
        refuse("groupAttention", label, inputs, "k and v must have the same heads, which divide those of q, and k the width of q");
      if (vectors.length !== 3 || !vectors.every((vector) => perToken(vector, q.shape[0] as Dim)))
        refuse("groupAttention", label, inputs, "first, stride and ids must be i32 [tokens]");
      return [tokens, heads, valueWidth];
    },
    dtype: () => "f32",
    evaluate: evaluateGroupAttention,
  },
  {
    /**
     * Rotary code on the first `width` dims of x [tokens, heads, d], pairs interleaved (2i, 2i+1) or half-split (i, i + width/2), then times an optional
     * multiplier row (xPos): (x[j] cosine[j] + x[partner of j] sine[j]) multiplier[j], 0 for the partner beyond `width`. Operands: x, position [tokens], cosine
     * and sine tables [positions, d] (the sine negative at a pair's first dim; 1 and 0 beyond `width`), multiplier table [entries, d], its row per token.
     */
    name: "rope",
    class: "rowwise",
    shape(inputs, attributes, _states, label) {
      const [x, position] = inputs as [Node, Node];
      const width = attributes["width"] as number;
      if (x.shape.length !== 3 || typeof x.shape[2] !== "number" || width > x.shape[2] || width % 2 !== 0)
        refuse("rope", label, inputs, `x must be [tokens, heads, d] with d >= width ${width}, width even`);
      const [, , cosine, sine, multiplier, decay] = inputs;
      if (x.dtype !== "f32" || (inputs.length !== 4 && inputs.length !== 6))
        refuse("rope", label, inputs, "takes f32 x, position, cosine, sine and, together, multiplier and decay");
      for (const rows of decay ? [position, decay] : [position])
        if (!perToken(rows, x.shape[0] as Dim)) refuse("rope", label, inputs, "position and decay must be i32 [tokens]");
      for (const table of multiplier ? [cosine, sine, multiplier] : [cosine, sine])
        if (table?.dtype !== "f32" || table.shape.length !== 2 || table.shape[1] !== x.shape[2])
          refuse("rope", label, inputs, `the tables must be f32 [rows, ${String(x.shape[2])}]`);
      if (!sameDim(cosine?.shape[0] as Dim, sine?.shape[0] as Dim))
        refuse("rope", label, inputs, "the cosine and sine tables must have equal sizes");
      return x.shape;
    },
    dtype: () => "f32",
    evaluate: evaluateRope,
  },
];
