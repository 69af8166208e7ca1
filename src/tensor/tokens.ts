/** Token operations as functions over Tensor: sign bits to tokens and back, filtered draws. */
import { tokenSites } from "../ir/ops/tokens.js";
import { apply, type Tensor } from "./tensor.js";

/** Token i32 [rows] of the signs of columns start .. start + count - 1 of x [rows, width]; the first column is the lowest bit. */
export const packSigns = (x: Tensor, start: number, count: number): Tensor => apply("packSigns", [x], { start, count });

/** +-scale f32 [rows, coarseBits + fineBits] of two tokens' bits, lowest first; coarse and fine i32 [rows]. */
export const expandBits = (
  coarse: Tensor,
  fine: Tensor,
  options: { readonly coarseBits: number; readonly fineBits: number; readonly scale: number },
): Tensor => apply("expandBits", [coarse, fine], { ...options });

/** What all draws of a call share. */
export interface TokenDraws {
  /** i32 [rows, 2]: series stream and path of each row. */
  readonly keys: Tensor;
  /** i32 [rows]: how many tokens the row drew before. */
  readonly step: Tensor;
  /** i32 [2] */
  readonly seed: Tensor;
  /** f32 [3]: temperature, top-k (0 = off), top-p (1 = off). */
  readonly settings: Tensor;
}

/** One token per row, i32 [rows], from logits [sources, tokens] of its source row; `forced` i32 [rows] replaces the draws. */
export function drawToken(logits: Tensor, source: Tensor, draws: TokenDraws, site: keyof typeof tokenSites, forced?: Tensor): Tensor {
  const inputs = [logits, source, draws.keys, draws.step, draws.seed, draws.settings, ...(forced ? [forced] : [])];
  return apply("drawToken", inputs, { site: tokenSites[site] });
}

/** The distribution `drawToken` draws from, f32 [rows, tokens]; removed tokens have 0. */
export const tokenProbabilities = (logits: Tensor, settings: Tensor): Tensor => apply("tokenProbabilities", [logits, settings]);
