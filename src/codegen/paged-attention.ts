/**
 * Attention through block tables: a row's key block b lies in page table[row][b] of the pool. One query at a time, by the functions of the attention template and in
 * their order, so that the bits are those of a cache without pages.
 */
import { addDims, multiplyDims, type Dim } from "../ir/dim.js";
import type { Node, StateDeclaration } from "../ir/graph.js";
import type { Units } from "../ir/kernel.js";
import { attentionOperands } from "../ir/ops/attention.js";
import { keyLanes, padded } from "../ir/ops/state.js";
import { plainPointer } from "./address.js";
import { attentionFunctions, names, registers, valueVectors, type AttentionShape } from "./attention-functions.js";
import { balancedTurn } from "./attention.js";
import { literal } from "./c-scalar.js";
import type { TargetIsa } from "./helpers.js";
import type { KernelWriter } from "./writer.js";

const pagesText = `/* Pages of one row: key block b is page[b], seen at one head. */
struct pages {
  const int32_t *page;
  const float *keys, *values;
  int64_t count, heads, head;
};
INLINE int64_t page_place(const struct pages *pages, int64_t b) { return clamp_index(pages->page[b], pages->count) * pages->heads + pages->head; }
`;

/** Functions of one head size, one text each: one query over pages of a common segment and then over pages of its own. */
function pagedFunctions(shape: AttentionShape): string[] {
  const { scores, weigh, store } = names(shape);
  const stored = padded(shape.valueWidth);
  const vectors = valueVectors(stored);
  const { type, form, parts } = registers(shape);
  const { width, valueWidth } = shape;
  return [
    pagesText,
    `/* Scores of keys dead .. end - 1; returns the number of blocks written. */
INLINE int64_t ${scores}_paged(const float *q, const struct pages *pages, int64_t dead, int64_t end, float scale, float *s, ${type} top[][${parts}]) {
  const int64_t blocks = (end + 15) / 16;
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t visible = end - 16 * b;
    float *const scored = s + 16 * b;
    ${scores}_tile(1, 1, &q, pages->keys + page_place(pages, b) * ${width * keyLanes}, 0, dead - 16 * b, &visible, scale, &scored, top, (struct soon){0});
  }
  return blocks;
}
`,
    `/* sum += s[k] * value row k, for keys from .. to - 1 ascending. */
INLINE void ${weigh}_paged(const float *s, const struct pages *pages, int64_t from, int64_t to, ${type} sum[][${vectors * parts}], int64_t column) {
  for (int64_t b = from / 16; 16 * b < to; b++) {
    const float *const weights = s + 16 * b;
    const int64_t first = from > 16 * b ? from - 16 * b : 0, last = to < 16 * b + 16 ? to - 16 * b : 16;
    ${weigh}_one(&weights, pages->values + page_place(pages, b) * ${keyLanes * stored}, first, last, sum, column);
  }
}
`,
    `/* Common keys 0 .. shared - 1, then own keys shared .. length - 1, whose slot 0 is shared rounded down to 16. */
INLINE void attend_paged_${width}_${valueWidth}(const float *q, float *s, int64_t shared, int64_t length, const struct pages *common, const struct pages *own, float scale, float *out) {
  ${type} top[1][${parts}];
  for (int p = 0; p < ${parts}; p++) top[0][p] = splat_${form}(-__builtin_inff());
  const int64_t base = shared / 16 * 16;
  const int64_t blocks = ${scores}_paged(q, common, 0, shared, scale, s, top);
  float *const rest = s + 16 * blocks;
  const int64_t ownBlocks = length > shared ? ${scores}_paged(q, own, shared - base, length - base, scale, rest, top) : 0;
  normalise(s, blocks + ownBlocks, top[0], (const char *)(common->values + page_place(common, 0) * ${keyLanes * stored}));
  for (int64_t column = 0; column < ${stored}; column += ${16 * vectors}) {
    ${type} sum[1][${vectors * parts}];
    for (int v = 0; v < ${vectors * parts}; v++) sum[0][v] = splat_${form}(0);
    ${weigh}_paged(s, common, 0, shared, sum, column);
    if (ownBlocks > 0) ${weigh}_paged(rest, own, shared - base, length - base, sum, column);
    ${store}(out, sum[0], column);
  }
}
`,
  ];
}

/** C text of one segment's pages, and how many lengths it can have. */
interface Segment {
  readonly text: string;
  readonly lengths: string;
}

export class PagedAttentionEmitter {
  readonly #shape: AttentionShape;

  constructor(
    private readonly writer: KernelWriter,
    private readonly node: Node,
    isa: TargetIsa,
  ) {
    this.#shape = { width: (node.inputs[0] as Node).shape[2] as number, valueWidth: node.shape[2] as number, isa };
  }

  get functions(): string[] {
    return [...attentionFunctions(this.#shape), ...pagedFunctions(this.#shape)];
  }

  /** Units that go together. */
  readonly together = 1;

  get units(): Units {
    return { dim: this.node.shape[0] as Dim, divide: 1, times: this.node.shape[1] as Dim };
  }

  emit(): void {
    const { writer, node } = this;
    const { vectors, shared, tables } = attentionOperands(node.inputs, node.attributes);
    const { width, valueWidth } = this.#shape;
    const heads = node.shape[1] as number;
    const [query, row, length, prefixRow, prefixLength] = [node.inputs[0] as Node, ...vectors].map((input, index) =>
      plainPointer(writer, input, ["query", "row", "length", "prefixRow", "prefixLength"][index] as string),
    ) as [string, string, string, string, string];
    const [ownTable, prefixTable] = tables as [Node, Node | undefined];
    const slots = tables.reduce<Dim>((sum, table) => addDims(sum, multiplyDims(table.shape[1] as Dim, keyLanes)), 0);
    const area = writer.scratch(slots);
    const group = heads / (node.states[0]?.state.shape[1] as number);
    const own = this.#segment(0, ownTable, row, "own");
    const out = writer.pointer(node, "f32", "out");
    const scale = literal("f32", node.attributes["scale"] as number);
    const prefix = prefixTable ? this.#segment(2, prefixTable, prefixRow, "prefix") : own;
    writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
      writer.line(`${balancedTurn(writer.number(node.shape[0] as Dim))};`);
      writer.line(`const int64_t token = turn, keyHead = ${group === 1 ? "head" : `head / ${group}`};`);
      writer.line(`const struct pages common = ${prefix.text}, own = ${own.text};`);
      if (shared) {
        writer.line(`int64_t shared = clamp_index(${prefixLength}[token], ${prefix.lengths});`);
        writer.line(`const int64_t length = clamp_index(${length}[token], shared / 16 * 16 + ${own.lengths});`);
        writer.line("shared = length < shared ? length : shared;");
      } else writer.line(`const int64_t length = clamp_index(${length}[token], ${own.lengths}), shared = length;`);
      const place = `(token * ${heads} + head)`;
      writer.line(
        `attend_paged_${width}_${valueWidth}(${query} + ${place} * ${width}, ${area}, shared, length, &common, &own, ${scale}, ${out} + ${place} * ${valueWidth});`,
      );
    });
  }

  #segment(state: number, table: Node, row: string, role: string): Segment {
    const { writer, node } = this;
    const pool = (index: number): StateDeclaration => node.states[state + index]?.state as StateDeclaration;
    const [rows, blocks] = table.shape as [Dim, Dim];
    const [pages, heads] = pool(0).shape as [Dim, Dim];
    const tableText = plainPointer(writer, table, `${role}Table`);
    const [keys, values] = [writer.pointer(pool(0), "f32", `${role}Keys`), writer.pointer(pool(1), "f32", `${role}Values`)];
    return {
      text: `{${tableText} + clamp_index(${row}[token], ${writer.number(rows)}) * ${writer.number(blocks)}, ${keys}, ${values}, ${writer.number(pages)}, ${writer.number(heads)}, keyHead}`,
      lengths: writer.number(addDims(multiplyDims(blocks, keyLanes), 1)),
    };
  }
}
