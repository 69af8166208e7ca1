/** The causal transformer block that Kronos models and both halves of the tokenizer share (model-spec C.3). Traced code over token rows. */
import {
  appendToCache,
  attention,
  linear,
  rmsNorm,
  rope,
  tap,
  type Tensor,
  type KeyValueState,
  type RotaryTables,
  type SharedPrefix,
} from "../../tensor/index.js";
import type { KronosBlockConfig } from "./config.js";
import type { KronosBlock, LinearWeights } from "./weights.js";

/** Per token i32 [tokens]: its position, the cache row and slot its key goes to, and the number of keys it sees. */
export interface Places {
  readonly position: Tensor;
  readonly row: Tensor;
  readonly slot: Tensor;
  readonly length: Tensor;
}

/** Where a block's tokens stand and what they attend to. */
export interface BlockContext {
  readonly places: Places;
  readonly rotary: RotaryTables;
  readonly cache: KeyValueState;
  readonly prefix?: SharedPrefix | undefined;
}

export const normEpsilon = 1e-5;

export const project = (x: Tensor, { weight, bias }: LinearWeights): Tensor => linear(x, weight, bias);

/** x [tokens, d] as [tokens, heads, d / heads]: heads are contiguous slices. */
export const split = (x: Tensor, heads: number): Tensor =>
  x.reshape([...x.shape.slice(0, -1), heads, (x.shape[x.shape.length - 1] as number) / heads]);

export const join = (x: Tensor): Tensor => x.reshape([...x.shape.slice(0, -2), (x.shape.at(-2) as number) * (x.shape.at(-1) as number)]);

/** Writes the keys and values of normalised y into the cache; what a token leaves behind for those after it. */
export function remember(y: Tensor, block: KronosBlock, config: KronosBlockConfig, { places, rotary, cache }: BlockContext): void {
  const form = { width: config.width / config.heads, pairing: "half" } as const;
  const key = tap("k", rope(split(project(y, block.key), config.heads), places.position, form, rotary));
  appendToCache(cache, key, split(project(y, block.value), config.heads), places.row, places.slot);
}

/** One block: h [tokens, d] -> [tokens, d]. */
export function applyBlock(h: Tensor, block: KronosBlock, config: KronosBlockConfig, context: BlockContext): Tensor {
  const { places, rotary, cache, prefix } = context;
  const headWidth = config.width / config.heads;
  const y = rmsNorm(h, block.norm1, normEpsilon);
  const form = { width: headWidth, pairing: "half" } as const;
  const query = tap("q", rope(split(project(y, block.query), config.heads), places.position, form, rotary));
  remember(y, block, config, context);
  const options = { scale: 1 / Math.sqrt(headWidth), valueWidth: headWidth };
  const attended = h.add(project(join(attention(query, cache, places.row, places.length, options, prefix)), block.out));
  const z = rmsNorm(attended, block.norm2, normEpsilon);
  return tap("out", attended.add(project(project(z, block.gate).silu().mul(project(z, block.up)), block.down)));
}

/** What a block leaves behind when nothing after it needs its output. */
export function rememberOnly(h: Tensor, block: KronosBlock, config: KronosBlockConfig, context: BlockContext): void {
  remember(rmsNorm(h, block.norm1, normEpsilon), block, config, context);
}
