/**
 * The attention template with key groups: the scores of the unmasked template, where there are other groups a pass that hides their keys, and one chain over the
 * runs of visible keys, ascending. Four queries of one row and one group go together.
 */
import { addDims, multiplyDims, type Dim } from "../ir/dim.js";
import type { Node, StateDeclaration } from "../ir/graph.js";
import type { Units } from "../ir/kernel.js";
import { keyLanes, padded } from "../ir/ops/state.js";
import { plainPointer } from "./address.js";
import { attentionFunctions, names, queryGroup, registers, valueVectors, type AttentionShape } from "./attention-functions.js";
import { balancedTurn } from "./attention.js";
import { literal } from "./c-scalar.js";
import type { TargetIsa } from "./helpers.js";
import type { KernelWriter } from "./writer.js";

/** C text of what looks at keys' groups. */
function groupFunctions(shape: AttentionShape): string {
  const { type, form, lanes, parts } = registers(shape);
  return `/* Whether all keys are of one group. */
OUTLINE int of_one_group(const int32_t *groups, int64_t count, int32_t group) {
  int32_t others = 0;
  int64_t k = 0;
  for (; k + 16 <= count; k += 16)
    for (int l = 0; l < 16; l++) others |= groups[k + l] ^ group;
  for (; k < count; k++) others |= groups[k] ^ group;
  return others == 0;
}
/* Scores of keys of other groups become -inf; top becomes the lanes' largest visible ones. */
OUTLINE void hide_groups(float *s, int64_t blocks, const int32_t *groups, int32_t group, ${type} *top) {
  for (int p = 0; p < ${parts}; p++) top[p] = splat_${form}(-__builtin_inff());
  for (int64_t b = 0; b < blocks; b++) {
    for (int l = 0; l < 16; l++) if (groups[16 * b + l] != group) s[16 * b + l] = -__builtin_inff();
#pragma GCC unroll ${parts}
    for (int p = 0; p < ${parts}; p++) top[p] = higher(top[p], load_${form}(s + 16 * b + ${lanes} * p));
  }
}
`;
}

function attendFunction(shape: AttentionShape): string {
  const { scores, weigh, store } = names(shape);
  const stored = padded(shape.valueWidth);
  const vectors = valueVectors(stored);
  const { type, form, parts } = registers(shape);
  return `/* Query i sees those of keys 0 .. visible[i] - 1 whose group is its own; all queries have one group. */
INLINE void attend_masked_${shape.width}_${shape.valueWidth}(const int queries, const float *const *q, float *const *s, const int64_t *visible, const float *keys, const float *values,
    const int32_t *groups, int32_t group, float scale, float *out, int64_t outStride) {
  ${type} top[${queryGroup}][${parts}];
  int64_t longest = 0, shortest = visible[0];
  for (int i = 0; i < queries; i++) {
    for (int p = 0; p < ${parts}; p++) top[i][p] = splat_${form}(-__builtin_inff());
    longest = visible[i] > longest ? visible[i] : longest;
    shortest = visible[i] < shortest ? visible[i] : shortest;
  }
  const int64_t blocks = (longest + 15) / 16;
  ${scores}(queries, 1, q, keys, &blocks, visible, scale, s, top);
  const int whole = of_one_group(groups, longest, group);
  for (int i = 0; i < queries; i++) {
    if (!whole) hide_groups(s[i], blocks, groups, group, top[i]);
    normalise(s[i], blocks, top[i], (const char *)(values + 16 * i * blocks));
  }
  for (int64_t column = 0; column < ${stored}; column += ${16 * vectors}) {
    ${type} sum[${queryGroup}][${vectors * parts}];
    for (int i = 0; i < queries; i++) for (int v = 0; v < ${vectors * parts}; v++) sum[i][v] = splat_${form}(0);
    for (int64_t from = 0, to; from < longest; from = to) {
      for (to = whole ? longest : from + 1; to < longest && groups[to] == groups[from]; to++) {}
      if (groups[from] != group) continue;
      const int64_t common = to < shortest ? to : shortest;
      if (from < common) ${weigh}(queries, 1, (const float *const *)s, values, from, &common, sum, column);
      for (int i = 0; i < queries; i++) {
        const float *one = s[i];
        const int64_t first = from < common ? common : from, last = to < visible[i] ? to : visible[i];
        if (first < last) ${weigh}_one(&one, values, first, last, sum + i, column);
      }
    }
    for (int i = 0; i < queries; i++) ${store}(out + i * outStride, sum[i], column);
  }
}
`;
}

export class MaskedAttentionEmitter {
  readonly #shape: AttentionShape;
  readonly #tokens: Dim;
  readonly #heads: number;

  constructor(
    private readonly writer: KernelWriter,
    private readonly node: Node,
    isa: TargetIsa,
  ) {
    const [tokens, heads, valueWidth] = node.shape as [Dim, number, number];
    this.#tokens = tokens;
    this.#heads = heads;
    this.#shape = { width: (node.inputs[0] as Node).shape[2] as number, valueWidth, isa };
  }

  get functions(): string[] {
    return [...attentionFunctions(this.#shape), groupFunctions(this.#shape), attendFunction(this.#shape)];
  }

  /** Units that go together. */
  readonly together = 1;

  get units(): Units {
    return { dim: this.#tokens, divide: queryGroup, times: this.#heads };
  }

  emit(): void {
    const { writer, node } = this;
    const [query, row, length, keyGroups, group] = node.inputs.map((input, index) =>
      plainPointer(writer, input, ["query", "row", "length", "keyGroups", "group"][index] as string),
    );
    const heads = this.#heads;
    const { width, valueWidth } = this.#shape;
    const [keys, values] = node.states.map(({ state }) => state) as [StateDeclaration, StateDeclaration];
    const [rows, keyHeads, blocks] = keys.shape as [Dim, number, Dim];
    const slots = multiplyDims(blocks, keyLanes);
    const [groupRows, groupSlots] = (node.inputs[3] as Node).shape as [Dim, Dim];
    const tokens = writer.number(this.#tokens);
    const area = writer.scratch(multiplyDims(slots, queryGroup));
    const out = writer.pointer(node, "f32", "out");
    const shareKeys = heads === keyHeads ? "head" : `head / ${heads / keyHeads}`;
    const keyLine = `${writer.pointer(keys, "f32", "keys")} + (source[i] * ${keyHeads} + keyHead) * ${writer.number(multiplyDims(blocks, width * keyLanes))}`;
    const valueLine = `${writer.pointer(values, "f32", "values")} + (source[i] * ${keyHeads} + keyHead) * ${writer.number(multiplyDims(slots, padded(valueWidth)))}`;
    const groupLine = `${keyGroups} + clamp_index(source[i], ${writer.number(groupRows)}) * ${writer.number(groupSlots)}`;
    const most = `${writer.number(slots)} < ${writer.number(groupSlots)} ? ${writer.number(addDims(slots, 1))} : ${writer.number(addDims(groupSlots, 1))}`;
    const call = (queries: number): string =>
      `attend_masked_${width}_${valueWidth}(${queries}, q + i, s + i, visible + i, ${keyLine}, ${valueLine}, ${groupLine}, own[i], ${literal("f32", node.attributes["scale"] as number)}, ${out} + ((first + i) * ${heads} + head) * ${valueWidth}, ${heads * valueWidth});`;
    writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
      writer.line(`${balancedTurn(`(${tokens} + ${queryGroup - 1}) / ${queryGroup}`)};`);
      writer.line(`const int64_t first = turn * ${queryGroup}, keyHead = ${shareKeys};`);
      writer.line(`const int64_t count = ${tokens} - first < ${queryGroup} ? ${tokens} - first : ${queryGroup};`);
      writer.line(`const float *q[${queryGroup}];`);
      writer.line(`float *s[${queryGroup}];`);
      writer.line(`int64_t visible[${queryGroup}], source[${queryGroup}];`);
      writer.line(`int32_t own[${queryGroup}];`);
      writer.line("int joint = 1;");
      writer.block("for (int64_t i = 0; i < count; i++)", () => {
        writer.line("const int64_t token = first + i;");
        writer.line(`q[i] = ${query} + (token * ${heads} + head) * ${width};`);
        writer.line(`s[i] = ${area} + i * ${writer.number(slots)};`);
        writer.line(`source[i] = clamp_index(${row}[token], ${writer.number(rows)});`);
        writer.line(`visible[i] = clamp_index(${length}[token], ${most});`);
        writer.line(`own[i] = ${group}[token];`);
        writer.line("joint = joint && source[i] == source[0] && own[i] == own[0];");
      });
      writer.block("for (int64_t i = 0; i < count;)", () => {
        writer.line(`const int queries = joint && count == ${queryGroup} ? ${queryGroup} : 1;`);
        writer.line(`if (queries == ${queryGroup}) ${call(queryGroup)}`);
        writer.line(`else ${call(1)}`);
        writer.line("i += queries;");
      });
    });
  }
}
