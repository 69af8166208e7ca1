/** C text of appending to a cache that is a value: the old cache is copied row by row, then the new tokens of the row are written. */
import { multiplyDims, type Dim } from "../ir/dim.js";
import type { Node } from "../ir/graph.js";
import { keyLanes } from "../ir/ops/state.js";
import { plainPointer } from "./address.js";
import type { Routine } from "./routines.js";
import type { KernelWriter } from "./writer.js";

function emitAppended(writer: KernelWriter, node: Node): void {
  const [old, x, row, slot] = node.inputs.map((input, index) =>
    plainPointer(writer, input, ["old", "x", "tokenRow", "slot"][index] as string),
  );
  const isKeys = node.op === "appendedKeys";
  const [cache, tokensOf] = node.inputs as [Node, Node];
  const heads = writer.number(node.shape[1] as Dim);
  const width = writer.number(tokensOf.shape[2] as Dim);
  const headElements = (shape: readonly Dim[]): Dim => shape.slice(2).reduce<Dim>(multiplyDims, 1);
  const [before, after] = [writer.number(headElements(cache.shape)), writer.number(headElements(node.shape))];
  const capacity = writer.number(isKeys ? multiplyDims(node.shape[2] as Dim, keyLanes) : (node.shape[2] as Dim));
  const tokens = writer.number(tokensOf.shape[0] as Dim);
  const out = writer.pointer(node, "f32", "out");
  writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
    writer.block(`for (int64_t head = 0; head < ${heads}; head++)`, () => {
      writer.line(`float *const target = ${out} + (unit * ${heads} + head) * ${after};`);
      writer.line(`memcpy(target, ${old} + (unit * ${heads} + head) * ${before}, (size_t)${before} * 4);`);
      writer.line(`memset(target + ${before}, 0, (size_t)(${after} - ${before}) * 4);`);
      writer.block(`for (int64_t token = 0; token < ${tokens}; token++)`, () => {
        writer.line(`const int64_t at = ${slot}[token];`);
        writer.line(`if (${row}[token] != unit || at < 0 || at >= ${capacity}) continue;`);
        writer.line(`const float *const from = ${x} + (token * ${heads} + head) * ${width};`);
        if (isKeys) {
          writer.line(`float *const lane = target + at / ${keyLanes} * ${width} * ${keyLanes} + at % ${keyLanes};`);
          writer.line(`for (int64_t d = 0; d < ${width}; d++) lane[d * ${keyLanes}] = from[d];`);
        } else writer.line(`memcpy(target + at * ${writer.number(node.shape[3] as Dim)}, from, (size_t)${width} * 4);`);
      });
    });
  });
}

const routine: Routine = { units: (node) => ({ dim: node.shape[0] as Dim, divide: 1, times: 1 }), emit: emitAppended };

export const cacheValueRoutines: Readonly<Record<string, Routine>> = { appendedKeys: routine, appendedValues: routine };
