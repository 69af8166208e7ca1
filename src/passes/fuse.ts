/**
 * Graph -> kernels: elementwise work joins the contraction that produced its operand or a row kernel, contractions that share x become segments of one kernel,
 * and rows computed only for a contraction become its prologue. With `fuse` off every node is a kernel of its own (eager).
 */
import { resolveAccess } from "../ir/access.js";
import { sameDim, sameShape, type Dim } from "../ir/dim.js";
import type { Graph, Node } from "../ir/graph.js";
import type { Kernel } from "../ir/kernel.js";
import { opSpec } from "../ir/ops.js";
import { needsPlain } from "./operands.js";
import { predecessors } from "./order.js";

interface Segment {
  contractions: Node[];
  epilogue: Node[];
}

interface Group {
  readonly kind: Kernel["kind"];
  members: Node[];
  segments: Segment[];
  /** Contraction: nodes computing x. */
  prologue: Node[];
}

const rowWise = new Set(["sum", "max", "rmsNorm", "softmax", "rope", "appendKeys", "appendValues", "writeRows", "gatherRows"]);
const largestRowKernel = 24;

/** True for values that no kernel computes: inputs, weights read in place, and views expressible as strides. */
export function isAlias(node: Node): boolean {
  if (node.op === "input" || node.op === "constant") return true;
  if (node.op === "read") return node.states[0]?.state.kind === "constant";
  return opSpec(node.op).class === "view" && resolveAccess(node).base !== node;
}

/** Leading axes and inner width of the rows a node is computed in. */
export function iterationShape(node: Node): { rowShape: readonly Dim[]; width: number } {
  const shape = node.states.some((access) => access.writes) ? (node.inputs[0] as Node).shape : node.shape;
  const last = shape[shape.length - 1];
  if (last === undefined) return { rowShape: [], width: 1 };
  return typeof last === "number" ? { rowShape: shape.slice(0, -1), width: last } : { rowShape: shape, width: 1 };
}

function kindOf(node: Node): Kernel["kind"] {
  const { class: opClass } = opSpec(node.op);
  if (opClass === "contraction") return "contraction";
  if (node.op === "attention" || node.op === "maskedAttention") return "attention";
  if (opClass === "elementwise" || opClass === "view" || opClass === "reduce" || rowWise.has(node.op) || node.op === "read") return "rows";
  return "routine";
}

/** Two nodes that use one State, at least one of them writing: rows of one kernel run in any order, so they must not share it. */
const conflict = (a: Node, b: Node): boolean =>
  a.states.some((one) => b.states.some((other) => one.state === other.state && (one.writes || other.writes)));

function appendTo<Key, Item>(lists: Map<Key, Item[]>, key: Key, item: Item): void {
  const list = lists.get(key);
  if (list) list.push(item);
  else lists.set(key, [item]);
}

class Fuser {
  readonly #groups: Group[] = [];
  readonly #groupOf = new Map<Node, Group>();
  /** Inputs of groups with so many members. Nodes are placed in order, so only a group's own growth changes them; merging groups empties the table. */
  readonly #inputsOf = new Map<Group, { readonly members: number; readonly inputs: ReadonlySet<Group> }>();
  readonly #before: Map<Node, readonly Node[]>;
  readonly #users = new Map<Node, Node[]>();
  /** Who reads a stored value, itself (`direct`) or a view of it; views themselves read nothing. */
  readonly #readers = new Map<Node, { readonly node: Node; readonly direct: boolean }[]>();
  readonly #position: ReadonlyMap<Node, number>;
  readonly #outputs: Set<Node>;

  constructor(
    private readonly graph: Graph,
    private readonly fuse: boolean,
  ) {
    this.#before = predecessors(graph);
    this.#outputs = new Set(graph.outputs.map(({ node }) => resolveAccess(node).base));
    this.#position = new Map(graph.nodes.map((node, index) => [node, index]));
    for (const node of graph.nodes) for (const input of new Set(node.inputs)) this.#addUse(node, input);
  }

  #addUse(node: Node, input: Node): void {
    appendTo(this.#users, input, node);
    if (isAlias(node)) return;
    const { base } = resolveAccess(input);
    appendTo(this.#readers, base, { node, direct: input === base });
  }

  run(): Kernel[] {
    for (const node of this.graph.nodes) if (!isAlias(node) && !this.#isInlineGather(node)) this.#place(node);
    if (this.fuse) {
      this.#inlinePrologues();
      this.#mergeRowGroups();
    }
    return this.#ordered().map((group) => this.#kernel(group));
  }

  /** A row selection that all its users can read through the index. */
  #isInlineGather(node: Node): boolean {
    if (!this.fuse || node.op !== "gatherRows" || this.#outputs.has(node)) return false;
    const users = this.#users.get(node) ?? [];
    return users.length > 0 && users.every((user) => (user.op === "linear" ? user.inputs[1] !== node : this.#readsByRow(user, node)));
  }

  /** A row kernel in whose iteration the operand keeps its first axis. */
  #readsByRow(user: Node, operand: Node): boolean {
    if (kindOf(user) !== "rows" || isAlias(user) || user.op === "gatherRows") return false;
    if (user.inputs.some((input, position) => input === operand && needsPlain(user, position))) return false;
    const { shape } = user.states.some((access) => access.writes) ? (user.inputs[0] as Node) : user;
    return shape.length === operand.shape.length && sameDim(shape[0] as Dim, operand.shape[0] as Dim);
  }

  #place(node: Node): void {
    const kind = kindOf(node);
    if (this.fuse && kind === "contraction" && this.#joinSharedOperand(node)) return;
    if (this.fuse && kind === "rows") {
      if (opSpec(node.op).class === "elementwise" && this.#joinEpilogue(node)) return;
      if (this.#joinRows(node)) return;
    }
    const group: Group = {
      kind,
      members: [node],
      segments: kind === "contraction" ? [{ contractions: [node], epilogue: [] }] : [],
      prologue: [],
    };
    this.#groups.push(group);
    this.#groupOf.set(node, group);
  }

  #groupInputs(group: Group): ReadonlySet<Group> {
    const known = this.#inputsOf.get(group);
    if (known?.members === group.members.length) return known.inputs;
    const found = new Set<Group>();
    const visit = (node: Node): void => {
      for (const before of this.#before.get(node) ?? []) {
        const { base } = resolveAccess(before);
        const producer = this.#groupOf.get(base);
        if (producer && producer !== group) found.add(producer);
        else if (!producer && base.op !== "input") visit(base);
      }
    };
    group.members.forEach(visit);
    this.#inputsOf.set(group, { members: group.members.length, inputs: found });
    return found;
  }

  /** Whether `to` needs, directly or not, something `from` makes. */
  #reaches(from: Group, to: Group): boolean {
    if (from === to) return true;
    const seen = new Set<Group>();
    const stack = [to];
    while (stack.length > 0) {
      const group = stack.pop() as Group;
      for (const input of this.#groupInputs(group)) {
        if (input === from) return true;
        if (!seen.has(input)) {
          seen.add(input);
          stack.push(input);
        }
      }
    }
    return false;
  }

  /** All a node needs besides `group` is computed without it, what it takes from the group it takes directly and row by row, and no State is raced for. */
  #canJoin(node: Node, group: Group): boolean {
    if (node.inputs.some((input, position) => needsPlain(node, position) && this.#groupOf.get(input) === group)) return false;
    if (group.members.some((member) => conflict(member, node))) return false;
    const visit = (before: Node): boolean => {
      if (this.#groupOf.get(before) === group) return true;
      const { base } = resolveAccess(before);
      const producer = this.#groupOf.get(base);
      if (producer === group) return false;
      if (producer) return !this.#reaches(group, producer);
      return base.op === "input" || (this.#before.get(base) ?? []).every((deeper) => this.#groupOf.get(deeper) !== group && visit(deeper));
    };
    return (this.#before.get(node) ?? []).every(visit);
  }

  #joinSharedOperand(node: Node): boolean {
    if (node.op !== "linear") return false;
    const x = node.inputs[0] as Node;
    const group = this.#groups.find(
      (candidate) => candidate.kind === "contraction" && candidate.members[0]?.op === "linear" && candidate.members[0].inputs[0] === x,
    );
    if (!group || !this.#canJoin(node, group)) return false;
    group.members.push(node);
    group.segments.push({ contractions: [node], epilogue: [] });
    this.#groupOf.set(node, group);
    return true;
  }

  #segmentOf(group: Group, node: Node): Segment | undefined {
    return group.segments.find((segment) => segment.contractions.includes(node) || segment.epilogue.includes(node));
  }

  #joinEpilogue(node: Node): boolean {
    for (const input of node.inputs) {
      const group = this.#groupOf.get(input);
      const segment = group?.kind === "contraction" ? this.#segmentOf(group, input) : undefined;
      if (!group || !segment || !sameShape(node.shape, input.shape) || node.dtype !== "f32" || !this.#canJoin(node, group)) continue;
      const segments = new Set(node.inputs.map((operand) => this.#segmentOf(group, operand)).filter((found) => found !== undefined));
      if (segments.size > 2 || [...segments].reduce((sum, { contractions }) => sum + contractions.length, 0) > 2) continue;
      if (![...segments].every(({ contractions }) => sameShape((contractions[0] as Node).shape, node.shape))) continue;
      for (const other of segments) {
        if (other === segment) continue;
        segment.contractions.push(...other.contractions);
        segment.epilogue.push(...other.epilogue);
        group.segments = group.segments.filter((kept) => kept !== other);
      }
      segment.epilogue.push(node);
      group.members.push(node);
      this.#groupOf.set(node, group);
      return true;
    }
    return false;
  }

  #joinRows(node: Node): boolean {
    const { rowShape } = iterationShape(node);
    for (const input of node.inputs) {
      const group = this.#groupOf.get(input);
      if (!group || group.kind !== "rows" || group.members.length >= largestRowKernel) continue;
      if (!sameShape(iterationShape(group.members[0] as Node).rowShape, rowShape)) continue;
      if (node.op === "gatherRows" || !this.#rowAligned(node, group) || !this.#canJoin(node, group)) continue;
      group.members.push(node);
      this.#groupOf.set(node, group);
      return true;
    }
    return false;
  }

  /** Every operand from the group has the node's own rows, not a broadcast of others. */
  #rowAligned(node: Node, group: Group): boolean {
    const { rowShape, width } = iterationShape(node);
    return node.inputs.every((input) => {
      if (this.#groupOf.get(input) !== group) return true;
      const own = iterationShape(input);
      return sameShape(own.rowShape, rowShape) && (own.width === width || own.width === 1 || opSpec(node.op).class === "reduce");
    });
  }

  /** Independent row kernels over the same rows become one: fewer launches and barriers. */
  #mergeRowGroups(): void {
    const merged = new Set<Group>();
    for (const [index, group] of this.#groups.entries()) {
      if (group.kind !== "rows" || merged.has(group)) continue;
      const { rowShape } = iterationShape(group.members[0] as Node);
      for (const other of this.#groups.slice(index + 1)) {
        if (other.kind !== "rows" || merged.has(other) || group.members.length + other.members.length > largestRowKernel) continue;
        if (rowShape.length === 0 || !sameShape(iterationShape(other.members[0] as Node).rowShape, rowShape)) continue;
        if (this.#reaches(group, other) || this.#reaches(other, group)) continue;
        group.members = this.#inOrder([...group.members, ...other.members]);
        for (const node of other.members) this.#groupOf.set(node, group);
        this.#inputsOf.clear();
        merged.add(other);
      }
    }
    this.#remove(merged);
  }

  #remove(groups: ReadonlySet<Group>): void {
    const kept = this.#groups.filter((group) => !groups.has(group));
    this.#groups.splice(0, this.#groups.length, ...kept);
  }

  /** Rows whose only use is to be x of one contraction are computed by it. */
  #inlinePrologues(): void {
    const inlined = new Set<Group>();
    for (const group of this.#groups) {
      const first = group.members[0];
      const x = group.kind === "contraction" && first?.op === "linear" ? first.inputs[0] : undefined;
      const producer = x ? this.#groupOf.get(x) : undefined;
      if (!x || !producer || producer.kind !== "rows" || inlined.has(producer)) continue;
      if (producer.members.some((node) => node.states.some((access) => access.writes)) || this.#stored(producer).some((node) => node !== x))
        continue;
      if (this.#outputs.has(x) || (this.#users.get(x) ?? []).some((user) => this.#groupOf.get(user) !== group || user.op !== "linear"))
        continue;
      // Whatever must run after the producer, a later write of a State it reads for example, must not be needed by the contraction.
      if ([...this.#groupInputs(group)].some((other) => other !== producer && this.#reaches(producer, other))) continue;
      group.prologue = producer.members;
      group.members = [...producer.members, ...group.members];
      for (const node of producer.members) this.#groupOf.set(node, group);
      this.#inputsOf.clear();
      inlined.add(producer);
    }
    this.#remove(inlined);
  }

  /** Members some other kernel, a view, or the caller reads. */
  #stored(group: Group): Node[] {
    const readOutside = (value: Node): boolean =>
      (this.#readers.get(value) ?? []).some(({ node, direct }) => !direct || this.#groupOf.get(node) !== group);
    return group.members.filter((node) => this.#outputs.has(node) || readOutside(node));
  }

  #inOrder(nodes: readonly Node[]): Node[] {
    return [...nodes].sort((a, b) => this.#positionOf(a) - this.#positionOf(b));
  }

  #positionOf(node: Node): number {
    return this.#position.get(node) as number;
  }

  #ordered(): Group[] {
    const ranks = new Map(this.#groups.map((group) => [group, Math.max(...group.members.map((node) => this.#positionOf(node)))]));
    const rank = (group: Group): number => ranks.get(group) as number;
    const begun = new Set<Group>();
    const result = new Set<Group>();
    const visit = (group: Group): void => {
      if (begun.has(group)) {
        if (!result.has(group))
          throw new Error(`fusion of ${this.graph.name} made kernels that wait for each other; this is a mistake of the compiler`);
        return;
      }
      begun.add(group);
      [...this.#groupInputs(group)].sort((a, b) => rank(a) - rank(b)).forEach(visit);
      result.add(group);
    };
    [...this.#groups].sort((a, b) => rank(a) - rank(b)).forEach(visit);
    return [...result];
  }

  #kernel(group: Group): Kernel {
    const [first] = group.members as [Node];
    const stores = this.#stored(group).filter((node) => !group.prologue.includes(node));
    if (group.kind === "attention") return { kind: "attention", node: first };
    if (group.kind === "routine") return { kind: "routine", node: first };
    if (group.kind === "rows") return { kind: "rows", rowShape: iterationShape(first).rowShape, values: group.members, stores };
    const [contraction] = group.segments[0]?.contractions as [Node];
    const x = contraction.inputs[0] as Node;
    return {
      kind: "contraction",
      x,
      prologue: group.prologue,
      depth: x.shape[x.shape.length - 1] as number,
      segments: group.segments.map(({ contractions, epilogue }) => ({
        contractions,
        width: (contractions[0] as Node).shape[(contractions[0] as Node).shape.length - 1] as number,
        epilogue: this.#inOrder(epilogue),
        stores: stores.filter((node) => contractions.includes(node) || epilogue.includes(node)),
      })),
    };
  }
}

export function fuseKernels(graph: Graph, options: { readonly fuse: boolean }): Kernel[] {
  return new Fuser(graph, options.fuse).run();
}
