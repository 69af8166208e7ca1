/**
 * Running golden cases through a table of functions and collecting the report that `tempograph golden --json` prints.
 * Knows no model: the functions are passed in.
 */

import { goldenCaseName, loadGoldenCase } from "./case.js";
import type { GoldenCase } from "./case.js";
import { compareCase } from "./compare.js";
import type { GoldenAnswer, GoldenProgram, TensorResult } from "./compare.js";

export interface GoldenContext {
  readonly device: string;
  readonly mode: string;
  readonly program: GoldenProgram;
}

/**
 * Computes the tensors of one case, by their names in case.json. On `taps` all of them; on `product` what the product programs have, with the
 * final ones among it; tensors the case does not list are ignored. Must throw for options and presets it does not know.
 */
export type GoldenFunction = (golden: GoldenCase, context: GoldenContext) => Promise<ReadonlyMap<string, GoldenAnswer>>;

/** From `function` in case.json to what computes it. */
export type GoldenFunctions = Readonly<Record<string, GoldenFunction>>;

export interface CaseResult {
  readonly name: string;
  readonly function: string;
  readonly device: string;
  readonly mode: string;
  readonly program: GoldenProgram;
  /** error: the case could not be run, so nothing was compared. */
  readonly status: "pass" | "fail" | "error";
  readonly reason?: string;
  readonly tensors: readonly TensorResult[];
}

export interface GoldenReport {
  readonly cases: readonly CaseResult[];
  /** Runs, two per case: taps and product. */
  readonly passed: number;
  readonly failed: number;
  readonly errors: number;
}

export interface GoldenRunOptions {
  readonly device: string;
  readonly mode: string;
  readonly functions: GoldenFunctions;
  /** Both by default. */
  readonly programs?: readonly GoldenProgram[];
  /** Called after each run. */
  readonly onResult?: (result: CaseResult) => void;
  /** Aborting stops before the next run by throwing its reason. */
  readonly signal?: AbortSignal;
}

/** Runs each case folder on every program, one after another. A fault in a case becomes its result; nothing else is caught. */
export async function runGoldenCases(folders: readonly string[], options: GoldenRunOptions): Promise<GoldenReport> {
  const cases: CaseResult[] = [];
  for (const folder of folders) {
    for (const program of options.programs ?? (["taps", "product"] as const)) {
      options.signal?.throwIfAborted();
      const result = await runCase(folder, program, options);
      cases.push(result);
      options.onResult?.(result);
    }
  }
  const count = (status: CaseResult["status"]): number => cases.filter((result) => result.status === status).length;
  return { cases, passed: count("pass"), failed: count("fail"), errors: count("error") };
}

async function runCase(folder: string, program: GoldenProgram, options: GoldenRunOptions): Promise<CaseResult> {
  const { device, mode, functions } = options;
  let name = goldenCaseName(folder);
  let functionName = "";
  try {
    const golden = loadGoldenCase(folder);
    name = golden.name;
    functionName = golden.function;
    const run = Object.hasOwn(functions, functionName) ? functions[functionName] : undefined;
    if (!run) throw new Error(`unknown function "${functionName}"; known: ${Object.keys(functions).join(", ") || "none"}`);
    const tensors = compareCase(golden, await run(golden, { device, mode, program }), program);
    const bad = tensors.find((tensor) => !tensor.pass);
    return {
      name,
      function: functionName,
      device,
      mode,
      program,
      status: bad ? "fail" : "pass",
      ...(bad && { reason: `${bad.name}: ${bad.reason ?? "differs"}` }),
      tensors,
    };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { name, function: functionName, device, mode, program, status: "error", reason, tensors: [] };
  }
}
