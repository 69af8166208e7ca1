/**
 * Weights of Kronos models and tokenizers: the checkpoint's names (model-spec C.2) mapped to states, and the folds of what depends on a token alone: its part of
 * the fused embedding, and its query in the dependency layer. Must not know how a forecast is made.
 */
import type { Device } from "../../runtime/device.js";
import type { State } from "../../trace/entry.js";
import { InputError } from "../input-error.js";
import type { TensorSource } from "../tensor-source.js";
import { WeightReader, WeightStates, type WeightStorage } from "../weights.js";
import type { KronosBlockConfig, KronosModelConfig, KronosTokenizerConfig } from "./config.js";

export interface LinearWeights {
  readonly weight: State;
  readonly bias: State | undefined;
}

export interface KronosBlock {
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

/** Rotary frequencies of a stack's heads; undefined: the usual powers of 10000. */
export type Frequencies = Float32Array | undefined;

/** Rows per calendar field, in the order of the stamp columns. */
export const stampFields = [
  { name: "minute", rows: 60 },
  { name: "hour", rows: 24 },
  { name: "weekday", rows: 7 },
  { name: "day", rows: 32 },
  { name: "month", rows: 13 },
] as const;

export interface KronosModelWeights {
  /** Tables [tokens, d] whose rows of the two tokens add up to the fused embedding. Undefined when unfolded. */
  readonly fused: { readonly coarse: State; readonly fine: State } | undefined;
  /** [tokens, d] raw embeddings; only what the unfolded form needs. */
  readonly coarse: State | undefined;
  readonly fine: State | undefined;
  readonly fusion: LinearWeights | undefined;
  /** Calendar tables in the order of the stamp columns. */
  readonly time: readonly State[];
  readonly blocks: readonly KronosBlock[];
  readonly norm: State;
  readonly dependency: {
    /** [tokens, d] query of each coarse token; undefined when unfolded. */
    readonly queries: State | undefined;
    readonly query: LinearWeights | undefined;
    readonly key: LinearWeights;
    readonly value: LinearWeights;
    readonly out: LinearWeights;
    readonly norm: State;
  };
  readonly coarseHead: LinearWeights;
  readonly fineHead: LinearWeights;
  readonly frequencies: Frequencies;
  readonly bytes: number;
  dispose(): void;
}

export interface KronosTokenizerWeights {
  readonly embed: LinearWeights;
  readonly encoder: readonly KronosBlock[];
  readonly quantise: LinearWeights;
  readonly expand: LinearWeights;
  readonly decoder: readonly KronosBlock[];
  readonly head: LinearWeights;
  readonly frequencies: Frequencies;
  readonly bytes: number;
  dispose(): void;
}

interface Matrix {
  readonly weight: Float32Array;
  readonly bias: Float32Array | undefined;
  readonly rows: number;
  readonly depth: number;
}

/** Reads and uploads what models and tokenizers have in common. */
class KronosReader {
  readonly reader: WeightReader;
  readonly states: WeightStates;
  #frequencies: Frequencies;

  constructor(
    private readonly source: TensorSource,
    device: Device,
    stored?: WeightStorage,
  ) {
    this.reader = new WeightReader(source);
    this.states = new WeightStates(device, stored);
  }

  get frequencies(): Frequencies {
    return this.#frequencies;
  }

  matrix(name: string, rows: number, depth: number, bias = true): Matrix {
    return {
      weight: this.reader.read(`${name}.weight`, [rows, depth]),
      bias: bias ? this.reader.read(`${name}.bias`, [rows]) : undefined,
      rows,
      depth,
    };
  }

  upload(label: string, { weight, bias, rows, depth }: Matrix): LinearWeights {
    return { weight: this.states.matrix(label, weight, rows, depth), bias: bias ? this.states.vector(`${label}.bias`, bias) : undefined };
  }

  linear(label: string, name: string, rows: number, depth: number, bias = true): LinearWeights {
    return this.upload(label, this.matrix(name, rows, depth, bias));
  }

  block(prefix: string, { width, heads, hidden }: KronosBlockConfig): KronosBlock {
    const attention = `${prefix}.self_attn`;
    this.#readFrequencies(`${attention}.rotary.inv_freq`, width / heads / 2);
    const part = (label: string, name: string, rows: number, depth: number, bias = true): LinearWeights =>
      this.linear(`${prefix}.${label}`, name, rows, depth, bias);
    return {
      norm1: this.states.vector(`${prefix}.norm1`, this.reader.read(`${prefix}.norm1.weight`, [width])),
      norm2: this.states.vector(`${prefix}.norm2`, this.reader.read(`${prefix}.norm2.weight`, [width])),
      query: part("query", `${attention}.q_proj`, width, width),
      key: part("key", `${attention}.k_proj`, width, width),
      value: part("value", `${attention}.v_proj`, width, width),
      out: part("out", `${attention}.out_proj`, width, width),
      gate: part("gate", `${prefix}.ffn.w1`, hidden, width, false),
      up: part("up", `${prefix}.ffn.w3`, hidden, width, false),
      down: part("down", `${prefix}.ffn.w2`, width, hidden, false),
    };
  }

  /** The stored frequencies, which are the same for every block of a stack: they depend on the head width alone. */
  #readFrequencies(name: string, count: number): void {
    if (!this.reader.has(name)) return;
    const values = this.reader.read(name, [count]);
    if (this.#frequencies && this.#frequencies.some((value, index) => value !== values[index]))
      throw new InputError("checkpoint-tensors", `${this.source.label}: ${name} differs from the frequencies of the blocks before it.`);
    this.#frequencies = values;
  }
}

/** table . weight transposed + bias, row by row, with sums in f64: [table rows, weight rows]. */
function project(device: Device, table: Float32Array, rows: number, { weight, bias, rows: out, depth }: Matrix): Float32Array {
  const turned = new Float32Array(depth * out);
  for (let o = 0; o < out; o++) for (let k = 0; k < depth; k++) turned[k * out + o] = weight[o * depth + k] as number;
  const result = device.multiplyF64(table, turned, rows, depth, out);
  if (bias) for (let i = 0; i < result.length; i++) result[i] = (result[i] as number) + (bias[i % out] as number);
  return result;
}

/** Columns [from, from + count) of a matrix, times `factor`; without its bias. */
function columnsOf(matrix: Matrix, from: number, count: number, factor: number): Matrix {
  const weight = new Float32Array(matrix.rows * count);
  for (let row = 0; row < matrix.rows; row++)
    for (let k = 0; k < count; k++) weight[row * count + k] = (matrix.weight[row * matrix.depth + from + k] as number) * factor;
  return { weight, bias: undefined, rows: matrix.rows, depth: count };
}

/** Throws InputError naming every tensor that is missing, misshapen or unknown. */
export function loadKronosModelWeights(
  source: TensorSource,
  config: KronosModelConfig,
  device: Device,
  options: { readonly fold: boolean; readonly stored?: WeightStorage | undefined },
): KronosModelWeights {
  const read = new KronosReader(source, device, options.stored);
  const { reader, states } = read;
  const { width, layers } = config;
  const [coarseTokens, fineTokens] = [2 ** config.coarseBits, 2 ** config.fineBits];
  try {
    const coarse = reader.read("embedding.emb_s1.weight", [coarseTokens, width]);
    const fine = reader.read("embedding.emb_s2.weight", [fineTokens, width]);
    const fusion = read.matrix("embedding.fusion_proj", width, 2 * width);
    const time = stampFields.map(({ name, rows }) => {
      const table = reader.read(`time_emb.${name}_embed.${config.learnedTime ? "" : "emb."}weight`, [rows, width]);
      return states.table(`time.${name}`, table, width);
    });
    const blocks = Array.from({ length: layers }, (_, layer) => read.block(`transformer.${layer}`, config));
    const norm = states.vector("norm", reader.read("norm.weight", [width]));
    const cross = "dep_layer.cross_attn";
    const query = read.matrix(`${cross}.q_proj`, width, width);
    const dependency = {
      key: read.linear("dependency.key", `${cross}.k_proj`, width, width),
      value: read.linear("dependency.value", `${cross}.v_proj`, width, width),
      out: read.linear("dependency.out", `${cross}.out_proj`, width, width),
      norm: states.vector("dependency.norm", reader.read("dep_layer.norm.weight", [width])),
    };
    const coarseHead = read.linear("head.coarse", "head.proj_s1", coarseTokens, width);
    const fineHead = read.linear("head.fine", "head.proj_s2", fineTokens, width);
    // The rotation of the dependency layer is the identity (model-spec C.5), so its frequencies are not used.
    reader.ignore((name) => name === `${cross}.rotary.inv_freq`);
    reader.finish();
    const root = Math.sqrt(width);
    const { fold } = options;
    return {
      fused: fold
        ? {
            coarse: states.table(
              "embedding.coarse",
              project(device, coarse, coarseTokens, { ...columnsOf(fusion, 0, width, root), bias: fusion.bias }),
              width,
            ),
            fine: states.table("embedding.fine", project(device, fine, fineTokens, columnsOf(fusion, width, width, root)), width),
          }
        : undefined,
      coarse: fold ? undefined : states.table("embedding.coarse", coarse, width),
      fine: fold ? undefined : states.table("embedding.fine", fine, width),
      fusion: fold ? undefined : read.upload("embedding.fusion", fusion),
      time,
      blocks,
      norm,
      dependency: {
        ...dependency,
        queries: fold ? states.table("dependency.queries", project(device, coarse, coarseTokens, query), width) : undefined,
        query: fold ? undefined : read.upload("dependency.query", query),
      },
      coarseHead,
      fineHead,
      frequencies: read.frequencies,
      get bytes() {
        return states.bytes;
      },
      dispose: () => states.dispose(),
    };
  } catch (error) {
    states.dispose();
    throw error;
  }
}

/**
 * Always f32: a token is made of signs, so a rounded weight gives other tokens, and with them another level of the whole forecast. Throws InputError naming every tensor
 * that is missing, misshapen or unknown.
 */
export function loadKronosTokenizerWeights(source: TensorSource, config: KronosTokenizerConfig, device: Device): KronosTokenizerWeights {
  const read = new KronosReader(source, device);
  const { width, columns, coarseBits, fineBits } = config;
  const bits = coarseBits + fineBits;
  try {
    const blocks = (name: string, count: number): KronosBlock[] =>
      Array.from({ length: count }, (_, index) => read.block(`${name}.${index}`, config));
    const weights = {
      embed: read.linear("embed", "embed", width, columns),
      encoder: blocks("encoder", config.encoderBlocks),
      quantise: read.linear("quantise", "quant_embed", bits, width),
      expand: read.linear("expand", "post_quant_embed", width, bits),
      decoder: blocks("decoder", config.decoderBlocks),
      head: read.linear("head", "head", columns, width),
    };
    // Training only: decoding from the coarse token alone, and the codebook's powers of two.
    read.reader.ignore((name) => name.startsWith("post_quant_embed_pre.") || name.startsWith("tokenizer.bsq."));
    read.reader.finish();
    return {
      ...weights,
      frequencies: read.frequencies,
      get bytes() {
        return read.states.bytes;
      },
      dispose: () => read.states.dispose(),
    };
  } catch (error) {
    read.states.dispose();
    throw error;
  }
}
