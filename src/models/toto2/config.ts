/** Configuration of Toto 2.0: config.json checked field by field (model-spec B.1). Must not know of weights or devices. */
import { InputError } from "../input-error.js";

export type LayerKind = "time" | "variate";

export interface Toto2Config {
  /** Samples per patch, P. */
  readonly patch: number;
  /** Model width, d. */
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  /** Key and value heads; fewer than `heads` = grouped queries. */
  readonly keyHeads: number;
  /** Hidden width of the gated MLP. */
  readonly hidden: number;
  readonly queryWidth: number;
  readonly valueWidth: number;
  /** Layer kinds in order. */
  readonly kinds: readonly LayerKind[];
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
  /** RMS norm of queries and keys, head by head. */
  readonly queryNorm: boolean;
  /** Whether the weights hold norm weights; undefined = as the checkpoint has them. */
  readonly queryNormWeights: boolean | undefined;
  readonly normWeights: boolean | undefined;
  readonly perDimScale: boolean;
  readonly extrapolate: boolean;
  readonly epsilon: number;
}

type Fields = Readonly<Record<string, unknown>>;

const file = "config.json of Toto 2.0";
const shown = (value: unknown): string => JSON.stringify(value) ?? "missing";

/** Sizes beyond this are a damaged file, not a model. */
const largest = 1 << 20;

function positiveInteger(config: Fields, field: string, fallback?: number): number {
  const value = config[field] ?? fallback;
  if (typeof value !== "number" || !Number.isInteger(value) || value <= 0 || value > largest)
    throw new InputError(
      "config",
      `${file}: "${field}" is ${shown(config[field])}, expected a whole number from 1 to ${largest}. Is this the folder of a Toto 2.0 model?`,
    );
  return value;
}

function flag(config: Fields, field: string, fallback: boolean): boolean;
function flag(config: Fields, field: string, fallback: undefined): boolean | undefined;
function flag(config: Fields, field: string, fallback: boolean | undefined): boolean | undefined {
  const value = config[field] ?? fallback;
  if (value !== undefined && typeof value !== "boolean")
    throw new InputError("config", `${file}: "${field}" is ${shown(value)}, expected true or false.`);
  return value;
}

/** Layer i of a group of g is a variate layer when it is among the group's last, or first, `variate` ones. */
function layerKinds(config: Fields, layers: number): LayerKind[] {
  const group = positiveInteger(config, "layer_group_size", layers);
  const variate = config["num_variate_layers_per_group"] ?? 1;
  if (typeof variate !== "number" || !Number.isInteger(variate) || variate < 0 || variate > group)
    throw new InputError(
      "config",
      `${file}: "num_variate_layers_per_group" is ${shown(variate)}, expected 0 to "layer_group_size" ${group}.`,
    );
  const first = flag(config, "variate_layer_first", false);
  return Array.from({ length: layers }, (_, layer) =>
    (first ? layer % group < variate : layer % group >= group - variate) ? "variate" : "time",
  );
}

function epsilonOf(config: Fields): number {
  const value = config["norm_eps"] ?? 5e-5;
  if (typeof value !== "number" || !(value >= 0) || value >= 1)
    throw new InputError("config", `${file}: "norm_eps" is ${shown(value)}, expected a small positive number.`);
  return value;
}

/** Throws InputError naming the field that does not fit. Fields it does not know are ignored, as the published loader does. */
export function parseToto2Config(config: Fields): Toto2Config {
  const [width, layers, heads] = [
    positiveInteger(config, "d_model"),
    positiveInteger(config, "num_layers"),
    positiveInteger(config, "num_heads"),
  ];
  const outputPatches = positiveInteger(config, "num_output_patches", 1);
  if (outputPatches !== 1)
    throw new InputError(
      "config",
      `${file}: "num_output_patches" is ${outputPatches}; decoding is only defined for models that predict one patch per token, that is 1.`,
    );
  const keyHeads = positiveInteger(config, "num_groups", heads);
  if (heads % keyHeads !== 0) throw new InputError("config", `${file}: "num_heads" ${heads} is no multiple of "num_groups" ${keyHeads}.`);
  if (config["qk_dim"] === undefined && width % heads !== 0)
    throw new InputError("config", `${file}: without "qk_dim", "d_model" ${width} must be a multiple of "num_heads" ${heads}.`);
  const queryWidth = positiveInteger(config, "qk_dim", width / heads);
  if (queryWidth % 4 !== 0)
    throw new InputError("config", `${file}: "qk_dim" is ${queryWidth}; half of it is rotated in pairs, so it must be a multiple of 4.`);
  return {
    patch: positiveInteger(config, "patch_size"),
    width,
    layers,
    heads,
    keyHeads,
    hidden: positiveInteger(config, "d_ff", 8 * Math.floor((Math.floor((8 * width) / 3) + 7) / 8)),
    queryWidth,
    valueWidth: positiveInteger(config, "v_dim", queryWidth),
    kinds: layerKinds(config, layers),
    attentionBias: flag(config, "attn_bias", false),
    mlpBias: flag(config, "mlp_bias", false),
    queryNorm: flag(config, "qk_norm", true),
    queryNormWeights: flag(config, "qk_norm_include_weight", undefined) ?? flag(config, "norm_include_weight", undefined),
    normWeights: flag(config, "norm_include_weight", undefined),
    perDimScale: flag(config, "per_dim_scale", false),
    extrapolate: flag(config, "use_xpos", false),
    epsilon: epsilonOf(config),
  };
}
