/**
 * What a workload is, and the limit that its useful work sets on a machine.
 *
 * Useful work is counted pass by pass: one pass is one run through a network's weights. A pass cannot be faster than its arithmetic at the measured
 * fma peak, nor than reading its weights and the cached keys and values of earlier passes once at the measured stream bandwidth; the limit of a run
 * is the sum of the larger of the two over its passes. What is counted is what the answer needs: a series' prefix once for all its paths, one token
 * per step, heads on the tokens that answer, weights folded at load. Element-wise work, norms, softmax and draws are not counted.
 */
import type { Device } from "../src/runtime/device.js";
import type { Mode } from "../src/trace/entry.js";
import type { Limits } from "./limits.js";

export interface Session {
  readonly device: Device;
  run(): Promise<void> | void;
  recompiles(): number;
  /** Time spent compiling so far. */
  compileMs?(): number;
  /** The same with the event loop free meanwhile, where `run` blocks it. */
  runOffLoop?(): Promise<void>;
  /** Output values of the last run, for comparison with a peer. */
  output?(): Float32Array;
  dispose(): void;
}

/** `count` equal passes. */
export interface Pass {
  readonly name: string;
  readonly count: number;
  readonly gflop: number;
  readonly bytes: number;
}

export interface Workload {
  readonly name: string;
  readonly task: string;
  readonly passes: readonly Pass[];
  readonly open: (mode: Mode, threads: number) => Session;
}

export function limitMs(passes: readonly Pass[], { fmaGflops, streamGBs }: Limits): number {
  return passes.reduce((sum, { count, gflop, bytes }) => sum + count * Math.max((gflop / fmaGflops) * 1000, bytes / streamGBs / 1e6), 0);
}

export const totalGflop = (passes: readonly Pass[]): number => passes.reduce((sum, { count, gflop }) => sum + count * gflop, 0);
export const totalBytes = (passes: readonly Pass[]): number => passes.reduce((sum, { count, bytes }) => sum + count * bytes, 0);

/** A stack of attention layers with f32 weights, as far as its cost goes. */
export interface Stack {
  /** Layers that attend, and width of all heads' values together; keys are as wide. */
  readonly layers: number;
  readonly attentionWidth: number;
  /** Elements of the matrices that every token meets, and of those that only answering tokens meet. */
  readonly tokenMatrices: number;
  readonly answerMatrices: number;
}

export interface Tokens {
  readonly tokens: number;
  readonly answers: number;
  /** Keys that a token sees in a layer, summed over the tokens. */
  readonly keys: number;
  /** Keys of earlier passes that lie in the cache, over all sequences. */
  readonly cached: number;
}

/** One pass of tokens: two operations per weight and token, four per key and value column; weights and cached keys and values read once. */
export function stackPass(name: string, stack: Stack, { tokens, answers, keys, cached }: Tokens, count = 1): Pass {
  const { layers, attentionWidth, tokenMatrices, answerMatrices } = stack;
  return {
    name,
    count,
    gflop: (2 * tokens * tokenMatrices + 2 * answers * answerMatrices + 4 * attentionWidth * layers * keys) / 1e9,
    bytes: 4 * (tokenMatrices + answerMatrices) + 8 * attentionWidth * layers * cached,
  };
}

/** Keys seen by `tokens` causal tokens after `before` others, summed. */
export const causalKeys = (tokens: number, before = 0): number => tokens * before + (tokens * (tokens + 1)) / 2;
