/**
 * Weights of Toto 1.0: the checkpoint's names (model-spec A.2) mapped to states, QKV rows put into (part, head, head width) order, and the unembedding folded
 * with the output heads in f64. Must not know how a forecast is made.
 */
import type { Device } from "../../runtime/device.js";
import type { State } from "../../trace/entry.js";
import type { TensorSource } from "../tensor-source.js";
import { StagingMemory, WeightReader, WeightStates, type WeightStorage } from "../weights.js";
import type { Toto1Config } from "./config.js";

export interface LinearWeights {
  readonly weight: State;
  readonly bias: State;
}

type LinearTriple = [LinearWeights, LinearWeights, LinearWeights];

export interface Toto1Layer {
  readonly norm1: State;
  readonly norm2: State;
  readonly query: LinearWeights;
  readonly key: LinearWeights;
  readonly value: LinearWeights;
  readonly out: LinearWeights;
  readonly gate: LinearWeights;
  readonly up: LinearWeights;
  readonly down: LinearWeights;
}

/** Output parameters in two halves: what the mean needs (location, mixture logits) and what only sampling needs (df, scale). */
export interface OutputHeads {
  readonly centre: LinearWeights;
  readonly spread: LinearWeights;
}

export interface Toto1Weights {
  readonly embed: LinearWeights;
  readonly layers: readonly Toto1Layer[];
  /** Folded: D -> P x parameters in one step. */
  readonly folded: OutputHeads | undefined;
  /** Unfolded: D -> P x D, then D -> parameters per sample. */
  readonly unembed: LinearWeights | undefined;
  readonly heads: OutputHeads | undefined;
  /** [2, D] normalised variate labels: target, exogenous. */
  readonly labels: State | undefined;
  readonly bytes: number;
  dispose(): void;
}

interface Matrix {
  readonly weight: Float32Array;
  readonly bias: Float32Array;
  readonly rows: number;
  readonly depth: number;
}

/** Row r of the result is row from(r), in memory that `take` gives. */
function selectRows(matrix: Matrix, rows: number, from: (row: number) => number, take: StagingMemory["take"]): Matrix {
  const weight = take(rows * matrix.depth);
  const bias = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    const source = from(row);
    weight.set(matrix.weight.subarray(source * matrix.depth, (source + 1) * matrix.depth), row * matrix.depth);
    bias[row] = matrix.bias[source] as number;
  }
  return { weight, bias, rows, depth: matrix.depth };
}

function stack(parts: readonly Matrix[]): Matrix {
  const depth = (parts[0] as Matrix).depth;
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  const weight = new Float32Array(rows * depth);
  const bias = new Float32Array(rows);
  let at = 0;
  for (const part of parts) {
    weight.set(part.weight, at * depth);
    bias.set(part.bias, at);
    at += part.rows;
  }
  return { weight, bias, rows, depth };
}

/**
 * heads . unembed as one matrix (model-spec A.10): row p x G + g = sum over e of heads[g][e] unembed[p D + e], in f64. Algebraically the same, not bit for bit;
 * done before any mode, so all modes see the same numbers. The unembedding, the largest tensor of the file, is only ever there one patch row at a time.
 */
function fold(device: Device, heads: readonly Matrix[], unembed: Unembedding, patch: number, take: StagingMemory["take"]): Matrix[] {
  const all = stack(heads);
  const width = all.depth;
  const folded = heads.map(({ rows }) => ({
    weight: take(patch * rows * width),
    bias: new Float32Array(patch * rows),
    rows: patch * rows,
    depth: width,
  }));
  const block = new Float32Array(width * width);
  for (let p = 0; p < patch; p++) {
    unembed.readBlock(p * width * width, block);
    const product = device.multiplyF64(all.weight, block, all.rows, width, width);
    let first = 0;
    heads.forEach(({ rows, weight, bias }, index) => {
      const target = folded[index] as Matrix;
      target.weight.set(product.subarray(first * width, (first + rows) * width), p * rows * width);
      for (let g = 0; g < rows; g++) {
        let sum = bias[g] as number;
        for (let e = 0; e < width; e++) sum += (weight[g * width + e] as number) * (unembed.bias[p * width + e] as number);
        target.bias[p * rows + g] = sum;
      }
      first += rows;
    });
  }
  return folded;
}

/** The unembedding [P x D, D] by parts. */
interface Unembedding {
  readonly bias: Float32Array;
  readonly readBlock: (first: number, target: Float32Array) => void;
}

export function loadToto1Weights(
  source: TensorSource,
  config: Toto1Config,
  device: Device,
  options: { readonly fold: boolean; readonly stored?: WeightStorage | undefined },
): Toto1Weights {
  const { width, hidden, heads, patch, components } = config;
  const reader = new WeightReader(source);
  const states = new WeightStates(device, options.stored);
  // The largest: one half of a gated layer, a square matrix in its file's order and in ours, or all folded heads.
  const headRows = components > 1 ? 4 * components : 3;
  const staging = new StagingMemory(width * Math.max(hidden, 2 * width, options.fold ? patch * headRows : 0));
  const matrix = (name: string, rows: number, depth: number, take?: StagingMemory["take"]): Matrix => ({
    weight: reader.read(`${name}.weight`, [rows, depth], take),
    bias: reader.read(`${name}.bias`, [rows]),
    rows,
    depth,
  });
  /** Rows first .. first + rows - 1 of a linear of `total` rows, in staging memory. */
  const partOf = (name: string, total: number, first: number, rows: number, depth: number): Matrix => {
    const weight = staging.take(rows * depth);
    if (reader.check(`${name}.weight`, [total, depth])) reader.readRange(`${name}.weight`, first * depth, weight);
    return { weight, bias: reader.read(`${name}.bias`, [total]).subarray(first, first + rows), rows, depth };
  };
  const upload = (name: string, { weight, bias, rows, depth }: Matrix): LinearWeights => ({
    weight: states.matrix(name, weight, rows, depth),
    bias: states.vector(`${name}.bias`, bias),
  });
  try {
    const embed = upload("embed", matrix("model.patch_embed.projection", width, patch));
    const unembed = "model.unembed";
    const isFoldable = options.fold && reader.check(`${unembed}.weight`, [patch * width, width]);
    const unembedBias = options.fold ? reader.read(`${unembed}.bias`, [patch * width]) : undefined;
    const whole = options.fold ? undefined : matrix(unembed, patch * width, width);
    const head = "model.output_distribution";
    const [df, location, scale] = ["df", "loc_proj", "scale_proj"].map((part) => matrix(`${head}.${part}`, components, width)) as [
      Matrix,
      Matrix,
      Matrix,
    ];
    const mixture =
      components > 1 || reader.has(`${head}.mixture_weights.weight`) ? matrix(`${head}.mixture_weights`, components, width) : undefined;
    const centre = components > 1 && mixture ? stack([location, mixture]) : location;
    const spread = stack([df, scale]);
    const readBlock = (first: number, target: Float32Array): void => reader.readRange(`${unembed}.weight`, first, target);
    const made =
      isFoldable && unembedBias ? fold(device, [centre, spread], { bias: unembedBias, readBlock }, patch, staging.take) : undefined;
    const folded = made && { centre: upload("head.centre", made[0] as Matrix), spread: upload("head.spread", made[1] as Matrix) };
    staging.release();
    const layers = config.kinds.map((_, index) => readLayer(index));
    const labels = readLabels();
    reader.ignore((name) => /\.rotary_emb\.(freqs|scale)$/.test(name));
    reader.finish();
    return {
      embed,
      layers,
      folded,
      unembed: whole && upload("unembed", whole),
      heads: folded ? undefined : { centre: upload("head.centre", centre), spread: upload("head.spread", spread) },
      labels,
      get bytes() {
        return states.bytes;
      },
      dispose: () => states.dispose(),
    };
  } catch (error) {
    states.dispose();
    throw error;
  }

  function readLayer(index: number): Toto1Layer {
    const at = `model.transformer.layers.${index}`;
    const label = `layers.${index}`;
    const headWidth = width / heads;
    const norms = ["norm1", "norm2"].map((norm) => states.vector(`${label}.${norm}`, reader.read(`${at}.${norm}.scale`, [width])));
    // Stored rows run (part, head width, head); row n x headWidth + j of a part is stored at j x heads + n.
    const stored = (row: number): number => (row % headWidth) * heads + Math.floor(row / headWidth);
    const [query, key, value] = ["query", "key", "value"].map((name, which) => {
      const part = partOf(`${at}.attention.wQKV`, 3 * width, which * width, width, width);
      const uploaded = upload(`${label}.${name}`, selectRows(part, width, stored, staging.take));
      staging.release();
      return uploaded;
    }) as LinearTriple;
    const [upName, downName] = reader.has(`${at}.mlp.0.w12.weight`)
      ? [`${at}.mlp.0.w12`, `${at}.mlp.0.w3`]
      : [`${at}.mlp.0`, `${at}.mlp.2`];
    const staged = (name: string, part: Matrix): LinearWeights => {
      const uploaded = upload(`${label}.${name}`, part);
      staging.release();
      return uploaded;
    };
    const out = staged("out", matrix(`${at}.attention.wO`, width, width, staging.take));
    const down = staged("down", matrix(downName, width, hidden, staging.take));
    // The first half is the gate (model-spec A.6).
    const gate = staged("gate", partOf(upName, 2 * hidden, 0, hidden, width));
    const up = staged("up", partOf(upName, 2 * hidden, hidden, hidden, width));
    return { norm1: norms[0] as State, norm2: norms[1] as State, query, key, value, out, gate, up, down };
  }

  /** Labels exist only in models tuned with exogenous variates; each is scaled to unit length once here (model-spec A.8). */
  function readLabels(): State | undefined {
    const names = ["model.target_variate_label", "model.exogenous_variate_label"];
    if (!names.some((name) => reader.has(name))) return undefined;
    const values = new Float32Array(2 * width);
    names.forEach((name, index) => {
      const label = reader.read(name, [width]);
      const length = Math.max(Math.sqrt(label.reduce((sum, value) => sum + value * value, 0)), 1e-12);
      label.forEach((value, i) => {
        values[index * width + i] = value / length;
      });
    });
    return states.table("labels", values, width);
  }
}
