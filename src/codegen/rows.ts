/**
 * Row kernels: phases over one inner axis, computed row by row. Nodes are expanded to steps (load, map, reduce, rope); steps that need a finished reduction go
 * to a later loop, and what such a loop needs again is recomputed when cheap, else kept in scratch. Recomputing cannot change bits. Sixteen lanes are computed as
 * vectors that fill a register, one after the other.
 */
import { productOf, type Dim } from "../ir/dim.js";
import type { Node } from "../ir/graph.js";
import { padded } from "../ir/ops/state.js";
import * as s from "../ir/scalar.js";
import { plainPointer, rowAddress, type RowAddress } from "./address.js";
import { emitScalar, formOf, vectorType, type Lanes } from "./c-scalar.js";
import { isaTable, type TargetIsa } from "./helpers.js";
import { declareStateRow, isStateWrite, type EmittedRow } from "./state-rows.js";
import type { Reduction, Step, StepPlanner } from "./steps.js";

interface RopeTables {
  readonly cosine: string;
  readonly sine: string;
  readonly multiplier: string | undefined;
}

/** How one kernel's rows are emitted: which row, and where stores go. */
export interface RowEmission extends EmittedRow {
  readonly isa: TargetIsa;
  /** C pointer to the row of a stored node. */
  readonly target: (node: Node) => string;
}

/** Emits the loops of one row (`emitRow`), or the elementwise columns of a tile (`emitColumns`). */
export class RowEmitter {
  readonly #addresses = new Map<Step, RowAddress>();
  readonly #rowValues = new Map<Step, string>();
  readonly #kept = new Map<Step, string>();
  readonly #sinks = new Map<Step, Node[]>();
  readonly #partners = new Map<Step, string>();
  /** Names of the vectors that make sixteen lanes. */
  readonly #accumulators = new Map<Step, readonly string[]>();
  readonly #tables = new Map<Step, RopeTables>();
  readonly #stateRows = new Map<Node, string>();
  readonly #lanes: Lanes;

  constructor(
    private readonly planner: StepPlanner,
    private readonly values: readonly Node[],
    stores: readonly Node[],
    private readonly emission: RowEmission,
  ) {
    this.#lanes = isaTable[emission.isa].tile.lanes;
    for (const node of values) {
      const step = planner.steps.get(node) as Step;
      const sinks = this.#sinks.get(step) ?? [];
      if (stores.includes(node) || isStateWrite(node)) sinks.push(node);
      this.#sinks.set(step, sinks);
    }
  }

  /** Declares the addresses that depend on the row only. */
  prepare(): void {
    for (const step of this.planner.ordered) if (step.kind === "load") this.#addresses.set(step, this.#address(step));
    for (const step of this.planner.ordered) if (step.kind === "rope") this.#tables.set(step, this.#ropeTables(step.node as Node));
    for (const node of this.values) if (isStateWrite(node)) this.#stateRows.set(node, declareStateRow(this.emission, node));
  }

  /** Row-level values an epilogue needs, once per row. */
  prepareColumns(): void {
    for (const [step] of this.#sinks) this.#prepareRowValues(step);
  }

  /** Lanes at .. at + count - 1 of every stored value; `given` holds pointers to as many sums. All steps must be elementwise. */
  emitColumns(at: string, count: number, given: ReadonlyMap<Step, string>): void {
    const members = [...this.#sinks.entries()].filter(([, nodes]) => nodes.length > 0).map(([step]) => step);
    this.#emitBody(members, at, count, given);
  }

  #vector(type: Step["type"]): string {
    return vectorType(type, this.#lanes);
  }

  /** The function `name` for vectors of `type`. */
  #function(name: string, type: Step["type"] = "f32"): string {
    return `${name}_${formOf(type, this.#lanes)}`;
  }

  emitRow(): void {
    const steps = this.planner.ordered;
    const writer = this.emission.writer;
    for (const step of steps) if (this.#needsKeeping(step)) this.#kept.set(step, writer.scratch(padded(step.width)));
    const levels = steps.reduce((high, step) => Math.max(high, step.level), 0);
    for (let level = 0; level <= levels; level++) this.#emitLevel(level);
  }

  #address({ node, width, trailing = false, source = false }: Step): RowAddress {
    const { writer, rowShape, row } = this.emission;
    return rowAddress(writer, node as Node, { rowShape, width, row, trailing }, "x", source);
  }

  /** Used by a later loop and expensive, or needed in memory by a rope. */
  #needsKeeping(step: Step): boolean {
    if (step.width === 1 || step.kind === "load") return false;
    return this.planner.ordered.some(
      (user) => user.inputs.includes(step) && user.level > step.level && (user.kind === "rope" || this.#isCostly(step)),
    );
  }

  #isCostly(step: Step): boolean {
    return (
      step.costly ||
      (step.kind === "map" && step.inputs.some((input) => input.width > 1 && !this.#kept.has(input) && this.#isCostly(input)))
    );
  }

  #emitLevel(level: number): void {
    const here = this.planner.ordered.filter((step) => step.level === level);
    const wanted = here.filter((step) => this.#kept.has(step) || step.kind === "reduce" || (this.#sinks.get(step)?.length ?? 0) > 0);
    for (const step of here) if (step.kind === "rope" && !this.#pairsInPlace(step)) this.#emitPartner(step);
    for (const step of wanted) if (step.kind !== "reduce" && step.width === 1) this.#storeRowValue(step);
    const loops = new Map<number, Step[]>();
    for (const step of wanted) {
      const width = step.kind === "reduce" ? (step.inputs[0] as Step).width : step.width;
      if (step.kind === "reduce" || width > 1) loops.set(width, [...(loops.get(width) ?? []), step]);
    }
    for (const [width, members] of loops) this.#emitLoop(width, members);
    for (const step of wanted)
      if (step.kind === "reduce") for (const node of this.#sinks.get(step) ?? []) this.#storeScalar(node, this.#rowValue(step));
  }

  #emitLoop(width: number, members: readonly Step[]): void {
    const writer = this.emission.writer;
    for (const step of members) {
      if (step.kind !== "reduce") continue;
      const start = `${this.#function("splat")}(${step.reduction === "max" ? "-__builtin_inff()" : "0"})`;
      const names = Array.from({ length: 16 / this.#lanes }, () => writer.fresh(step.reduction === "max" ? "most" : "sums"));
      this.#accumulators.set(step, names);
      writer.line(`${this.#vector("f32")} ${names.map((name) => `${name} = ${start}`).join(", ")};`);
    }
    // Row-level operands are emitted before the loop, so that its body holds only what changes with i.
    for (const step of members) this.#prepareRowValues(step);
    const full = width - (width % 16);
    if (full > 0) {
      if (full === 16 && width === 16) this.#emitBody(members, "0", 16);
      else writer.block(`for (int64_t i = 0; i < ${full}; i += 16)`, () => this.#emitBody(members, "i", 16));
    }
    if (width % 16 !== 0) writer.block("", () => this.#emitBody(members, String(full), width % 16));
  }

  #prepareRowValues(step: Step, seen = new Set<Step>()): void {
    if (seen.has(step)) return;
    seen.add(step);
    for (const input of step.inputs) {
      if (input.width === 1 && !input.perElement) this.#rowValue(input);
      else if ((input.width > 1 || input.perElement) && !this.#kept.has(input)) this.#prepareRowValues(input, seen);
    }
  }

  /** Lanes at .. at + count - 1 of some steps, vector by vector. `given` holds pointers to values that are computed already. */
  #emitBody(members: readonly Step[], at: string, count: number, given: ReadonlyMap<Step, string> = new Map()): void {
    const { writer } = this.emission;
    for (let lane = 0; lane < count; lane += this.#lanes) {
      const names = new Map<Step, string>();
      for (const [step, pointer] of given) {
        const name = writer.fresh(step.name);
        writer.line(`const ${this.#vector("f32")} ${name} = ${this.#function("load")}(${shifted(pointer, lane)});`);
        names.set(step, name);
      }
      this.#emitVector(members, shifted(at, lane), Math.min(this.#lanes, count - lane), lane / this.#lanes, names);
    }
  }

  /** The first `count` lanes of a vector, the `part`-th of sixteen lanes. */
  #emitVector(members: readonly Step[], at: string, count: number, part: number, names: Map<Step, string>): void {
    const writer = this.emission.writer;
    const value = (step: Step): string => this.#element(step, at, count, names, members);
    for (const step of members) {
      if (step.kind === "reduce") this.#accumulate(step, value(step.inputs[0] as Step), count, part);
      else {
        const name = value(step);
        const kept = this.#kept.get(step);
        if (kept) writer.line(`${this.#function("store")}(${kept} + ${at}, ${name});`);
        for (const node of this.#sinks.get(step) ?? []) this.#storeVector(node, name, at, count);
      }
    }
  }

  /** Lanes that a row does not have are left out, or add the neutral element. */
  #accumulate(step: Step, value: string, count: number, part: number): void {
    const total = this.#accumulators.get(step)?.[part] as string;
    const neutral = step.reduction === "max" ? "-__builtin_inff()" : "0";
    const kept = count === this.#lanes ? value : `${this.#function("keep")}(${value}, ${count}, ${neutral})`;
    const update: Record<Reduction, string> = {
      sum: `${total} + ${kept}`,
      sumSquares: `${this.#function("fma")}(${kept}, ${kept}, ${total})`,
      max: `${this.#function("larger")}(${total}, ${kept})`,
    };
    this.emission.writer.line(`${total} = ${update[step.reduction as Reduction]};`);
  }

  /** C name of lanes at .. at + count - 1 of a step. */
  #element(step: Step, at: string, count: number, names: Map<Step, string>, members: readonly Step[]): string {
    const known = names.get(step);
    if (known) return known;
    const writer = this.emission.writer;
    if (step.width === 1 && !step.perElement) return this.#rowValue(step);
    let text: string;
    const kept = this.#kept.get(step);
    if (kept && !members.includes(step)) text = `${this.#function("load")}(${kept} + ${at})`;
    else if (step.kind === "load") text = this.#loadText(this.#addresses.get(step) as RowAddress, at, count);
    else if (step.kind === "rope") text = this.#ropeText(step, at, count, names, members);
    else {
      const operands = step.inputs.map((input) => this.#element(input, at, count, names, members));
      text = this.#mapText(step, operands);
    }
    const name = writer.fresh(step.name);
    writer.line(`const ${this.#vector(step.type)} ${name} = ${text};`);
    names.set(step, name);
    return name;
  }

  #loadText({ pointer, dtype, stride }: RowAddress, at: string, count: number): string {
    const type = dtype === "i32" ? "i32" : "f32";
    if (stride === 0) return `${this.#function("splat", type)}(*${pointer})`;
    if (stride !== 1) {
      const step = this.emission.writer.number(stride);
      return `${this.#function("load_strided", type)}(${pointer} + ${at} * ${step}, ${step}, ${count})`;
    }
    const place = at === "0" ? pointer : `${pointer} + ${at}`;
    return count === this.#lanes ? `${this.#function("load", type)}(${place})` : `${this.#function("load_part", type)}(${place}, ${count})`;
  }

  #mapText(step: Step, operands: readonly string[]): string {
    const writer = this.emission.writer;
    const inputs = step.inputs.map((input, index) => s.argument(input.type, index));
    return emitScalar(
      (step.define as NonNullable<Step["define"]>)(inputs),
      operands,
      (line) => writer.line(line),
      () => writer.fresh("t"),
      this.#lanes,
    );
  }

  /** C name of a row-level value, in every lane of a vector: one way of computing for rows and elements. */
  #rowValue(step: Step): string {
    const known = this.#rowValues.get(step);
    if (known) return known;
    const writer = this.emission.writer;
    const name = writer.fresh(step.name);
    let text: string;
    if (step.kind === "load") {
      const address = this.#addresses.get(step) as RowAddress;
      text = `${this.#function("splat", step.type)}(*${address.pointer})`;
    } else if (step.kind === "reduce") {
      const totals = (this.#accumulators.get(step) as readonly string[]).join(", ");
      const reduce = step.reduction === "max" ? "max_lanes" : "sum_lanes";
      text = `${this.#function("splat")}(${this.#lanes === 16 ? reduce : this.#function(reduce)}(${totals}))`;
    } else {
      const operands = step.inputs.map((input) => this.#rowValue(input));
      text = this.#mapText(step, operands);
    }
    writer.line(`const ${this.#vector(step.type)} ${name} = ${text};`);
    this.#rowValues.set(step, name);
    return name;
  }

  #storeRowValue(step: Step): void {
    for (const node of this.#sinks.get(step) ?? []) this.#storeScalar(node, this.#rowValue(step));
  }

  #storeScalar(node: Node, name: string): void {
    if (isStateWrite(node)) this.#storeVector(node, name, "0", 1);
    else this.emission.writer.line(`*${this.emission.target(node)} = ${name}[0];`);
  }

  /** Where the vector that a rotation takes lies in memory. */
  #placeOf(x: Step): Pick<RowAddress, "pointer" | "stride"> {
    const kept = this.#kept.get(x);
    return kept ? { pointer: kept, stride: 1 } : (this.#addresses.get(x) as RowAddress);
  }

  /** Whether the other elements of the pairs of sixteen lanes are those lanes swapped, or sixteen adjacent ones. */
  #pairsInPlace(step: Step): boolean {
    const { width, pairing } = step.node?.attributes as { width: number; pairing: string };
    if (width !== step.width && width % 16 !== 0) return false;
    return pairing === "interleaved" || ((width / 2) % 16 === 0 && this.#placeOf(step.inputs[0] as Step).stride === 1);
  }

  /** The other element of each pair; 0 for columns that are not rotated. */
  #partnerText(step: Step, x: string, at: string): string {
    if (!this.#pairsInPlace(step)) return `${this.#function("load")}(${this.#partners.get(step)} + ${at})`;
    const { width, pairing } = step.node?.attributes as { width: number; pairing: string };
    const { pointer } = this.#placeOf(step.inputs[0] as Step);
    const partner =
      pairing === "interleaved"
        ? `${this.#function("swap_pairs")}(${x})`
        : `${this.#function("load")}(${pointer} + ${at} + (${at} < ${width / 2} ? ${width / 2} : ${-width / 2}))`;
    return width === step.width ? partner : `(${at} < ${width} ? ${partner} : ${this.#function("splat")}(0))`;
  }

  /** The other element of each pair, in scratch, so that the rotation is a plain map. */
  #emitPartner(step: Step): void {
    const writer = this.emission.writer;
    const node = step.node as Node;
    const x = step.inputs[0] as Step;
    const { width, pairing } = node.attributes as { width: number; pairing: string };
    const partner = writer.scratch(padded(step.width));
    this.#partners.set(step, partner);
    const address = this.#placeOf(x);
    const element = (index: string): string =>
      address.stride === 1 ? `${address.pointer}[${index}]` : `${address.pointer}[(${index}) * ${writer.number(address.stride)}]`;
    if (pairing === "half") {
      writer.line(
        `for (int64_t i = 0; i < ${width / 2}; i++) { ${partner}[i] = ${element(`i + ${width / 2}`)}; ${partner}[i + ${width / 2}] = ${element("i")}; }`,
      );
    } else {
      writer.line(
        `for (int64_t i = 0; i < ${width}; i += 2) { ${partner}[i] = ${element("i + 1")}; ${partner}[i + 1] = ${element("i")}; }`,
      );
    }
    if (width < step.width) writer.line(`for (int64_t i = ${width}; i < ${step.width}; i++) ${partner}[i] = 0;`);
  }

  #ropeText(step: Step, at: string, count: number, names: Map<Step, string>, members: readonly Step[]): string {
    const writer = this.emission.writer;
    const x = this.#element(step.inputs[0] as Step, at, count, names, members);
    const tables = this.#tables.get(step) as RopeTables;
    const load = (pointer: string): string => this.#loadText({ pointer, stride: 1, dtype: "f32" }, at, count);
    const partner = this.#partnerText(step, x, at);
    const rotated = writer.fresh("turned");
    writer.line(`const ${this.#vector("f32")} ${rotated} = ${x} * ${load(tables.cosine)} + ${partner} * ${load(tables.sine)};`);
    return tables.multiplier ? `${rotated} * ${load(tables.multiplier)}` : rotated;
  }

  #ropeTables(node: Node): RopeTables {
    const [, position, cosine, sine, multiplier, decay] = node.inputs as [Node, Node, Node, Node, Node | undefined, Node | undefined];
    return {
      cosine: this.#tableRow(cosine, position),
      sine: this.#tableRow(sine, position),
      multiplier: multiplier && decay ? this.#tableRow(multiplier, decay) : undefined,
    };
  }

  #tableRow(table: Node, index: Node): string {
    const { writer, rowShape, row } = this.emission;
    const inner = productOf(rowShape.slice(1));
    const token = inner === 1 ? row : `(${row} / ${writer.number(inner)})`;
    const base = plainPointer(writer, table, "table");
    const at = `clamp_index(${plainPointer(writer, index, "index")}[${token}], ${writer.number(table.shape[0] as Dim)})`;
    const name = writer.fresh("table");
    writer.line(`const float *const ${name} = ${base} + ${at} * ${writer.number(table.shape[1] as Dim)};`);
    return name;
  }

  #storeVector(node: Node, value: string, at: string, count: number): void {
    const writer = this.emission.writer;
    if (node.op === "appendKeys") return this.#appendKeys(node, value, at, count);
    const pointer = node.op === "appendValues" || node.op === "writeRows" ? this.#stateRow(node) : this.emission.target(node);
    const type = isStateWrite(node) ? (node.inputs[0] as Node).dtype : node.dtype;
    const guard = isStateWrite(node) ? `if (${pointer}) ` : "";
    const place = at === "0" ? pointer : `${pointer} + ${at}`;
    const whole = count === this.#lanes;
    writer.line(
      `${guard}${this.#function(whole ? "store" : "store_part", type as Step["type"])}(${place}, ${value}${whole ? "" : `, ${count}`});`,
    );
  }

  /** Address of this row's place in the state; null when its index lies outside. */
  #stateRow(node: Node): string {
    return this.#stateRows.get(node) as string;
  }

  #appendKeys(node: Node, value: string, at: string, count: number): void {
    const place = this.#stateRow(node);
    this.emission.writer.line(`if (${place}) for (int l = 0; l < ${count}; l++) ${place}[(${at} + l) * 16] = ${value}[l];`);
  }
}

/** The place so many elements on. */
const shifted = (at: string, by: number): string => {
  if (by === 0) return at;
  return /^\d+$/.test(at) ? String(Number(at) + by) : `(${at} + ${by})`;
};
