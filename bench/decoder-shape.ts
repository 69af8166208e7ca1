/**
 * The decoder of the peers' comparison as numbers: sizes, weights, inputs and past keys and values, all from formulas, so that every engine computes with the same ones.
 * Twelve layers of RMSNorm, q/k/v, RoPE, causal attention, out projection and SwiGLU; no embedding, no head. Must not know any engine.
 */
export const [layers, width, hidden, heads] = [12, 768, 3072, 12];
export const headWidth = width / heads;
export const normEpsilon = 1e-6;
/** Positions with rotary tables. */
export const positions = 128;

/** [rows, columns] of a layer's matrices, a row per output. */
export const matrixShapes = {
  query: [width, width],
  key: [width, width],
  value: [width, width],
  out: [width, width],
  gate: [hidden, width],
  up: [hidden, width],
  down: [width, hidden],
} as const;

export type MatrixName = keyof typeof matrixShapes;

/** Even numbers in -1 .. 1, a stream per seed. */
function noise(seed: number, length: number, scale: number): Float32Array {
  const values = new Float32Array(length);
  for (let i = 0; i < length; i++) {
    let x = Math.imul(i + Math.imul(seed, 0x9e3779b1), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    values[i] = scale * (((x ^ (x >>> 16)) >>> 8) / 8388608 - 1);
  }
  return values;
}

export function matrix(layer: number, name: MatrixName): Float32Array {
  const [rows, columns] = matrixShapes[name];
  return noise(1 + layer * 16 + Object.keys(matrixShapes).indexOf(name), rows * columns, 1 / Math.sqrt(columns));
}

export const normWeight = (layer: number, which: 1 | 2): Float32Array =>
  noise(8 + layer * 16 + which, width, 0.5).map((value) => 1 + value);

/** [tokens, width] */
export const decoderInput = (tokens: number): Float32Array => noise(12345, tokens * width, 1);

/** [heads, past, headWidth]: keys, rotated already, or values of every sequence. */
export const pastOf = (layer: number, part: "keys" | "values", past: number): Float32Array =>
  noise(10_000 + 2 * layer + (part === "keys" ? 0 : 1), heads * past * headWidth, 1);

export interface DecoderCase {
  readonly name: string;
  readonly tokens: number;
  /** Keys before the tokens; 0: the tokens are one sequence, else each is one of its own. */
  readonly past: number;
  /** All sequences read one past. */
  readonly shared: boolean;
}

export const decoderCases: readonly DecoderCase[] = [
  { name: "decoder-prefill64", tokens: 64, past: 0, shared: false },
  { name: "decoder-b1", tokens: 1, past: 64, shared: false },
  { name: "decoder-b256", tokens: 256, past: 64, shared: false },
  { name: "decoder-b256-shared", tokens: 256, past: 64, shared: true },
];
