/**
 * The contraction template: C = x . W with W in column panels of 48. Every output is one fma chain with the inner axis ascending, starting from 0; a prologue may
 * compute x row by row into scratch, an elementwise epilogue works on each finished tile before it is stored.
 */
import { resolveAccess } from "../ir/access.js";
import { productOf, type Dim } from "../ir/dim.js";
import { dtypes } from "../ir/dtype.js";
import type { Node } from "../ir/graph.js";
import type { ContractionKernel, ContractionSegment, Units } from "../ir/kernel.js";
import type { ContractionSchedule } from "../ir/schedule.js";
import { add, type Scalar } from "../ir/scalar.js";
import { groupAxes, plainPointer, type AxisGroup } from "./address.js";
import { isaTable, type TargetIsa } from "./helpers.js";
import { RowEmitter } from "./rows.js";
import { fitsTarget, usualContractionSchedule } from "./schedule.js";
import { iterationOf, StepPlanner, type Step } from "./steps.js";
import { storedAs, storedForms, storedSuffix } from "./stored.js";
import {
  highStep,
  interleaveFunction,
  lastColumns,
  lineBytes,
  lowDepth,
  lowRows,
  lowTiles,
  mostStreams,
  nextLow,
  pairRows,
  panelColumns,
  panelsOf,
  stripColumns,
  streamRows,
  stripRows,
  tileFunctions,
  tileOf,
  tileSuffix,
  turnOf,
} from "./tiles.js";
import { cType, type KernelWriter } from "./writer.js";

/** Distance of copied rows: rows a multiple of 4 KB apart would all fall into the same few sets of the caches. */
const paddedStride = (depth: number): number => depth + 16;

/**
 * Rows up to which the weights may be what a cut block waits for: it goes by tiles so low that they take whole lines of the panel, in the order in which they lie
 * in memory, and fetches evenly. More rows compute for so long that tiles of part of the columns, which read x less often, are better; where x lies interleaved, as soon
 * as it is worth rearranging.
 */
const fewRows = 64;

/** Rows up to which the way of the weights from memory is what counts: x is read where it lies, and nothing is fetched but weights. */
const streamedRows = 16;

/** Columns from which on rearranging a block of x takes less time than full tiles gain by it. */
const interleavedColumns = 768;

interface XAddress {
  readonly pointer: string;
  readonly stride: string;
}

/** One of several pieces of a kernel: taken where its test holds; a last one without a test takes the rest. */
interface Way {
  readonly test?: string;
  readonly emit: () => void;
}

/** Panels that few rows take up together: two weights of one panel, or one weight's panels of several units. */
type Pairing = "weights" | "units";

export class ContractionEmitter {
  readonly #depth: number;
  readonly #rows: Dim;
  /** x is computed or gathered into scratch, block by block. */
  readonly #copied: boolean;
  readonly #panels: number;
  readonly #turn: number;
  readonly #suffix: string;
  /** Scratch for the sums of a cut block, one area per contraction of a segment; the segments share them. */
  readonly #sums: string[] = [];
  /** Scratch for the interleaved rows of a block. */
  #tiles: string | undefined;
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
    this.#turn = turnOf(kernel.depth, isa);
    this.#suffix = tileSuffix(tileOf(this.schedule), { turn: this.#turn, interleaved: this.#interleaves }, isa);
  }

  get units(): Units {
    return { dim: this.#rows, divide: this.schedule.blockRows, times: this.#panels };
  }

  get functions(): string[] {
    const forms = { turn: this.#turn, cut: this.#cut, strips: this.#strips, interleaved: this.#interleaves };
    const tiles = storedForms(this.kernel).flatMap((stored) => tileFunctions(this.isa, tileOf(this.schedule), this.#suffix, forms, stored));
    return this.#interleaves ? [...tiles, interleaveFunction(this.schedule.tileRows)] : tiles;
  }

  /** Blocks of many rows are interleaved for full tiles: where so many columns read them that it pays. */
  get #interleaves(): boolean {
    const columns = this.kernel.segments.reduce((sum, { width, contractions }) => sum + width * contractions.length, 0);
    return this.#cut && columns >= interleavedColumns;
  }

  /** Tall blocks go by full tiles: where these differ from the low ones. */
  get #full(): boolean {
    return this.#cut && (this.#interleaves || this.schedule.tileColumns < panelColumns);
  }

  /** Rows up to which a block goes by low tiles. */
  get #fewRows(): number {
    return this.#interleaves ? streamedRows : fewRows;
  }

  /** A segment's last panel is computed in part. */
  get #strips(): boolean {
    return this.kernel.segments.some((segment) => this.#partOf(segment) !== undefined);
  }

  /** Columns of a segment's last panel that are computed, where not all are. */
  #partOf({ width }: ContractionSegment): number | undefined {
    const last = lastColumns(width);
    return this.#deep || last === panelColumns ? undefined : last;
  }

  /** The inner axis is taken up in pieces, panel by panel. */
  get #cut(): boolean {
    return this.#pieces && !this.#deep;
  }

  /** An inner axis of no elements has no pieces: its sums are the zeros of whole tiles. */
  get #pieces(): boolean {
    return this.schedule.chunkDepth > 0 && this.#depth > 0;
  }

  /** One matrix and x in place: pieces of x are copied and serve several panels. */
  get #deep(): boolean {
    const [segment] = this.kernel.segments;
    return (
      this.#pieces &&
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
    this.#tiles = this.#interleaves ? writer.scratch(blockRows * this.#depth) : undefined;
    // What lies in scratch stays there for the further pieces of the launch that this thread computes.
    if (area || this.#tiles) writer.line("int64_t *const prepared = (int64_t *)scratch - 1;");
    writer.block("for (int64_t unit = begin; unit < end; unit++)", () => {
      const place =
        inner === "panels"
          ? `block = unit / ${this.#panels}, panel = unit % ${this.#panels}`
          : "block = unit % blocks, panel = unit / blocks";
      writer.line(`const int64_t ${place}, first = block * tall;`);
      writer.line(`const int64_t count = ${rows} - first < tall ? ${rows} - first : tall;`);
      if (this.#full) writer.line(`const int64_t high = count > ${this.#fewRows} ? count / ${tileRows} * ${tileRows} : 0;`);
      if (area || this.#tiles) this.#emitPreparation(area);
      const x = this.#operand(area);
      let start = 0;
      const ways = kernel.segments.map((segment, index): Way => {
        const firstPanel = start;
        start += panelsOf(segment.width);
        const emit = (): void => this.#emitSegment(segment, firstPanel, x, packed);
        return index === kernel.segments.length - 1 ? { emit } : { test: `panel < ${start}`, emit };
      });
      this.#emitFirstOf(ways);
    });
  }

  /** What is done once for a block of rows. */
  #emitPreparation(area: string | undefined): void {
    const { writer } = this;
    const least = this.#copied ? "" : ` && count > ${this.#spread ? streamedRows : this.#fewRows}`;
    writer.block(`if (block != *prepared${least})`, () => {
      if (this.#copied) this.#emitPrologue(area as string);
      else if (area) this.#emitCopy(area);
      if (this.#tiles) {
        const { pointer, stride } = this.#copied ? { pointer: area as string, stride: String(this.#areaStride) } : this.#address();
        const { tileRows, chunkDepth } = this.schedule;
        writer.line(`if (high > 0) interleave_${tileRows}(${pointer}, ${stride}, high, ${this.#depth}, ${chunkDepth}, ${this.#tiles});`);
      }
      writer.line("*prepared = block;");
    });
  }

  /** Rows of x that lie a multiple of 2 KB apart are copied, unless they are few. */
  get #spread(): boolean {
    if (!this.#cut || this.#copied) return false;
    const stride = this.#rowGroup?.stride ?? 0;
    return typeof stride !== "number" || (stride !== 0 && stride % 512 === 0);
  }

  /** The one axis that the rows of x, read in place, form; none where there is one row, or all are the same. */
  get #rowGroup(): AxisGroup | undefined {
    const { shape, strides } = resolveAccess(this.kernel.x);
    return groupAxes(shape.slice(0, -1), strides.slice(0, -1))[0];
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
    this.writer.line(`const float *const x = count > ${streamedRows} ? ${copied.pointer} : ${inPlace.pointer};`);
    this.writer.line(`const int64_t stride = count > ${streamedRows} ? ${copied.stride} : ${inPlace.stride};`);
    return { pointer: "x", stride: "stride" };
  }

  /** Full tiles do not read copies of rows that are interleaved, strips and low tiles do. */
  #emitCopy(area: string): void {
    const { pointer, stride } = this.#address();
    this.writer.line(
      `for (int64_t m = ${this.#tiles && !this.#strips ? "high" : "0"}; m < count; m++) memcpy(${area} + m * ${this.#areaStride}, ${pointer} + m * ${stride}, ${this.#depth * 4});`,
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
    const base = plainPointer(this.writer, this.kernel.x, "x");
    const group = this.#rowGroup;
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
    const panel = firstPanel === 0 ? "panel" : `(panel - ${firstPanel})`;
    const panelElements = this.#depth * panelColumns;
    const weights = segment.contractions.map((node) => this.#weight(node, panel, panelElements, packed));
    const pairing = this.#pairing(segment);
    writer.line(`${pairing === "units" ? "" : "const "}int64_t column0 = ${panel} * ${panelColumns};`);
    const part = this.#partOf(segment);
    if (part !== undefined)
      writer.line(`const int64_t columns = column0 + ${panelColumns} <= ${segment.width} ? ${panelColumns} : ${part};`);
    if (this.#cut) this.#emitCut(segment, pairing, panel, x, weights);
    else this.#emitUncut(segment, x, weights);
  }

  #emitUncut(segment: ContractionSegment, x: XAddress, weights: readonly string[]): void {
    const { writer } = this;
    const { tileRows } = this.schedule;
    segment.contractions.forEach((_, index) =>
      writer.line(`float sums${index}[${tileRows} * ${panelColumns}] __attribute__((aligned(64)));`),
    );
    const part = this.#partOf(segment);
    const most = part === undefined ? String(tileRows) : "most";
    if (part !== undefined)
      writer.line(`const int64_t most = columns == ${panelColumns} ? ${tileRows} : ${stripRows(tileOf(this.schedule))};`);
    writer.block(`for (int64_t m = 0; m < count; m += ${most})`, () => {
      writer.line(`const int64_t height = count - m < ${most} ? count - m : ${most};`);
      const suffixes = segment.contractions.map((contraction) => storedSuffix(storedAs(contraction)) + this.#suffix);
      const call = (name: string, lead: string): string =>
        weights
          .map(
            (weight, index) =>
              `${name}${suffixes[index]}(${lead}${x.pointer} + m * ${x.stride}, ${x.stride}, ${weight}, ${this.#depth}, sums${index}, 0);`,
          )
          .join(" ");
      if (part !== undefined) writer.line(`if (columns == ${part}) { ${call("tile_strips", `height, ${part}, `)} } else`);
      writer.line(`if (m > 0 && height == ${tileRows}) { ${call("tile_full", "")} }`);
      writer.line(`else { ${call("tile", "height, ")} }`);
      writer.block("for (int64_t i = 0; i < height; i++)", () => this.#emitEpilogue(segment));
    });
  }

  /**
   * Pieces of k outside, tiles inside: a piece stays in the first-level cache while all rows pass, and the tiles fetch the next piece, a share each. High tiles take
   * part of the panel's columns, low ones all of them.
   */
  #emitCut(segment: ContractionSegment, pairing: Pairing | undefined, panel: string, x: XAddress, weights: readonly string[]): void {
    const { writer } = this;
    const { blockRows } = this.schedule;
    const part = this.#partOf(segment);
    weights.forEach((_, index) => {
      const area = (this.#sums[index] ??= writer.scratch(Math.max(blockRows, mostStreams * streamRows) * panelColumns));
      writer.line(`float *${pairing === "units" ? "" : "const "}sums${index} = ${area};`);
    });
    const whole = `${Math.floor(segment.width / panelColumns)} - ${panel}`;
    const most = this.#pairs ? `count <= ${pairRows} ? 2 : ${mostStreams}` : String(mostStreams);
    if (pairing === "units") {
      writer.line(`const int64_t room = end - unit < ${whole} ? end - unit : ${whole}, most = ${most};`);
      writer.line(`const int64_t together = count > ${streamRows} || room < 2 ? 1 : room < most ? room : most;`);
    }
    const few = pairing === "units" ? "together > 1" : `count <= ${streamRows} && ${whole} > 0`;
    this.#emitFirstOf([
      ...(pairing ? [{ test: few, emit: () => this.#emitFew(segment, x, weights) }] : []),
      ...(part === undefined ? [] : [{ test: `columns == ${part}`, emit: () => this.#emitStrips(segment, part, x, weights) }]),
      { emit: () => this.#emitPieces(segment, x, weights) },
    ]);
    writer.line("const int64_t m = 0;");
    const epilogue = (): void => writer.block("for (int64_t i = 0; i < count; i++)", () => this.#emitEpilogue(segment));
    if (pairing !== "units") return epilogue();
    writer.block(
      `for (int64_t side = 0; side < together; side++, column0 += ${panelColumns}, sums0 += ${streamRows * panelColumns})`,
      epilogue,
    );
    writer.line("unit += together - 1;");
  }

  #emitFirstOf(ways: readonly Way[]): void {
    ways.forEach(({ test, emit }, index) => {
      const head = [...(index > 0 ? ["else"] : []), ...(test === undefined ? [] : [`if (${test})`])].join(" ");
      this.writer.block(head, emit);
    });
  }

  /** Two panels are taken up side by side where the schedule has no prefetch distance. */
  get #pairs(): boolean {
    return this.schedule.prefetchBytes === 0;
  }

  /** What few rows take up together. */
  #pairing({ contractions }: ContractionSegment): Pairing | undefined {
    const [first, second] = contractions as readonly [Node, Node | undefined];
    const { inner } = this.schedule;
    if (!this.#cut || contractions.some(({ op }) => op !== "linear")) return undefined;
    if (!second) return inner === "panels" ? "units" : undefined;
    return contractions.length === 2 && storedAs(first) === storedAs(second) ? "weights" : undefined;
  }

  /** Sums of few rows: the least of them over two panels, more over as many as there are together. */
  #emitFew({ contractions }: ContractionSegment, x: XAddress, weights: readonly string[]): void {
    const { writer } = this;
    const stored = storedAs(contractions[0] as Node);
    const [first] = weights as readonly [string];
    const panelElements = this.#depth * panelColumns;
    const sides = Array.from({ length: mostStreams }, (_, side) => side);
    const { panels, sums, streams, after } =
      weights.length > 1
        ? { panels: weights, sums: ["sums0", "sums1"], streams: "2", after: `${first} + ${panelElements}` }
        : {
            panels: sides.map((side) => `${first} + ${side * panelElements}`),
            sums: sides.map((side) => `sums0 + ${side * streamRows * panelColumns}`),
            streams: "together",
            after: `${first} + together * ${panelElements}`,
          };
    const suffix = storedSuffix(stored) + this.#suffix;
    writer.line(`const ${cType[stored]} *const panels[] = {${panels.join(", ")}};`);
    writer.line(`float *const sums[] = {${sums.join(", ")}};`);
    if (this.#pairs)
      writer.line(`if (count <= ${pairRows}) tile_pair${suffix}(count, ${x.pointer}, ${x.stride}, panels, ${this.#depth}, sums);`);
    writer.line(
      `${this.#pairs ? "else " : ""}tile_streams${suffix}(count, ${x.pointer}, ${x.stride}, ${streams}, panels, ${this.#depth}, sums, ${after});`,
    );
  }

  /** The sums of a panel's first `columns`, in pieces that take as long as those of whole panels. */
  #emitStrips(segment: ContractionSegment, columns: number, x: XAddress, weights: readonly string[]): void {
    const { writer } = this;
    const most = stripRows(tileOf(this.schedule));
    const [piece, strips] = [(lowDepth * panelColumns) / columns, columns / stripColumns];
    writer.line(`const int64_t step = (count + ${most - 1}) / ${most} * ${strips};`);
    weights.forEach((weight, index) => {
      const stored = storedAs(segment.contractions[index] as Node);
      const following = weights[index + 1] ?? `${weights[0] as string} + ${this.#depth * panelColumns}`;
      writer.block(`for (int64_t k = 0; k < ${this.#depth}; k += ${piece})`, () => {
        writer.line(`const int64_t part = ${this.#depth} - k < ${piece} ? ${this.#depth} - k : ${piece};`);
        writer.line(`const ${cType[stored]} *const w = ${weight} + k * ${panelColumns};`);
        writer.line(
          `const char *next = part < ${this.#depth} - k ? (const char *)(w + part * ${panelColumns}) : (const char *)(${following});`,
        );
        writer.block(`for (int64_t m = 0; m < count; m += ${most})`, () => {
          writer.line(`const int64_t height = count - m < ${most} ? count - m : ${most};`);
          writer.line(
            `piece_strips${storedSuffix(stored) + this.#suffix}(height, ${columns}, step, ${x.pointer} + m * ${x.stride} + k, ${x.stride}, w, part, sums${index} + m * ${panelColumns}, k > 0, next);`,
          );
          writer.line(`next += (part + step - 1) / step * ${strips * panelColumns * dtypes[stored].bytes};`);
        });
      });
    });
  }

  /** The sums of a whole panel, piece by piece. */
  #emitPieces(segment: ContractionSegment, x: XAddress, weights: readonly string[]): void {
    const { writer } = this;
    const { tileRows, tileColumns, chunkDepth } = this.schedule;
    const { lanes } = isaTable[this.isa].tile;
    const low = lowRows(tileOf(this.schedule), lanes, this.#interleaves);
    // The fewer rows, the sooner a piece is gone through, and the more evenly weights have to come.
    const [some, few] = [lowDepth, lowDepth / 2].map((depth) => Math.min(chunkDepth, depth));
    writer.line(`const int64_t piece = count > ${streamedRows} ? ${chunkDepth} : count > ${streamRows} ? ${some} : ${few};`);
    const choose = (tall: string | number, other: string | number): string =>
      this.#full ? `high > 0 ? ${tall} : ${other}` : String(other);
    writer.line(`const int64_t tiles = ${choose(`high / ${tileRows} * ${panelColumns / tileColumns}`, lowTiles(low, "count"))};`);
    weights.forEach((weight, index) => {
      const stored = storedAs(segment.contractions[index] as Node);
      const suffix = storedSuffix(stored) + this.#suffix;
      const following = weights[index + 1] ?? `${weights[0] as string} + ${this.#depth * panelColumns}`;
      writer.block(`for (int64_t k = 0; k < ${this.#depth}; k += piece)`, () => {
        writer.line(`const int64_t part = ${this.#depth} - k < piece ? ${this.#depth} - k : piece;`);
        writer.line(`const ${cType[stored]} *const w = ${weight} + k * ${panelColumns};`);
        writer.line(`const int64_t size = part * ${panelColumns * dtypes[stored].bytes};`);
        // Tiles share the fetching so that it goes on for as long as they compute: a share of the next piece each, some lines every so many k.
        writer.line(`const int64_t step = ${choose(highStep, this.#turn)}, turns = (part + step - 1) / step;`);
        writer.line(`const int64_t pace = (size / ${lineBytes} * step + part * tiles - 1) / (part * tiles);`);
        writer.line(
          `const char *next = part < ${this.#depth} - k ? (const char *)(w + part * ${panelColumns}) : (const char *)(${following});`,
        );
        writer.line("const char *const stop = next + size;");
        const each = (call: string): void => {
          writer.line("const int64_t lines = next < stop ? pace : 0;");
          writer.line(`${call};`);
          writer.line(`next += turns * lines * ${lineBytes};`);
        };
        const a = `${x.pointer} + m * ${x.stride} + k, ${x.stride}`;
        const last = index === weights.length - 1;
        if (this.#full) {
          const tile = this.#tiles ? `piece_interleaved${suffix}(${this.#tiles} + k * high + m * part, 0` : `piece_full${suffix}(${a}`;
          writer.block(`for (int64_t column = 0; column < ${panelColumns}; column += ${tileColumns})`, () => {
            writer.block(`for (int64_t m = 0; m < high; m += ${tileRows})`, () => {
              if (last) this.#fetchTargets(segment, String(tileRows), "column0 + column", tileColumns);
              each(`${tile}, w + column, part, sums${index} + m * ${panelColumns} + column, k > 0, next, lines)`);
            });
          });
        }
        writer.block(`for (int64_t m = ${this.#full ? "high" : 0}, height; m < count; m += height)`, () => {
          writer.line(`height = ${nextLow(low, "count - m")};`);
          if (last) this.#fetchTargets(segment, "height", "column0", panelColumns);
          each(`piece_low${suffix}(height, ${a}, w, part, sums${index} + m * ${panelColumns}, k > 0, next, lines, 1, 0)`);
        });
      });
    });
  }

  /** The lines that the epilogue will write are asked for while the last piece is computed: rows lie too far apart for the processor to see it coming. */
  #fetchTargets({ stores, width }: ContractionSegment, rows: string, from: string, columns: number): void {
    const { writer } = this;
    for (const node of stores) {
      const line = lineBytes / dtypes[node.dtype].bytes;
      const target = `${writer.pointer(node, node.dtype, "out")} + i * ${width} + ${from}`;
      writer.block(
        `if (count > ${streamedRows} && k + part == ${this.#depth}) for (int64_t i = first + m; i < first + m + ${rows}; i++)`,
        () => {
          for (let column = 0; column < columns; column += line)
            writer.line(`__builtin_prefetch(${target}${column === 0 ? "" : ` + ${column}`}, 1, 3);`);
        },
      );
    }
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
    const most = this.#partOf(segment) === undefined ? panelColumns : "columns";
    const whole = `column0 + ${most} <= ${segment.width} ? ${most} : ${segment.width - tail} - column0`;
    writer.block(`for (int64_t j = 0; j < (${whole}); j += 16)`, () => this.#emitLanes(emitter, sums, 16));
    if (tail !== 0) {
      writer.block(`if (column0 + ${most} > ${segment.width})`, () => {
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
