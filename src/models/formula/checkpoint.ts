/**
 * Formula checkpoints: a preset, a seed and overrides become a configuration and a tensor source that computes values when read.
 * Nothing touches the disk. The bits equal those of the published generator script for the same preset, seed and overrides.
 */

import { InputError } from "../input-error.js";
import type { Checkpoint, StoredData, TensorInfo, TensorSource } from "../tensor-source.js";
import { fillFormula, streamOf } from "./generator.js";
import { kronosPresets } from "./kronos.js";
import type { DrawnTensor, FormulaPreset, FormulaTensor } from "./layout.js";
import { toto1Presets } from "./toto1.js";
import { toto2Presets } from "./toto2.js";

const presets: Readonly<Record<string, FormulaPreset>> = { ...toto1Presets, ...toto2Presets, ...kronosPresets };

const bytesPerElement = { F32: 4, I64: 8 } as const;

export interface FormulaRequest {
  /** 0 .. 2^32 - 1; 0 by default. */
  readonly seed?: number;
  /** Overrides: a generator option of the preset's family (`mlp`, `labels`, `rotary`, `buffers`) or a field of its configuration. */
  readonly set?: Readonly<Record<string, unknown>>;
}

/** Names of all presets. */
export function formulaPresets(): readonly string[] {
  return Object.keys(presets);
}

/**
 * The checkpoint of `presetName`. Tensors are ordered widest dtype first, then by name, as safetensors files are.
 * Throws `InputError` for an unknown preset, a seed out of range, a generator option of the wrong type, or overrides that give impossible shapes.
 */
export function formulaCheckpoint(presetName: string, { seed = 0, set = {} }: FormulaRequest = {}): Checkpoint {
  const preset = Object.hasOwn(presets, presetName) ? presets[presetName] : undefined;
  if (!preset) {
    throw new InputError("formula-preset", `unknown formula preset "${presetName}"; known presets: ${Object.keys(presets).join(", ")}`);
  }
  if (!Number.isInteger(seed) || seed < 0 || seed > 0xffffffff) {
    throw new InputError("formula-seed", `formula weights: seed is ${seed}, expected an integer from 0 to 4294967295`);
  }
  const config: Record<string, unknown> = structuredClone(preset.config);
  const options: Record<string, string | boolean> = { ...preset.options };
  for (const [key, value] of Object.entries(set)) {
    if (Object.hasOwn(options, key)) options[key] = checkedOption(preset, presetName, key, value);
    else config[key] = structuredClone(value);
  }
  const tensors = preset.layout(config, options);
  for (const tensor of tensors) checkShape(presetName, tensor);
  tensors.sort((a, b) => bytesPerElement[b.dtype] - bytesPerElement[a.dtype] || (a.name < b.name ? -1 : 1));
  return { config, source: new FormulaSource(`formula preset ${presetName}, seed ${seed}`, tensors, seed) };
}

function checkedOption(preset: FormulaPreset, presetName: string, key: string, value: unknown): string | boolean {
  const choices = preset.choices?.[key];
  const isValid = choices ? typeof value === "string" && choices.includes(value) : typeof value === "boolean";
  if (!isValid) {
    const expected = choices ? choices.map((choice) => `"${choice}"`).join(" or ") : "true or false";
    throw new InputError(
      "formula-option",
      `formula preset ${presetName}: option "${key}" is ${JSON.stringify(value)}, expected ${expected}`,
    );
  }
  return value as string | boolean;
}

function checkShape(presetName: string, tensor: FormulaTensor): void {
  if (tensor.shape.every((size) => Number.isInteger(size) && size > 0)) return;
  const shape = tensor.shape.join(", ");
  throw new InputError(
    "formula-shape",
    `formula preset ${presetName}: ${tensor.name} would have shape [${shape}]; check the overridden config fields`,
  );
}

function isDrawn(tensor: FormulaTensor): tensor is DrawnTensor {
  return "scale" in tensor;
}

class FormulaSource implements TensorSource {
  readonly label: string;
  readonly #tensors: ReadonlyMap<string, FormulaTensor>;
  readonly #seed: number;

  constructor(label: string, tensors: readonly FormulaTensor[], seed: number) {
    this.label = label;
    this.#tensors = new Map(tensors.map((tensor) => [tensor.name, tensor]));
    this.#seed = seed;
  }

  names(): readonly string[] {
    return [...this.#tensors.keys()];
  }

  info(name: string): TensorInfo | undefined {
    const tensor = this.#tensors.get(name);
    return tensor && { dtype: tensor.dtype, shape: tensor.shape };
  }

  read(name: string): Float32Array {
    const target = new Float32Array(elementCount(this.#require(name)));
    this.readInto(name, target);
    return target;
  }

  readInto(name: string, target: Float32Array): void {
    const tensor = this.#require(name);
    const count = elementCount(tensor);
    if (tensor.dtype !== "F32") {
      throw new InputError(
        "checkpoint-tensor",
        `${this.label}: tensor "${name}" has dtype ${tensor.dtype}, expected a floating-point tensor`,
      );
    }
    if (target.length !== count)
      throw new RangeError(`${this.label}: tensor "${name}" has ${count} elements, the target has ${target.length}`);
    if (isDrawn(tensor)) fillFormula(target, streamOf(name, this.#seed), tensor.scale, tensor.offset);
    else target.set(tensor.values);
  }

  readRange(name: string, first: number, target: Float32Array): void {
    const tensor = this.#require(name);
    const count = elementCount(tensor);
    if (!Number.isInteger(first) || first < 0 || first + target.length > count)
      throw new RangeError(`${this.label}: tensor "${name}" has ${count} elements, not ${target.length} from ${first} on`);
    if (isDrawn(tensor)) fillFormula(target, streamOf(name, this.#seed), tensor.scale, tensor.offset, first);
    else target.set(this.read(name).subarray(first, first + target.length));
  }

  readStored(name: string): StoredData {
    const tensor = this.#require(name);
    if (!isDrawn(tensor) && tensor.dtype === "I64") return BigInt64Array.from(tensor.values, BigInt);
    return this.read(name);
  }

  close(): void {
    // Nothing is held.
  }

  #require(name: string): FormulaTensor {
    const tensor = this.#tensors.get(name);
    if (!tensor) throw new InputError("checkpoint-tensor", `${this.label}: there is no tensor "${name}"`);
    return tensor;
  }
}

function elementCount(tensor: FormulaTensor): number {
  return tensor.shape.reduce((count, size) => count * size, 1);
}
