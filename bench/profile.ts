/** Where a run spends its time: kernels of one family together, beside what the limits allow them, and what is left outside kernels. */
import type { RecordedRuns } from "../src/runtime/device.js";
import type { Limits } from "./limits.js";

export interface KernelShare {
  /** Program and kernel family, for example `toto1.decode rmsNorm_linear_768x2304`. */
  readonly kernel: string;
  readonly launches: number;
  readonly milliseconds: number;
  /** Of all time in kernels. */
  readonly share: number;
  /** What its contractions allow at the measured limits; 0 for kernels whose work is not counted (attention, scans, draws, row-wise work). */
  readonly limitMs: number;
}

export interface RunProfile {
  /** Replays of compiled programs in one run, and foreign calls that made them. */
  readonly programRuns: number;
  readonly foreignCalls: number;
  readonly kernelMs: number;
  /** Inside `run` of the programs but outside their kernels: arguments, calls, hand-over to the dispatcher and back, copies of answers. */
  readonly outsideKernelsMs: number;
  readonly outsideKernelsMicrosecondsPerProgramRun: number;
  /** In the whole run but in no program: checks, layout, answers in the caller's units. */
  readonly outsideProgramsMs: number;
  readonly kernels: readonly KernelShare[];
}

/** Symbols end in a hash of their text. */
const familyOf = (symbol: string): string => symbol.replace(/_[0-9a-f]{6,}(_\d+)?$/, "");

export function profileOf(recorded: RecordedRuns, wholeMs: number, { fmaGflops, streamGBs }: Limits): RunProfile {
  const kernelMs = recorded.kernels.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  const families = new Map<string, { launches: number; milliseconds: number; limitMs: number }>();
  for (const { program, symbol, launches, milliseconds, flops, bytes } of recorded.kernels) {
    const key = `${program} ${familyOf(symbol)}`;
    const sum = families.get(key) ?? { launches: 0, milliseconds: 0, limitMs: 0 };
    sum.launches += launches;
    sum.milliseconds += milliseconds;
    sum.limitMs += launches * Math.max(flops / fmaGflops, bytes / streamGBs) * 1e-6;
    families.set(key, sum);
  }
  const outsideKernelsMs = recorded.milliseconds - kernelMs;
  return {
    programRuns: recorded.runs,
    foreignCalls: recorded.foreignCalls,
    kernelMs,
    outsideKernelsMs,
    outsideKernelsMicrosecondsPerProgramRun: (outsideKernelsMs * 1000) / Math.max(1, recorded.runs),
    outsideProgramsMs: wholeMs - recorded.milliseconds,
    kernels: [...families]
      .map(([kernel, sum]) => ({ kernel, ...sum, share: sum.milliseconds / kernelMs }))
      .sort((a, b) => b.milliseconds - a.milliseconds),
  };
}
