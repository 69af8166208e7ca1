/** C text of the token ops: sign bits packed to tokens and back, draws from filtered logits. */
import { productOf, type Dim } from "../ir/dim.js";
import type { Node } from "../ir/graph.js";
import type { Units } from "../ir/kernel.js";
import { padded } from "../ir/ops/state.js";
import { plainPointer } from "./address.js";
import { literal } from "./c-scalar.js";
import type { TargetIsa } from "./helpers.js";
import { philoxFunctions } from "./philox.js";
import { blocksOf, filterFunctions, keptPowers, tokenSearch } from "./token-filter.js";
import type { KernelWriter } from "./writer.js";

interface TokenRoutine {
  readonly units: (node: Node) => Units;
  readonly functions?: (isa: TargetIsa) => readonly string[];
  readonly emit: (writer: KernelWriter, node: Node) => void;
}

const rowsOf = (node: Node): Units => ({ dim: node.shape[0] as Dim, divide: 1, times: 1 });

interface FilterCall {
  readonly call: string;
  readonly scaled: string;
  readonly weight: string;
  readonly block: string;
}

/** Call of the filter on a row of logits, and the areas it fills. */
function filterCall(writer: KernelWriter, logits: string, count: number, settings: string): FilterCall {
  const size = padded(count);
  const [scaled, member] = [writer.scratch(size), `(int32_t *)${writer.scratch(size)}`];
  const [weight, block] = [`(int32_t *)${writer.scratch(2 * size)}`, `(int64_t *)${writer.scratch(2 * blocksOf(size))}`];
  return { call: `filter_tokens(${logits}, ${count}, ${settings}, ${scaled}, ${member}, ${weight}, ${block})`, scaled, weight, block };
}

function emitDrawToken(writer: KernelWriter, node: Node): void {
  const roles = ["logits", "source", "keys", "step", "seed", "settings", "forced"];
  const [logits, source, keys, step, seed, settings, forced] = node.inputs.map((input, index) =>
    plainPointer(writer, input, roles[index] as string),
  );
  const out = writer.pointer(node, "i32", "out");
  if (forced) {
    writer.line(`for (int64_t unit = begin; unit < end; unit++) ${out}[unit] = ${forced}[unit];`);
    return;
  }
  const [sources, count] = (node.inputs[0] as Node).shape as [Dim, number];
  const { call, scaled, weight, block } = filterCall(writer, `${logits} + from * ${count}`, count, settings as string);
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.line(`const int64_t from = clamp_index(${source}[unit], ${writer.number(sources)});`);
    writer.line(`const kept_tokens kept = ${call};`);
    writer.line(
      `const uint32_t counter[4] = {(uint32_t)${keys}[2 * unit], (uint32_t)${keys}[2 * unit + 1], (uint32_t)${step}[unit], ${String(node.attributes["site"])}u};`,
    );
    writer.line("uint32_t words[4];");
    writer.line(`philox(counter, (uint32_t)${seed}[0], (uint32_t)${seed}[1], words);`);
    writer.line("const double target = uniform(words[0]) * (double)kept.weight;");
    writer.line(`${out}[unit] = (int32_t)token_at(target, &kept, ${count}, ${scaled}, ${weight}, ${block});`);
  });
}

function emitProbabilities(writer: KernelWriter, node: Node): void {
  const [logits, settings] = node.inputs.map((input, index) => plainPointer(writer, input, ["logits", "settings"][index] as string));
  const count = node.shape[1] as number;
  const { call, scaled } = filterCall(writer, `${logits} + unit * ${count}`, count, settings as string);
  const e = writer.scratch(padded(count));
  const out = writer.pointer(node, "f32", "out");
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.line(`const kept_tokens kept = ${call};`);
    writer.line(`const double total = kept_powers(&kept, ${count}, ${scaled}, ${e});`);
    writer.line(`for (int64_t j = 0; j < ${count}; j++) ${out}[unit * ${count} + j] = (float)((double)${e}[j] / total);`);
  });
}

function emitPackSigns(writer: KernelWriter, node: Node): void {
  const x = node.inputs[0] as Node;
  const { start, count } = node.attributes as { start: number; count: number };
  const pointer = plainPointer(writer, x, "x");
  const out = writer.pointer(node, "i32", "out");
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.line(`const float *const bits = ${pointer} + unit * ${x.shape[1] as number} + ${start};`);
    writer.line("int32_t code = 0;");
    writer.line(`for (int j = 0; j < ${count}; j++) code |= (int32_t)(bits[j] > 0) << j;`);
    writer.line(`${out}[unit] = code;`);
  });
}

function emitExpandBits(writer: KernelWriter, node: Node): void {
  const [coarse, fine] = node.inputs.map((input, index) => plainPointer(writer, input, ["coarse", "fine"][index] as string));
  const { coarseBits, fineBits, scale } = node.attributes as { coarseBits: number; fineBits: number; scale: number };
  const out = writer.pointer(node, "f32", "out");
  const width = coarseBits + fineBits;
  const value = literal("f32", scale);
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.line(`float *const bits = ${out} + unit * ${width};`);
    writer.line(`for (int j = 0; j < ${coarseBits}; j++) bits[j] = ${coarse}[unit] >> j & 1 ? ${value} : -${value};`);
    writer.line(`for (int j = 0; j < ${fineBits}; j++) bits[${coarseBits} + j] = ${fine}[unit] >> j & 1 ? ${value} : -${value};`);
  });
}

/** One entry per token op. */
export const tokenRoutines: Readonly<Record<string, TokenRoutine>> = {
  drawToken: { units: rowsOf, functions: (isa) => [philoxFunctions, ...filterFunctions(isa), tokenSearch], emit: emitDrawToken },
  tokenProbabilities: {
    units: (node) => ({ dim: productOf(node.shape.slice(0, -1)), divide: 1, times: 1 }),
    functions: (isa) => [...filterFunctions(isa), keptPowers(isa)],
    emit: emitProbabilities,
  },
  packSigns: { units: rowsOf, emit: emitPackSigns },
  expandBits: { units: rowsOf, emit: emitExpandBits },
};
