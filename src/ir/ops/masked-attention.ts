/**
 * Attention over cached keys of which each query sees those of its own group only. A masked key counts as not visited, so where no key is masked the bits are
 * those of `attention`.
 */
import { printShape, sameDim, type Dim } from "../dim.js";
import type { Node, StateDeclaration } from "../graph.js";
import type { Evaluation, OpSpec, Value } from "../ops.js";
import { clamp, refuse } from "./shapes.js";
import { keyLanes, padded } from "./state.js";

/** Weights of the visible keys with f64 inside; an undefined score is a masked key. */
function weightsOf(scores: readonly (number | undefined)[]): (number | undefined)[] {
  let largest = -Infinity;
  for (const score of scores) if (score !== undefined && (score > largest || Number.isNaN(score))) largest = score;
  const weights = scores.map((score) => (score === undefined ? undefined : Math.exp(score - largest)));
  const total = weights.reduce<number>((sum, weight) => sum + (weight ?? 0), 0);
  return weights.map((weight) => (weight === undefined ? undefined : weight / total));
}

function evaluateMaskedAttention({ inputs, states, attributes, shape, output }: Evaluation): void {
  const [q, row, length, keyGroups, group] = inputs as [Value, Value, Value, Value, Value];
  const [keys, values] = states as [Value, Value];
  const [tokens, heads, valueWidth] = shape as [number, number, number];
  const [rows, keyHeads, blocks, width] = keys.shape as [number, number, number, number];
  const [, , capacity, stored] = values.shape as [number, number, number, number];
  const [groupRows, groupSlots] = keyGroups.shape as [number, number];
  const scale = attributes["scale"] as number;
  for (let n = 0; n < tokens; n++) {
    const cacheRow = clamp(row.data[n] as number, 0, rows - 1);
    const groupRow = clamp(row.data[n] as number, 0, groupRows - 1);
    const visible = clamp(length.data[n] as number, 0, Math.min(capacity, groupSlots));
    for (let h = 0; h < heads; h++) {
      const line = cacheRow * keyHeads + Math.floor((h * keyHeads) / heads);
      const weights = weightsOf(
        Array.from({ length: visible }, (_, slot) => {
          if (keyGroups.data[groupRow * groupSlots + slot] !== group.data[n]) return undefined;
          const base = (line * blocks + Math.floor(slot / keyLanes)) * width * keyLanes + (slot % keyLanes);
          let sum = 0;
          for (let j = 0; j < width; j++)
            sum += (q.data[(n * heads + h) * width + j] as number) * (keys.data[base + j * keyLanes] as number);
          return sum * scale;
        }),
      );
      for (let j = 0; j < valueWidth; j++) {
        let sum = 0;
        weights.forEach((weight, slot) => {
          if (weight !== undefined) sum += weight * (values.data[(line * capacity + slot) * stored + j] as number);
        });
        output[(n * heads + h) * valueWidth + j] = sum;
      }
    }
  }
}

const isVector = (node: Node | undefined, tokens: Dim): boolean =>
  node?.dtype === "i32" && node.shape.length === 1 && sameDim(node.shape[0] as Dim, tokens);

function holds({ dtype, layout, shape }: StateDeclaration, heads: number, tail: readonly Dim[]): boolean {
  return (
    dtype === "f32" &&
    layout === "plain" &&
    shape.length === 3 + tail.length &&
    heads % (shape[1] as number) === 0 &&
    tail.every((dim, index) => sameDim(shape[3 + index] as Dim, dim))
  );
}

export const maskedAttentionOps: readonly OpSpec[] = [
  {
    /**
     * q [tokens, heads, d] over those of the cached keys 0 .. length[n] - 1 of row[n] whose group is group[n]. Operands: q, row, length, keyGroups i32
     * [cache rows, slots] with slots a multiple of 16, group i32 [tokens]. States: keys, values. Attributes: scale, valueWidth. Fewer key heads than query heads
     * = grouped queries. Rows and lengths beyond the cache are clamped into it; a query that sees no key gets 0.
     */
    name: "maskedAttention",
    class: "attention",
    shape(inputs, attributes, states, label) {
      const [q, row, length, keyGroups, group] = inputs as [Node, Node, Node, Node, Node];
      const [tokens, heads, d] = q.shape as [Dim, number, number];
      const valueWidth = attributes["valueWidth"] as number;
      if (inputs.length !== 5 || q.shape.length !== 3 || q.dtype !== "f32")
        refuse("maskedAttention", label, inputs, "takes f32 q [tokens, heads, d], row, length, keyGroups and group");
      if (![row, length, group].every((vector) => isVector(vector, tokens)))
        refuse("maskedAttention", label, inputs, "row, length and group must be i32 [tokens]");
      if (keyGroups.dtype !== "i32" || keyGroups.shape.length !== 2)
        refuse("maskedAttention", label, inputs, "keyGroups must be i32 [cache rows, slots]");
      const [keys, values] = states;
      if (states.length !== 2 || !keys || !values || !holds(keys, heads, [d, keyLanes]) || !holds(values, heads, [padded(valueWidth)]))
        refuse(
          "maskedAttention",
          label,
          inputs,
          `the cache states ${states.map(({ name, shape }) => `${name} ${printShape(shape)}`).join(", ")} do not fit`,
        );
      return [tokens, heads, valueWidth];
    },
    dtype: () => "f32",
    evaluate: evaluateMaskedAttention,
  },
];
