/** What a search asks whoever carries it out for, and what it finds out about a family. Types alone. */
import type { KernelSchedule } from "../../ir/schedule.js";
import type { Executable } from "../../runtime/device.js";
import type { OrderedTrial, Trial } from "../lower.js";
import type { KernelFamily } from "./families.js";

/** What a search asks for: programs to be loaded, the time of one in ms, its first and last launches left out, or the times of all its launches. */
export type SearchStep =
  | { readonly kind: "build"; readonly trials: readonly (Trial | OrderedTrial)[] }
  | { readonly kind: "time"; readonly executable: Executable; readonly trial: Trial }
  | { readonly kind: "profile"; readonly executable: Executable };

/** Yields steps and is given their answers: executables, or milliseconds. */
export type Search<T> = Generator<SearchStep, T, unknown>;

export interface FamilyOutcome {
  readonly family: KernelFamily;
  /** The usual one when no candidate was better beyond the spread. */
  readonly schedule: KernelSchedule;
  /** Share of the kernel's time that it saves. */
  readonly gain: number;
  readonly tried: number;
}
