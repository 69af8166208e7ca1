/** Rotary position tables, computed in f64 and rounded once. Must not know of any model's choice of centre or scale. */
import { sizeVar } from "../ir/dim.js";
import { State } from "../trace/entry.js";
import type { Device } from "../runtime/device.js";
import type { RotaryForm, RotaryTables } from "../tensor/index.js";

export interface RotaryOptions extends RotaryForm {
  /** Rows of the tables: positions 0 .. positions - 1. */
  readonly positions: number;
  /** Most rows that compiled code may meet; another bound is another guard value. Default: `positions`. */
  readonly bound?: number;
  /** Width of a head. */
  readonly headWidth: number;
  readonly base?: number;
}

/** Frequency of each rotated dim: base^(-2i / width) for pair i. */
function pairOf(dim: number, width: number, pairing: RotaryForm["pairing"]): number {
  return pairing === "interleaved" ? Math.floor(dim / 2) : dim % (width / 2);
}

const isFirst = (dim: number, width: number, pairing: RotaryForm["pairing"]): boolean =>
  pairing === "interleaved" ? dim % 2 === 0 : dim < width / 2;

/** Cosine and sine tables [positions, headWidth]; the sine carries the sign of its place in the pair. `frequency(pair)` overrides the usual powers of the base. */
export function rotaryTables(device: Device, name: string, options: RotaryOptions, frequency?: (pair: number) => number): RotaryTables {
  const { positions, headWidth, width, pairing, base = 10000, bound = positions } = options;
  const cosine = new Float32Array(positions * headWidth).fill(1);
  const sine = new Float32Array(positions * headWidth);
  for (let dim = 0; dim < width; dim++) {
    const pair = pairOf(dim, width, pairing);
    const speed = frequency ? frequency(pair) : base ** ((-2 * pair) / width);
    const sign = isFirst(dim, width, pairing) ? -1 : 1;
    for (let t = 0; t < positions; t++) {
      cosine[t * headWidth + dim] = Math.cos(t * speed);
      sine[t * headWidth + dim] = sign * Math.sin(t * speed);
    }
  }
  const table = (part: string, values: Float32Array): State => {
    const state = new State(device, `${name}.${part}`, [sizeVar("positions", 1, bound), headWidth], "f32", {
      kind: "constant",
      sizes: { positions },
    });
    state.write(values);
    return state;
  };
  return { cosine: table("cosine", cosine), sine: table("sine", sine) };
}

/**
 * Multiplier table [2 reach + 1, headWidth]: row reach + e holds scale(dim)^(e / period) for exponents e = -reach .. reach, 1 beyond the rotated width.
 * `bound` is as for `rotaryTables`, in rows.
 * xPos multiplies queries by row reach + (t - centre) and keys by row reach - (t - centre).
 */
export function decayTable(
  device: Device,
  name: string,
  reach: number,
  headWidth: number,
  width: number,
  period: number,
  scale: (dim: number) => number,
  bound = 2 * reach + 1,
): State {
  const entries = 2 * reach + 1;
  const values = new Float32Array(entries * headWidth).fill(1);
  for (let dim = 0; dim < width; dim++) {
    const logarithm = Math.log(scale(dim)) / period;
    for (let e = -reach; e <= reach; e++) values[(e + reach) * headWidth + dim] = Math.exp(e * logarithm);
  }
  const state = new State(device, name, [sizeVar("decays", 1, bound), headWidth], "f32", {
    kind: "constant",
    sizes: { decays: entries },
  });
  state.write(values);
  return state;
}
