/**
 * Chosen schedules as a text that outlives the process: what it is about, and reading it back with every field checked. A record that does not fit is no record.
 * Must not know where texts are kept or how schedules are chosen.
 */
import { createHash } from "node:crypto";
import { familyKey } from "./families.js";
import type { Program } from "../../ir/kernel.js";
import { isSchedule, type KernelSchedule } from "../../ir/schedule.js";

export interface ChosenSchedule {
  readonly schedule: KernelSchedule;
  /** Share of the kernel's time that it saved when it was chosen. */
  readonly gain: number;
}

export interface ScheduleRecord {
  /** Of the search that chose them. */
  readonly seconds: number;
  readonly candidates: number;
  /** By family key; families that are not named keep their usual schedule. */
  readonly chosen: ReadonlyMap<string, ChosenSchedule>;
}

const format = "tempograph-schedule-2";

/** What the chosen schedules hold for: the program with its usual schedules (so any change of generated text is another key), the class of sizes, the machine. */
export function recordKey(programKey: string, usual: Program, shapeClass: string, machine: string): string {
  const hash = createHash("sha256").update(`${format}\n${programKey}\n${shapeClass}\n${machine}\n`);
  for (const launch of usual.launches) hash.update(`${familyKey(launch)}\n`);
  return hash.digest("hex");
}

export function printRecord({ seconds, candidates, chosen }: ScheduleRecord): string {
  const kernels = [...chosen].map(([family, { schedule, gain }]) => ({ family, gain, schedule }));
  return `${JSON.stringify({ format, seconds, candidates, kernels }, null, 1)}\n`;
}

const isCount = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value) && value >= 0;

/** The record in a text; undefined when it is none, or speaks of families that the program does not have. */
export function readRecord(text: string, families: ReadonlySet<string>): ScheduleRecord | undefined {
  let value: { format?: unknown; seconds?: unknown; candidates?: unknown; kernels?: unknown } | null;
  try {
    value = JSON.parse(text) as typeof value;
  } catch {
    return undefined;
  }
  if (value?.format !== format || !isCount(value.seconds) || !isCount(value.candidates) || !Array.isArray(value.kernels)) return undefined;
  const chosen = new Map<string, ChosenSchedule>();
  for (const kernel of value.kernels as ({ family?: unknown; gain?: unknown; schedule?: unknown } | null)[]) {
    if (typeof kernel?.family !== "string" || !families.has(kernel.family) || !isCount(kernel.gain) || !isSchedule(kernel.schedule))
      return undefined;
    chosen.set(kernel.family, { schedule: kernel.schedule, gain: kernel.gain });
  }
  return { seconds: value.seconds, candidates: value.candidates, chosen };
}
