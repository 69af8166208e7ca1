/** What a report says of one specialization: its programs, states and schedules. Must not know how it came to be. */
import type { Device, Executable } from "../runtime/device.js";
import { hasSchedules } from "./autotune/executable.js";
import { autotuned } from "./loader.js";
import type { Mode } from "./lower.js";
import { sumOf, type ScheduleReport, type SpecializationReport } from "./report.js";
import type { Specialization } from "./specialization.js";

export function specializationReport({ key, executables, replayable }: Specialization, mode: Mode, device: Device): SpecializationReport {
  const { count: segments, ...sum } = sumOf(executables);
  const states = [...(replayable?.segment.states.values() ?? [])];
  const bytes = (kind: string): number =>
    states.reduce((total, { declaration, buffer }) => total + (declaration.kind === kind ? buffer.bytes : 0), 0);
  const nodes = replayable?.segment.graph.nodes.length ?? 0;
  const schedules = executables.flatMap((executable) => schedulesOf(executable, mode, device));
  const listed = states.map(({ name, shape, declaration: { kind, layout, dtype }, buffer: { bytes: size } }) => {
    return { name, kind, layout, dtype, shape, bytes: size };
  });
  const sizes = { constantBytes: bytes("constant"), mutableBytes: bytes("mutable") };
  return { key, segments, ...sum, nodes, ...sizes, states: listed, schedules };
}

function schedulesOf(executable: Executable, mode: Mode, device: Device): readonly ScheduleReport[] {
  const tuned = autotuned(executable);
  if (tuned) return tuned.schedules;
  if (mode !== "max-autotune" || hasSchedules(device)) return [];
  const reason = `the ${device.name} device interprets the graph; it has no kernels to schedule`;
  return [{ shape: "any", source: "usual", reason, seconds: 0, candidates: 0, kernels: [] }];
}
