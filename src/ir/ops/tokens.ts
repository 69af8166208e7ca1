/** Token ops: sign bits packed to tokens and back, and one draw per row from filtered logits. Must not know which model has such tokens. */
import { sameDim, type Dim } from "../dim.js";
import type { Node } from "../graph.js";
import type { Evaluation, OpSpec, Value } from "../ops.js";
import { philox, uniform } from "./random.js";
import { drawSites } from "./routines.js";
import { refuse, staticLastDim } from "./shapes.js";

/** Draw sites of a token draw, part of the random counter; different from those of other draws. */
export const tokenSites = { coarse: drawSites.mixture + 1, fine: drawSites.mixture + 2 } as const;

/** Widest code a 32-bit token holds without its sign. */
const mostBits = 30;

function evaluatePackSigns({ inputs, attributes, output }: Evaluation): void {
  const x = inputs[0] as Value;
  const { start, count } = attributes as { start: number; count: number };
  const width = x.shape[x.shape.length - 1] as number;
  for (let row = 0; row < output.length; row++) {
    let token = 0;
    for (let j = 0; j < count; j++) if ((x.data[row * width + start + j] as number) > 0) token += 2 ** j;
    output[row] = token;
  }
}

function evaluateExpandBits({ inputs, attributes, shape, output }: Evaluation): void {
  const [coarse, fine] = inputs as [Value, Value];
  const { coarseBits, scale } = attributes as { coarseBits: number; scale: number };
  const [rows, width] = shape as [number, number];
  for (let row = 0; row < rows; row++) {
    for (let j = 0; j < width; j++) {
      const [token, bit] = j < coarseBits ? [coarse.data[row] as number, j] : [fine.data[row] as number, j - coarseBits];
      output[row * width + j] = (token >> bit) & 1 ? scale : -scale;
    }
  }
}

/**
 * Weights of one row's tokens after temperature and filter, 1 for the likeliest, 0 for removed ones. Top-k keeps ties with the k-th value and switches top-p off;
 * top-p keeps every token up to and including the first whose cumulated probability is strictly above it, the lower index first among equals.
 */
function filteredWeights(logits: ArrayLike<number>, first: number, count: number, settings: ArrayLike<number>): Float64Array {
  const [temperature, topK, topP] = [settings[0] as number, settings[1] as number, settings[2] as number];
  const scaled = Float64Array.from({ length: count }, (_, j) => (logits[first + j] as number) / temperature);
  const largest = scaled.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = scaled.map((value) => Math.exp(value - largest));
  if (topK > 0) {
    const threshold = [...scaled].sort((a, b) => b - a)[Math.min(topK, count) - 1] as number;
    scaled.forEach((value, j) => {
      if (value < threshold) weights[j] = 0;
    });
  } else if (topP < 1) {
    const order = Array.from(scaled.keys()).sort((a, b) => (scaled[b] as number) - (scaled[a] as number) || a - b);
    const total = weights.reduce((a, b) => a + b, 0);
    let cumulated = 0;
    for (const j of order) {
      const keep = !(Math.fround(cumulated / total) > topP);
      cumulated += weights[j] as number;
      if (!keep) weights[j] = 0;
    }
  }
  return weights;
}

function evaluateDrawToken({ inputs, attributes, output }: Evaluation): void {
  const [logits, source, keys, step, seed, settings, forced] = inputs as [Value, Value, Value, Value, Value, Value, Value | undefined];
  const [sources, count] = logits.shape as [number, number];
  for (let row = 0; row < output.length; row++) {
    if (forced) {
      output[row] = forced.data[row] as number;
      continue;
    }
    const from = Math.min(Math.max(source.data[row] as number, 0), sources - 1);
    const weights = filteredWeights(logits.data, from * count, count, settings.data);
    const counter = [keys.data[2 * row], keys.data[2 * row + 1], step.data[row], attributes["site"]] as [number, number, number, number];
    const [word] = philox(counter, [seed.data[0] as number, seed.data[1] as number]);
    const target = uniform(word) * weights.reduce((a, b) => a + b, 0);
    let cumulated = 0;
    let chosen = 0;
    for (let j = 0; j < count; j++) {
      cumulated += weights[j] as number;
      if (cumulated > target) {
        chosen = j;
        break;
      }
    }
    output[row] = chosen;
  }
}

function evaluateProbabilities({ inputs, shape, output }: Evaluation): void {
  const [logits, settings] = inputs as [Value, Value];
  const [rows, count] = shape as [number, number];
  for (let row = 0; row < rows; row++) {
    const weights = filteredWeights(logits.data, row * count, count, settings.data);
    const total = weights.reduce((a, b) => a + b, 0);
    weights.forEach((weight, j) => {
      output[row * count + j] = weight / total;
    });
  }
}

const isVector = (node: Node | undefined, length: Dim, dtype: Node["dtype"]): boolean =>
  node?.dtype === dtype && node.shape.length === 1 && sameDim(node.shape[0] as Dim, length);

function checkLogits(op: string, label: string, inputs: readonly Node[], settings: Node | undefined): void {
  const logits = inputs[0] as Node;
  staticLastDim(op, label, logits);
  if (logits.shape.length !== 2 || logits.dtype !== "f32") refuse(op, label, inputs, "the logits must be f32 [sources, tokens]");
  if (!isVector(settings, 3, "f32")) refuse(op, label, inputs, "the settings must be f32 [3]: temperature, top-k, top-p");
}

export const tokenOps: readonly OpSpec[] = [
  {
    /** i32 [rows]: bit j is 1 where x[row][start + j] > 0, j < count; 0 and NaN give 0. */
    name: "packSigns",
    class: "routine",
    shape(inputs, attributes, _states, label) {
      const x = inputs[0] as Node;
      const { start, count } = attributes as { start: number; count: number };
      const width = staticLastDim("packSigns", label, x);
      if (x.shape.length !== 2 || x.dtype !== "f32") refuse("packSigns", label, inputs, "x must be f32 [rows, width]");
      if (start < 0 || count < 1 || count > mostBits || start + count > width)
        refuse("packSigns", label, inputs, `columns [${start}, ${start + count}) must be 1 to ${mostBits} of its ${width}`);
      return [x.shape[0] as Dim];
    },
    dtype: () => "i32",
    evaluate: evaluatePackSigns,
  },
  {
    /** f32 [rows, coarseBits + fineBits]: +scale for each bit that is 1, -scale for the others, lowest bit first. Operands: coarse and fine i32 [rows]. */
    name: "expandBits",
    class: "routine",
    shape(inputs, attributes, _states, label) {
      const [coarse, fine] = inputs as [Node, Node];
      const rows = coarse.shape[0] as Dim;
      if (!isVector(coarse, rows, "i32") || !isVector(fine, rows, "i32"))
        refuse("expandBits", label, inputs, "coarse and fine must be i32 [rows]");
      return [rows, (attributes["coarseBits"] as number) + (attributes["fineBits"] as number)];
    },
    dtype: () => "f32",
    evaluate: evaluateExpandBits,
  },
  {
    /**
     * One token per row. Operands: logits [sources, tokens], source row i32 [rows], keys i32 [rows, 2] (series stream, path), step i32 [rows], seed i32 [2],
     * settings f32 [3] (temperature > 0, top-k or 0, top-p), and, to inject draws, forced tokens i32 [rows]. Attribute `site`: place of the draw in the model.
     */
    name: "drawToken",
    class: "random",
    shape(inputs, _attributes, _states, label) {
      const [, source, keys, step, seed, settings, forced] = inputs;
      checkLogits("drawToken", label, inputs, settings);
      const rows = source?.shape[0] as Dim;
      if (![source, step].every((vector) => isVector(vector, rows, "i32")) || (forced && !isVector(forced, rows, "i32")))
        refuse("drawToken", label, inputs, "source, step and forced must be i32 [rows]");
      if (keys?.dtype !== "i32" || keys.shape.length !== 2 || keys.shape[1] !== 2 || !isVector(seed, 2, "i32"))
        refuse("drawToken", label, inputs, "keys must be i32 [rows, 2] and seed i32 [2]");
      return [rows];
    },
    dtype: () => "i32",
    evaluate: evaluateDrawToken,
  },
  {
    /** The distribution that `drawToken` draws from, f32 [rows, tokens]; 0 for removed tokens. Operands: logits [rows, tokens], settings f32 [3]. */
    name: "tokenProbabilities",
    class: "routine",
    shape(inputs, _attributes, _states, label) {
      checkLogits("tokenProbabilities", label, inputs, inputs[1]);
      return (inputs[0] as Node).shape;
    },
    dtype: () => "f32",
    evaluate: evaluateProbabilities,
  },
];
