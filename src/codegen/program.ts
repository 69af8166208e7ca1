/** Kernels -> Program: C text for each distinct kernel, one launch per kernel, buffers with their lifetimes. Plain data out. */
import { multiplyDims, productOf, type Dim } from "../ir/dim.js";
import { dtypes } from "../ir/dtype.js";
import type { Graph, Node, StateDeclaration } from "../ir/graph.js";
import { resolveAccess } from "../ir/access.js";
import type { BufferReference, Kernel, KernelLaunch, Program, ProgramBuffer, SourceFile, Units } from "../ir/kernel.js";
import { AttentionEmitter } from "./attention.js";
import { ContractionEmitter, contractionCost, tileFunctions } from "./contraction.js";
import { prelude, type TargetIsa } from "./prelude.js";
import { emitRows, rowsCost } from "./row-kernel.js";
import { routines } from "./routines.js";
import { KernelWriter } from "./writer.js";

interface Rendered {
  readonly functions: string;
  readonly units: Units;
  readonly grain: number;
  readonly flops: Dim;
  readonly bytes: Dim;
}

/** 32-bit FNV-1a, as eight hexadecimal digits: names a kernel by its text. */
export function textHash(text: string): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, "0");
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
    return `${stem}_${kernel.depth}x${kernel.segments.map((segment) => segment.width * segment.contractions.length).join("_")}`;
  const last = kernelNodes(kernel)[0]?.shape.filter((dim) => typeof dim === "number") ?? [];
  return last.length > 0 ? `${stem}_${last.join("x")}` : stem;
}

function render(writer: KernelWriter, kernel: Kernel, isa: TargetIsa): Rendered {
  switch (kernel.kind) {
    case "rows": {
      const units = emitRows(writer, kernel);
      return { functions: "", units, grain: 1, ...rowsCost(kernel) };
    }
    case "contraction": {
      const emitter = new ContractionEmitter(writer, kernel, isa);
      emitter.emit();
      return { functions: tileFunctions(isa), units: emitter.units, grain: 1, ...contractionCost(kernel) };
    }
    case "attention": {
      const emitter = new AttentionEmitter(writer, kernel.node, isa);
      emitter.emit();
      return { functions: emitter.functions, units: emitter.units, grain: 1, flops: 0, bytes: 0 };
    }
    case "routine": {
      const routine = routines[kernel.node.op];
      if (!routine) throw new Error(`no routine renders the op ${kernel.node.op}`);
      routine.emit(writer, kernel.node);
      return { functions: routine.functions ?? "", units: routine.units(kernel.node), grain: 1, flops: 0, bytes: 0 };
    }
    default:
      return kernel satisfies never;
  }
}

class ProgramBuilder {
  readonly #buffers: { label: string; bytes: Dim; first: number; last: number }[] = [];
  readonly #bufferOf = new Map<Node, number>();
  readonly #sources = new Map<string, SourceFile>();
  readonly #launches: KernelLaunch[] = [];

  constructor(
    private readonly graph: Graph,
    private readonly isa: TargetIsa,
  ) {}

  add(kernel: Kernel): void {
    const writer = new KernelWriter((key) => this.#reference(key));
    const rendered = render(writer, kernel, this.isa);
    const stem = kernelName(kernel);
    const placeholder = writer.text("KERNEL", stem);
    const head = prelude(this.isa) + rendered.functions;
    const symbol = `${stem}_${textHash(rendered.functions + placeholder)}`;
    if (!this.#sources.has(symbol)) {
      this.#sources.set(symbol, {
        name: symbol,
        symbols: [symbol],
        text:
          head +
          writer.text(
            symbol,
            kernelNodes(kernel)
              .map((node) => node.op)
              .join(" -> "),
          ),
      });
    }
    const index = this.#launches.length;
    for (const pointer of writer.pointers) {
      if (pointer.kind !== "value") continue;
      const buffer = this.#buffers[pointer.buffer];
      if (!buffer) continue;
      buffer.first = Math.min(buffer.first, index);
      buffer.last = Math.max(buffer.last, index);
    }
    const { units, grain, flops, bytes } = rendered;
    this.#launches.push({
      symbol,
      label: kernelLabel(kernel),
      pointers: writer.pointers,
      numbers: writer.numbers,
      units,
      grain,
      scratchBytes: writer.scratchBytes,
      flops,
      bytes,
    });
  }

  finish(): Program {
    const { graph } = this;
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
      sources: [...this.#sources.values()],
    };
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

/** The Program of a graph's kernels. Every output must be stored contiguously: a view output needs a copy before. */
export function buildProgram(graph: Graph, kernels: readonly Kernel[], isa: TargetIsa): Program {
  const builder = new ProgramBuilder(graph, isa);
  for (const kernel of kernels) builder.add(kernel);
  return builder.finish();
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
