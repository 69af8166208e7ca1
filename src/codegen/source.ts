/** C files from kernel texts: one kernel each, or many kernels in one file that is compiled once. Must not know what kernels compute. */
import type { SourceFile } from "../ir/kernel.js";
import type { TargetIsa } from "./helpers.js";
import { prelude } from "./prelude.js";

/** One kernel's C text, without the prelude. */
export interface KernelText {
  readonly symbol: string;
  /** Static functions that it calls besides the helpers; equal texts may be shared inside a file. */
  readonly functions: readonly string[];
  readonly body: string;
}

/** 32-bit FNV-1a, as eight hexadecimal digits: names a kernel by its text. */
export function textHash(text: string): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, "0");
}

/** One file that exports every kernel of `kernels`; equal symbols must be equal kernels. */
export function sourceFile(name: string, kernels: readonly KernelText[], isa: TargetIsa): SourceFile {
  const distinct = [...new Map(kernels.map((kernel) => [kernel.symbol, kernel])).values()];
  const functions = [...new Set(distinct.flatMap((kernel) => kernel.functions))];
  const body = [...functions, ...distinct.map((kernel) => kernel.body)].join("\n");
  return { name, symbols: distinct.map(({ symbol }) => symbol), text: `${prelude(isa, body)}\n${body}` };
}
