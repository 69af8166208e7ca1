/** Configuration of Toto 1.0: config.json checked field by field (model-spec A.1). Must not know of weights or devices. */
import { InputError } from "../input-error.js";

export interface Toto1Config {
  /** Samples per patch, P. */
  readonly patch: number;
  /** Model width, D. */
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  /** Hidden width of the gated MLP, M. */
  readonly hidden: number;
  /** Layer kinds in order. */
  readonly kinds: readonly ("time" | "space")[];
  /** Mixture components, K; 1 for a single Student-t. */
  readonly components: number;
  readonly stabilizeWithGlobal: boolean;
  readonly scaleFactorExponent: number;
}

const file = "config.json of Toto 1.0";

/** Sizes beyond this are a damaged file, not a model. */
const largest = 1 << 20;

function positiveInteger(config: Readonly<Record<string, unknown>>, field: string): number {
  const value = config[field];
  if (typeof value !== "number" || !Number.isInteger(value) || value <= 0 || value > largest) {
    throw new InputError(
      "config",
      `${file}: "${field}" is ${JSON.stringify(value) ?? "missing"}, expected a whole number from 1 to ${largest}. Is this the folder of a Toto 1.0 model?`,
    );
  }
  return value;
}

/** Time layers with one space layer per group, at its front or its end; `every` <= 0 means no space layer. */
function layerKinds(layers: number, every: number, spaceFirst: boolean): ("time" | "space")[] {
  return Array.from({ length: layers }, (_, layer) => (every > 0 && layer % every === (spaceFirst ? 0 : every - 1) ? "space" : "time"));
}

function components(config: Readonly<Record<string, unknown>>): number {
  const classes = config["output_distribution_classes"];
  const name = Array.isArray(classes) ? String(classes[0]) : "";
  if (name.includes("MixtureOfStudentTs")) {
    const options = (config["output_distribution_kwargs"] ?? {}) as Record<string, unknown>;
    return options["k_components"] === undefined ? 1 : positiveInteger(options, "k_components");
  }
  if (name.includes("StudentT")) return 1;
  throw new InputError(
    "config",
    `${file}: "output_distribution_classes" is ${JSON.stringify(classes) ?? "missing"}; a Student-t or a mixture of Student-ts is expected.`,
  );
}

export function parseToto1Config(config: Readonly<Record<string, unknown>>): Toto1Config {
  const patch = positiveInteger(config, "patch_size");
  if (positiveInteger(config, "stride") !== patch)
    throw new InputError(
      "config",
      `${file}: "stride" is ${String(config["stride"])} but "patch_size" ${patch}; decoding needs them equal.`,
    );
  const [width, layers, heads] = [
    positiveInteger(config, "embed_dim"),
    positiveInteger(config, "num_layers"),
    positiveInteger(config, "num_heads"),
  ];
  if (width % heads !== 0 || (width / heads) % 2 !== 0)
    throw new InputError("config", `${file}: "embed_dim" ${width} over "num_heads" ${heads} must be an even head width.`);
  const scaler = String(config["scaler_cls"] ?? "");
  if (scaler !== "" && !scaler.includes("CausalPatchStdMeanScaler"))
    throw new InputError("config", `${file}: "scaler_cls" is ${scaler}; only CausalPatchStdMeanScaler is supported.`);
  const every = config["spacewise_every_n_layers"];
  if (typeof every !== "number" || !Number.isInteger(every))
    throw new InputError(
      "config",
      `${file}: "spacewise_every_n_layers" is ${JSON.stringify(every) ?? "missing"}, expected a whole number (-1 for no space layer).`,
    );
  if (every > 0 && layers % every !== 0)
    throw new InputError("config", `${file}: "num_layers" ${layers} is no multiple of "spacewise_every_n_layers" ${every}.`);
  const exponent = config["scale_factor_exponent"] ?? 10;
  if (typeof exponent !== "number" || !Number.isFinite(exponent))
    throw new InputError("config", `${file}: "scale_factor_exponent" is ${JSON.stringify(exponent)}, expected a number.`);
  return {
    patch,
    width,
    layers,
    heads,
    hidden: positiveInteger(config, "mlp_hidden_dim"),
    kinds: layerKinds(layers, every, config["spacewise_first"] === undefined ? true : config["spacewise_first"] === true),
    components: components(config),
    stabilizeWithGlobal: config["stabilize_with_global"] === undefined ? true : config["stabilize_with_global"] === true,
    scaleFactorExponent: exponent,
  };
}
