/** Graph -> loaded segment: runs the passes, fuses, renders, and writes every stage to TEMPOGRAPH_DUMP when that is set. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildProgram, buildProgramsTogether, kernelName, type KernelGraph, kernelNodes, printProgram } from "../codegen/program.js";
import { printGraph, type Graph } from "../ir/graph.js";
import type { Kernel, Program } from "../ir/kernel.js";
import type { KernelSchedule } from "../ir/schedule.js";
import { readProgramJson } from "../ir/serialise.js";
import { verifyGraph } from "../ir/verify.js";
import { fuseKernels } from "../passes/fuse.js";
import { materialise } from "../passes/materialise.js";
import { announceProgram, isHeard, programKey } from "./ahead.js";
import { ProgramRecord } from "./program-records.js";
import { scheduleKernels, type ChooseSchedule, type ScheduledKernels } from "../passes/schedule-kernels.js";
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

/**
 * Compiles a traced graph for a device, or takes what an earlier process made of it unless it is to be `fresh`. The reference device reads the graph and needs no
 * kernels.
 */
export function lowerGraph(traced: Graph, device: Device, mode: Mode, fresh = false): CompiledGraph {
  const ahead = graphAhead(traced, device, mode);
  if (ahead) return ahead;
  // Who dumps the stages, or hears of programs for a bundle, wants them made as well.
  const wanted = fresh || process.env["TEMPOGRAPH_PROGRAMS"] === "fresh" || process.env["TEMPOGRAPH_DUMP"] !== undefined || isHeard();
  const record = wanted ? undefined : ProgramRecord.of(traced, device, () => programKey(traced, mode !== "eager", device.target));
  const known = record?.find();
  if (known) return aheadOf(traced, device, mode, known);
  const made = lowerPrepared(traced, prepare(traced, device, mode), device);
  record?.add(made.program);
  return made;
}

/** The program of a graph that was made ahead of time; with a class of sizes, the one whose schedules were chosen for it. */
export function graphAhead(traced: Graph, device: Device, mode: Mode, shapeClass?: string): CompiledGraph | undefined {
  const ahead = device.programAhead?.(programKey(traced, mode !== "eager", device.target, shapeClass));
  return ahead === undefined ? undefined : aheadOf(traced, device, mode, readProgramJson(ahead));
}

/** A program made ahead of time; the graph that its launches refer to is only made when somebody asks. */
function aheadOf(traced: Graph, device: Device, mode: Mode, program: Program): CompiledGraph {
  return {
    program,
    reuse: mode !== "eager",
    get graph() {
      return prepare(traced, device, mode).graph;
    },
  };
}

function lowerPrepared(traced: Graph, prepared: Prepared, device: Device, shapeClass?: string): CompiledGraph {
  const program = device.name === "reference" ? emptyProgram(prepared.graph) : buildProgram(prepared, device.target);
  dumpProgram(prepared, program);
  if (isHeard()) announceProgram(programKey(traced, prepared.fuse, device.target, shapeClass), program);
  return { graph: prepared.graph, program, reuse: prepared.fuse };
}

/** A small program that runs members of one kernel family for their time alone. */
export interface Trial {
  readonly compiled: CompiledGraph;
  /** Launches at its start that only warm up, and at its end that only wait for every thread. */
  readonly before: number;
  readonly after: number;
}

/** A program that runs many kernels for their times alone. */
export interface OrderedTrial {
  readonly compiled: CompiledGraph;
  /** Launch at which each kernel begins, and last the one that only waits for every thread: a schedule may make two launches of a kernel. */
  readonly starts: readonly number[];
}

/** A fused graph whose kernels' schedules are open. */
export interface OpenGraph {
  readonly usual: CompiledGraph;
  /** The program of `usual` has one launch of each, in this order. */
  readonly kernels: readonly Kernel[];
  /** The whole graph with schedules chosen for a class of sizes. */
  scheduled(choose: ChooseSchedule, shapeClass: string): CompiledGraph;
  /** Members of one family under each of the schedules; undefined is the usual one. Kernels with new text share one C file. */
  trials(members: readonly Kernel[], schedules: readonly (KernelSchedule | undefined)[]): Trial[];
  /** The kernels at these positions, one after the other, each with the schedule chosen for its position. */
  inOrder(members: readonly number[], choose: (member: number) => KernelSchedule | undefined): OrderedTrial;
}

/** The same with everything that a search for schedules needs. Only for devices that run Programs. */
export function lowerOpen(traced: Graph, device: Device, mode: Mode): OpenGraph {
  const prepared = prepare(traced, device, mode);
  return {
    usual: lowerPrepared(traced, prepared, device),
    kernels: prepared.kernels,
    scheduled: (choose, shapeClass) =>
      lowerPrepared(traced, { ...prepared, ...scheduleKernels(prepared.kernels, choose) }, device, shapeClass),
    trials: (members, schedules) => trialsOf(prepared, members, schedules, device),
    inOrder: (members, choose) => inOrderOf(prepared, members, choose, device),
  };
}

/** Scheduled kernels one after the other, as a program of their own whose inputs lie in memory like the whole graph's. */
function inTurn({ graph, kernels }: Prepared, parts: readonly ScheduledKernels[]): KernelGraph {
  return {
    graph: { ...graph, outputs: [] },
    kernels: parts.flatMap((part) => part.kernels),
    schedules: new Map(parts.flatMap((part) => [...part.schedules])),
    stored: new Set(kernels.flatMap(kernelNodes)),
  };
}

function trialsOf(
  prepared: Prepared,
  members: readonly Kernel[],
  schedules: readonly (KernelSchedule | undefined)[],
  device: Device,
): Trial[] {
  const [first] = members as readonly [Kernel];
  const own = (part: KernelGraph): Program => buildProgram(part, device.target);
  const parts = schedules.map((schedule) => {
    const clone = (kernel: Kernel): Kernel => ({ ...kernel });
    // The number of threads is that of the launch with most parts, which for rows is the usual one.
    const warm = scheduleKernels([clone(first)], () => (first.kind === "rows" ? undefined : schedule));
    const timed = scheduleKernels(members.map(clone), () => schedule);
    return { ...inTurn(prepared, [warm, timed]), before: warm.kernels.length };
  });
  const programs = first.kind === "contraction" ? inTwoFiles(kernelName(first), parts, schedules, device) : parts.map(own);
  return parts.map(({ graph: part, before }, index) => ({
    compiled: { graph: part, program: waitingAtTheEnd(programs[index] as Program), reuse: false },
    before,
    after: 1,
  }));
}

function inOrderOf(
  prepared: Prepared,
  members: readonly number[],
  choose: (member: number) => KernelSchedule | undefined,
  device: Device,
): OrderedTrial {
  const parts = members.map((member) => scheduleKernels([{ ...(prepared.kernels[member] as Kernel) }], () => choose(member)));
  const starts = [0];
  for (const part of parts) starts.push((starts[starts.length - 1] as number) + part.kernels.length);
  const part = inTurn(prepared, parts);
  return { compiled: { graph: part.graph, program: waitingAtTheEnd(buildProgram(part, device.target)), reuse: false }, starts };
}

/** Two compilers run at once; equal tiles are in one file, because they are what takes time to compile. The usual schedule has its own files, built already. */
function inTwoFiles(
  name: string,
  parts: readonly KernelGraph[],
  schedules: readonly (KernelSchedule | undefined)[],
  device: Device,
): Program[] {
  const tiles: string[] = [];
  const programs: Program[] = [];
  const files: number[][] = [[], []];
  schedules.forEach((schedule, index) => {
    if (schedule?.kind !== "contraction") {
      programs[index] = buildProgram(parts[index] as KernelGraph, device.target);
      return;
    }
    const tile = `${schedule.tileRows}x${schedule.tileColumns} ${schedule.prefetchBytes}`;
    if (!tiles.includes(tile)) tiles.push(tile);
    files[tiles.indexOf(tile) % 2]?.push(index);
  });
  files.forEach((indices, file) => {
    const graphs = indices.map((index) => parts[index] as KernelGraph);
    const built = buildProgramsTogether(`schedules${file + 1}_of_${name}`, graphs, device.target);
    indices.forEach((index, at) => (programs[index] = built[at] as Program));
  });
  return programs;
}

/** With the states that its launches use, and one launch more of no work: the wait before it belongs to the time of the others. */
function waitingAtTheEnd(program: Program): Program {
  const last = program.launches[program.launches.length - 1] as Program["launches"][number];
  const used = new Set(program.launches.flatMap(({ pointers }) => pointers.flatMap((one) => (one.kind === "state" ? [one.name] : []))));
  return {
    ...program,
    states: program.states.filter(({ name }) => used.has(name)),
    launches: [...program.launches, { ...last, units: { dim: 0, divide: 1, times: 0 } }],
  };
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
