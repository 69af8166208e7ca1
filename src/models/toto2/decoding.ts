/** How quantile forecasts are decoded: the options of a request, their published defaults by name, and their checks. Must not know how decoding works. */
import { InputError } from "../input-error.js";
import type { Imputation } from "./imputation.js";

/** Options of one request; absent ones come from the preset. The names are those of the published code. */
export interface QuantileDecoding {
  /** Whose defaults: "wrapper" (the published GluonTS predictor; the default) or "forecast" (the published `forecast()`). */
  readonly preset?: DecodingPreset;
  /** Samples per decoding round, a multiple of the patch; 0 or null = all in a single pass. */
  readonly decodeBlockSize?: number | null;
  /** Whether observed patches skip wholly unobserved ones; false = plain causal attention in the first round. */
  readonly hasMissingValues?: boolean;
  /** Observed samples that patch statistics need before they count; 0 = off. */
  readonly scalerFallbackMinObs?: number;
  /** Scales beyond the observed range that quantiles are held in; 0 = off. */
  readonly quantileRealCapK?: number;
  /** What missing samples of the last context patch become: they count as observed there. */
  readonly imputation?: Imputation;
  /** Cuts the context by the wrapper's rule, so that context and horizon together take at most this many samples. Absent: all of the context. */
  readonly contextLength?: number;
  /** Corrected behaviour, off by default: one xPos centre for all rounds of block decoding. */
  readonly stableCentre?: boolean;
  /** Corrected behaviour, off by default: group ids of the right positions in later rounds of block decoding. */
  readonly placedGroups?: boolean;
}

export type DecodingPreset = "wrapper" | "forecast";

export interface CheckedDecoding {
  readonly blockPatches: number;
  readonly hasMissingValues: boolean;
  readonly fallbackMinimum: number;
  readonly capScales: number;
  readonly imputation: Imputation;
  readonly contextLength: number | undefined;
  readonly corrections: { readonly stableCentre: boolean; readonly placedGroups: boolean };
}

type Defaults = Required<
  Pick<QuantileDecoding, "decodeBlockSize" | "hasMissingValues" | "scalerFallbackMinObs" | "quantileRealCapK" | "imputation">
>;

/** Published defaults (model-spec B.8). */
export const decodingPresets: Readonly<Record<DecodingPreset, Defaults>> = {
  wrapper: { decodeBlockSize: 0, hasMissingValues: true, scalerFallbackMinObs: 8, quantileRealCapK: 1e4, imputation: "ffill" },
  forecast: { decodeBlockSize: 0, hasMissingValues: true, scalerFallbackMinObs: 0, quantileRealCapK: 0, imputation: "none" },
};

const optionNames: Readonly<Record<keyof QuantileDecoding, true>> = {
  preset: true,
  decodeBlockSize: true,
  hasMissingValues: true,
  scalerFallbackMinObs: true,
  quantileRealCapK: true,
  imputation: true,
  contextLength: true,
  stableCentre: true,
  placedGroups: true,
};

const imputations: readonly string[] = ["none", "ffill", "linear"];

function refuse(name: string, value: unknown, expected: string): never {
  throw new InputError("bad-decoding", `${name} is ${JSON.stringify(value) ?? String(value)}, expected ${expected}.`);
}

const isWhole = (value: unknown, from: number): value is number => typeof value === "number" && Number.isInteger(value) && value >= from;

/** Options with defaults filled in, block size in patches. Throws InputError naming the option that does not fit. */
export function checkDecoding(given: QuantileDecoding, patch: number): CheckedDecoding {
  const unknown = Object.keys(given).find((name) => !Object.hasOwn(optionNames, name));
  if (unknown !== undefined)
    throw new InputError("bad-decoding", `unknown decoding option "${unknown}": known options are ${Object.keys(optionNames).join(", ")}.`);
  const preset = given.preset ?? "wrapper";
  if (!Object.hasOwn(decodingPresets, preset)) refuse("preset", preset, `one of ${Object.keys(decodingPresets).join(", ")}`);
  const defaults = decodingPresets[preset];
  const blockSize = (given.decodeBlockSize === undefined ? defaults.decodeBlockSize : given.decodeBlockSize) ?? 0;
  const { scalerFallbackMinObs = defaults.scalerFallbackMinObs, quantileRealCapK = defaults.quantileRealCapK } = given;
  const { hasMissingValues = defaults.hasMissingValues, imputation = defaults.imputation, contextLength } = given;
  if (!isWhole(blockSize, 0) || blockSize % patch !== 0)
    refuse("decodeBlockSize", blockSize, `0 (a single pass) or a multiple of the model's patch of ${patch} samples`);
  if (!isWhole(scalerFallbackMinObs, 0) || scalerFallbackMinObs > 2 ** 31 - 1)
    refuse("scalerFallbackMinObs", scalerFallbackMinObs, "a whole number of samples, 0 = off");
  if (typeof quantileRealCapK !== "number" || !(quantileRealCapK >= 0))
    refuse("quantileRealCapK", quantileRealCapK, "a number of scales, 0 = off");
  if (typeof hasMissingValues !== "boolean") refuse("hasMissingValues", hasMissingValues, "true or false");
  if (!imputations.includes(imputation)) refuse("imputation", imputation, `one of ${imputations.join(", ")}`);
  if (contextLength !== undefined && !isWhole(contextLength, 1))
    refuse("contextLength", contextLength, "a positive whole number of samples");
  for (const name of ["stableCentre", "placedGroups"] as const) {
    if (given[name] !== undefined && typeof given[name] !== "boolean") refuse(name, given[name], "true or false");
  }
  return {
    blockPatches: blockSize / patch,
    hasMissingValues,
    fallbackMinimum: scalerFallbackMinObs,
    capScales: quantileRealCapK,
    imputation,
    contextLength,
    corrections: { stableCentre: given.stableCentre ?? false, placedGroups: given.placedGroups ?? false },
  };
}
