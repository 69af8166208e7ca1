/** Graph -> loaded segment: runs the passes, fuses, renders, and writes every stage to TEMPOGRAPH_DUMP when that is set. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildProgram, kernelName, kernelNodes, printProgram } from "../codegen/program.js";
import { printGraph, type Graph } from "../ir/graph.js";
import type { Kernel } from "../ir/kernel.js";
import { verifyGraph } from "../ir/verify.js";
import { fuseKernels } from "../passes/fuse.js";
import { materialise } from "../passes/materialise.js";
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

/** Compiles a traced graph for a device. The reference device reads the graph as traced and needs no kernels. */
export function lowerGraph(traced: Graph, device: Device, mode: Mode): CompiledGraph {
  verifyGraph(traced);
  const dump = new Dump(`${traced.name}-${mode}`);
  dump.write("10-trace.txt", () => printGraph(traced));
  const fuse = mode !== "eager";
  let graph = traced;
  if (fuse) {
    passes.forEach(([name, apply], index) => {
      graph = apply(graph);
      dump.write(`20-passes/${String(index + 1).padStart(2, "0")}-${name}.txt`, () => printGraph(graph));
    });
    verifyGraph(graph);
  }
  if (device.name === "reference") return { graph, program: emptyProgram(graph), reuse: fuse };
  graph = materialise(graph);
  dump.write("20-passes/09-materialise.txt", () => printGraph(graph));
  verifyGraph(graph);
  const kernels = fuseKernels(graph, { fuse });
  dump.write("30-kernels.txt", () => printKernels(kernels));
  const program = buildProgram({ graph, kernels }, device.target);
  for (const source of program.sources) dump.write(`40-source/${source.name}.c`, () => source.text);
  dump.write("50-plan.txt", () => printProgram(program));
  return { graph, program, reuse: fuse };
}

const emptyProgram = (graph: Graph): CompiledGraph["program"] => ({
  name: graph.name,
  inputs: [],
  states: graph.states,
  outputs: [],
  buffers: [],
  launches: [],
  sources: [],
});
