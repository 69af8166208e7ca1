/** Kernels -> kernels with schedules: a prologue that is to be computed apart becomes a row kernel before its contraction. Must not know why a schedule was chosen. */
import type { ContractionKernel, Kernel, RowKernel } from "../ir/kernel.js";
import type { KernelSchedule } from "../ir/schedule.js";
import { iterationShape } from "./fuse.js";

/** The schedule asked for a kernel; undefined = the usual one. */
export type ChooseSchedule = (kernel: Kernel, index: number) => KernelSchedule | undefined;

export interface ScheduledKernels {
  readonly kernels: readonly Kernel[];
  readonly schedules: ReadonlyMap<Kernel, KernelSchedule>;
}

/** Whether the rows a contraction computes for x could be stored by a kernel of their own. */
export const hasPrologue = (kernel: Kernel): kernel is ContractionKernel => kernel.kind === "contraction" && kernel.prologue.length > 0;

function apart(kernel: ContractionKernel): readonly [RowKernel, ContractionKernel] {
  const [first] = kernel.prologue as readonly [(typeof kernel.prologue)[number]];
  const rows: RowKernel = { kind: "rows", rowShape: iterationShape(first).rowShape, values: kernel.prologue, stores: [kernel.x] };
  return [rows, { ...kernel, prologue: [] }];
}

export function scheduleKernels(kernels: readonly Kernel[], choose: ChooseSchedule): ScheduledKernels {
  const schedules = new Map<Kernel, KernelSchedule>();
  const scheduled = kernels.flatMap((kernel, index) => {
    const schedule = choose(kernel, index);
    if (!schedule) return [kernel];
    const parts = schedule.kind === "contraction" && schedule.prologue === "separate" && hasPrologue(kernel) ? apart(kernel) : [kernel];
    schedules.set(parts[parts.length - 1] as Kernel, schedule);
    return parts;
  });
  return { kernels: scheduled, schedules };
}
