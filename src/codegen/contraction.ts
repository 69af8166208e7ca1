/**
 * The contraction template: C = x . W with W in column panels of 48. Every output is one fma chain with the inner axis ascending, starting from 0; a prologue may
 * compute x row by row into scratch, an elementwise epilogue works on each finished tile before it is stored.
 */
import { resolveAccess } from "../ir/access.js";
import { multiplyDims, productOf, type Dim } from "../ir/dim.js";
import { dtypes } from "../ir/dtype.js";
import type { Node } from "../ir/graph.js";
import type { ContractionKernel, ContractionSegment, Units } from "../ir/kernel.js";
import type { ContractionSchedule } from "../ir/schedule.js";
import { add, type Scalar } from "../ir/scalar.js";
import { groupAxes, plainPointer } from "./address.js";
import { isaTable, type TargetIsa } from "./helpers.js";
import { RowEmitter } from "./rows.js";
import { fitsTarget, usualContractionSchedule } from "./schedule.js";
import { iterationOf, StepPlanner, type Step } from "./steps.js";
import { cType, type KernelWriter } from "./writer.js";

/** Columns of a weight panel: a constant of the device, because packing depends on it. */
export const panelColumns = 48;

export const panelsOf = (width: number): number => Math.ceil(width / panelColumns);

/** Distance of copied rows: rows a multiple of 4 KB apart would all fall into the same few sets of the caches. */
const paddedStride = (depth: number): number => depth + 16;

interface Tile {
  readonly rows: number;
  readonly columns: number;
  readonly prefetchBytes: number;
}

const tileOf = ({ tileRows, tileColumns, prefetchBytes }: ContractionSchedule): Tile => ({
  rows: tileRows,
  columns: tileColumns,
  prefetchBytes,
});

/** Ending of the functions' names, so that the kernels of a file may have different tiles. */
function tileSuffix({ rows, columns, prefetchBytes }: Tile, isa: TargetIsa): string {
  const usual = tileOf(usualContractionSchedule(1, false, isa));
  const size = rows === usual.rows && columns === usual.columns ? "" : `_${rows}x${columns}`;
  return size + (prefetchBytes === usual.prefetchBytes ? "" : `_ahead${prefetchBytes}`);
}

const lineBytes = 64;

/** Depth of the pieces of a panel that few rows take up at once. */
const fewRowsDepth = 64;

/** Rows up to which a cut block waits for its weights, and goes by tiles so low that they take whole lines of the panel at once. */
const fewRows = 8;

/** How a tile of a cut block fetches: every so many k some lines of the weights that come next and, in a high tile, of the rows that come next. */
const steps = { high: 16, low: 4 } as const;

/** Widest part of a panel whose accumulators `rows` rows may take without more registers than the full tile has. */
const columnsOf = (rows: number, tile: Tile, lanes: number): number =>
  [48, 24, 16, 12, 8].find(
    (columns) =>
      columns % lanes === 0 && (columns === tile.columns || (columns > tile.columns && rows * columns <= tile.rows * tile.columns)),
  ) as number;

/** How a contraction's weights are stored; a computed matrix is f32. */
type Stored = "f32" | "bf16";

const storedAs = (node: Node): Stored => (node.op === "linear" && node.states[0]?.state.dtype === "bf16" ? "bf16" : "f32");

/** How a kernel's weights are stored, each form once. */
export const storedForms = (kernel: ContractionKernel): readonly Stored[] => [
  ...new Set(kernel.segments.flatMap(({ contractions }) => contractions.map(storedAs))),
];

const storedSuffix = (stored: Stored): string => (stored === "f32" ? "" : `_${stored}`);

/** C text two columns further in; directives stay where they are. */
const indented = (text: string): string => text.replace(/^(?=[^#\n])/gm, "  ");

/** Highest tile that takes all columns of the panel at once. */
const lowRows = (tile: Tile, lanes: number): number =>
  Array.from({ length: tile.rows }, (_, index) => tile.rows - index).find((rows) => columnsOf(rows, tile, lanes) === panelColumns) ?? 1;

/** C text of one k of a tile: `load` and `fetch` of vector v of the weights. */
function oneStep(isa: TargetIsa, tile: Tile, load: string, fetch: string): string {
  const { lanes, held } = isaTable[isa].tile;
  const vectors = columnsOf(1, tile, lanes) / lanes;
  const type = `f32x${lanes}`;
  const form = lanes === 16 ? "f32" : type;
  const [forRows, forVectors] = [
    `#pragma GCC unroll ${tile.rows}\nfor (int m = 0; m < rows; m++)`,
    `#pragma GCC unroll ${vectors}\nfor (int v = 0; v < vectors; v++)`,
  ];
  const rowsOutside = `${type} w[${vectors}];
${forVectors} {
  w[v] = ${held ? `held_${form}(${load})` : load};
${fetch}}
${forRows} {
  const ${type} x = splat_${form}(a[m * stride + k]);
${indented(forVectors)} sum[m][v] = fma_${form}(x, w[v], sum[m][v]);
}`;
  if (!held) return rowsOutside;
  return `if (rows >= vectors) {
${indented(rowsOutside)}
} else {
  ${type} x[${tile.rows}];
${indented(forRows)} x[m] = splat_${form}(a[m * stride + k]);
${indented(forVectors)} {
    const ${type} w = held_${form}(${load});
${indented(fetch)}${indented(indented(forRows))} sum[m][v] = fma_${form}(x[m], w, sum[m][v]);
  }
}`;
}

/**
 * The accumulator tile: up to `rows` x `columns` outputs in registers, one fma chain each. `cut` adds the forms for pieces of the inner axis. Weights stored as bf16
 * are widened, which is exact, as they are loaded.
 */
function tileFunctions(isa: TargetIsa, tile: Tile, size: string, cut: boolean, stored: Stored): string[] {
  const { rows, prefetchBytes } = tile;
  const { lanes } = isaTable[isa].tile;
  const vectors = columnsOf(1, tile, lanes) / lanes;
  const type = `f32x${lanes}`;
  const form = lanes === 16 ? "f32" : type;
  const suffix = storedSuffix(stored) + size;
  const call = (height: number, whole: boolean, fetch: string): string => {
    const columns = columnsOf(height, tile, lanes);
    return `accumulate${suffix}(a, stride, b, depth, out, carry, ${height}, ${columns}, ${whole ? panelColumns : columns}, ${fetch});`;
  };
  const byHeight = (most: number, fetch: string): string =>
    `  switch (rows) {\n${Array.from({ length: most }, (_, index) => `    case ${index + 1}: ${call(index + 1, true, fetch)} break;\n`).join("")}  }`;
  const operands = `const float *a, int64_t stride, const ${cType[stored]} *b, int64_t depth, float *out, int carry`;
  const head = `static __attribute__((noinline, unused)) void`;
  const uncut = `${head} tile${suffix}(int64_t rows, ${operands}) {
${byHeight(rows, "1, 0, 0")}
}
${head} tile_full${suffix}(${operands}) { ${call(rows, true, "0, 0, 0")} }
`;
  const pieces = `/* Low tiles of all the panel's columns, and a full tile of some of them. */
${head} piece_low${suffix}(int64_t rows, ${operands}, const char *ahead, int64_t lines) {
${byHeight(lowRows(tile, lanes), "2, ahead, lines")}
}
${head} piece_full${suffix}(${operands}, const char *ahead, int64_t lines) { ${call(rows, false, "3, ahead, lines")} }
`;
  const each =
    prefetchBytes > 0
      ? `  if (fetch == 1${lanes === 16 ? "" : ` && v % ${16 / lanes} == 0`}) __builtin_prefetch((const char *)(line + ${lanes} * v) + ${prefetchBytes}, 0, 3);\n`
      : "";
  const accumulate = `/*
 * out[m][0 .. width - 1] = sum over k of a[m][k] * b[k][0 .. width - 1], or with carry that chain continued from out; \`columns\` of them at a time. Fetching runs
 * ahead across panel ends (1), takes lines of what comes next every few k (2), or also the next rows of a and
 * out (3).
 */
INLINE void accumulate${suffix}(${operands}, const int rows, const int columns, const int width, const int fetch, const char *ahead, int64_t lines) {
  const int vectors = columns / ${lanes};
  for (int column = 0; column < width; column += columns) {
    ${type} sum[${rows}][${vectors}];
#pragma GCC unroll ${rows}
    for (int m = 0; m < rows; m++)
#pragma GCC unroll ${vectors}
      for (int v = 0; v < vectors; v++) sum[m][v] = carry ? load_${form}(out + m * ${panelColumns} + column + ${lanes} * v) : splat_${form}(0);
    if (fetch == 3)
#pragma GCC unroll ${rows}
      for (int m = 0; m < rows; m++) __builtin_prefetch(out + (rows + m) * ${panelColumns}, 0, 3);
    const int64_t step = fetch == 3 ? ${steps.high} : fetch == 2 ? ${steps.low} : depth;
    for (int64_t from = 0; from < depth; from += step) {
      const int64_t to = from + step < depth ? from + step : depth;
      if (fetch >= 2)
        for (int64_t fetched = 0; fetched < lines; fetched++, ahead += ${lineBytes}) __builtin_prefetch(ahead, 0, fetch == 3 ? 2 : 3);
      if (fetch == 3)
#pragma GCC unroll ${rows}
        for (int m = 0; m < rows; m++) __builtin_prefetch(a + (rows + m) * stride + from, 0, 3);
      for (int64_t k = from; k < to; k++) {
        const ${cType[stored]} *const line = b + k * ${panelColumns} + column;
${indented(indented(indented(indented(oneStep(isa, tile, `${stored === "f32" ? "load" : "widen"}_${form}(line + ${lanes} * v)`, each)))))}
      }
    }
#pragma GCC unroll ${rows}
    for (int m = 0; m < rows; m++)
#pragma GCC unroll ${vectors}
      for (int v = 0; v < vectors; v++) store_${form}(out + m * ${panelColumns} + column + ${lanes} * v, sum[m][v]);
  }
}
`;
  return [accumulate, uncut, ...(cut ? [pieces] : [])];
}

interface XAddress {
  readonly pointer: string;
  readonly stride: string;
}

export class ContractionEmitter {
  readonly #depth: number;
  readonly #rows: Dim;
  /** x is computed or gathered into scratch, block by block. */
  readonly #copied: boolean;
  readonly #panels: number;
  readonly #suffix: string;
  /** Scratch for the sums of a cut block, one area per contraction of a segment; the segments share them. */
  readonly #sums: string[] = [];
  /** The schedule the kernel is rendered with. */
  readonly schedule: ContractionSchedule;

  constructor(
    private readonly writer: KernelWriter,
    private readonly kernel: ContractionKernel,
    private readonly isa: TargetIsa,
    schedule?: ContractionSchedule,
  ) {
    this.#depth = kernel.depth;
    this.#rows = productOf(kernel.x.shape.slice(0, -1));
    this.#copied = kernel.prologue.length > 0 || !this.#readInPlace();
    this.schedule = schedule ?? usualContractionSchedule(kernel.depth, this.#copied, isa);
    if (!fitsTarget(this.schedule, isa))
      throw new Error(`a tile of ${this.schedule.tileColumns} columns does not fit the vectors of ${isa}`);
    this.#panels = kernel.segments.reduce((sum, segment) => sum + panelsOf(segment.width), 0);
    this.#suffix = tileSuffix(tileOf(this.schedule), isa);
  }

  get units(): Units {
    return { dim: this.#rows, divide: this.schedule.blockRows, times: this.#panels };
  }

  get functions(): string[] {
    return storedForms(this.kernel).flatMap((stored) => tileFunctions(this.isa, tileOf(this.schedule), this.#suffix, this.#cut, stored));
  }

  /** The inner axis is taken up in pieces, panel by panel. */
  get #cut(): boolean {
    return this.schedule.chunkDepth > 0 && !this.#deep;
  }

  /** One matrix and x in place: pieces of x are copied and serve several panels. */
  get #deep(): boolean {
    const [segment] = this.kernel.segments;
    return (
      this.schedule.chunkDepth > 0 &&
      this.schedule.panelsTogether > 1 &&
      !this.#copied &&
      this.kernel.segments.length === 1 &&
      segment?.contractions.length === 1 &&
      segment.contractions[0]?.op === "linear"
    );
  }

  emit(): void {
    const { writer, kernel } = this;
    const { blockRows, inner, tileRows } = this.schedule;
    const rows = writer.number(this.#rows);
    const area = this.#copied || this.#spread ? writer.scratch(blockRows * this.#areaStride) : undefined;
    const packed = kernel.segments.some((segment) => segment.contractions.some((node) => node.op === "matmul"))
      ? writer.scratch(this.#depth * panelColumns)
      : undefined;
    // Blocks of equal height, so that threads which get different blocks get equal work.
    const whole = [tileRows, 8].find((height) => blockRows % height === 0) ?? 1;
    writer.line(`const int64_t blocks = (${rows} + ${blockRows - 1}) / ${blockRows};`);
    writer.line(`const int64_t tall = blocks > 0 ? ((${rows} + blocks - 1) / blocks + ${whole - 1}) / ${whole} * ${whole} : ${whole};`);
    if (this.#deep) {
      this.#emitDeep(kernel.segments[0] as ContractionSegment);
      return;
    }
    if (area) writer.line("int64_t prepared = -1;");
    writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
      const place =
        inner === "panels"
          ? `block = unit / ${this.#panels}, panel = unit % ${this.#panels}`
          : "block = unit % blocks, panel = unit / blocks";
      writer.line(`const int64_t ${place}, first = block * tall;`);
      writer.line(`const int64_t count = ${rows} - first < tall ? ${rows} - first : tall;`);
      if (area) {
        writer.block(`if (block != prepared${this.#spread ? ` && count > ${fewRows}` : ""})`, () => {
          if (this.#spread) this.#emitCopy(area);
          else this.#emitPrologue(area);
          writer.line("prepared = block;");
        });
      }
      const x = this.#operand(area);
      let start = 0;
      kernel.segments.forEach((segment, index) => {
        const end = start + panelsOf(segment.width);
        const head =
          index === 0
            ? kernel.segments.length === 1
              ? ""
              : `if (panel < ${end})`
            : index === kernel.segments.length - 1
              ? "else"
              : `else if (panel < ${end})`;
        writer.block(head, () => this.#emitSegment(segment, start, x, packed));
        start = end;
      });
    });
  }

  /** Rows of x that lie a multiple of 2 KB apart are copied, unless they are few. */
  get #spread(): boolean {
    return this.#cut && !this.#copied && this.#depth % 512 === 0;
  }

  get #areaStride(): number {
    return this.#cut ? paddedStride(this.#depth) : this.#depth;
  }

  /** Where the block's rows of x are read. */
  #operand(area: string | undefined): XAddress {
    if (!area) return this.#address();
    const copied = { pointer: area, stride: String(this.#areaStride) };
    if (!this.#spread) return copied;
    const inPlace = this.#address();
    this.writer.line(`const float *const x = count > ${fewRows} ? ${copied.pointer} : ${inPlace.pointer};`);
    this.writer.line(`const int64_t stride = count > ${fewRows} ? ${copied.stride} : ${inPlace.stride};`);
    return { pointer: "x", stride: "stride" };
  }

  #emitCopy(area: string): void {
    const { pointer, stride } = this.#address();
    this.writer.line(
      `for (int64_t m = 0; m < count; m++) memcpy(${area} + m * ${this.#areaStride}, ${pointer} + m * ${stride}, ${this.#depth * 4});`,
    );
  }

  /** x can be read where it lies when its rows are evenly spaced and its elements adjacent. */
  #readInPlace(): boolean {
    if (this.kernel.x.op === "gatherRows" && !this.writer.isStored(this.kernel.x)) return false;
    const access = resolveAccess(this.kernel.x);
    const last = access.strides[access.strides.length - 1];
    return (
      (last === 1 || this.#depth === 1) &&
      groupAxes(access.shape.slice(0, -1), access.strides.slice(0, -1)).every((group) => group.divide === 1 && group.modulo === undefined)
    );
  }

  #address(): XAddress {
    const access = resolveAccess(this.kernel.x);
    const base = plainPointer(this.writer, this.kernel.x, "x");
    const [group] = groupAxes(access.shape.slice(0, -1), access.strides.slice(0, -1));
    // Without a group there is one row, or all rows are the same one.
    const stride = group ? this.writer.number(group.stride) : "0";
    return { pointer: `${base} + first * ${stride}`, stride };
  }

  #emitPrologue(area: string): void {
    const { writer, kernel } = this;
    const planner = new StepPlanner();
    for (const node of kernel.prologue) planner.compute(node);
    const values = kernel.prologue.includes(kernel.x) ? kernel.prologue : [...kernel.prologue, kernel.x];
    if (!planner.steps.has(kernel.x)) planner.load(kernel.x);
    writer.block("for (int64_t m = 0; m < count; m++)", () => {
      writer.line("const int64_t row = first + m;");
      const emitter = new RowEmitter(planner, values, [kernel.x], {
        writer,
        isa: this.isa,
        rowShape: iterationOf(kernel.x).rowShape,
        row: "row",
        target: () => `(${area} + m * ${this.#areaStride})`,
      });
      emitter.prepare();
      emitter.emitRow();
    });
  }

  /** Chunks of k outside, panels inside: the sums of a few panels are stored and taken up again, which leaves every chain as it is. */
  #emitDeep(segment: ContractionSegment): void {
    const { writer } = this;
    const { blockRows, chunkDepth, panelsTogether, tileRows } = this.schedule;
    const rowStride = paddedStride(chunkDepth);
    const rows = writer.number(this.#rows);
    const [node] = segment.contractions as readonly [Node];
    const stored = storedAs(node);
    const suffix = storedSuffix(stored) + this.#suffix;
    const tile = (name: string, lead: string): string => `${name}${suffix}(${lead}a, stride, w, part, sums, k > 0);`;
    const weight = writer.pointer(node.states[0]?.state as object, stored, "weight");
    const area = writer.scratch(panelsTogether * blockRows * panelColumns);
    const packed = writer.scratch(blockRows * rowStride);
    writer.block("for (int64_t unit = begin; unit < end;)", () => {
      writer.line(`const int64_t block = unit / ${this.#panels}, first = block * tall;`);
      writer.line(
        `const int64_t count = ${rows} - first < tall ? ${rows} - first : tall, chunk = count > 16 ? ${chunkDepth} : ${this.#depth};`,
      );
      writer.line(`int64_t stop = (block + 1) * ${this.#panels} < end ? (block + 1) * ${this.#panels} : end;`);
      writer.line(`stop = unit + ${panelsTogether} < stop ? unit + ${panelsTogether} : stop;`);
      const x = this.#address();
      writer.block(`for (int64_t k = 0; k < ${this.#depth}; k += chunk)`, () => {
        writer.line(
          `const int64_t part = ${this.#depth} - k < chunk ? ${this.#depth} - k : chunk, stride = count > 16 ? ${rowStride} : ${x.stride};`,
        );
        writer.line(`const float *const x = count > 16 ? ${packed} : ${x.pointer} + k;`);
        writer.line(
          `if (count > 16) for (int64_t m = 0; m < count; m++) memcpy(${packed} + m * ${rowStride}, ${x.pointer} + m * ${x.stride} + k, (size_t)part * 4);`,
        );
        writer.block("for (int64_t u = unit; u < stop; u++)", () => {
          writer.line(
            `const ${cType[stored]} *const w = ${weight} + (u % ${this.#panels}) * ${this.#depth * panelColumns} + k * ${panelColumns};`,
          );
          writer.block(`for (int64_t m = 0; m < count; m += ${tileRows})`, () => {
            writer.line(`const int64_t height = count - m < ${tileRows} ? count - m : ${tileRows};`);
            writer.line(`const float *const a = x + m * stride;`);
            writer.line(`float *const sums = ${area} + ((u - unit) * ${blockRows} + m) * ${panelColumns};`);
            writer.line(`if (m > 0 && height == ${tileRows}) ${tile("tile_full", "")}`);
            writer.line(`else ${tile("tile", "height, ")}`);
          });
        });
      });
      writer.block("for (int64_t u = unit; u < stop; u++)", () => {
        writer.line(`const int64_t column0 = (u % ${this.#panels}) * ${panelColumns}, m = 0;`);
        writer.line(`const float *const sums0 = ${area} + (u - unit) * ${blockRows * panelColumns};`);
        writer.block("for (int64_t i = 0; i < count; i++)", () => this.#emitEpilogue(segment));
      });
      writer.line("unit = stop;");
    });
  }

  #emitSegment(segment: ContractionSegment, firstPanel: number, x: XAddress, packed: string | undefined): void {
    const { writer } = this;
    const { tileRows } = this.schedule;
    const panel = firstPanel === 0 ? "panel" : `(panel - ${firstPanel})`;
    const panelBytes = this.#depth * panelColumns;
    const weights = segment.contractions.map((node) => this.#weight(node, panel, panelBytes, packed));
    writer.line(`const int64_t column0 = ${panel} * ${panelColumns};`);
    if (this.#cut) {
      this.#emitCut(segment, x, weights);
      return;
    }
    segment.contractions.forEach((_, index) =>
      writer.line(`float sums${index}[${tileRows} * ${panelColumns}] __attribute__((aligned(64)));`),
    );
    writer.block(`for (int64_t m = 0; m < count; m += ${tileRows})`, () => {
      writer.line(`const int64_t height = count - m < ${tileRows} ? count - m : ${tileRows};`);
      const suffixes = segment.contractions.map((contraction) => storedSuffix(storedAs(contraction)) + this.#suffix);
      const call = (name: string, lead: string): string =>
        weights
          .map(
            (weight, index) =>
              `${name}${suffixes[index]}(${lead}${x.pointer} + m * ${x.stride}, ${x.stride}, ${weight}, ${this.#depth}, sums${index}, 0);`,
          )
          .join(" ");
      writer.line(`if (m > 0 && height == ${tileRows}) { ${call("tile_full", "")} }`);
      writer.line(`else { ${call("tile", "height, ")} }`);
      writer.block("for (int64_t i = 0; i < height; i++)", () => this.#emitEpilogue(segment));
    });
  }

  /**
   * Pieces of k outside, tiles inside: a part of the panel's columns stays in the first-level cache while all rows pass, and the first of them fetch the next
   * piece. Few rows go by low tiles, which take whole lines of the panel, and fetch as far ahead as the schedule says.
   */
  #emitCut(segment: ContractionSegment, x: XAddress, weights: readonly string[]): void {
    const { writer } = this;
    const { tileRows, tileColumns, chunkDepth, blockRows, prefetchBytes } = this.schedule;
    const low = lowRows(tileOf(this.schedule), isaTable[this.isa].tile.lanes);
    writer.line(`const int64_t piece = count > ${fewRows} ? ${chunkDepth} : ${Math.min(chunkDepth, fewRowsDepth)};`);
    writer.line(
      `const int64_t high = count > ${fewRows} ? count / ${tileRows} * ${tileRows} : 0, step = high > 0 ? ${steps.high} : ${steps.low};`,
    );
    writer.line(`const int64_t tiles = high > 0 ? high / ${tileRows} * ${panelColumns / tileColumns} : (count + ${low - 1}) / ${low};`);
    weights.forEach((weight, index) => {
      const stored = storedAs(segment.contractions[index] as Node);
      const suffix = storedSuffix(stored) + this.#suffix;
      const area = (this.#sums[index] ??= writer.scratch(blockRows * panelColumns));
      const following = weights[index + 1] ?? `${weights[0] as string} + ${this.#depth * panelColumns}`;
      writer.line(`float *const sums${index} = ${area};`);
      writer.block(`for (int64_t k = 0; k < ${this.#depth}; k += piece)`, () => {
        writer.line(`const int64_t part = ${this.#depth} - k < piece ? ${this.#depth} - k : piece;`);
        writer.line(`const ${cType[stored]} *const w = ${weight} + k * ${panelColumns};`);
        writer.line(`const int64_t size = part * ${panelColumns * dtypes[stored].bytes}, turns = (part + step - 1) / step;`);
        writer.line(`const int64_t pace = (size / ${lineBytes} + turns * tiles - 1) / (turns * tiles);`);
        const behind = `(const char *)(part < ${this.#depth} - k ? w + part * ${panelColumns} : ${following})`;
        writer.line(`const char *next = high > 0 ? ${behind} : (const char *)w + ${prefetchBytes};`);
        writer.line(`const char *const stop = next + ${prefetchBytes > 0 ? "size" : "(high > 0 ? size : 0)"};`);
        const each = (call: string): void => {
          writer.line("const int64_t lines = next < stop ? pace : 0;");
          writer.line(`${call}, next, lines);`);
          writer.line(`next += turns * lines * ${lineBytes};`);
        };
        const a = `${x.pointer} + m * ${x.stride} + k, ${x.stride}`;
        writer.block(`for (int64_t column = 0; column < ${panelColumns}; column += ${tileColumns})`, () => {
          writer.block(`for (int64_t m = 0; m < high; m += ${tileRows})`, () => {
            if (index === weights.length - 1) this.#fetchTargets(segment);
            each(`piece_full${suffix}(${a}, w + column, part, sums${index} + m * ${panelColumns} + column, k > 0`);
          });
        });
        writer.block(`for (int64_t m = high; m < count; m += ${low})`, () => {
          writer.line(`const int64_t height = count - m < ${low} ? count - m : ${low};`);
          each(`piece_low${suffix}(height, ${a}, w, part, sums${index} + m * ${panelColumns}, k > 0`);
        });
      });
    });
    writer.line("const int64_t m = 0;");
    writer.block("for (int64_t i = 0; i < count; i++)", () => this.#emitEpilogue(segment));
  }

  /** The lines that the epilogue will write are asked for while the last piece is computed: rows lie too far apart for the processor to see it coming. */
  #fetchTargets({ stores, width }: ContractionSegment): void {
    const { writer } = this;
    for (const node of stores)
      writer.line(
        `if (k + part == ${this.#depth}) for (int64_t i = first + m; i < first + m + ${this.schedule.tileRows}; i++) __builtin_prefetch(${writer.pointer(node, node.dtype, "out")} + i * ${width} + column0 + column, 1, 3);`,
      );
  }

  /** C text of the panel's weights; a computed matrix is first copied into panel order. */
  #weight(node: Node, panel: string, panelElements: number, packed: string | undefined): string {
    const { writer } = this;
    const state = node.states[0]?.state;
    if (node.op === "linear" && state) return `${writer.pointer(state, storedAs(node), "weight")} + ${panel} * ${panelElements}`;
    const matrix = node.inputs[1] as Node;
    const width = node.shape[node.shape.length - 1] as number;
    const source = plainPointer(writer, matrix, "matrix");
    writer.block(`for (int64_t k = 0; k < ${this.#depth}; k++)`, () => {
      writer.line(
        `for (int64_t c = 0; c < ${panelColumns}; c++) ${packed}[k * ${panelColumns} + c] = ${panel} * ${panelColumns} + c < ${width} ? ${source}[k * ${width} + ${panel} * ${panelColumns} + c] : 0;`,
      );
    });
    return packed as string;
  }

  #emitEpilogue(segment: ContractionSegment): void {
    const { writer } = this;
    const planner = new StepPlanner();
    const sums = segment.contractions.map((node) => planner.give(node));
    segment.contractions.forEach((node, index) => {
      const bias = node.op === "linear" ? node.inputs[1] : undefined;
      if (bias)
        planner.steps.set(
          node,
          planner.map("biased", [sums[index] as Step, planner.load(bias)], segment.width, "f32", ([sum, column]) =>
            add(sum as Scalar, column as Scalar),
          ),
        );
    });
    for (const node of segment.epilogue) planner.compute(node);
    const first = segment.contractions[0] as Node;
    writer.line("const int64_t row = first + m + i;");
    const target = (node: Node): string => `(${writer.pointer(node, node.dtype, "out")} + row * ${segment.width})`;
    const emitter = new RowEmitter(planner, [...segment.contractions, ...segment.epilogue], segment.stores, {
      writer,
      isa: this.isa,
      rowShape: iterationOf(first).rowShape,
      row: "row",
      target,
    });
    emitter.prepare();
    emitter.prepareColumns();
    const tail = segment.width % 16;
    const columns = `column0 + ${panelColumns} <= ${segment.width} ? ${panelColumns} : ${segment.width - tail} - column0`;
    writer.block(`for (int64_t j = 0; j < (${columns}); j += 16)`, () => this.#emitLanes(emitter, sums, 16));
    if (tail !== 0) {
      writer.block(`if (column0 + ${panelColumns} > ${segment.width})`, () => {
        writer.line(`const int64_t j = ${segment.width - tail} - column0;`);
        this.#emitLanes(emitter, sums, tail);
      });
    }
  }

  #emitLanes(emitter: RowEmitter, sums: readonly Step[], count: number): void {
    this.writer.line("const int64_t column = column0 + j;");
    emitter.emitColumns("column", count, new Map(sums.map((step, index) => [step, `(sums${index} + i * ${panelColumns} + j)`])));
  }
}

/** Useful work of a contraction kernel, for profiles. */
export function contractionCost(kernel: ContractionKernel): { flops: Dim; bytes: Dim } {
  const rows = productOf(kernel.x.shape.slice(0, -1));
  const sum = (perColumn: (node: Node) => number): number =>
    kernel.segments.reduce(
      (total, { width, contractions }) => total + width * contractions.reduce((part, node) => part + perColumn(node), 0),
      0,
    );
  const bytes = kernel.depth * sum((node) => dtypes[storedAs(node)].bytes);
  return { flops: multiplyDims(rows, 2 * kernel.depth * sum(() => 1)), bytes };
}
