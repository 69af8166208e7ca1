/** Collects the pointers, numbers, scratch and lines of one C kernel. Equal structures give equal text, so equal layers share one kernel. */
import { addDims, multiplyDims, type Dim } from "../ir/dim.js";
import type { DType } from "../ir/dtype.js";
import type { Node } from "../ir/graph.js";
import type { BufferReference } from "../ir/kernel.js";

export const cType: Record<DType, string> = { f32: "float", f64: "double", i32: "int32_t", bf16: "uint16_t" };

/** Names that templates around generated lines use as they are. */
const templateNames = [
  "p",
  "n",
  "begin",
  "end",
  "scratch",
  "row",
  "unit",
  "block",
  "panel",
  "first",
  "count",
  "column",
  "column0",
  "height",
  "prepared",
  "head",
  "token",
  "i",
  "j",
  "l",
  "m",
  "q",
  "s",
  "shared",
  "source",
  "length",
  "keys",
  "values",
];

export class KernelWriter {
  readonly pointers: BufferReference[] = [];
  readonly numbers: Dim[] = [];
  scratchBytes: Dim = 0;
  readonly #pointerNames = new Map<string, string>();
  readonly #numberNames = new Map<string, string>();
  readonly #declarations: string[] = [];
  readonly #lines: string[] = [];
  readonly #taken = new Set<string>(templateNames);
  #depth = 1;

  constructor(
    private readonly reference: (key: object) => BufferReference,
    /** Whether some kernel stores a node; a gatherRows that none does is read through its index. */
    readonly isStored: (node: Node) => boolean,
  ) {}

  /** C name of a typed pointer to a stored value or state. */
  pointer(key: object, type: DType, role: string): string {
    const reference = this.reference(key);
    const text = `${JSON.stringify(reference)}:${type}`;
    let name = this.#pointerNames.get(text);
    if (!name) {
      name = this.fresh(`${role}${this.pointers.length}`);
      this.#declarations.push(`${cType[type]} *const ${name} = (${cType[type]} *)p[${this.pointers.length}];`);
      this.#pointerNames.set(text, name);
      this.pointers.push(reference);
    }
    return name;
  }

  /** C text of a size: a literal when fixed, else an entry of the numbers bound at launch. */
  number(dim: Dim): string {
    if (typeof dim === "number") return String(dim);
    const text = String(dim);
    let name = this.#numberNames.get(text);
    if (!name) {
      name = this.fresh(`n${this.numbers.length}`);
      this.#declarations.push(`const int64_t ${name} = n[${this.numbers.length}];`);
      this.#numberNames.set(text, name);
      this.numbers.push(dim);
    }
    return name;
  }

  /** C name of a private float area, 64-byte aligned; a dynamic number of `elements` must be a multiple of 16. */
  scratch(elements: Dim): string {
    const name = this.fresh("area");
    const offset = this.number(this.scratchBytes);
    this.#declarations.push(`float *const ${name} = (float *)(scratch + ${offset});`);
    const bytes = typeof elements === "number" ? Math.ceil((elements * 4) / 64) * 64 : multiplyDims(elements, 4);
    this.scratchBytes = addDims(this.scratchBytes, bytes);
    return name;
  }

  /** A C name that nothing else in the kernel has: the stem itself the first time, then followed by a number. */
  fresh(stem = "v"): string {
    let name = stem;
    for (let number = 2; this.#taken.has(name); number++) name = `${stem}${/\d$/.test(stem) ? "_" : ""}${number}`;
    this.#taken.add(name);
    return name;
  }

  line(text: string): void {
    this.#lines.push(`${"  ".repeat(this.#depth)}${text}`);
  }

  block(head: string, body: () => void, tail = "}"): void {
    this.line(head === "" ? "{" : `${head} {`);
    this.#depth++;
    body();
    this.#depth--;
    this.line(tail);
  }

  text(symbol: string, title: string): string {
    const head = `/* ${title} */\nvoid ${symbol}(char *const *p, const int64_t *n, int64_t begin, int64_t end, char *scratch) {`;
    return [head, ...this.#declarations.map((line) => `  ${line}`), ...this.#lines, "}", ""].join("\n");
  }

  get body(): string {
    return [...this.#declarations, ...this.#lines].join("\n");
  }
}
