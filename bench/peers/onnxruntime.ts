/** onnxruntime-node as a peer: a session per graph and thread count, feeds made once, whole `run()` calls timed. */
import { contractionCases, contractionInput, depth } from "../contractions.js";
import { decoderCases, decoderInput, headWidth, heads, layers, pastOf, width, type DecoderCase } from "../decoder-shape.js";
import type { Peer } from "../measure.js";
import type { Session } from "../workload.js";
import { contractionGraph } from "./contraction-graph.js";
import { decoderGraph } from "./decoder-graph.js";
import { peerPackages, type Require } from "./installed.js";

interface OrtTensor {
  readonly data: Float32Array;
}

interface OrtSession {
  run(feeds: Readonly<Record<string, OrtTensor>>): Promise<Readonly<Record<string, OrtTensor>>>;
  release(): Promise<void>;
}

interface Ort {
  readonly InferenceSession: { create(model: Uint8Array, options: object): Promise<OrtSession> };
  readonly Tensor: new (type: string, data: Float32Array | Int32Array, dims: readonly number[]) => OrtTensor;
}

/** The CPU provider's fastest settings: all graph optimizations, one operator at a time, the given threads inside it (they spin by default). */
export const sessionOptions = (threads: number): object => ({
  executionProviders: ["cpu"],
  intraOpNumThreads: threads,
  interOpNumThreads: 1,
  executionMode: "sequential",
  graphOptimizationLevel: "all",
  enableCpuMemArena: true,
  enableMemPattern: true,
});

type Feeds = Readonly<Record<string, OrtTensor>>;

/** The decoder's session serves all cases of a thread count: its weights take 450 MB. */
let kept: { readonly threads: number; readonly session: OrtSession } | undefined;

async function decoderSession(require: Require, ort: Ort, threads: number): Promise<OrtSession> {
  if (kept?.threads === threads) return kept.session;
  await releasePeers();
  kept = { threads, session: await ort.InferenceSession.create(decoderGraph().encode(require), sessionOptions(threads)) };
  return kept.session;
}

export async function releasePeers(): Promise<void> {
  await kept?.session.release();
  kept = undefined;
}

function decoderFeeds(ort: Ort, { tokens, past }: DecoderCase): Feeds {
  const [batch, length] = past === 0 ? [1, tokens] : [tokens, 1];
  const feeds: Record<string, OrtTensor> = {
    x: new ort.Tensor("float32", decoderInput(tokens), [batch, length, width]),
    // Keys of each sequence besides the last one, and the most of all sequences.
    lengths: new ort.Tensor("int32", new Int32Array(batch).fill(past + length - 1), [batch]),
    total: new ort.Tensor("int32", Int32Array.of(past + length), [1]),
  };
  for (let layer = 0; layer < layers; layer++) {
    for (const part of ["keys", "values"] as const) {
      const one = pastOf(layer, part, past);
      const all = new Float32Array(one.length * batch);
      for (let b = 0; b < batch; b++) all.set(one, b * one.length);
      feeds[`past.${layer}.${part}`] = new ort.Tensor("float32", all, [batch, heads, past, headWidth]);
    }
  }
  return feeds;
}

function asPeer(session: OrtSession, feeds: Feeds, dispose: () => Promise<void>): Peer {
  let last: Float32Array | undefined;
  return {
    name: "onnxruntime-node",
    run: async () => void (last = (await session.run(feeds))["y"]?.data),
    relativeDifference: (ours: Session) => relativeDifference(ours.output?.() ?? new Float32Array(), last ?? new Float32Array()),
    dispose,
  };
}

/** Largest difference over the largest value; Infinity for arrays that cannot be compared. */
function relativeDifference(ours: Float32Array, theirs: Float32Array): number {
  if (ours.length !== theirs.length || ours.length === 0) return Infinity;
  let [difference, largest] = [0, 0];
  for (const [i, value] of ours.entries()) {
    const other = theirs[i] as number;
    if (!Number.isFinite(value) || !Number.isFinite(other)) return Infinity;
    difference = Math.max(difference, Math.abs(value - other));
    largest = Math.max(largest, Math.abs(other));
  }
  return difference / largest;
}

/** Peers that can run a workload; none when they are not installed, or when no graph of the workload exists for them. */
export async function peersOf(workload: string, threads: number): Promise<readonly Peer[]> {
  const require = peerPackages();
  const contraction = contractionCases.find(({ name }) => name === workload);
  const decoder = decoderCases.find(({ name }) => name === workload);
  if (!require || (!contraction && !decoder)) return [];
  const ort = require("onnxruntime-node") as Ort;
  if (decoder) return [asPeer(await decoderSession(require, ort, threads), decoderFeeds(ort, decoder), () => Promise.resolve())];
  if (!contraction) return [];
  const session = await ort.InferenceSession.create(contractionGraph(contraction).encode(require), sessionOptions(threads));
  const { rows } = contraction;
  const feeds = { x: new ort.Tensor("float32", contractionInput(rows), [rows, depth]) };
  return [asPeer(session, feeds, () => session.release())];
}

/** Version of the installed package. */
export function peerVersions(): Record<string, string> {
  const require = peerPackages();
  if (!require) return {};
  return { "onnxruntime-node": (require("onnxruntime-node/package.json") as { version: string }).version };
}
