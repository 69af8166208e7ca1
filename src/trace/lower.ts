/** Graph -> loaded segment: runs the passes, fuses, renders, and writes every stage to TEMPOGRAPH_DUMP when that is set. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildProgram, buildProgramsTogether, kernelName, type KernelGraph, kernelNodes, printProgram } from "../codegen/program.js";
import { printGraph, type Graph } from "../ir/graph.js";
import type { Kernel, Program } from "../ir/kernel.js";
import { readProgramJson } from "../ir/serialise.js";
import { verifyGraph } from "../ir/verify.js";
import { fuseKernels } from "../passes/fuse.js";
import { materialise } from "../passes/materialise.js";
import { announceProgram, isHeard, programKey } from "./ahead.js";
import { scheduleKernels, type ChooseSchedule } from "../passes/schedule-kernels.js";
import { pruneRows } from "../passes/prune-rows.js";
import { dropDeadNodes } from "../passes/simplify.js";
import type { CompiledGraph, Device } from "../runtime/device.js";

export type Mode = "eager" | "default" | "reduce-overhead" | "max-autotune";

export const modes: readonly Mode[] = ["eager", "default", "reduce-overhead", "max-autotune"];

type Pass = readonly [name: string, apply: (graph: Graph) => Graph];

/** In this order; eager runs none of them. */
const passes: readonly Pass[] = [
  ["drop-dead-nodes", dropDeadNodes],
  ["prune-rows", pruneRows],
  ["drop-pruned-nodes", dropDeadNodes],
];

/** Last, and in every mode: kernels read plain memory. */
const materialisePass: Pass = ["materialise", materialise];

function printKernels(kernels: readonly Kernel[]): string {
  return kernels
    .map(
      (kernel, index) =>
        `kernel ${index} ${kernel.kind} ${kernelName(kernel)}: ${kernelNodes(kernel)
          .map((node) => `${node.op}${node.label ? `(${node.label})` : ""}`)
          .join(" -> ")}\n`,
    )
    .join("");
}

class Dump {
  readonly #folder: string | undefined;

  constructor(name: string) {
    const root = process.env["TEMPOGRAPH_DUMP"];
    this.#folder = root ? join(root, name.replace(/[^\w.-]+/g, "_")) : undefined;
  }

  write(path: string, text: () => string): void {
    if (!this.#folder) return;
    const file = join(this.#folder, path);
    mkdirSync(join(file, ".."), { recursive: true });
    writeFileSync(file, text());
  }
}

interface Prepared extends KernelGraph {
  readonly fuse: boolean;
  readonly dump: Dump;
}

/** Runs the passes and, for devices that run Programs, fuses. */
function prepare(traced: Graph, device: Device, mode: Mode, choose?: ChooseSchedule): Prepared {
  verifyGraph(traced);
  const dump = new Dump(`${traced.name}-${mode}`);
  dump.write("10-trace.txt", () => printGraph(traced));
  const fuse = mode !== "eager";
  const chosen = [...(fuse ? passes : []), ...(device.name === "reference" ? [] : [materialisePass])];
  let graph = traced;
  chosen.forEach(([name, apply], index) => {
    graph = apply(graph);
    dump.write(`20-passes/${String(index + 1).padStart(2, "0")}-${name}.txt`, () => printGraph(graph));
  });
  if (chosen.length > 0) verifyGraph(graph);
  const fused = device.name === "reference" ? [] : fuseKernels(graph, { fuse });
  const scheduled = choose ? scheduleKernels(fused, choose) : { kernels: fused };
  dump.write("30-kernels.txt", () => printKernels(scheduled.kernels));
  return { graph, ...scheduled, fuse, dump };
}

function dumpProgram({ dump }: Prepared, program: Program): void {
  for (const source of program.sources) dump.write(`40-source/${source.name}.c`, () => source.text);
  dump.write("50-plan.txt", () => printProgram(program));
}

/** Compiles a traced graph for a device. The reference device reads the graph and needs no kernels. */
export function lowerGraph(traced: Graph, device: Device, mode: Mode): CompiledGraph {
  const key = device.programAhead || isHeard() ? programKey(traced, mode !== "eager", device.target) : "";
  const ahead = device.programAhead?.(key);
  if (ahead) return { graph: traced, program: readProgramJson(ahead), reuse: mode !== "eager" };
  const prepared = prepare(traced, device, mode);
  const program = device.name === "reference" ? emptyProgram(prepared.graph) : buildProgram(prepared, device.target);
  dumpProgram(prepared, program);
  if (isHeard()) announceProgram(key, program);
  return { graph: prepared.graph, program, reuse: prepared.fuse };
}

/** The same for many small graphs whose kernels share one C file, named `name`: one run of the compiler. */
export function lowerGraphsTogether(
  name: string,
  traced: readonly { readonly graph: Graph; readonly mode: Mode; readonly choose?: ChooseSchedule }[],
  device: Device,
): CompiledGraph[] {
  const prepared = traced.map(({ graph, mode, choose }) => prepare(graph, device, mode, choose));
  const programs =
    device.name === "reference" ? prepared.map(({ graph }) => emptyProgram(graph)) : buildProgramsTogether(name, prepared, device.target);
  return prepared.map((one, index) => ({ graph: one.graph, program: programs[index] as Program, reuse: one.fuse }));
}

const emptyProgram = (graph: Graph): Program => ({
  name: graph.name,
  inputs: [],
  states: graph.states,
  outputs: [],
  buffers: [],
  launches: [],
  sources: [],
});
