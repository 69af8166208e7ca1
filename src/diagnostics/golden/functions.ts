/** What computes the tensors of golden cases, by the `function` of a case: one row per model family. */
import { kronosGoldens } from "./kronos.js";
import type { GoldenFunctions } from "./run.js";
import { toto1Goldens } from "./toto1.js";
import { toto2Goldens } from "./toto2.js";

export const goldenFunctions: GoldenFunctions = { ...toto1Goldens, ...kronosGoldens, ...toto2Goldens };
