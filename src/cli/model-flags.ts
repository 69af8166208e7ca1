/**
 * Flags of `tempograph forecast` that belong to one model family: the sampler and calendar of Kronos, the decoding of Toto 2.
 * Turns their text into options; what they mean and whether they fit is checked where the options are used.
 */
import { InputError } from "../forecast/errors.js";
import type { PredictOptions } from "../index.js";

export interface ModelFlags {
  temperature?: string;
  topK?: string;
  topP?: string;
  clip?: string;
  maxContext?: string;
  timeZone?: string;
  calendar?: string;
  consistent?: boolean;
  decodeBlockSize?: string;
  decodingPreset?: string;
  imputation?: string;
}

/** The options that were given; throws InputError for text that is no number where one is needed. */
export function modelOptions(flags: ModelFlags): PredictOptions {
  const decoding = {
    ...(flags.decodingPreset === undefined ? {} : { preset: flags.decodingPreset }),
    ...(flags.decodeBlockSize === undefined ? {} : { decodeBlockSize: numberOf(flags.decodeBlockSize, "--decode-block-size") }),
    ...(flags.imputation === undefined ? {} : { imputation: flags.imputation }),
  };
  return {
    ...candleOptions(flags),
    ...(Object.keys(decoding).length === 0 ? {} : { decoding: decoding as PredictOptions["decoding"] & object }),
  };
}

function candleOptions(flags: ModelFlags): PredictOptions {
  const numbers = [
    ["temperature", "--temperature"],
    ["topK", "--top-k"],
    ["topP", "--top-p"],
    ["clip", "--clip"],
    ["maxContext", "--max-context"],
  ] as const;
  const options: Record<string, unknown> = {};
  for (const [name, flag] of numbers) {
    const text = flags[name];
    if (text !== undefined) options[name] = numberOf(text, flag);
  }
  if (flags.timeZone !== undefined) options["timeZone"] = flags.timeZone;
  if (flags.calendar !== undefined) options["calendar"] = flags.calendar;
  if (flags.consistent !== undefined) options["consistent"] = flags.consistent;
  return options;
}

function numberOf(text: string, flag: string): number {
  if (text.trim() === "" || !Number.isFinite(Number(text))) throw new InputError("bad-flag", `${flag} "${text}" is not a number`);
  return Number(text);
}
