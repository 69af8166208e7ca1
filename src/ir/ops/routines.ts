/** Routines: scalar loops with branches that are no loop nest: the causal scaler and the mixture draw. */
import { sameDim, type Dim } from "../dim.js";
import type { Node } from "../graph.js";
import type { Evaluation, OpSpec, Value } from "../ops.js";
import { philox, studentT, uniform } from "./random.js";
import { refuse } from "./shapes.js";

/** Columns of a moments state row (f64): weight sum, weighted sum, running mean, running square sum, lower and upper clamp of the scale. */
export const momentColumns = 6;

/** Statistics of one sequence, sample by sample in f64 (model-spec A.4, B.4). */
function scaleSequence(context: ScalerContext, first: number, count: number, prefixCount: number, moments: Float64Array): void {
  const { values, mask, patch, output, attributes } = context;
  const { fresh, addedVariance, minimumScale, clamp, lowFactor, highFactor } = attributes;
  let [weight, total, mean, square, low, high] = moments as unknown as [number, number, number, number, number, number];
  if (fresh) {
    [weight, total, mean, square, low, high] = [0, 0, 0, 0, 0, Infinity];
    if (clamp) [low, high] = globalClamp(context, first, prefixCount, addedVariance, lowFactor, highFactor);
  }
  for (let token = first; token < first + count; token++) {
    for (let i = token * patch; i < (token + 1) * patch; i++) {
      const w = mask[i] ? 1 : 0;
      const x = values[i] as number;
      weight += w;
      total += w * x;
      const before = mean;
      mean = total / Math.max(weight, 1);
      square += (x - before) * (x - mean) * w;
    }
    let scale = Math.sqrt(square / Math.max(Math.max(weight, 1) - 1, 1) + addedVariance);
    if (minimumScale > 0) scale = Math.max(scale, minimumScale);
    if (clamp) scale = Math.min(Math.max(scale, low), high);
    output[2 * token] = mean;
    output[2 * token + 1] = scale;
  }
  moments.set([weight, total, mean, square, low, high]);
}

interface ScalerAttributes {
  readonly fresh: boolean;
  readonly addedVariance: number;
  readonly minimumScale: number;
  readonly clamp: boolean;
  readonly lowFactor: number;
  readonly highFactor: number;
}

interface ScalerContext {
  readonly values: Value["data"];
  readonly mask: Value["data"];
  readonly patch: number;
  readonly output: Value["data"];
  readonly attributes: ScalerAttributes;
}

function globalClamp(
  { values, mask, patch }: ScalerContext,
  first: number,
  count: number,
  added: number,
  lowFactor: number,
  highFactor: number,
): [number, number] {
  let [weight, total] = [0, 0];
  for (let i = first * patch; i < (first + count) * patch; i++) {
    const w = mask[i] ? 1 : 0;
    weight += w;
    total += w * (values[i] as number);
  }
  const n = Math.max(weight, 1);
  const mean = total / n;
  let square = 0;
  for (let i = first * patch; i < (first + count) * patch; i++) {
    const difference = ((values[i] as number) - mean) * (mask[i] ? 1 : 0);
    square += difference * difference;
  }
  const scale = Math.sqrt(square / n + added);
  return [Math.max(0.1, scale * lowFactor), scale * highFactor];
}

function evaluateScaler({ inputs, states, attributes, output }: Evaluation): void {
  const [values, mask, first, count, prefix, row] = inputs as [Value, Value, Value, Value, Value, Value];
  const moments = states[0]?.data as Float64Array;
  const context: ScalerContext = {
    values: values.data,
    mask: mask.data,
    patch: values.shape[1] as number,
    output,
    attributes: attributes as unknown as ScalerAttributes,
  };
  for (let s = 0; s < first.data.length; s++) {
    const at = (row.data[s] as number) * momentColumns;
    scaleSequence(
      context,
      first.data[s] as number,
      count.data[s] as number,
      prefix.data[s] as number,
      moments.subarray(at, at + momentColumns),
    );
  }
}

/** Draw sites of one sample position, part of the random counter. */
export const drawSites = { mixture: 0 } as const;

const softplus = (x: number): number => (x > 20 ? x : Math.log1p(Math.exp(x)));
/** float32 machine epsilon: the reference's floor for df and scale (model-spec A.7). */
const tiny = 1.1920928955078125e-7;

function evaluateMixtureDraw({ inputs, attributes, shape, output }: Evaluation): void {
  const [raw, source, keys, start, seed, component, normal, chiSquare] = inputs as [
    Value,
    Value,
    Value,
    Value,
    Value,
    Value | undefined,
    Value | undefined,
    Value | undefined,
  ];
  const [rows, patch] = shape as [number, number];
  const components = attributes["components"] as number;
  const width = raw.shape[2] as number;
  for (let r = 0; r < rows; r++) {
    for (let p = 0; p < patch; p++) {
      const at = ((source.data[r] as number) * patch + p) * width;
      const parameter = (group: number, k: number): number => raw.data[at + group * components + k] as number;
      const words = philox(
        [
          keys.data[3 * r] as number,
          keys.data[3 * r + 1] as number,
          (start.data[r] as number) + p,
          ((keys.data[3 * r + 2] as number) << 4) | drawSites.mixture,
        ],
        [seed.data[0] as number, seed.data[1] as number],
      );
      const k = component
        ? (component.data[r * patch + p] as number)
        : chooseComponent(components, (index) => parameter(3, index), uniform(words[0]));
      const degrees = 2 + Math.max(softplus(parameter(0, k)), tiny);
      const t =
        normal && chiSquare
          ? (normal.data[r * patch + p] as number) / Math.sqrt((chiSquare.data[r * patch + p] as number) / degrees)
          : studentT(uniform(words[1]), uniform(words[2]), degrees);
      output[r * patch + p] = parameter(2, k) + Math.max(softplus(parameter(1, k)), tiny) * t;
    }
  }
}

/** First component whose cumulated weight exceeds u times the total. */
function chooseComponent(components: number, logit: (k: number) => number, u: number): number {
  if (components === 1) return 0;
  let largest = -Infinity;
  for (let k = 0; k < components; k++) largest = Math.max(largest, logit(k));
  const weights = Array.from({ length: components }, (_, k) => Math.exp(logit(k) - largest));
  const target = u * weights.reduce((a, b) => a + b, 0);
  let cumulated = 0;
  for (let k = 0; k < components; k++) {
    cumulated += weights[k] as number;
    if (cumulated > target) return k;
  }
  return components - 1;
}

export const routineOps: readonly OpSpec[] = [
  {
    /**
     * Causal patch statistics. Operands: values f32 [tokens, patch], mask i32 [tokens, patch], first, count, prefix, row i32 [sequences]:
     * sequence s owns tokens first .. first + count - 1, the global clamp looks at its first `prefix` tokens, its moments live in state row `row`.
     * Result [tokens, 2]: location and scale at each patch's last sample. `fresh` starts from zero, otherwise the state's moments are continued.
     */
    name: "causalScaler",
    class: "scan",
    shape(inputs, _attributes, states, label) {
      const [values, mask, ...vectors] = inputs as [Node, Node, ...Node[]];
      if (values.shape.length !== 2 || values.dtype !== "f32" || mask.dtype !== "i32")
        refuse("causalScaler", label, inputs, "values must be f32 and mask i32 [tokens, patch]");
      if (
        vectors.length !== 4 ||
        !vectors.every((vector) => vector.dtype === "i32" && sameDim(vector.shape[0] as Dim, vectors[0]?.shape[0] as Dim))
      )
        refuse("causalScaler", label, inputs, "first, count, prefix, row must be i32 [sequences]");
      if (states[0]?.dtype !== "f64") refuse("causalScaler", label, inputs, "the moments state must be f64");
      return [values.shape[0] as Dim, 2];
    },
    dtype: () => "f32",
    evaluate: evaluateScaler,
  },
  {
    /**
     * One draw per row and sample position from a Student-t mixture. Operands: raw parameters [sources, patch, 4 x components] (df, scale, location, weight
     * logits; 3 x 1 for a single component), source row [rows], keys [rows, 3] (series stream, path, variate), start [rows] (absolute index of the first
     * sample), seed i32 [2]; with `injected` also component i32, normal and chiSquare f32 [rows, patch].
     */
    name: "mixtureDraw",
    class: "random",
    shape(inputs, attributes, _states, label) {
      const [raw, source, keys] = inputs as [Node, Node, Node];
      const components = attributes["components"] as number;
      const width = components === 1 ? 3 : 4 * components;
      if (raw.shape.length !== 3 || raw.shape[2] !== width) refuse("mixtureDraw", label, inputs, `raw must be [sources, patch, ${width}]`);
      if (source.shape.length !== 1 || keys.shape.length !== 2 || keys.shape[1] !== 3)
        refuse("mixtureDraw", label, inputs, "source must be [rows] and keys [rows, 3]");
      return [source.shape[0] as Dim, raw.shape[1] as Dim];
    },
    dtype: () => "f32",
    evaluate: evaluateMixtureDraw,
  },
];
