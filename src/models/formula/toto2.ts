/**
 * Formula presets with the key layout of Toto 2.0 checkpoints.
 * Holds configurations and tensor names only; the model itself is elsewhere and must not depend on this file.
 */

import { numberField } from "./config.js";
import type { ConfigRecord } from "./config.js";
import { constant, drawn, normWeight, repeated, unitScaledLinear } from "./layout.js";
import type { FormulaPreset, FormulaTensor } from "./layout.js";

/** Quantile levels the head predicts. */
const quantileCount = 9;

function preset(fields: ConfigRecord): FormulaPreset {
  return {
    config: {
      patch_size: 32,
      num_variate_layers_per_group: 1,
      variate_layer_first: false,
      dropout_p: 0,
      norm_eps: 1e-4,
      attn_bias: true,
      mlp_bias: false,
      num_output_patches: 1,
      pre_norm: true,
      qk_dim: 64,
      v_dim: 64,
      residual_mult: 0.75,
      residual_attn_ratio: 5.136215466577748,
      qk_norm: false,
      norm_include_weight: false,
      qk_norm_include_weight: false,
      per_dim_scale: true,
      use_xpos: true,
      ...fields,
    },
    options: {},
    layout,
  };
}

/** The published sizes differ in five numbers; one variate layer closes the single group. */
function published(width: number, layers: number, heads: number, hidden: number): FormulaPreset {
  return preset({
    d_model: width,
    num_layers: layers,
    num_heads: heads,
    num_groups: heads,
    layer_group_size: layers,
    d_ff: hidden,
    norm_eps: 1e-4,
  });
}

/** Residual weight of sub-layer `index` (attention of layer l: 2l, MLP: 2l + 1): spec B.2. */
function residualTau(config: ConfigRecord, index: number): number {
  const ratio = numberField(config, "residual_attn_ratio");
  const mlp = numberField(config, "residual_mult") * Math.sqrt(2 / (1 + ratio * ratio));
  const attention = ratio * mlp;
  const before = numberField(config, "num_layers") + Math.ceil(index / 2) * attention * attention + Math.floor(index / 2) * mlp * mlp;
  return (index % 2 === 0 ? attention : mlp) / Math.sqrt(before);
}

/** Default MLP width: 8/3 of the model width, rounded up to a multiple of 8. */
function defaultHidden(width: number): number {
  return Math.floor((Math.floor((8 * width) / 3) + 7) / 8) * 8;
}

function layout(config: ConfigRecord): FormulaTensor[] {
  const width = numberField(config, "d_model");
  const heads = numberField(config, "num_heads");
  const groups = numberField(config, "num_groups", heads);
  const queryWidth = numberField(config, "qk_dim", width / heads);
  const valueWidth = numberField(config, "v_dim", queryWidth);
  const hidden = numberField(config, "d_ff", defaultHidden(width));
  const patch = numberField(config, "patch_size");
  const outputs = patch * numberField(config, "num_output_patches") * quantileCount;
  const attentionBias = config["attn_bias"] ? 0.1 : 0;
  const mlpBias = config["mlp_bias"] ? 0.1 : 0;
  const normWeights = Boolean(config["norm_include_weight"]);
  const queryNormWeights = Boolean(config["qk_norm"]) && Boolean(config["qk_norm_include_weight"] ?? config["norm_include_weight"]);

  const layer = (index: number): FormulaTensor[] => {
    const at = `transformer.layers.${index}`;
    return [
      constant(`${at}.attn_tau`, [], [residualTau(config, 2 * index)]),
      constant(`${at}.mlp_tau`, [], [residualTau(config, 2 * index + 1)]),
      ...unitScaledLinear(`${at}.attn.in_proj`, width, queryWidth * heads + queryWidth * groups + valueWidth * groups, {
        gain: 2.5,
        bias: attentionBias,
      }),
      ...unitScaledLinear(`${at}.attn.out_proj`, valueWidth * heads, width, { bias: attentionBias }),
      ...(config["per_dim_scale"] ? [drawn(`${at}.attn._pds.per_dim_scale`, [queryWidth], 0.3)] : []),
      ...(queryNormWeights ? ["q_norm", "k_norm"].map((name) => normWeight(`${at}.attn.${name}.weight`, queryWidth)) : []),
      ...unitScaledLinear(`${at}.ffn.fc1`, width, 2 * hidden, { bias: mlpBias }),
      ...unitScaledLinear(`${at}.ffn.fc2`, hidden, width, { bias: mlpBias }),
      ...(normWeights ? ["norm1", "norm2"].map((name) => normWeight(`${at}.${name}.weight`, width)) : []),
    ];
  };

  const head = "output_head.param_projection.proj";
  return [
    ...unitScaledLinear("patch_proj.linear1", 2 * patch, 4 * width, { bias: 0.5 }),
    ...unitScaledLinear("patch_proj.linear2", 4 * width, width, { bias: 0.5 }),
    ...unitScaledLinear("patch_proj.skip_proj", 2 * patch, width, { bias: 0.5 }),
    ...repeated(numberField(config, "num_layers"), layer),
    ...(normWeights ? [normWeight("transformer.out_norm.weight", width)] : []),
    ...unitScaledLinear(`${head}.linear1`, width, 4 * width),
    // Output layers are scaled by 1 / fanIn instead of its root.
    ...unitScaledLinear(`${head}.linear2`, 4 * width, outputs, { gain: 0.5, factor: 1 / (4 * width) }),
    ...unitScaledLinear(`${head}.skip_proj`, width, outputs, { gain: 0.5, factor: 1 / width }),
  ];
}

const tiny: ConfigRecord = { patch_size: 8, d_model: 32, num_layers: 4 };

export const toto2Presets: Readonly<Record<string, FormulaPreset>> = {
  "toto2-4m": published(256, 4, 4, 688),
  "toto2-22m": published(512, 6, 8, 1368),
  "toto2-313m": published(1024, 24, 16, 2736),
  "toto2-tiny": preset({ ...tiny, num_heads: 2, num_groups: 2, layer_group_size: 4, d_ff: 88, qk_dim: 16, v_dim: 16 }),
  "toto2-tiny-alt": preset({
    ...tiny,
    num_heads: 4,
    num_groups: 2,
    layer_group_size: 2,
    variate_layer_first: true,
    d_ff: 72,
    qk_dim: 16,
    v_dim: 8,
    attn_bias: false,
    mlp_bias: true,
    qk_norm: true,
    qk_norm_include_weight: true,
    norm_include_weight: true,
    per_dim_scale: true,
    use_xpos: false,
    norm_eps: 5e-5,
  }),
};
