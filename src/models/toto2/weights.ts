/**
 * Weights of Toto 2.0: the checkpoint's names (model-spec B.2) mapped to states. The unit-scaled primitives (model-spec B.3) leave no trace in the file; their
 * factors are folded into the weights in f64, or kept as factors when intermediate values are compared. Must not know how a forecast is made.
 */
import type { Device } from "../../runtime/device.js";
import type { State } from "../../trace/entry.js";
import type { TensorSource } from "../tensor-source.js";
import { WeightReader, WeightStates, type WeightStorage } from "../weights.js";
import type { Toto2Config } from "./config.js";

/** Quantile levels that the head predicts, in its order. */
export const quantileLevels = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9] as const;

/** y = (x W' + b) times factor [1]; without a factor it is in the weights. */
export interface ScaledLinear {
  readonly weight: State;
  readonly bias: State | undefined;
  readonly factor: State | undefined;
}

/** Two linears around a silu, and one past them. */
export interface ResidualMlp {
  readonly first: ScaledLinear;
  readonly second: ScaledLinear;
  readonly skip: ScaledLinear;
}

/** The sub-layer's result times `taken` [1] (undefined: in its weights) plus the residual times `kept` [1]. */
export interface ResidualFactors {
  readonly taken: State | undefined;
  readonly kept: State;
}

export interface Toto2Layer {
  readonly norm1: State | undefined;
  readonly norm2: State | undefined;
  readonly query: ScaledLinear;
  readonly key: ScaledLinear;
  readonly value: ScaledLinear;
  readonly out: ScaledLinear;
  readonly queryNorm: State | undefined;
  readonly keyNorm: State | undefined;
  /** [query width] factors of each query dim; undefined: in the weights, or there are none. */
  readonly perDim: State | undefined;
  readonly attention: ResidualFactors;
  readonly mlp: ResidualFactors;
  readonly gate: ScaledLinear;
  readonly up: ScaledLinear;
  readonly down: ScaledLinear;
}

export interface Toto2Weights {
  readonly folded: boolean;
  readonly embed: ResidualMlp;
  readonly layers: readonly Toto2Layer[];
  readonly outNorm: State | undefined;
  readonly head: ResidualMlp;
  /** Factor of scores in attention; 1 when it is in the query weights. */
  readonly scoreScale: number;
  readonly bytes: number;
  dispose(): void;
}

/** Factor of the unit-scaled silu in the residual MLPs (model-spec B.3). */
export const siluFactor = Math.exp(0.8 * Math.log(Math.sqrt(2 / (1 - 1 / Math.PI))) + 0.2 * Math.log(2));

interface Matrix {
  readonly weight: Float32Array;
  readonly bias: Float32Array | undefined;
  readonly rows: number;
  readonly depth: number;
}

/** What a folded linear is multiplied by: a number for all rows, or one per row. A bias may differ, where the input carries a factor too. */
interface Fold {
  readonly weight: number | ((row: number) => number);
  readonly bias?: number;
}

const rowsOf = ({ weight, bias, depth }: Matrix, first: number, count: number): Matrix => ({
  weight: weight.subarray(first * depth, (first + count) * depth),
  bias: bias?.subarray(first, first + count),
  rows: count,
  depth,
});

/** The matrix with each row times its factor, rounded once. */
function folded({ weight, bias, rows, depth }: Matrix, fold: Fold): Matrix {
  const factorOf = typeof fold.weight === "number" ? () => fold.weight as number : fold.weight;
  const result = { weight: new Float32Array(weight.length), bias: bias && new Float32Array(bias.length), rows, depth };
  for (let row = 0; row < rows; row++) {
    const factor = factorOf(row);
    for (let i = row * depth; i < (row + 1) * depth; i++) result.weight[i] = (weight[i] as number) * factor;
    if (bias && result.bias) result.bias[row] = (bias[row] as number) * (fold.bias ?? factor);
  }
  return result;
}

const softplus = (x: number): number => (x > 20 ? x : Math.log1p(Math.exp(x)));

/** Reads all tensors of the checkpoint. Throws InputError naming every tensor that is missing, misshapen or unknown. */
export function loadToto2Weights(
  source: TensorSource,
  config: Toto2Config,
  device: Device,
  options: { readonly fold: boolean; readonly stored?: WeightStorage | undefined },
): Toto2Weights {
  const { width, hidden, heads, keyHeads, queryWidth, valueWidth, patch } = config;
  const outputs = patch * quantileLevels.length;
  const reader = new WeightReader(source);
  const states = new WeightStates(device, options.stored);

  const matrix = (name: string, rows: number, depth: number, biased = true): Matrix => ({
    weight: reader.read(`${name}.weight`, [rows, depth]),
    bias: biased ? reader.read(`${name}.bias`, [rows]) : undefined,
    rows,
    depth,
  });
  const upload = (label: string, given: Matrix, fold: Fold): Omit<ScaledLinear, "factor"> => {
    const made = options.fold ? folded(given, fold) : given;
    return {
      weight: states.matrix(label, made.weight, made.rows, made.depth),
      bias: made.bias && states.vector(`${label}.bias`, made.bias),
    };
  };
  const number = (label: string, value: number): State => states.vector(label, Float32Array.of(value));
  /** A linear that is followed by one factor; `fold` says what else goes into folded weights. */
  const linear = (label: string, given: Matrix, factor: number, fold: Fold = { weight: factor }): ScaledLinear => ({
    ...upload(label, given, fold),
    factor: options.fold ? undefined : number(`${label}.factor`, factor),
  });
  const optionalNorm = (name: string, label: string, size: number, present: boolean | undefined): State | undefined =>
    (present ?? reader.has(name)) ? states.vector(label, reader.read(name, [size])) : undefined;

  try {
    const layers = config.kinds.map((_, index) => readLayer(index));
    const head = "output_head.param_projection.proj";
    const embed = residualMlp("patch_proj", "embed", [2 * patch, width], [(4 * width) ** -0.5, (2 * patch) ** -0.5]);
    const outputHead = residualMlp(head, "head", [width, outputs], [1 / (4 * width), 1 / width]);
    const outNorm = optionalNorm("transformer.out_norm.weight", "outNorm", width, config.normWeights);
    reader.ignore((name) => /(rotary|rope|xpos|inv_freq|freqs|basis|cache)/i.test(name));
    reader.finish();
    return {
      folded: options.fold,
      embed,
      layers,
      outNorm,
      head: outputHead,
      scoreScale: options.fold ? 1 : 1 / queryWidth,
      get bytes() {
        return states.bytes;
      },
      dispose: () => states.dispose(),
    };
  } catch (error) {
    states.dispose();
    throw error;
  }

  /** Both of its results are divided by the root of 2; the silu's factor reaches the second linear's weight but not its bias. */
  function residualMlp(name: string, label: string, [depth, rows]: [number, number], [second, skip]: [number, number]): ResidualMlp {
    const half = Math.SQRT1_2;
    return {
      first: linear(`${label}.first`, matrix(`${name}.linear1`, 4 * width, depth), depth ** -0.5),
      second: linear(`${label}.second`, matrix(`${name}.linear2`, rows, 4 * width), second, {
        weight: siluFactor * second * half,
        bias: second * half,
      }),
      skip: linear(`${label}.skip`, matrix(`${name}.skip_proj`, rows, depth), skip, { weight: skip * half }),
    };
  }

  /** tau / sqrt(1 + tau^2) for the sub-layer, 1 / sqrt(1 + tau^2) for the residual (model-spec B.3). */
  function residualFactors(name: string, label: string): { taken: number; factors: ResidualFactors } {
    const tau = reader.read(name, [])[0] ?? 0;
    const kept = 1 / Math.sqrt(1 + tau * tau);
    const taken = tau * kept;
    return {
      taken,
      factors: { taken: options.fold ? undefined : number(`${label}.taken`, taken), kept: number(`${label}.kept`, kept) },
    };
  }

  function readLayer(index: number): Toto2Layer {
    const at = `transformer.layers.${index}`;
    const label = `layers.${index}`;
    const [queryRows, keyRows, valueRows] = [queryWidth * heads, queryWidth * keyHeads, valueWidth * keyHeads];
    const inputs = matrix(`${at}.attn.in_proj`, queryRows + keyRows + valueRows, width, config.attentionBias);
    const scale = width ** -0.5;
    const attention = residualFactors(`${at}.attn_tau`, `${label}.attention`);
    const mlp = residualFactors(`${at}.mlp_tau`, `${label}.mlp`);
    const perDim = readPerDim(`${at}.attn._pds.per_dim_scale`);
    /** Factor of query dim j: its own, and that of all scores. */
    const queryFactor = (j: number): number => (perDim?.[j] ?? 1) / queryWidth;
    const present = config.queryNorm ? config.queryNormWeights : false;
    const queryNorm = config.queryNorm ? readNorm(`${at}.attn.q_norm.weight`, present) : undefined;
    const keyNorm = optionalNorm(`${at}.attn.k_norm.weight`, `${label}.keyNorm`, queryWidth, present);
    const up = matrix(`${at}.ffn.fc1`, 2 * hidden, width, config.mlpBias);
    const out = matrix(`${at}.attn.out_proj`, width, valueWidth * heads, config.attentionBias);
    const down = matrix(`${at}.ffn.fc2`, width, hidden, config.mlpBias);
    const [outScale, downScale] = [(valueWidth * heads) ** -0.5, hidden ** -0.5];
    return {
      norm1: optionalNorm(`${at}.norm1.weight`, `${label}.norm1`, width, config.normWeights),
      norm2: optionalNorm(`${at}.norm2.weight`, `${label}.norm2`, width, config.normWeights),
      // A query norm stands between the weights and the factors of the query dims: these then go into the norm's weight.
      query: linear(`${label}.query`, rowsOf(inputs, 0, queryRows), scale, {
        weight: config.queryNorm ? scale : (row) => scale * queryFactor(row % queryWidth),
      }),
      key: linear(`${label}.key`, rowsOf(inputs, queryRows, keyRows), scale),
      value: linear(`${label}.value`, rowsOf(inputs, queryRows + keyRows, valueRows), scale),
      queryNorm: queryNormState(queryNorm, queryFactor, `${label}.queryNorm`),
      keyNorm,
      perDim: options.fold || !perDim ? undefined : states.vector(`${label}.perDim`, Float32Array.from(perDim)),
      out: linear(`${label}.out`, out, outScale, { weight: outScale * attention.taken }),
      attention: attention.factors,
      mlp: mlp.factors,
      // The second half of fc1 is the gate (model-spec B.6).
      up: linear(`${label}.up`, rowsOf(up, 0, hidden), scale),
      gate: linear(`${label}.gate`, rowsOf(up, hidden, hidden), scale),
      down: linear(`${label}.down`, down, downScale, { weight: downScale * mlp.taken }),
    };
  }

  function readPerDim(name: string): Float64Array | undefined {
    if (!config.perDimScale) return undefined;
    return Float64Array.from(reader.read(name, [queryWidth]), (value) => softplus(value) / Math.LN2);
  }

  function readNorm(name: string, present: boolean | undefined): Float32Array | undefined {
    return (present ?? reader.has(name)) ? reader.read(name, [queryWidth]) : undefined;
  }

  function queryNormState(given: Float32Array | undefined, factor: (j: number) => number, label: string): State | undefined {
    if (!config.queryNorm) return undefined;
    if (!options.fold) return given && states.vector(label, given);
    return states.vector(
      label,
      Float32Array.from({ length: queryWidth }, (_, j) => (given?.[j] ?? 1) * factor(j)),
    );
  }
}
