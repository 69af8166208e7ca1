/** What a loaded model's compiled programs are made of: plain data for inspection. Must not know any family. */
import type { Device, KernelProfile } from "../runtime/device.js";
import type { CheckReport, CompileReport } from "../trace/entry.js";

export interface ProgramInspection extends CompileReport {
  /** Time per launch of the last call run again, in launch order; absent when not asked for, or when the last call was no single program. */
  readonly profile?: readonly KernelProfile[];
}

/** What a model's compiled programs are made of. */
export interface ModelInspection {
  readonly device: {
    readonly description: string;
    readonly target: string;
    readonly threads: number;
    /** Weights, caches and arenas. */
    readonly allocatedBytes: number;
    /** Kernels built by a compiler and taken from the artifact cache since the device was opened, and the time of both. */
    readonly kernelsCompiled: number;
    readonly cacheHits: number;
    readonly buildMilliseconds: number;
  };
  readonly programs: readonly ProgramInspection[];
}

interface Inspectable {
  report(): CompileReport;
  profileLast(): KernelProfile[];
}

/** Programs that never ran are left out. With `profile` each runs its last call again, state writes included: only for a model that is idle. */
export function inspectPrograms(device: Device, programs: readonly Inspectable[], profile: boolean): ModelInspection {
  const { compiled, cacheHits, milliseconds } = device.builds;
  return {
    device: {
      description: device.description,
      target: device.target,
      threads: device.capabilities.threads,
      allocatedBytes: device.allocatedBytes,
      kernelsCompiled: compiled,
      cacheHits,
      buildMilliseconds: milliseconds,
    },
    programs: programs
      .map((program) => ({ program, report: program.report() }))
      .filter(({ report }) => report.calls > 0)
      .map(({ program, report }) => {
        const whole = report.brokenSegments.count === 0;
        return profile && whole ? { ...report, profile: program.profileLast() } : report;
      }),
  };
}

/** What the checks of all programs compared; nothing when no check was asked for. */
export function checksOf(reports: readonly CompileReport[]): { readonly check?: CheckReport } {
  const checks = reports.flatMap(({ check }) => check ?? []);
  if (checks.length === 0) return {};
  const sum = (field: keyof CheckReport): number => checks.reduce((total, check) => total + check[field], 0);
  return { check: { runs: sum("runs"), values: sum("values"), outputs: sum("outputs"), states: sum("states"), elements: sum("elements") } };
}
