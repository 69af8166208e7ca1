/** The accumulator tiles of contractions as C functions: rows times columns of a panel, one fma chain per output. Must not know kernels or where x comes from. */
import { dtypes } from "../ir/dtype.js";
import type { ContractionSchedule } from "../ir/schedule.js";
import { formOf, type Lanes } from "./c-scalar.js";
import { isaTable, type TargetIsa } from "./helpers.js";
import { usualContractionSchedule } from "./schedule.js";
import { storedSuffix, type Stored } from "./stored.js";
import { cType } from "./writer.js";

/** Columns of a weight panel: a constant of the device, because packing depends on it. */
export const panelColumns = 48;

export const panelsOf = (width: number): number => Math.ceil(width / panelColumns);

/** Columns that a last panel which is not full is computed in multiples of: those after them hold nothing but padding. */
export const stripColumns = 16;

/** Columns of a row's last panel that are computed; all of them in most widths. */
export const lastColumns = (width: number): number =>
  Math.ceil((width - (panelsOf(width) - 1) * panelColumns) / stripColumns) * stripColumns;

export interface Tile {
  readonly rows: number;
  readonly columns: number;
  readonly prefetchBytes: number;
}

export const tileOf = ({ tileRows, tileColumns, prefetchBytes }: ContractionSchedule): Tile => ({
  rows: tileRows,
  columns: tileColumns,
  prefetchBytes,
});

/** Ending of the functions' names, so that the kernels of a file may have different tiles. */
export function tileSuffix({ rows, columns, prefetchBytes }: Tile, isa: TargetIsa): string {
  const usual = tileOf(usualContractionSchedule(1, false, isa));
  const size = rows === usual.rows && columns === usual.columns ? "" : `_${rows}x${columns}`;
  return size + (prefetchBytes === usual.prefetchBytes ? "" : `_ahead${prefetchBytes}`);
}

export const lineBytes = 64;

/** A high tile of a cut block fetches some lines of the weights and the rows that come next every so many k. */
export const highStep = 16;

/** Depth of the pieces of a panel that few rows take up. */
export const lowDepth = 64;

/** Widest part of a panel whose accumulators `rows` rows may take without more registers than the full tile has. */
export const columnsOf = (rows: number, tile: Tile, lanes: number): number =>
  [48, 24, 16, 12, 8].find(
    (columns) =>
      columns % lanes === 0 && (columns === tile.columns || (columns > tile.columns && rows * columns <= tile.rows * tile.columns)),
  ) as number;

/** Rows up to which two panels are taken up side by side where nothing is fetched ahead. */
export const pairRows = 3;

/** Rows up to which several panels are taken up together, piece by piece: where lines must be asked for, several streams by turns come faster than one. */
export const streamRows = 8;

/** Most panels that few rows take up together. */
export const mostStreams = 4;

/** Depth of the pieces of these panels. */
const streamDepth = 32;

/** Depth of the pieces of two panels that the first row brings into the first-level cache for the others. */
const pairDepth = 32;

/** C text two columns further in; directives stay where they are. */
const indented = (text: string): string => text.replace(/^(?=[^#\n])/gm, "  ");

/** Highest tile that takes all columns of the panel at once. */
export const lowRows = (tile: Tile, lanes: number): number =>
  Array.from({ length: tile.rows }, (_, index) => tile.rows - index).find((rows) => columnsOf(rows, tile, lanes) === panelColumns) ?? 1;

/** Most rows whose accumulators for a strip fit where the full tile's do. */
export const stripRows = (tile: Tile): number => Math.max(1, Math.min(tile.rows, Math.floor((tile.rows * tile.columns) / stripColumns)));

/** C text of one k of a tile: `load` and `fetch` of vector v of the weights. */
function oneStep(isa: TargetIsa, tile: Tile, load: string, fetch: string): string {
  const { lanes, held } = isaTable[isa].tile;
  const vectors = columnsOf(1, tile, lanes) / lanes;
  const type = `f32x${lanes}`;
  const form = formOf("f32", lanes);
  const factor = `a[interleaved ? k * rows + m : m * stride + k]`;
  const [forRows, forVectors] = [
    `#pragma GCC unroll ${tile.rows}\nfor (int m = 0; m < rows; m++)`,
    `#pragma GCC unroll ${vectors}\nfor (int v = 0; v < vectors; v++)`,
  ];
  const rowsOutside = `${type} w[${vectors}];
${forVectors} {
  w[v] = ${held ? `held_${form}(${load})` : load};
${fetch}}
${forRows} {
  const ${type} x = splat_${form}(${factor});
${indented(forVectors)} sum[m][v] = fma_${form}(x, w[v], sum[m][v]);
}`;
  if (!held) return rowsOutside;
  return `if (rows >= vectors) {
${indented(rowsOutside)}
} else {
  ${type} x[${tile.rows}];
${indented(forRows)} x[m] = splat_${form}(${factor});
${indented(forVectors)} {
    const ${type} w = held_${form}(${load});
${indented(fetch)}${indented(indented(forRows))} sum[m][v] = fma_${form}(x[m], w, sum[m][v]);
  }
}`;
}

/** Which forms of the tile a kernel calls. */
export interface TileForms {
  /** The inner axis is taken up in pieces. */
  readonly cut: boolean;
  /** Full tiles read rows that lie interleaved. */
  readonly interleaved: boolean;
  /** A last panel is computed in part. */
  readonly strips: boolean;
}

const head = `static __attribute__((noinline, unused)) void`;

/** C text that takes the height as a constant. */
const byHeight = (rows: string, most: number, text: (height: number) => string): string =>
  `switch (${rows}) {\n${Array.from({ length: most }, (_, index) => `  case ${index + 1}: ${text(index + 1)} break;\n`).join("")}}`;

/** A block's rows as full tiles read them, so that what they read at one time lies side by side and not in a page each: C text of a function for tiles of `rows`. */
export const interleaveFunction = (rows: number): string => `/* Pieces of k outside, then tiles, then k, then the tile's rows. */
${head} interleave_${rows}(const float *x, int64_t stride, int64_t rows, int64_t depth, int64_t piece, float *out) {
  for (int64_t first = 0; first < depth; first += piece) {
    const int64_t end = first + piece < depth ? first + piece : depth;
    for (int64_t m = 0; m < rows; m += ${rows})
      for (int64_t k = first; k < end; k++)
#pragma GCC unroll ${rows}
        for (int i = 0; i < ${rows}; i++) *out++ = x[(m + i) * stride + k];
  }
}
`;

/** Few rows over two panels: C text of a function beside the tile's own. */
function pairFunction(tile: Tile, lanes: Lanes, suffix: string, stored: Stored): string {
  const [vectors, low] = [panelColumns / lanes, lowRows(tile, lanes)];
  const [type, form] = [`f32x${lanes}`, formOf("f32", lanes)];
  const load = `${stored === "f32" ? "load" : "widen"}_${form}(panels[p] + k * ${panelColumns} + ${lanes} * v)`;
  const each = (deeper: string): string => `#pragma GCC unroll 2
${deeper}for (int p = 0; p < 2; p++)
#pragma GCC unroll ${vectors}
${deeper}  for (int v = 0; v < ${vectors}; v++)`;
  return `/*
 * Few rows over two panels: the first row takes lines of one and of the other by turns, as the processor follows two streams from memory faster than one, and slower
 * where prefetches come between. Further rows find the piece in the cache.
 */
${head} tile_pair${suffix}(int64_t rows, const float *a, int64_t stride, const ${cType[stored]} *const *panels, int64_t depth, float *const *sums) {
  const int64_t piece = rows == 1 ? depth : ${pairDepth};
  for (int64_t from = 0; from < depth; from += piece) {
    const int64_t to = from + piece < depth ? from + piece : depth;
    ${type} sum[2][${vectors}];
${each("    ")} sum[p][v] = from > 0 ? load_${form}(sums[p] + ${lanes} * v) : splat_${form}(0);
    for (int64_t k = from; k < to; k++) {
      const ${type} x = splat_${form}(a[k]);
${each("      ")} sum[p][v] = fma_${form}(x, ${load}, sum[p][v]);
    }
${each("    ")} store_${form}(sums[p] + ${lanes} * v, sum[p][v]);
    for (int64_t m = 1; m < rows; m += ${low})
      for (int p = 0; p < 2; p++) tile_low${suffix}(rows - m < ${low} ? rows - m : ${low}, a + m * stride + from, stride, panels[p] + from * ${panelColumns}, to - from, sums[p] + m * ${panelColumns}, from > 0);
  }
}
`;
}

/** Up to `streamRows` rows over several panels: C text of a function beside the tile's own. */
function streamsFunction(tile: Tile, isa: TargetIsa, suffix: string, stored: Stored): string {
  const { lanes, unrolled } = isaTable[isa].tile;
  const low = lowRows(tile, lanes);
  const { bytes } = dtypes[stored];
  const operands = `a + m * stride + k, stride, panels[p] + k * ${panelColumns}, part, sums[p] + m * ${panelColumns}, k > 0`;
  const tiled = byHeight(
    `rows - m < ${low} ? rows - m : ${low}`,
    low,
    (height) => `accumulate${suffix}(${operands}, ${height}, ${panelColumns}, ${panelColumns}, 2, step, next, some, streams, apart, 0);`,
  );
  return `/* More rows over several panels, piece by piece; what comes next, in the end the panel \`after\`, is asked for all the while, some lines of each panel by turns. */
${head} tile_streams${suffix}(int64_t rows, const float *a, int64_t stride, int64_t streams, const ${cType[stored]} *const *panels, int64_t depth, float *const *sums, const ${cType[stored]} *after) {
  const int64_t tiles = (rows + ${low - 1}) / ${low}, even = (tiles + ${unrolled - 1}) / ${unrolled} * ${unrolled}, apart = (const char *)panels[1] - (const char *)panels[0];
  for (int64_t k = 0; k < depth; k += ${streamDepth}) {
    const int64_t part = depth - k < ${streamDepth} ? depth - k : ${streamDepth}, step = even < part ? even : part, turns = (part + step - 1) / step;
    const int64_t lines = (${(panelColumns * bytes) / lineBytes} * step + tiles - 1) / tiles;
    const char *next = (const char *)(k + part < depth ? panels[0] + (k + part) * ${panelColumns} : after), *const stop = next + part * ${panelColumns * bytes};
    for (int64_t p = 0; p < streams; p++)
      for (int64_t m = 0; m < rows; m += ${low}) {
        const int64_t some = next < stop ? lines : 0;
${indented(indented(indented(indented(tiled))))}
        next += (turns + streams - 1) / streams * some * ${lineBytes};
      }
  }
}
`;
}

/** The accumulator tile: up to `rows` x `columns` outputs in registers, one fma chain each. Weights stored as bf16 are widened, which is exact, as they are loaded. */
export function tileFunctions(isa: TargetIsa, tile: Tile, size: string, { cut, strips, interleaved }: TileForms, stored: Stored): string[] {
  const { rows, prefetchBytes } = tile;
  const { lanes, unrolled } = isaTable[isa].tile;
  const vectors = columnsOf(1, tile, lanes) / lanes;
  const type = `f32x${lanes}`;
  const form = formOf("f32", lanes);
  const suffix = storedSuffix(stored) + size;
  const call = (height: number, fetch: string): string =>
    `accumulate${suffix}(a, stride, b, depth, out, carry, ${height}, ${columnsOf(height, tile, lanes)}, ${panelColumns}, ${fetch}, 1, 0, 0);`;
  const inFunction = (most: number, text: (height: number) => string): string => indented(byHeight("rows", most, text));
  const low = (fetch: string): string => inFunction(lowRows(tile, lanes), (height) => call(height, fetch));
  const operands = `const float *a, int64_t stride, const ${cType[stored]} *b, int64_t depth, float *out, int carry`;
  const uncut = `${head} tile${suffix}(int64_t rows, ${operands}) {
${inFunction(rows, (height) => call(height, "1, depth, 0, 0"))}
}
${head} tile_full${suffix}(${operands}) { ${call(rows, "0, depth, 0, 0")} }
`;
  const pieces = `/* Low tiles of all the panel's columns, one of them alone in its block and running ahead by itself. */
${head} tile_low${suffix}(int64_t rows, ${operands}) {
${low("1, depth, 0, 0")}
}
${head} piece_low${suffix}(int64_t rows, int64_t step, ${operands}, const char *ahead, int64_t lines) {
${low("2, step, ahead, lines")}
}
`;
  const fullColumns = columnsOf(rows, tile, lanes);
  const full = `/* A full tile of some of the panel's columns${interleaved ? ", whose rows lie interleaved" : ""}. */
${head} ${interleaved ? "piece_interleaved" : "piece_full"}${suffix}(${operands}, const char *ahead, int64_t lines) { accumulate${suffix}(a, stride, b, depth, out, carry, ${rows}, ${fullColumns}, ${fullColumns}, 3, ${highStep}, ahead, lines, 1, 0, ${Number(interleaved)}); }
`;
  const ofStrips = (fetch: string): string =>
    inFunction(
      stripRows(tile),
      (height) => `accumulate${suffix}(a, stride, b, depth, out, carry, ${height}, ${stripColumns}, width, ${fetch}, 1, 0, 0);`,
    );
  const parts = `/* The first columns of a panel that is not full. */
${
  cut
    ? `${head} piece_strips${suffix}(int64_t rows, int64_t width, int64_t step, ${operands}, const char *ahead) {\n${ofStrips("4, step, ahead, 0")}\n}\n`
    : `${head} tile_strips${suffix}(int64_t rows, int64_t width, ${operands}) {\n${ofStrips("1, depth, 0, 0")}\n}\n`
}`;
  const each =
    prefetchBytes > 0 ? `  if (fetch == 1) __builtin_prefetch((const char *)(line + ${lanes} * v) + ${prefetchBytes}, 0, 3);\n` : "";
  const load = `${stored === "f32" ? "load" : "widen"}_${form}(line + ${lanes} * v)`;
  const steps = (fetch: string): string => `for (int64_t k = from; k < to; k++) {
  const ${cType[stored]} *const line = b + k * ${panelColumns} + column;
${indented(oneStep(isa, tile, load, fetch))}
}
`;
  // Where fetching has to go along with every step, turns of several steps would fetch in bursts.
  const turns = unrolled === 1 ? steps("") : `#pragma GCC unroll ${unrolled}\n${steps("")}`;
  const walk = each === "" ? turns : `if (fetch == 1)\n${indented(steps(each))}else\n${indented(turns)}`;
  const accumulate = `/*
 * out[m][0 .. width - 1] = sum over k of a[m][k] * b[k][0 .. width - 1], or with carry that chain continued from out; \`columns\` of them at a time. Fetching runs
 * ahead across panel ends (1), takes lines of what comes next every \`step\` k, of \`streams\` that lie \`apart\` bytes by turns (2), or also the next rows of a and out (3), or the strips' own lines of one row of b every \`step\` k (4). Interleaved rows of
 * a, a[k][m], lie in the order in which they are read, and are not asked for.
 */
INLINE void accumulate${suffix}(${operands}, const int rows, const int columns, const int64_t width, const int fetch, int64_t step, const char *ahead, int64_t lines, int64_t streams, int64_t apart, const int interleaved) {
  const int vectors = columns / ${lanes};
  for (int64_t column = 0; column < width; column += columns) {
    ${type} sum[${rows}][${vectors}];
#pragma GCC unroll ${rows}
    for (int m = 0; m < rows; m++)
#pragma GCC unroll ${vectors}
      for (int v = 0; v < vectors; v++) sum[m][v] = carry ? load_${form}(out + m * ${panelColumns} + column + ${lanes} * v) : splat_${form}(0);
    if (fetch == 3)
#pragma GCC unroll ${rows}
      for (int m = 0; m < rows; m++) __builtin_prefetch(out + (rows + m) * ${panelColumns}, 0, 3);
    int64_t stream = 0;
    for (int64_t from = 0; from < depth; from += step) {
      const int64_t to = from + step < depth ? from + step : depth;
      if (fetch == 4) {
        __builtin_prefetch(ahead, 0, 3);
        __builtin_prefetch(ahead + (width - ${stripColumns}) * ${dtypes[stored].bytes}, 0, 3);
        ahead += ${panelColumns * dtypes[stored].bytes};
      } else if (fetch >= 2) {
        for (int64_t fetched = 0; fetched < lines; fetched++) __builtin_prefetch(ahead + stream * apart + fetched * ${lineBytes}, 0, fetch == 3 ? 2 : 3);
        if (++stream == streams) stream = 0, ahead += lines * ${lineBytes};
      }
      if (fetch == 3 && !interleaved)
#pragma GCC unroll ${rows}
        for (int m = 0; m < rows; m++) __builtin_prefetch(a + (rows + m) * stride + from, 0, 3);
${indented(indented(indented(walk)))}    }
#pragma GCC unroll ${rows}
    for (int m = 0; m < rows; m++)
#pragma GCC unroll ${vectors}
      for (int v = 0; v < vectors; v++) store_${form}(out + m * ${panelColumns} + column + ${lanes} * v, sum[m][v]);
  }
}
`;
  return [
    accumulate,
    ...(cut ? [pieces, full] : [uncut]),
    ...(cut && prefetchBytes === 0 ? [pairFunction(tile, lanes, suffix, stored), streamsFunction(tile, isa, suffix, stored)] : []),
    ...(strips ? [parts] : []),
  ];
}
