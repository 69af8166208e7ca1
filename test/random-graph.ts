/**
 * Makes random graphs from the op table: chains and branches of values, views, contractions, selections and states. Values stay small and every op is
 * continuous in computed values, so that the reference stays comparable. One seed gives one graph.
 */
import { sizeVar, type Dim } from "../src/ir/dim.js";
import type { Node, StateDeclaration } from "../src/ir/graph.js";
import { padded } from "../src/ir/ops/state.js";
import { CaseBuilder, generator, noise, type Fill, type GraphCase } from "./graph-harness.js";

const rows = sizeVar("rows", 0, 64);
const tokens = sizeVar("tokens", 0, 64);
const widths = [1, 4, 16, 20, 48];
const stateRows = 13;
const capacity = { blocks: 3, slots: 48 };
const bindings = [
  { rows: 5, tokens: 3 },
  { rows: 0, tokens: 0 },
  { rows: 1, tokens: 9 },
  { rows: 17, tokens: 8 },
];

const ascending: Fill = (count) => Int32Array.from({ length: count }, (_, index) => index);

class RandomGraph {
  readonly #random: () => number;
  readonly #case: CaseBuilder;
  readonly #values: Node[] = [];
  readonly #states: { state: StateDeclaration; width: number }[] = [];

  constructor(readonly seed: number) {
    this.#random = generator(seed);
    this.#case = new CaseBuilder(`random_${seed}`, capacity);
  }

  make(): GraphCase {
    for (let i = 0; i < 2 + this.#below(2); i++) this.#keep(this.#input());
    const steps = 4 + this.#below(10);
    for (let i = 0; i < steps; i++) this.#pick(this.#moves)();
    const outputs = new Set([this.#values[this.#values.length - 1] as Node, this.#pick(this.#values), this.#pick(this.#values)]);
    for (const node of outputs) this.#case.output(node);
    return this.#case.finish(bindings);
  }

  readonly #moves: (() => void)[] = [
    () => this.#keep(this.#unary(this.#value())),
    () => this.#keep(this.#unary(this.#value())),
    () => this.#keep(this.#binary(this.#value())),
    () => this.#keep(this.#binary(this.#value())),
    () => this.#keep(this.#binary(this.#value())),
    () => this.#keep(this.#select(this.#value())),
    () => this.#keep(this.#reduce(this.#value())),
    () => this.#keep(this.#normalise(this.#value())),
    () => this.#keep(this.#normalise(this.#value())),
    () => this.#keep(this.#view(this.#value())),
    () => this.#keep(this.#view(this.#value())),
    () => this.#keep(this.#gather(this.#value())),
    () => this.#keep(this.#concat(this.#value())),
    () => this.#keep(this.#linear(this.#value(), this.#pick(widths))),
    () => this.#keep(this.#gated(this.#value())),
    () => this.#keep(this.#matmul(this.#value())),
    () => this.#keep(this.#input()),
    () => this.#write(this.#value()),
    () => this.#readState(),
    () => this.#moveState(),
    () => this.#residualOfState(this.#value()),
    () => this.#attend(this.#value()),
  ];

  #below(count: number): number {
    return Math.floor(this.#random() * count);
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.#below(list.length)] as T;
  }

  #fill(scale = 2): Fill {
    return noise(this.#below(1 << 30), scale, 9);
  }

  /** A recent value more often than an old one. */
  #value(): Node {
    const recent = this.#values.slice(-3);
    return this.#pick(this.#random() < 0.7 ? recent : this.#values);
  }

  #keep(node: Node): void {
    this.#values.push(node);
  }

  #input(): Node {
    const lead = this.#pick([rows, rows, tokens]);
    const shape = this.#pick<readonly Dim[]>([
      [lead, this.#pick(widths)],
      [lead, this.#pick(widths)],
      [lead, 3, this.#pick(widths)],
      [this.#pick(widths)],
      [lead],
    ]);
    return this.#case.f32(shape, this.#fill());
  }

  #add(op: string, inputs: readonly Node[], attributes = {}, states: readonly StateDeclaration[] = []): Node {
    return this.#case.add(op, inputs, attributes, states);
  }

  #constant(value: number): Node {
    return this.#add("constant", [], { value, dtype: "f32" });
  }

  #unary(x: Node): Node {
    const op = this.#pick(["neg", "abs", "sigmoid", "silu", "softplus", "asinh", "root", "log", "copy"]);
    if (op === "root") return this.#add("sqrt", [this.#add("add", [this.#add("abs", [x]), this.#constant(0.5)])]);
    if (op === "log") return this.#add("log1p", [this.#add("abs", [x])]);
    return this.#add(op, [x]);
  }

  /** Brings growing values back: without it products would leave the range in which answers can be compared. */
  #tame(x: Node): Node {
    return this.#add("asinh", [x]);
  }

  #binary(x: Node): Node {
    const other = this.#partner(x);
    const op = this.#pick(["add", "sub", "mul", "maximum", "minimum", "ratio"]);
    const operands = this.#random() < 0.5 ? [x, other] : [other, x];
    if (op === "mul") return this.#tame(this.#add("mul", operands));
    if (op === "ratio")
      return this.#add("div", [operands[0] as Node, this.#add("add", [this.#add("abs", [operands[1] as Node]), this.#constant(1)])]);
    return this.#add(op, operands);
  }

  /** A value of the same or a broadcastable shape: one that exists, or a new input. */
  #partner(x: Node): Node {
    const fitting = this.#values.filter((node) => node !== x && node.dtype === "f32" && fits(node.shape, x.shape));
    if (fitting.length > 0 && this.#random() < 0.7) return this.#pick(fitting);
    const shape = x.shape.slice(this.#below(x.shape.length + 1)).map((dim) => (this.#random() < 0.25 ? 1 : dim));
    return this.#case.f32(shape, this.#fill());
  }

  #select(x: Node): Node {
    const mask = this.#case.i32(x.shape, (count) =>
      Int32Array.from({ length: count }, (_, index) => ((index * 7 + count) % 3 === 0 ? 1 : 0)),
    );
    return this.#add("select", [mask, x, this.#random() < 0.5 ? this.#constant(-0.25) : this.#partner(x)]);
  }

  #reduce(x: Node): Node {
    if (typeof x.shape[x.shape.length - 1] !== "number") return this.#unary(x);
    return this.#random() < 0.5 ? this.#add("max", [x]) : this.#tame(this.#add("sum", [x]));
  }

  #normalise(x: Node): Node {
    const width = x.shape[x.shape.length - 1];
    if (typeof width !== "number") return this.#unary(x);
    if (this.#random() < 0.4) return this.#add("softmax", [x]);
    const weight = this.#random() < 0.5 ? [this.#case.table([width], this.#fill(1))] : [];
    return this.#add("rmsNorm", [x, ...weight], { epsilon: 0.01 });
  }

  #view(x: Node): Node {
    const { shape } = x;
    const last = shape[shape.length - 1];
    const choices: (() => Node)[] = [() => this.#add("broadcast", [x], { shape: [2, ...shape] })];
    if (shape.length > 1) choices.push(() => this.#add("permute", [x], { order: shape.map((_, axis) => shape.length - 1 - axis) }));
    if (shape.length > 2) choices.push(() => this.#add("permute", [x], { order: [0, 2, 1, ...shape.slice(3).map((_, axis) => axis + 3)] }));
    if (typeof last === "number") {
      if (last % 4 === 0) choices.push(() => this.#add("reshape", [x], { shape: [...shape.slice(0, -1), 4, last / 4] }));
      if (last > 2) choices.push(() => this.#add("slice", [x], { axis: shape.length - 1, start: 1, length: last - 2 }));
      const before = shape[shape.length - 2];
      if (typeof before === "number") choices.push(() => this.#add("reshape", [x], { shape: [...shape.slice(0, -2), before * last] }));
    }
    const viewed = this.#pick(choices)();
    return viewed.shape.length > 4 ? x : viewed;
  }

  #gather(x: Node): Node {
    if (x.shape.length === 0) return x;
    const fixed = typeof x.shape[0] === "number";
    const count = fixed ? this.#pick<Dim>([rows, tokens, 4]) : this.#pick<Dim>([rows, tokens]);
    const seed = this.#below(1 << 30);
    const index = this.#case.i32([count], (length) => {
      const random = generator(seed);
      return Int32Array.from({ length }, () => Math.floor(random() * 16) - 1);
    });
    const lead = x.shape[0] as Dim;
    if (this.#random() < 0.3) {
      const other = this.#case.f32([3, ...x.shape.slice(1)], this.#fill());
      return this.#add("gatherRows", [x, index, other]);
    }
    // A source that may be empty is only picked from by as many rows.
    return fixed || count === lead || this.#random() < 0.8 ? this.#add("gatherRows", [x, index]) : x;
  }

  #concat(x: Node): Node {
    const other = this.#values.find((node) => node !== x && node.dtype === x.dtype && sameLead(node.shape, x.shape)) ?? x;
    return x.shape.length === 0 ? x : this.#add("concat", [x, other]);
  }

  #weight(out: number, depth: number): StateDeclaration {
    return this.#case.weight(out, depth, this.#fill(1 / Math.sqrt(Math.max(depth, 1))), this.#random() < 0.25 ? "bf16" : "f32");
  }

  #linear(x: Node, out: number): Node {
    const depth = x.shape[x.shape.length - 1];
    if (typeof depth !== "number") return this.#unary(x);
    const bias = this.#random() < 0.5 ? [this.#case.table([out], this.#fill(1))] : [];
    return this.#add("linear", [x, ...bias], {}, [this.#weight(out, depth)]);
  }

  /** The gated pair of a decoder layer, with a residual where the shape allows. */
  #gated(x: Node): Node {
    const depth = x.shape[x.shape.length - 1];
    if (typeof depth !== "number") return this.#unary(x);
    const normal = this.#random() < 0.6 ? this.#add("rmsNorm", [x], { epsilon: 0.01 }) : x;
    const hidden = this.#pick(widths);
    const gate = this.#add("silu", [this.#linear(normal, hidden)]);
    const joined = this.#add("mul", [gate, this.#linear(normal, hidden)]);
    return this.#random() < 0.6 ? this.#add("add", [x, this.#linear(joined, depth)]) : joined;
  }

  #matmul(x: Node): Node {
    const depth = x.shape[1];
    if (x.shape.length !== 2 || typeof depth !== "number") return this.#view(x);
    const columns = this.#pick([1, 16, 50]);
    return this.#tame(this.#add("matmul", [x, this.#case.f32([depth, columns], this.#fill(0.3))]));
  }

  /** Writes rows of a value to a state; each row has a place of its own, some lie outside. */
  #write(x: Node): void {
    const width = x.shape[1];
    if (x.shape.length !== 2 || typeof width !== "number") return this.#keep(this.#unary(x));
    const known = this.#states.find((held) => held.width === width);
    const held = known ?? { state: this.#case.state([stateRows, width], "f32", this.#fill()), width };
    if (!known) this.#states.push(held);
    const offset = this.#below(stateRows);
    const lead = x.shape[0] as Dim;
    const index = this.#case.i32([lead], (count) =>
      Int32Array.from({ length: count }, (_, row) => (row < stateRows - 2 ? (row * 5 + offset) % stateRows : row + 100)),
    );
    this.#add("writeRows", [x, index], {}, [held.state]);
  }

  #readState(): void {
    if (this.#states.length === 0) return this.#keep(this.#input());
    const { state } = this.#pick(this.#states);
    this.#keep(this.#add("read", [], { dtype: "f32" }, [state]));
  }

  /** A state's rows, changed and written back to other places: rows must not be read after they were overwritten. */
  #moveState(): void {
    if (this.#states.length === 0) return this.#write(this.#value());
    const { state } = this.#pick(this.#states);
    this.#write(this.#unary(this.#add("read", [], { dtype: "f32" }, [state])));
    if (this.#random() < 0.5) this.#readState();
  }

  /** A contraction of a state as it was, added to the state as it became. */
  #residualOfState(x: Node): void {
    const held = this.#states.find(({ width }) => sameText(width, x.shape[1]));
    if (!held || x.shape.length !== 2) return this.#write(x);
    const read = (): Node => this.#add("read", [], { dtype: "f32" }, [held.state]);
    const before = this.#normalise(read());
    const gained = this.#random() < 0.5 ? this.#linear(before, held.width) : undefined;
    this.#write(x);
    this.#keep(this.#add("add", [read(), gained ?? this.#linear(before, held.width)]));
  }

  /** Query, key and value of a layer, rotated, appended to a cache and attended to; sometimes read before the append as well. */
  #attend(x: Node): void {
    const [lead, depth] = x.shape;
    if (x.shape.length !== 2 || typeof depth !== "number" || typeof lead === "number") return this.#keep(this.#unary(x));
    const [heads, d] = [2, this.#pick([8, 16])];
    const part = (): Node => this.#add("reshape", [this.#linear(x, heads * d)], { shape: [lead as Dim, heads, d] });
    const blocks = sizeVar("blocks", 1, 8);
    const slots = sizeVar("slots", 16, 128);
    const keys = this.#case.state([3, heads, blocks, d, 16], "f32", this.#fill(1));
    const values = this.#case.state([3, heads, slots, padded(d)], "f32", this.#fill(1));
    const vector = (fill: Fill): Node => this.#case.i32([lead as Dim], fill);
    const row = vector((count) => Int32Array.from({ length: count }, (_, token) => token % 3));
    const length = vector((count) => Int32Array.from({ length: count }, (_, token) => (token * 11) % 49));
    const attend = (q: Node): Node => this.#add("attention", [q, row, length], { scale: 0.3, valueWidth: d }, [keys, values]);
    const rotate = (y: Node): Node => {
      const tables = [0, 1].map(() => this.#case.table([20, d], this.#fill(1)));
      return this.#add("rope", [y, vector(ascending), ...tables], { width: d, pairing: this.#pick(["half", "interleaved"]) });
    };
    const q = this.#random() < 0.7 ? rotate(part()) : part();
    const early = this.#random() < 0.4 ? attend(q) : undefined;
    const k = this.#random() < 0.7 ? rotate(part()) : part();
    const slot = vector(ascending);
    this.#add("appendKeys", [k, row, slot], {}, [keys]);
    this.#add("appendValues", [part(), row, slot], {}, [values]);
    if (early) this.#keep(this.#random() < 0.7 ? this.#gather(early) : early);
    this.#keep(this.#add("reshape", [attend(q)], { shape: [lead as Dim, heads * d] }));
  }
}

const sameText = (a: Dim | undefined, b: Dim | undefined): boolean => String(a) === String(b);

function fits(shape: readonly Dim[], target: readonly Dim[]): boolean {
  const lead = target.length - shape.length;
  return lead >= 0 && shape.every((dim, axis) => dim === 1 || sameText(dim, target[axis + lead]));
}

const sameLead = (a: readonly Dim[], b: readonly Dim[]): boolean =>
  a.length === b.length && a.slice(0, -1).every((dim, axis) => sameText(dim, b[axis]));

export const randomGraph = (seed: number): GraphCase => new RandomGraph(seed).make();
