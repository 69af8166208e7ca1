/**
 * Formula presets with the key layout of Toto 1.0 checkpoints.
 * Holds configurations and tensor names only; the model itself is elsewhere and must not depend on this file.
 */

import { constant, drawn, inverseFrequencies, linear, normWeight, repeated } from "./layout.js";
import type { FormulaPreset, FormulaTensor, GeneratorOptions } from "./layout.js";
import { numberField, recordField, stringListField } from "./config.js";
import type { ConfigRecord } from "./config.js";

/** mlp: key naming "fused" (w12, w3) or "plain" (mlp.0, mlp.2); labels: variate labels present; rotary: redundant rotary entries present. */
const defaultOptions = { mlp: "fused", labels: false, rotary: false };

function preset(fields: ConfigRecord, options: GeneratorOptions = {}): FormulaPreset {
  return {
    config: {
      dropout: 0.1,
      spacewise_first: false,
      scaler_cls: "<class 'model.scaler.CausalPatchStdMeanScaler'>",
      output_distribution_classes: ["<class 'model.distribution.MixtureOfStudentTsOutput'>"],
      output_distribution_kwargs: { k_components: 24 },
      use_memory_efficient_attention: true,
      stabilize_with_global: true,
      scale_factor_exponent: 10,
      ...fields,
    },
    options: { ...defaultOptions, ...options },
    choices: { mlp: ["fused", "plain"] },
    layout,
  };
}

/** Layers come in groups of n: n - 1 mix over time and one, the first or the last, over variates. */
function mixesOverVariates(config: ConfigRecord, layer: number): boolean {
  const every = numberField(config, "spacewise_every_n_layers");
  if (every <= 0) return false;
  return layer % every === (config["spacewise_first"] ? 0 : every - 1);
}

/** Rotary entries as some files carry them; a loader recomputes and must ignore them. */
function rotaryEntries(prefix: string, headWidth: number): FormulaTensor[] {
  const pairs = headWidth / 2;
  const scale = Array.from({ length: pairs }, (_, j) => (2 * j + 0.4 * headWidth) / (1.4 * headWidth));
  return [
    constant(`${prefix}.rotary_emb.freqs`, [pairs], inverseFrequencies(headWidth)),
    constant(`${prefix}.rotary_emb.scale`, [pairs], scale),
  ];
}

function layout(config: ConfigRecord, options: GeneratorOptions): FormulaTensor[] {
  const width = numberField(config, "embed_dim");
  const hidden = numberField(config, "mlp_hidden_dim");
  const patch = numberField(config, "patch_size");
  const headWidth = width / numberField(config, "num_heads");
  const isMixture = (stringListField(config, "output_distribution_classes")[0] ?? "").includes("Mixture");
  const components = isMixture ? numberField(recordField(config, "output_distribution_kwargs"), "k_components", 1) : 1;
  const [upName, downName] = options["mlp"] === "plain" ? ["mlp.0", "mlp.2"] : ["mlp.0.w12", "mlp.0.w3"];

  const layer = (index: number): FormulaTensor[] => {
    const at = `model.transformer.layers.${index}`;
    return [
      normWeight(`${at}.norm1.scale`, width),
      normWeight(`${at}.norm2.scale`, width),
      ...linear(`${at}.attention.wQKV`, width, 3 * width, { gain: 1.25 }),
      ...linear(`${at}.attention.wO`, width, width),
      ...linear(`${at}.${upName}`, width, 2 * hidden),
      ...linear(`${at}.${downName}`, hidden, width),
      ...(options["rotary"] && !mixesOverVariates(config, index) ? rotaryEntries(`${at}.attention`, headWidth) : []),
    ];
  };

  const head = "model.output_distribution";
  return [
    // A constant patch is all zeros after scaling; the large bias keeps its embedding away from 0.
    ...linear("model.patch_embed.projection", patch, width, { bias: 0.5 }),
    ...repeated(numberField(config, "num_layers"), layer),
    ...(options["rotary"] ? rotaryEntries("model.transformer", headWidth) : []),
    ...linear("model.unembed", width, patch * width, { gain: 0.5 }),
    ...linear(`${head}.df`, width, components),
    ...linear(`${head}.loc_proj`, width, components, { gain: 0.5 }),
    ...linear(`${head}.scale_proj`, width, components),
    ...(isMixture ? linear(`${head}.mixture_weights`, width, components) : []),
    ...(options["labels"] ? [drawn("model.target_variate_label", [width], 1), drawn("model.exogenous_variate_label", [width], 1)] : []),
  ];
}

const tiny: ConfigRecord = {
  patch_size: 8,
  stride: 8,
  embed_dim: 32,
  num_layers: 4,
  num_heads: 4,
  mlp_hidden_dim: 48,
  spacewise_every_n_layers: 4,
  output_distribution_kwargs: { k_components: 4 },
};

export const toto1Presets: Readonly<Record<string, FormulaPreset>> = {
  "toto1-base": preset({
    patch_size: 64,
    stride: 64,
    embed_dim: 768,
    num_layers: 12,
    num_heads: 12,
    mlp_hidden_dim: 3072,
    spacewise_every_n_layers: 12,
  }),
  "toto1-tiny": preset(tiny),
  "toto1-tiny-ev": preset(tiny, { labels: true }),
  "toto1-tiny-alt": preset({ ...tiny, num_layers: 6, spacewise_every_n_layers: 3, spacewise_first: true }, { mlp: "plain", rotary: true }),
  /** Our own: small enough to load at once, large enough to show the engine. */
  "toto1-formula": preset({
    patch_size: 32,
    stride: 32,
    embed_dim: 128,
    num_layers: 4,
    num_heads: 4,
    mlp_hidden_dim: 256,
    spacewise_every_n_layers: 4,
    output_distribution_kwargs: { k_components: 8 },
  }),
};
