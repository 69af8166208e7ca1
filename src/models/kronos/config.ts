/** Configurations of Kronos models and tokenizers: config.json checked field by field (model-spec C.1). Must not know of weights or devices. */
import { InputError } from "../input-error.js";

/** One transformer stack: width, heads and hidden width of the gated MLP. */
export interface KronosBlockConfig {
  readonly width: number;
  readonly heads: number;
  readonly hidden: number;
}

export interface KronosModelConfig extends KronosBlockConfig {
  readonly layers: number;
  /** Bits of the coarse and the fine token of a candle. */
  readonly coarseBits: number;
  readonly fineBits: number;
  /** Time tables are learnt; otherwise they are stored under other names. */
  readonly learnedTime: boolean;
  /** Tokens the model was trained to see at once, W. */
  readonly maximumContext: number;
}

export interface KronosTokenizerConfig extends KronosBlockConfig {
  readonly columns: number;
  /** Blocks there are: one less than the configured numbers. */
  readonly encoderBlocks: number;
  readonly decoderBlocks: number;
  readonly coarseBits: number;
  readonly fineBits: number;
}

type Fields = Readonly<Record<string, unknown>>;

/** Heads of the dependency layer, whatever the model's own number. */
export const dependencyHeads = 4;
/** Values of a candle: open, high, low, close, volume, amount. */
export const candleColumns = 6;

/** Sizes beyond this are a damaged file, not a model. */
const largest = 1 << 20;

function positiveInteger(fields: Fields, field: string, file: string): number {
  const value = fields[field];
  if (typeof value !== "number" || !Number.isInteger(value) || value <= 0 || value > largest) {
    throw new InputError(
      "config",
      `${file}: "${field}" is ${JSON.stringify(value) ?? "missing"}, expected a whole number from 1 to ${largest}.`,
    );
  }
  return value;
}

function bits(fields: Fields, field: string, file: string): number {
  const value = positiveInteger(fields, field, file);
  if (value > 20) throw new InputError("config", `${file}: "${field}" is ${value}; at most 20 bits per token are supported.`);
  return value;
}

function blockConfig(fields: Fields, file: string): KronosBlockConfig {
  const [width, heads] = [positiveInteger(fields, "d_model", file), positiveInteger(fields, "n_heads", file)];
  if (width % heads !== 0 || (width / heads) % 2 !== 0)
    throw new InputError("config", `${file}: "d_model" ${width} over "n_heads" ${heads} must be an even head width.`);
  return { width, heads, hidden: positiveInteger(fields, "ff_dim", file) };
}

/** Kronos-mini, the only published model with another context, is the one of width 256 and 4 layers; config.json does not hold it. */
function publishedContext(width: number, layers: number): number {
  return width === 256 && layers === 4 ? 2048 : 512;
}

export const isKronosModel = (fields: Fields): boolean => "s1_bits" in fields && "n_layers" in fields && "learn_te" in fields;
export const isKronosTokenizer = (fields: Fields): boolean => "s1_bits" in fields && "n_enc_layers" in fields && "d_in" in fields;

/** Throws InputError. `max_context` may stand in the file; otherwise it is 2048 for the mini model's shape and 512 for all others. */
export function parseKronosModelConfig(fields: Fields): KronosModelConfig {
  const file = "config.json of a Kronos model";
  const block = blockConfig(fields, file);
  const layers = positiveInteger(fields, "n_layers", file);
  if (block.width % (2 * dependencyHeads) !== 0)
    throw new InputError("config", `${file}: "d_model" ${block.width} must be a multiple of ${2 * dependencyHeads}.`);
  if (typeof fields["learn_te"] !== "boolean")
    throw new InputError("config", `${file}: "learn_te" is ${JSON.stringify(fields["learn_te"]) ?? "missing"}, expected true or false.`);
  return {
    ...block,
    layers,
    coarseBits: bits(fields, "s1_bits", file),
    fineBits: bits(fields, "s2_bits", file),
    learnedTime: fields["learn_te"],
    maximumContext:
      fields["max_context"] === undefined ? publishedContext(block.width, layers) : positiveInteger(fields, "max_context", file),
  };
}

/** Throws InputError. */
export function parseKronosTokenizerConfig(fields: Fields): KronosTokenizerConfig {
  const file = "config.json of a Kronos tokenizer";
  const columns = positiveInteger(fields, "d_in", file);
  if (columns !== candleColumns) throw new InputError("config", `${file}: "d_in" is ${columns}; candles have ${candleColumns} columns.`);
  const [coarseBits, fineBits] = [bits(fields, "s1_bits", file), bits(fields, "s2_bits", file)];
  if (coarseBits !== fineBits)
    throw new InputError(
      "config",
      `${file}: "s1_bits" ${coarseBits} and "s2_bits" ${fineBits} differ; the published decoder is defined for equal numbers only.`,
    );
  return {
    ...blockConfig(fields, file),
    columns,
    encoderBlocks: positiveInteger(fields, "n_enc_layers", file) - 1,
    decoderBlocks: positiveInteger(fields, "n_dec_layers", file) - 1,
    coarseBits,
    fineBits,
  };
}
