/**
 * Formula presets with the key layouts of Kronos models and Kronos tokenizers.
 * Holds configurations and tensor names only; the models themselves are elsewhere and must not depend on this file.
 */

import { numberField } from "./config.js";
import type { ConfigRecord } from "./config.js";
import { constant, drawn, inverseFrequencies, linear, normWeight, repeated } from "./layout.js";
import type { FormulaPreset, FormulaTensor, GeneratorOptions } from "./layout.js";

/** buffers: `inv_freq` entries (and, in tokenizers, `basis` and `group_basis`) present. */
const options = { buffers: true };

/** Embedding rows per calendar field of a candle's time stamp. */
const calendarRows = { minute: 60, hour: 24, weekday: 7, day: 32, month: 13 };

function modelPreset(fields: ConfigRecord): FormulaPreset {
  const config = {
    s1_bits: 10,
    s2_bits: 10,
    ffn_dropout_p: 0.2,
    attn_dropout_p: 0,
    resid_dropout_p: 0.2,
    token_dropout_p: 0,
    learn_te: true,
  };
  return { config: { ...config, ...fields }, options, layout: modelLayout };
}

function tokenizerPreset(fields: ConfigRecord): FormulaPreset {
  const sizes = {
    d_in: 6,
    d_model: 256,
    n_heads: 4,
    ff_dim: 512,
    n_enc_layers: 4,
    n_dec_layers: 4,
    s1_bits: 10,
    s2_bits: 10,
    group_size: 4,
  };
  const training = { ffn_dropout_p: 0, attn_dropout_p: 0, resid_dropout_p: 0, beta: 0.05, gamma0: 1, gamma: 1.1, zeta: 0.05 };
  return { config: { ...sizes, ...training, ...fields }, options, layout: tokenizerLayout };
}

/** One pre-norm block, shared by the model and both halves of the tokenizer. */
function block(prefix: string, config: ConfigRecord, buffers: boolean): FormulaTensor[] {
  const width = numberField(config, "d_model");
  const headWidth = width / numberField(config, "n_heads");
  const hidden = numberField(config, "ff_dim");
  const attention = `${prefix}.self_attn`;
  return [
    normWeight(`${prefix}.norm1.weight`, width),
    normWeight(`${prefix}.norm2.weight`, width),
    ...linear(`${attention}.q_proj`, width, width, { gain: 1.25 }),
    ...linear(`${attention}.k_proj`, width, width, { gain: 1.25 }),
    ...linear(`${attention}.v_proj`, width, width),
    ...linear(`${attention}.out_proj`, width, width),
    ...(buffers ? [constant(`${attention}.rotary.inv_freq`, [headWidth / 2], inverseFrequencies(headWidth))] : []),
    ...linear(`${prefix}.ffn.w1`, width, hidden, { bias: 0 }),
    ...linear(`${prefix}.ffn.w3`, width, hidden, { bias: 0 }),
    ...linear(`${prefix}.ffn.w2`, hidden, width, { bias: 0 }),
  ];
}

function modelLayout(config: ConfigRecord, generator: GeneratorOptions): FormulaTensor[] {
  const width = numberField(config, "d_model");
  const coarse = 2 ** numberField(config, "s1_bits");
  const fine = 2 ** numberField(config, "s2_bits");
  const buffers = Boolean(generator["buffers"]);
  const cross = "dep_layer.cross_attn";
  const calendar = Object.entries(calendarRows).map(([unit, rows]) =>
    config["learn_te"]
      ? drawn(`time_emb.${unit}_embed.weight`, [rows, width], 0.5)
      : drawn(`time_emb.${unit}_embed.emb.weight`, [rows, width], Math.sqrt(3 / width)),
  );
  return [
    drawn("embedding.emb_s1.weight", [coarse, width], Math.sqrt(3 / width)),
    drawn("embedding.emb_s2.weight", [fine, width], Math.sqrt(3 / width)),
    ...linear("embedding.fusion_proj", 2 * width, width),
    ...calendar,
    ...repeated(numberField(config, "n_layers"), (index) => block(`transformer.${index}`, config, buffers)),
    normWeight("norm.weight", width),
    // The cross query is a raw embedding row of standard deviation 1 / sqrt(width); the gain brings it back to 1.
    ...linear(`${cross}.q_proj`, width, width, { gain: Math.sqrt(width) }),
    ...linear(`${cross}.k_proj`, width, width),
    ...linear(`${cross}.v_proj`, width, width, { gain: 2 }),
    ...linear(`${cross}.out_proj`, width, width, { gain: 2 }),
    // Cross attention has four heads whatever the model's number.
    ...(buffers ? [constant(`${cross}.rotary.inv_freq`, [width / 8], inverseFrequencies(width / 4))] : []),
    normWeight("dep_layer.norm.weight", width),
    ...linear("head.proj_s1", width, coarse, { gain: 2 }),
    ...linear("head.proj_s2", width, fine, { gain: 2 }),
  ];
}

/** 2^(count-1) ... 2, 1: the weights of a binary code. */
function powersOfTwo(count: number): number[] {
  return Array.from({ length: count }, (_, index) => 2 ** (count - 1 - index));
}

function tokenizerLayout(config: ConfigRecord, generator: GeneratorOptions): FormulaTensor[] {
  const width = numberField(config, "d_model");
  const columns = numberField(config, "d_in");
  const coarseBits = numberField(config, "s1_bits");
  const bits = coarseBits + numberField(config, "s2_bits");
  const group = numberField(config, "group_size");
  const buffers = Boolean(generator["buffers"]);
  // Files hold one block less than the configured number of layers on each side.
  const blocks = (name: string, layers: number): FormulaTensor[] =>
    repeated(layers - 1, (index) => block(`${name}.${index}`, config, buffers));
  return [
    ...linear("embed", columns, width, { bias: 0.5 }),
    ...linear("head", width, columns, { gain: 0.5 }),
    ...blocks("encoder", numberField(config, "n_enc_layers")),
    ...blocks("decoder", numberField(config, "n_dec_layers")),
    // Large outputs keep the sign bits, which become tokens, away from rounding noise.
    ...linear("quant_embed", width, bits, { gain: 16 }),
    // Inputs of both are +-1 / sqrt(bits).
    ...linear("post_quant_embed_pre", coarseBits, width, { gain: Math.sqrt(coarseBits) }),
    ...linear("post_quant_embed", bits, width, { gain: Math.sqrt(bits) }),
    ...(buffers
      ? [
          constant("tokenizer.bsq.basis", [bits], powersOfTwo(bits), "I64"),
          constant("tokenizer.bsq.group_basis", [group], powersOfTwo(group), "I64"),
        ]
      : []),
  ];
}

const tinyBits: ConfigRecord = { s1_bits: 6, s2_bits: 6 };

export const kronosPresets: Readonly<Record<string, FormulaPreset>> = {
  "kronos-mini": modelPreset({ d_model: 256, n_layers: 4, n_heads: 4, ff_dim: 512 }),
  "kronos-small": modelPreset({
    d_model: 512,
    n_layers: 8,
    n_heads: 8,
    ff_dim: 1024,
    ffn_dropout_p: 0.25,
    attn_dropout_p: 0.1,
    resid_dropout_p: 0.25,
    token_dropout_p: 0.1,
  }),
  "kronos-base": modelPreset({ d_model: 832, n_layers: 12, n_heads: 16, ff_dim: 2048 }),
  "kronos-tiny": modelPreset({ d_model: 32, n_layers: 3, n_heads: 4, ff_dim: 48, ...tinyBits }),
  "kronos-tokenizer-base": tokenizerPreset({}),
  "kronos-tokenizer-2k": tokenizerPreset({ group_size: 5 }),
  "kronos-tokenizer-tiny": tokenizerPreset({ d_model: 32, n_heads: 4, ff_dim: 48, n_enc_layers: 3, n_dec_layers: 3, ...tinyBits }),
};
