/** Programs as text: plain JSON, size expressions included. Must not know where the text is kept. */
import { SizeExpression } from "./dim.js";
import type { Program } from "./kernel.js";

export const printProgramJson = (program: Program): string => `${JSON.stringify(program, null, 1)}\n`;

const isExpression = (value: object): value is Parameters<typeof SizeExpression.fromJSON>[0] => "terms" in value && "variables" in value;

/** Inverse of `printProgramJson`. Throws what is wrong with the text. */
export function readProgramJson(text: string): Program {
  const value = JSON.parse(text, (_, part: unknown) =>
    typeof part === "object" && part !== null && isExpression(part) ? SizeExpression.fromJSON(part) : part,
  ) as Program;
  for (const field of ["inputs", "states", "outputs", "buffers", "launches", "sources"] as const)
    if (!Array.isArray(value?.[field])) throw new Error(`it is no program: "${field}" is missing`);
  return value;
}
