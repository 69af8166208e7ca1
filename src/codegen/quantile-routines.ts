/** C text of the quantile models' routines; each mirrors the op's `evaluate` step by step. */
import type { Dim } from "../ir/dim.js";
import type { Node } from "../ir/graph.js";
import type { Units } from "../ir/kernel.js";
import { shortScaleFloor } from "../ir/ops/quantiles.js";
import { plainPointer } from "./address.js";
import type { KernelWriter } from "./writer.js";

interface QuantileRoutine {
  readonly units: (node: Node) => Units;
  readonly emit: (writer: KernelWriter, node: Node) => void;
}

function emitBackfill(writer: KernelWriter, node: Node): void {
  const [values, mask, statistics, first, count, needed] = node.inputs.map((input, index) =>
    plainPointer(writer, input, ["values", "mask", "statistics", "first", "count", "needed"][index] as string),
  );
  const patch = (node.inputs[0] as Node).shape[1] as number;
  const out = writer.pointer(node, "f32", "out");
  writer.line(`const int64_t need = ${needed}[0];`);
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.line(`const int64_t from = (int64_t)${first}[unit] * ${patch}, to = from + (int64_t)${count}[unit] * ${patch};`);
    writer.line("double total = 0, spread = 0;");
    writer.line("int64_t found = 0, stop = from, seen = 0;");
    writer.line(`for (; stop < to && found < need; stop++) if (${mask}[stop]) { total += (double)${values}[stop]; found++; }`);
    writer.line("const double mean = total / (double)(found > 1 ? found : 1);");
    writer.line(`for (int64_t i = from; i < stop; i++) if (${mask}[i]) { const double d = (double)${values}[i] - mean; spread += d * d; }`);
    writer.line("double scale = __builtin_sqrt(spread / (double)(found - 1 > 1 ? found - 1 : 1));");
    writer.line(`scale = scale < ${shortScaleFloor} ? ${shortScaleFloor} : scale;`);
    writer.block(`for (int64_t token = from / ${patch}; token < to / ${patch}; token++)`, () => {
      writer.line(`for (int64_t i = token * ${patch}; i < (token + 1) * ${patch} && seen < need; i++) seen += ${mask}[i] != 0;`);
      writer.line(`${out}[2 * token] = seen < need ? (float)mean : ${statistics}[2 * token];`);
      writer.line(`${out}[2 * token + 1] = seen < need ? (float)scale : ${statistics}[2 * token + 1];`);
    });
  });
}

function emitFinish(writer: KernelWriter, node: Node): void {
  const [x, limits] = node.inputs.map((input, index) => plainPointer(writer, input, ["x", "limits"][index] as string));
  const [, levels, patch] = node.shape as [Dim, number, number];
  const out = writer.pointer(node, "f32", "out");
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.line(`const float *const given = ${x} + unit * ${patch * levels};`);
    writer.line(`float *const sorted = ${out} + unit * ${patch * levels};`);
    writer.line(`const float low = ${limits}[2 * unit], high = ${limits}[2 * unit + 1];`);
    writer.block(`for (int64_t level = 0; level < ${levels}; level++)`, () => {
      writer.line("float most = -__builtin_inff(), least = __builtin_inff();");
      writer.block(`for (int64_t t = 0; t < ${patch}; t++)`, () => {
        writer.line(`const float v = given[t * ${levels} + level];`);
        writer.line("if (__builtin_isfinite(v)) { most = v > most ? v : most; least = v < least ? v : least; }");
      });
      writer.block(`for (int64_t t = 0; t < ${patch}; t++)`, () => {
        writer.line(`float v = given[t * ${levels} + level];`);
        writer.line("v = v == __builtin_inff() ? most : v == -__builtin_inff() ? least : v;");
        writer.line("v = v < low ? low : v;");
        writer.line(`sorted[level * ${patch} + t] = v > high ? high : v;`);
      });
    });
    // Each value sinks below the larger ones and the NaNs before it.
    writer.block(`for (int64_t t = 0; t < ${patch}; t++)`, () => {
      writer.block(`for (int64_t level = 1; level < ${levels}; level++)`, () => {
        writer.line(`const float v = sorted[level * ${patch} + t];`);
        writer.line("int64_t at = level;");
        writer.block("for (; at > 0; at--)", () => {
          writer.line(`const float above = sorted[(at - 1) * ${patch} + t];`);
          writer.line("if (!(above > v || (above != above && v == v))) break;");
          writer.line(`sorted[at * ${patch} + t] = above;`);
        });
        writer.line(`sorted[at * ${patch} + t] = v;`);
      });
    });
  });
}

/** One entry per quantile op. */
export const quantileRoutines: Readonly<Record<string, QuantileRoutine>> = {
  backfillStatistics: { units: (node) => ({ dim: (node.inputs[3] as Node).shape[0] as Dim, divide: 1, times: 1 }), emit: emitBackfill },
  finishQuantiles: { units: (node) => ({ dim: node.shape[0] as Dim, divide: 1, times: 1 }), emit: emitFinish },
};
