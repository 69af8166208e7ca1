/**
 * Undocumented second entry for the project's own commands and diagnostics: what users should not build on.
 */
import type { GoldenFunctions } from "./diagnostics/golden/run.js";

/** What computes the tensors of golden cases, by the `function` of a case. */
export const goldenFunctions: GoldenFunctions = {};
