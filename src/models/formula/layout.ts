/**
 * Building blocks of formula checkpoints: tensor records and the layers that real checkpoints are made of.
 * Scales follow the fan-in, so that activations keep unit variance; only + - * / and sqrt are used, because those round alike everywhere.
 */

/** A tensor whose values come from the formula. */
export interface DrawnTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: "F32";
  readonly scale: number;
  readonly offset: number;
}

/** A buffer that holds constants in a real file. */
export interface ConstantTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: "F32" | "I64";
  readonly values: readonly number[];
}

export type FormulaTensor = DrawnTensor | ConstantTensor;

/** Options that steer the generator and have no place in config.json. */
export type GeneratorOptions = Readonly<Record<string, string | boolean>>;

/** How one preset becomes a checkpoint. */
export interface FormulaPreset {
  readonly config: Readonly<Record<string, unknown>>;
  readonly options: GeneratorOptions;
  /** Values an option may take where they are fewer than its type allows. */
  readonly choices?: Readonly<Record<string, readonly string[]>>;
  readonly layout: (config: Readonly<Record<string, unknown>>, options: GeneratorOptions) => FormulaTensor[];
}

export function drawn(name: string, shape: readonly number[], scale: number, offset = 0): DrawnTensor {
  return { name, shape, dtype: "F32", scale, offset };
}

export function constant(name: string, shape: readonly number[], values: readonly number[], dtype: "F32" | "I64" = "F32"): ConstantTensor {
  return { name, shape, dtype, values };
}

/** Norm weight [width]: 1 +- 0.1. */
export function normWeight(name: string, width: number): DrawnTensor {
  return drawn(name, [width], 0.1, 1);
}

export interface LinearOptions {
  /** Standard deviation of the outputs for inputs of unit variance; 1 by default. */
  readonly gain?: number;
  /** Biases lie within +-bias; 0 means the layer has none. 0.1 by default. */
  readonly bias?: number;
  /** What the forward pass multiplies the layer by: stored numbers are the plain ones divided by it. Absent: a plain layer. */
  readonly factor?: number;
}

/** Linear layer: `NAME.weight` [fanOut, fanIn] and, unless `bias` is 0, `NAME.bias` [fanOut]. */
export function linear(
  name: string,
  fanIn: number,
  fanOut: number,
  { gain = 1, bias = 0.1, factor = 1 }: LinearOptions = {},
): DrawnTensor[] {
  const weight = drawn(`${name}.weight`, [fanOut, fanIn], (gain * Math.sqrt(3 / fanIn)) / factor);
  return bias === 0 ? [weight] : [weight, drawn(`${name}.bias`, [fanOut], bias / factor)];
}

/** Unit-scaled linear layer: as `linear`, with a forward factor of 1 / sqrt(fanIn) unless another is given. */
export function unitScaledLinear(name: string, fanIn: number, fanOut: number, options: LinearOptions = {}): DrawnTensor[] {
  return linear(name, fanIn, fanOut, { factor: 1 / Math.sqrt(fanIn), ...options });
}

/** The concatenation of `make(0) ... make(count - 1)`. */
export function repeated(count: number, make: (index: number) => FormulaTensor[]): FormulaTensor[] {
  return Array.from({ length: count }, (_, index) => make(index)).flat();
}

/** Rotary frequencies 10000^(-2j/width), j < width/2, rounded to float32 after every operation as the published code does. */
export function inverseFrequencies(width: number): number[] {
  const round = Math.fround;
  return Array.from({ length: width / 2 }, (_, j) => round(1 / round(10000 ** round((2 * j) / width))));
}
