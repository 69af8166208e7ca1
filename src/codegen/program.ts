/** Kernels -> Program: C text for each distinct kernel, one launch per kernel, buffers with their lifetimes. Plain data out. */
import { multiplyDims, productOf, type Dim } from "../ir/dim.js";
import { dtypes } from "../ir/dtype.js";
import type { Graph, Node, StateDeclaration } from "../ir/graph.js";
import { resolveAccess } from "../ir/access.js";
import type { BufferReference, Kernel, KernelLaunch, Program, ProgramBuffer, Units } from "../ir/kernel.js";
import type { KernelSchedule } from "../ir/schedule.js";
import { attentionForm } from "../ir/ops/attention.js";
import { AttentionEmitter } from "./attention.js";
import { ContractionEmitter } from "./contraction.js";
import type { TargetIsa } from "./helpers.js";
import { emitRows, rowsCost } from "./row-kernel.js";
import { MaskedAttentionEmitter } from "./masked-attention.js";
import { PagedAttentionEmitter } from "./paged-attention.js";
import { routines } from "./routines.js";
import { usualRowSchedule } from "./schedule.js";
import { contractionCost, storedForms } from "./stored.js";
import { sourceFile, textHash, type KernelText } from "./source.js";
import { KernelWriter } from "./writer.js";

interface Rendered {
  readonly functions: readonly string[];
  readonly units: Units;
  readonly grain: number;
  readonly divisible?: true;
  readonly flops: Dim;
  readonly bytes: Dim;
  /** Absent where there is nothing to choose. */
  readonly schedule?: KernelSchedule;
}

/** Nodes a kernel computes, in order. */
export function kernelNodes(kernel: Kernel): readonly Node[] {
  if (kernel.kind === "rows") return kernel.values;
  if (kernel.kind === "contraction")
    return [...kernel.prologue, ...kernel.segments.flatMap((segment) => [...segment.contractions, ...segment.epilogue])];
  return [kernel.node];
}

/** Readable stem: the ops in order (repeats once) and the sizes of a contraction. */
export function kernelName(kernel: Kernel): string {
  const ops: string[] = [];
  for (const node of kernelNodes(kernel)) if (ops[ops.length - 1] !== node.op) ops.push(node.op);
  const shown = ops.length > 6 ? [...ops.slice(0, 5), `and${ops.length - 5}`] : ops;
  const stem = shown.join("_");
  if (kernel.kind === "contraction")
    return `${stem}${storedForms(kernel).includes("bf16") ? "_bf16" : ""}_${kernel.depth}x${kernel.segments.map((segment) => segment.width * segment.contractions.length).join("_")}`;
  const last = kernelNodes(kernel)[0]?.shape.filter((dim) => typeof dim === "number") ?? [];
  return last.length > 0 ? `${stem}_${last.join("x")}` : stem;
}

/** The attention template for a node: key groups, pages, or plain. */
function attentionEmitter(node: Node): typeof AttentionEmitter | typeof PagedAttentionEmitter | typeof MaskedAttentionEmitter {
  if (node.op === "maskedAttention") return MaskedAttentionEmitter;
  return attentionForm(node.attributes) === "paged" ? PagedAttentionEmitter : AttentionEmitter;
}

function render(writer: KernelWriter, kernel: Kernel, isa: TargetIsa, asked: KernelSchedule | undefined): Rendered {
  switch (kernel.kind) {
    case "rows": {
      const units = emitRows(writer, kernel, isa);
      const schedule = asked?.kind === "rows" ? asked : usualRowSchedule;
      return { functions: [], units, grain: schedule.grain, ...rowsCost(kernel), schedule };
    }
    case "contraction": {
      const emitter = new ContractionEmitter(writer, kernel, isa, asked?.kind === "contraction" ? asked : undefined);
      emitter.emit();
      const { functions, units, schedule } = emitter;
      return { functions, units, grain: schedule.grain, ...contractionCost(kernel), schedule };
    }
    case "attention": {
      const emitter = new (attentionEmitter(kernel.node))(writer, kernel.node, isa);
      emitter.emit();
      const { functions, units, together } = emitter;
      return { functions, units, grain: together, divisible: true, flops: 0, bytes: 0 };
    }
    case "routine": {
      const routine = routines[kernel.node.op];
      if (!routine) throw new Error(`no routine renders the op ${kernel.node.op}`);
      routine.emit(writer, kernel.node);
      return { functions: routine.functions?.(isa) ?? [], units: routine.units(kernel.node), grain: 1, flops: 0, bytes: 0 };
    }
    default:
      return kernel satisfies never;
  }
}

const noSchedules: ReadonlyMap<Kernel, KernelSchedule> = new Map();

class ProgramBuilder {
  readonly #buffers: { label: string; node: number; bytes: Dim; first: number; last: number }[] = [];
  readonly #bufferOf = new Map<Node, number>();
  readonly #texts: Map<string, KernelText>;
  readonly #stored: ReadonlySet<Node>;
  readonly #launches: KernelLaunch[] = [];
  readonly #position: ReadonlyMap<Node, number>;

  readonly #graph: Graph;
  readonly #schedules: ReadonlyMap<Kernel, KernelSchedule>;

  constructor(
    { graph, kernels, schedules, stored }: KernelGraph,
    private readonly isa: TargetIsa,
    texts?: Map<string, KernelText>,
  ) {
    this.#graph = graph;
    this.#schedules = schedules ?? noSchedules;
    this.#texts = texts ?? new Map();
    this.#stored = stored ?? new Set(kernels.flatMap(kernelNodes));
    this.#position = new Map(graph.nodes.map((node, index) => [node, index]));
    for (const kernel of kernels) this.#add(kernel);
  }

  #add(kernel: Kernel): void {
    const writer = new KernelWriter(
      (key) => this.#reference(key),
      (node) => this.#stored.has(node),
    );
    const rendered = render(writer, kernel, this.isa, this.#schedules.get(kernel));
    const stem = kernelName(kernel);
    const title = kernelNodes(kernel)
      .map((node) => node.op)
      .join(" -> ");
    const hash = textHash([...rendered.functions, writer.text("KERNEL", title)].join("\n"));
    const symbol = this.#symbol(`${stem}_${hash}`, rendered.functions, (name) => writer.text(name, title));
    const index = this.#launches.length;
    for (const pointer of writer.pointers) {
      if (pointer.kind !== "value") continue;
      const buffer = this.#buffers[pointer.buffer];
      if (!buffer) continue;
      buffer.first = Math.min(buffer.first, index);
      buffer.last = Math.max(buffer.last, index);
    }
    const { units, grain, divisible, flops, bytes, schedule } = rendered;
    this.#launches.push({
      symbol,
      label: kernelLabel(kernel),
      nodes: kernelNodes(kernel).map((node) => this.#position.get(node) as number),
      pointers: writer.pointers,
      numbers: writer.numbers,
      units,
      grain,
      ...(divisible ? { divisible } : {}),
      scratchBytes: writer.scratchBytes,
      flops,
      bytes,
      ...(schedule ? { schedule } : {}),
    });
  }

  finish(): Program {
    const graph = this.#graph;
    const outputs = graph.outputs.map(({ name, node }) => {
      const access = resolveAccess(node);
      const source = this.#reference(
        access.base.op === "read" && access.base.states[0]?.state.kind === "constant" ? access.base.states[0].state : access.base,
      );
      if (source.kind === "value") (this.#buffers[source.buffer] as { last: number }).last = this.#launches.length;
      return { name, dtype: node.dtype, shape: node.shape, source };
    });
    return {
      name: graph.name,
      inputs: graph.inputs.map(({ name, node }) => ({ name, dtype: node.dtype, shape: node.shape })),
      states: graph.states,
      outputs,
      buffers: this.#buffers.map((buffer): ProgramBuffer => ({ ...buffer, first: Number.isFinite(buffer.first) ? buffer.first : 0 })),
      launches: this.#launches,
      sources: [],
    };
  }

  get texts(): readonly KernelText[] {
    return [...this.#texts.values()];
  }

  /** The kernel's symbol, the same for equal texts. Hashes are short, so two texts that share one are told apart by a number. */
  #symbol(name: string, functions: readonly string[], body: (symbol: string) => string): string {
    for (let symbol = name, number = 2; ; symbol = `${name}_${number++}`) {
      const made = { symbol, functions, body: body(symbol) };
      const known = this.#texts.get(symbol);
      if (!known) this.#texts.set(symbol, made);
      else if (known.body !== made.body || known.functions.join() !== functions.join()) continue;
      return symbol;
    }
  }

  #reference(key: object): BufferReference {
    if (isState(key)) return { kind: "state", name: key.name };
    const node = key as Node;
    if (node.op === "input") return { kind: "input", name: String(node.attributes["name"]) };
    let buffer = this.#bufferOf.get(node);
    if (buffer === undefined) {
      buffer = this.#buffers.length;
      this.#buffers.push({
        label: node.label || node.op,
        node: this.#position.get(node) as number,
        bytes: multiplyDims(productOf(node.shape), dtypes[node.dtype].bytes),
        first: Infinity,
        last: 0,
      });
      this.#bufferOf.set(node, buffer);
    }
    return { kind: "value", buffer };
  }
}

const isState = (key: object): key is StateDeclaration => "layout" in key;

const kernelLabel = (kernel: Kernel): string => {
  const labels = kernelNodes(kernel)
    .map((node) => node.label)
    .filter((label) => label !== "");
  return labels[labels.length - 1] ?? kernelName(kernel);
};

export interface KernelGraph {
  readonly graph: Graph;
  readonly kernels: readonly Kernel[];
  /** Schedules of kernels that are not to have the usual one. */
  readonly schedules?: ReadonlyMap<Kernel, KernelSchedule>;
  /** Nodes that some kernel stores, when the kernels here are but a part of them. */
  readonly stored?: ReadonlySet<Node>;
}

/** The Program of a graph's kernels, one C file for each. Every output must be stored contiguously: a view output needs a copy before. */
export function buildProgram(kernels: KernelGraph, isa: TargetIsa): Program {
  const builder = new ProgramBuilder(kernels, isa);
  return { ...builder.finish(), sources: builder.texts.map((text) => sourceFile(text.symbol, [text], isa)) };
}

/** Programs that share one C file with the kernels of all of them: one run of the compiler for many small graphs. */
export function buildProgramsTogether(name: string, graphs: readonly KernelGraph[], isa: TargetIsa): Program[] {
  const texts = new Map<string, KernelText>();
  const programs = graphs.map((one) => new ProgramBuilder(one, isa, texts).finish());
  const shared = sourceFile(name, [...texts.values()], isa);
  return programs.map((program) => ({ ...program, sources: [shared] }));
}

/** One line per launch: kernel, units, operands. Stable between runs. */
export function printProgram(program: Program): string {
  const reference = (pointer: BufferReference): string =>
    pointer.kind === "value" ? `b${pointer.buffer}` : `${pointer.kind}:${pointer.name}`;
  const lines = [
    `program ${program.name}: ${program.launches.length} launches, ${program.sources.length} kernels, ${program.buffers.length} buffers`,
  ];
  program.buffers.forEach((buffer, index) =>
    lines.push(`  b${index} ${String(buffer.bytes)} bytes, launches ${buffer.first}-${buffer.last}  # ${buffer.label}`),
  );
  for (const launch of program.launches) {
    const { dim, divide, times } = launch.units;
    lines.push(
      `  ${launch.symbol}(${launch.pointers.map(reference).join(", ")} | ${launch.numbers.map(String).join(", ")}) x ceil(${String(dim)} / ${divide}) * ${String(times)}  # ${launch.label}`,
    );
  }
  for (const output of program.outputs) lines.push(`  return ${output.name} = ${reference(output.source)}`);
  return lines.join("\n") + "\n";
}
