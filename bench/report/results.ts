/** The result files of one machine, read back and put together. Must not know how they are shown. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Curve } from "../curves.js";
import type { Limits } from "../limits.js";
import type { Result } from "../measure.js";
import type { Start } from "../startup.js";
import type { StepCost } from "../steps.js";

export interface ReportFile {
  readonly machine: { readonly cpu: string; readonly cores: number; readonly memoryGiB: number; readonly isa: string };
  readonly versions: Readonly<Record<string, string>>;
  readonly limits: { readonly threads: Readonly<Record<string, Limits>> };
  readonly results: readonly Result[];
  readonly start?: { readonly cold: Start; readonly warm: Start };
  readonly steps?: readonly StepCost[];
  readonly curves?: readonly Curve[];
}

export interface Results {
  readonly files: readonly ReportFile[];
  readonly results: readonly Result[];
  readonly start: ReportFile["start"];
  readonly steps: readonly StepCost[];
  readonly curves: readonly Curve[];
}

/** Files without measured limits hold something else: the log analyser's throughput, accuracies. Throws when the others are of several machines: their figures must not stand in one table. */
export function readResults(folder: string): Results {
  const names = readdirSync(folder)
    .filter((name) => name.endsWith(".json"))
    .sort();
  if (names.length === 0) throw new Error(`${folder} holds no results; npm run bench -- --json FILE writes them`);
  const files = names
    .map((name) => JSON.parse(readFileSync(join(folder, name), "utf8")) as ReportFile)
    .filter(({ limits }) => (limits as ReportFile["limits"] | undefined) !== undefined);
  const machines = new Set(files.map(({ machine }) => JSON.stringify(machine)));
  if (machines.size > 1) throw new Error(`${folder} holds results of ${machines.size} machines: ${[...machines].join(", ")}`);
  return {
    files,
    results: files.flatMap(({ results }) => results),
    start: files.map(({ start }) => start).find((start) => start !== undefined),
    steps: files.flatMap(({ steps = [] }) => steps),
    curves: files.flatMap(({ curves = [] }) => curves),
  };
}
