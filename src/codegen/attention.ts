/**
 * The attention template: which queries, caches and lengths the functions of one head size get. A shared prefix is visited once for up to four groups of four queries; the
 * bits do not depend on that, nor on where prefix and own keys meet.
 */
import { addDims, multiplyDims, type Dim } from "../ir/dim.js";
import type { Node } from "../ir/graph.js";
import type { Units } from "../ir/kernel.js";
import { attentionForm, attentionOperands } from "../ir/ops/attention.js";
import { keyLanes } from "../ir/ops/state.js";
import { plainPointer } from "./address.js";
import { attendFunction, attentionFunctions, groupsTogether, queryGroup, type AttentionShape } from "./attention-functions.js";
import { literal } from "./c-scalar.js";
import type { TargetIsa } from "./helpers.js";
import type { KernelWriter } from "./writer.js";

/**
 * C text that goes through the units head by head, so that keys and values which groups of queries share stay in the cache, and takes the groups of a head in pairs from
 * both ends, so that threads with equal ranges get early and late tokens alike, which see few and many keys. A head may have more units than groups: the last ones are empty.
 */
export const balancedTurn = (groups: string, unit = "unit", unitsOfHead = "groups"): string =>
  `const int64_t groups = ${groups}, head = ${unit} / ${unitsOfHead}, at = ${unit} % ${unitsOfHead}, turn = at % 2 == 0 ? at / 2 : groups - 1 - at / 2`;

const roles = ["query", "row", "length", "prefixRow", "prefixLength"];

interface Cache {
  /** The operand that holds it, or its state. */
  readonly holder: { readonly value: Node } | { readonly state: object };
  readonly shape: readonly Dim[];
}

/** Own keys and values, then the prefix's. */
function cachesOf(node: Node): readonly Cache[] {
  const { values } = attentionOperands(node.inputs, node.attributes);
  return [
    ...values.map((value) => ({ holder: { value }, shape: value.shape })),
    ...node.states.map(({ state }) => ({ holder: { state }, shape: state.shape })),
  ];
}

export class AttentionEmitter {
  readonly #shape: AttentionShape;
  readonly #tokens: Dim;
  readonly #heads: number;
  readonly #shared: boolean;
  readonly #caches: readonly Cache[];

  constructor(
    private readonly writer: KernelWriter,
    private readonly node: Node,
    isa: TargetIsa,
  ) {
    const [tokens, heads, valueWidth] = node.shape as [Dim, number, number];
    this.#tokens = tokens;
    this.#heads = heads;
    this.#shape = { width: (node.inputs[0] as Node).shape[2] as number, valueWidth, isa };
    this.#shared = attentionOperands(node.inputs, node.attributes).shared;
    this.#caches = cachesOf(node);
  }

  get functions(): string[] {
    return [...attentionFunctions(this.#shape), attendFunction(this.#shape)];
  }

  /** Units that go together: groups of one head. */
  get together(): number {
    return this.#shared ? groupsTogether : 1;
  }

  /** A head starts a new lot of units that go together, whether or not its groups fill the last one. */
  get units(): Units {
    return { dim: this.#tokens, divide: queryGroup * this.together, times: this.together * this.#heads };
  }

  emit(): void {
    const { writer, node } = this;
    const { vectors } = attentionOperands(node.inputs, node.attributes);
    const [query, row, length, prefixRow, prefixLength] = [node.inputs[0] as Node, ...vectors].map((input, index) =>
      plainPointer(writer, input, roles[index] as string),
    );
    const tokens = writer.number(this.#tokens);
    const heads = this.#heads;
    const { width } = this.#shape;
    const own = this.#cache(0, "own");
    const common = this.#shared ? this.#cache(2, "prefix") : own;
    const slots = this.#shared ? addDims(this.#slots(0), this.#slots(2)) : this.#slots(0);
    const { together } = this;
    const most = queryGroup * together;
    const area = writer.scratch(multiplyDims(slots, most));
    const ceiling = (divide: number): string => `(${tokens} + ${divide - 1}) / ${divide}`;
    writer.line(`const int64_t unitsOfHead = ${ceiling(most)} * ${together};`);
    writer.block("for (int64_t unit = begin; unit < end;)", () => {
      writer.line(`const float *q[${most}];`);
      writer.line(`float *s[${most}], *out[${most}];`);
      writer.line(
        `int64_t shared[${most}], source[${most}]${this.#shared ? `, row[${most}], length[${most}]` : ""}, count = 0, joint = 0;`,
      );
      writer.line("/* Queries of a group that see the same common keys go together, others one by one. */");
      if (this.#shared)
        writer.line("/* So do groups with own keys apart: tokens of one row find common keys where those before left them. */");
      writer.block(`for (; joint < ${together} && unit + joint < end; joint++)`, () => {
        writer.line(`${balancedTurn(ceiling(queryGroup), "(unit + joint)", "unitsOfHead")};`);
        writer.line("if (head != unit / unitsOfHead || at >= groups) break;");
        writer.line(
          `const int64_t first = turn * ${queryGroup}, keyHead = ${this.#keyHead()}, stop = first + ${queryGroup} < ${tokens} ? first + ${queryGroup} : ${tokens};`,
        );
        writer.line(`int alike = stop - first == ${queryGroup};`);
        writer.line(`count = joint * ${queryGroup};`);
        writer.block("for (int64_t token = first; token < stop; token++, count++)", () => {
          writer.line(`q[count] = ${query} + (token * ${heads} + head) * ${width};`);
          writer.line(`s[count] = ${area} + count * ${writer.number(slots)};`);
          writer.line(`out[count] = ${writer.pointer(node, "f32", "out")} + (token * ${heads} + head) * ${this.#shape.valueWidth};`);
          writer.line(`source[count] = ${this.#rowText(this.#shared ? prefixRow : row, this.#shared ? 2 : 0)};`);
          writer.line(`shared[count] = clamp_index(${this.#shared ? prefixLength : length}[token], ${common.lengths});`);
          if (this.#shared) {
            writer.line(`row[count] = ${this.#rowText(row, 0)};`);
            writer.line(`length[count] = clamp_index(${length}[token], shared[count] / 16 * 16 + ${own.lengths});`);
            writer.line("shared[count] = length[count] < shared[count] ? length[count] : shared[count];");
          }
          writer.line("alike = alike && source[count] == source[0];");
        });
        writer.line(`if (!alike${this.#shared ? ` || (joint > 0 && row[joint * ${queryGroup}] == row[0])` : ""}) break;`);
      });
      const keys = (i: string): string =>
        `${common.keys} + source[${i}] * ${common.keyRow}, ${common.values} + source[${i}] * ${common.valueRow}`;
      writer.line(`if (joint > 0) ${this.#call(queryGroup, "joint", "0", keys("0"), own)}`);
      writer.line(`else for (int64_t i = 0; i < count; i++) ${this.#call(1, "1", "i", keys("i"), own)}`);
      writer.line("unit += joint > 0 ? joint : 1;");
    });
  }

  #keyHead(): string {
    const group = this.#heads / (this.#cacheAt(0).shape[1] as number);
    return group === 1 ? "head" : `head / ${group}`;
  }

  /** Row of a cache in units of heads, at the head that the query reads. */
  #rowText(vector: string | undefined, state: number): string {
    const [rows, heads] = this.#cacheAt(state).shape as [Dim, Dim];
    return `clamp_index(${vector}[token], ${this.writer.number(rows)}) * ${this.writer.number(heads)} + keyHead`;
  }

  #cacheAt(index: number): Cache {
    return this.#caches[index] as Cache;
  }

  /** Slots that both keys and values have: values that are operands may fill their last block of keys in part. */
  #capacity(first: number): Dim {
    const [slots, values] = [this.#slots(first), this.#cacheAt(first + 1).shape[2] as Dim];
    return attentionForm(this.node.attributes) === "values" && typeof slots === "number" && typeof values === "number"
      ? Math.min(slots, values)
      : slots;
  }

  #slots(state: number): Dim {
    return multiplyDims(this.#cacheAt(state).shape[2] as Dim, keyLanes);
  }

  #call(queries: number, groups: string, first: string, common: string, own: CacheNames): string {
    const { width, valueWidth } = this.#shape;
    const at = (list: string): string => (first === "0" ? list : `${list} + ${first}`);
    const ownArgs = this.#shared
      ? `${own.keys}, ${own.values}, ${own.keyRow}, ${own.valueRow}, ${at("row")}, ${at("length")}`
      : "0, 0, 0, 0, 0, 0";
    const scale = literal("f32", this.node.attributes["scale"] as number);
    return `attend_${width}_${valueWidth}(${queries}, ${groups}, ${at("q")}, ${at("s")}, ${at("shared")}, ${common}, ${scale}, ${ownArgs}, ${at("out")});`;
  }

  #rowElements(state: number): Dim {
    const { shape } = this.#cacheAt(state);
    return state % 2 === 0 ? multiplyDims(shape[2] as Dim, (shape[3] as number) * 16) : multiplyDims(shape[2] as Dim, shape[3] as Dim);
  }

  #cache(first: number, role: string): CacheNames {
    const { writer } = this;
    const pointer = ({ holder }: Cache, name: string): string =>
      "value" in holder ? plainPointer(writer, holder.value, name) : writer.pointer(holder.state, "f32", name);
    return {
      keys: pointer(this.#cacheAt(first), `${role}Keys`),
      values: pointer(this.#cacheAt(first + 1), `${role}Values`),
      keyRow: writer.number(this.#rowElements(first)),
      valueRow: writer.number(this.#rowElements(first + 1)),
      lengths: writer.number(addDims(this.#capacity(first), 1)),
    };
  }
}

interface CacheNames {
  readonly keys: string;
  readonly values: string;
  readonly keyRow: string;
  readonly valueRow: string;
  /** Number of lengths it can have: one more than it has slots. */
  readonly lengths: string;
}
