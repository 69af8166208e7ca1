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
export function tileSuffix(tile: Tile, { turn, interleaved }: Pick<TileForms, "turn" | "interleaved">, isa: TargetIsa): string {
  const usual = tileOf(usualContractionSchedule(1, false, isa));
  const { lanes, unrolled } = isaTable[isa].tile;
  const low = lowRows(tile, lanes, interleaved);
  return [
    tile.rows === usual.rows && tile.columns === usual.columns ? "" : `_${tile.rows}x${tile.columns}`,
    low === lowRows(tile, lanes, false) ? "" : `_low${low}`,
    tile.prefetchBytes === usual.prefetchBytes ? "" : `_ahead${tile.prefetchBytes}`,
    turn === unrolled ? "" : `_by${turn}`,
  ].join("");
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

/** Rows up to which two panels are taken up side by side where the schedule has no prefetch distance. */
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

/** Highest tile that takes all columns of the panel at once; half of a full tile that does, where that one has rows of its own, because compilers take long over high tiles. */
export const lowRows = (tile: Tile, lanes: number, interleaved: boolean): number =>
  interleaved && tile.columns === panelColumns
    ? Math.ceil(tile.rows / 2)
    : (Array.from({ length: tile.rows }, (_, index) => tile.rows - index).find((rows) => columnsOf(rows, tile, lanes) === panelColumns) ??
      1);

/** Most rows whose accumulators for a strip fit where the full tile's do. */
export const stripRows = (tile: Tile): number => Math.max(1, Math.min(tile.rows, Math.floor((tile.rows * tile.columns) / stripColumns)));

/** C text of one k of a tile: `load` and `fetch` of vector v of the weights. */
function oneStep(isa: TargetIsa, tile: Tile, load: string, fetch: string): string {
  const { lanes, register } = isaTable[isa].tile;
  const vectors = columnsOf(1, tile, lanes) / lanes;
  const narrow = register !== undefined && lanes < 16;
  const type = `f32x${lanes}`;
  const form = formOf("f32", lanes);
  const gain = (x: string, w: string): string => `sum[m][v] = ${register ? "gained" : "fma"}_${form}(${x}, ${w}, sum[m][v]);`;
  const factor = `a[interleaved ? k * rows + m : m * stride + k]`;
  const [forRows, forVectors] = [
    `#pragma GCC unroll ${tile.rows}\nfor (int m = 0; m < rows; m++)`,
    `#pragma GCC unroll ${vectors}\nfor (int v = 0; v < vectors; v++)`,
  ];
  const rowsOutside = `${type} w[${vectors}];
${forVectors} {
  w[v] = ${load};
${fetch}}
${forRows} {
  const ${type} x = splat_${form}(${factor});
${indented(forVectors)} ${gain("x", "w[v]")}
}`;
  if (!narrow) return rowsOutside;
  return `if (rows >= vectors) {
${indented(rowsOutside)}
} else {
  ${type} x[${tile.rows}];
${indented(forRows)} x[m] = splat_${form}(${factor});
${indented(forVectors)} {
    const ${type} w = ${load};
${indented(fetch)}${indented(indented(forRows))} ${gain("x[m]", "w")}
  }
}`;
}

/** Steps of the inner axis that are written out one after the other; one where it has a rest. */
export const turnOf = (depth: number, isa: TargetIsa): number => {
  const { unrolled } = isaTable[isa].tile;
  return depth % unrolled === 0 ? unrolled : 1;
};

/** Which forms of the tile a kernel calls. */
export interface TileForms {
  /** Of `turnOf`. */
  readonly turn: number;
  /** The inner axis is taken up in pieces. */
  readonly cut: boolean;
  /** Full tiles read rows that lie interleaved. */
  readonly interleaved: boolean;
  /** A last panel is computed in part. */
  readonly strips: boolean;
}

const head = `static __attribute__((noinline, unused)) void`;

/** C text that takes the height as a constant. */
const byHeight = (heights: readonly number[], text: (height: number) => string): string =>
  `switch (rows) {\n${heights.map((height) => `  case ${height}: ${text(height)} break;\n`).join("")}}`;

const upTo = (most: number): number[] => Array.from({ length: most }, (_, index) => index + 1);

/** Heights of low tiles, powers of two below the highest: every further one would be code that hardly runs and that takes time to compile. */
const lowHeights = (most: number): number[] => [1, 2, 4, 8].filter((height) => height < most).concat(most);

/** C text of the height of the low tile that comes next, with `left` rows to go. */
export const nextLow = (most: number, left: string): string =>
  lowHeights(most).reduce((rest, height) => (height === 1 ? "1" : `${left} >= ${height} ? ${height} : ${rest}`), "1");

/** C text of how many low tiles `rows` rows take. */
export const lowTiles = (most: number, rows: string): string =>
  most === 1 ? rows : `(${rows} / ${most} + __builtin_popcountll((uint64_t)(${rows} % ${most})))`;

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
function pairFunction(low: number, lanes: Lanes, suffix: string, stored: Stored): string {
  const vectors = panelColumns / lanes;
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
    for (int64_t m = 1, height; m < rows; m += height) {
      height = ${nextLow(low, "rows - m")};
      for (int p = 0; p < 2; p++) piece_low${suffix}(height, a + m * stride + from, stride, panels[p] + from * ${panelColumns}, to - from, sums[p] + m * ${panelColumns}, from > 0, 0, 0, 1, 0);
    }
  }
}
`;
}

/** Up to `streamRows` rows over several panels: C text of a function beside the tile's own. */
function streamsFunction(low: number, turn: number, suffix: string, stored: Stored): string {
  const { bytes } = dtypes[stored];
  return `/* More rows over several panels, piece by piece; what comes next, in the end the panel \`after\`, is asked for all the while, some lines of each panel by turns. */
${head} tile_streams${suffix}(int64_t rows, const float *a, int64_t stride, int64_t streams, const ${cType[stored]} *const *panels, int64_t depth, float *const *sums, const ${cType[stored]} *after) {
  const int64_t tiles = ${lowTiles(low, "rows")}, lines = (${((panelColumns * bytes) / lineBytes) * turn} + tiles - 1) / tiles, apart = (const char *)panels[1] - (const char *)panels[0];
  for (int64_t k = 0; k < depth; k += ${streamDepth}) {
    const int64_t part = depth - k < ${streamDepth} ? depth - k : ${streamDepth};
    const char *next = (const char *)(k + part < depth ? panels[0] + (k + part) * ${panelColumns} : after), *const stop = next + part * ${panelColumns * bytes};
    for (int64_t p = 0; p < streams; p++)
      for (int64_t m = 0, height; m < rows; m += height) {
        const int64_t some = next < stop ? lines : 0;
        height = ${nextLow(low, "rows - m")};
        piece_low${suffix}(height, a + m * stride + k, stride, panels[p] + k * ${panelColumns}, part, sums[p] + m * ${panelColumns}, k > 0, next, some, streams, apart);
        next += (part / ${turn} + streams - 1) / streams * some * ${lineBytes};
      }
  }
}
`;
}

/** The accumulator tile: up to `rows` x `columns` outputs in registers, one fma chain each. Weights stored as bf16 are widened, which is exact, as they are loaded. */
export function tileFunctions(
  isa: TargetIsa,
  tile: Tile,
  size: string,
  { turn, cut, strips, interleaved }: TileForms,
  stored: Stored,
): string[] {
  const { rows, prefetchBytes } = tile;
  const { lanes } = isaTable[isa].tile;
  const vectors = columnsOf(1, tile, lanes) / lanes;
  const most = lowRows(tile, lanes, interleaved);
  const type = `f32x${lanes}`;
  const form = formOf("f32", lanes);
  const suffix = storedSuffix(stored) + size;
  const call = (height: number, fetch: string): string =>
    `accumulate${suffix}(a, stride, b, depth, out, carry, ${height}, ${columnsOf(height, tile, lanes)}, ${panelColumns}, ${fetch}, 1, 0, 0);`;
  const inFunction = (heights: readonly number[], text: (height: number) => string): string => indented(byHeight(heights, text));
  const operands = `const float *a, int64_t stride, const ${cType[stored]} *b, int64_t depth, float *out, int carry`;
  const uncut = `${head} tile${suffix}(int64_t rows, ${operands}) {
${inFunction(upTo(rows), (height) => call(height, "1, depth, 0, 0"))}
}
${head} tile_full${suffix}(${operands}) { ${call(rows, "0, depth, 0, 0")} }
`;
  const low = `/* Low tiles of all the panel's columns. */
${head} piece_low${suffix}(int64_t rows, ${operands}, const char *ahead, int64_t lines, int64_t streams, int64_t apart) {
${inFunction(lowHeights(most), (height) => `accumulate${suffix}(a, stride, b, depth, out, carry, ${height}, ${panelColumns}, ${panelColumns}, 2, ${turn}, ahead, lines, streams, apart, 0);`)}
}
`;
  const fullColumns = columnsOf(rows, tile, lanes);
  const full = `/* A full tile of some of the panel's columns${interleaved ? ", whose rows lie interleaved" : ""}. */
${head} ${interleaved ? "piece_interleaved" : "piece_full"}${suffix}(${operands}, const char *ahead, int64_t lines) { accumulate${suffix}(a, stride, b, depth, out, carry, ${rows}, ${fullColumns}, ${fullColumns}, 3, ${highStep}, ahead, lines, 1, 0, ${Number(interleaved)}); }
`;
  const ofStrips = (fetch: string): string =>
    inFunction(
      upTo(stripRows(tile)),
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
  const step = (deeper: string, fetch: string): string => `${deeper}const ${cType[stored]} *const line = b + k * ${panelColumns} + column;
${oneStep(isa, tile, load, fetch).replace(/^(?=[^#\n])/gm, deeper)}
`;
  const single = (fetch: string): string => `for (int64_t k = from; k < to; k++) {\n${step("  ", fetch)}}\n`;
  const turns = `for (int64_t first = from; first < to; first += ${turn})
#pragma GCC unroll ${turn}
  for (int64_t k = first; k < first + ${turn}; k++) {
${step("    ", "")}  }
`;
  // Compilers take long over whole turns, so only the highest tiles go by them; strips fetch every so many k, which need not be whole turns.
  const whole = `fetch != 1 && fetch != 4 && (rows == ${rows} || rows == ${most})`;
  const walk = turn === 1 ? single(each) : `if (${whole})\n${indented(turns)}else\n${indented(single(each))}`;
  const accumulate = `/*
 * out[m][0 .. width - 1] = sum over k of a[m][k] * b[k][0 .. width - 1], or with carry that chain continued from out; \`columns\` of them at a time. Fetching runs
 * ahead across panel ends (1), takes lines of what comes next every \`step\` k, of \`streams\` that lie \`apart\` bytes by turns and \`step\` a whole turn (2), or also the next
 * rows of a and out (3), or the strips' own lines of one row of b every \`step\` k (4). Interleaved rows of a, a[k][m], lie in the order in which they are read, and are
 * not asked for.
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
      const int64_t to = fetch == 2 || from + step < depth ? from + step : depth;
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
    ...(cut ? [low] : [uncut]),
    ...(cut && (interleaved || tile.columns < panelColumns) ? [full] : []),
    ...(cut && prefetchBytes === 0 ? [pairFunction(most, lanes, suffix, stored)] : []),
    ...(cut ? [streamsFunction(most, turn, suffix, stored)] : []),
    ...(strips ? [parts] : []),
  ];
}
