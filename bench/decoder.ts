/** The decoder of the peers' comparison on our engine. */
import {
  appendToCache,
  attention,
  compile,
  linear,
  rmsNorm,
  rope,
  Tensor,
  type KeyValueState,
  type RotaryTables,
} from "../src/tensor/index.js";
import { openDevice, size, State, type Mode } from "../src/trace/entry.js";
import { KeyValueCache } from "../src/nn/key-value-cache.js";
import { rotaryTables } from "../src/nn/rotary.js";
import type { Device } from "../src/runtime/device.js";
import {
  decoderCases,
  decoderInput,
  heads,
  headWidth,
  layers,
  matrix,
  matrixShapes,
  normEpsilon,
  normWeight,
  pastOf,
  positions,
  width,
  type DecoderCase,
  type MatrixName,
} from "./decoder-shape.js";
import { keyLanes } from "../src/ir/ops/state.js";
import { causalKeys, stackPass, type Session, type Stack, type Workload } from "./workload.js";

const stack: Stack = {
  layers,
  attentionWidth: width,
  tokenMatrices: layers * Object.values(matrixShapes).reduce((sum, [rows, columns]) => sum + rows * columns, 0),
  answerMatrices: 0,
};

interface Layer {
  readonly norm1: State;
  readonly norm2: State;
  readonly matrices: Readonly<Record<MatrixName, State>>;
}

class Decoder {
  readonly #states: State[] = [];
  readonly layers: readonly Layer[];
  readonly rotary: RotaryTables;

  constructor(device: Device) {
    const constant = (name: string, shape: readonly number[], values: Float32Array, layout: "panels" | "plain"): State => {
      const state = new State(device, name, shape, "f32", { kind: "constant", layout });
      state.write(values);
      this.#states.push(state);
      return state;
    };
    this.layers = Array.from({ length: layers }, (_, layer) => ({
      norm1: constant(`${layer}.norm1`, [width], normWeight(layer, 1), "plain"),
      norm2: constant(`${layer}.norm2`, [width], normWeight(layer, 2), "plain"),
      matrices: Object.fromEntries(
        (Object.keys(matrixShapes) as MatrixName[]).map((name) => [
          name,
          constant(`${layer}.${name}`, matrixShapes[name], matrix(layer, name), "panels"),
        ]),
      ) as Record<MatrixName, State>,
    }));
    this.rotary = rotaryTables(device, "rotary", { positions, headWidth, width: headWidth, pairing: "half" });
  }

  /** x [tokens, width] through all layers; keys go to `own`, the ones before them are read there or in the shared prefix. */
  forward(x: Tensor, own: readonly KeyValueState[], at: Vectors, prefix: readonly KeyValueState[] | undefined): Tensor {
    let h = x;
    for (const [index, layer] of this.layers.entries()) {
      const { query, key, value, out, gate, up, down } = layer.matrices;
      const y = rmsNorm(h, layer.norm1, normEpsilon);
      const split = (weight: State): Tensor => {
        const projected = linear(y, weight);
        return projected.reshape([projected.shape[0] as number, heads, headWidth]);
      };
      const form = { width: headWidth, pairing: "half" } as const;
      const cache = own[index] as KeyValueState;
      appendToCache(cache, rope(split(key), at.position, form, this.rotary), split(value), at.row, at.slot);
      const shared =
        prefix && at.prefixRow && at.prefixLength
          ? { cache: prefix[index] as KeyValueState, row: at.prefixRow, length: at.prefixLength }
          : undefined;
      const attended = attention(
        rope(split(query), at.position, form, this.rotary),
        cache,
        at.row,
        at.length,
        { scale: 1 / Math.sqrt(headWidth), valueWidth: headWidth },
        shared,
      );
      h = h.add(linear(attended.reshape([attended.shape[0] as number, width]), out));
      const z = rmsNorm(h, layer.norm2, normEpsilon);
      h = h.add(linear(linear(z, gate).silu().mul(linear(z, up)), down));
    }
    return h;
  }

  dispose(): void {
    for (const state of this.#states) state.dispose();
    this.rotary.cosine.dispose();
    this.rotary.sine.dispose();
  }
}

interface Vectors {
  readonly position: Tensor;
  readonly row: Tensor;
  readonly slot: Tensor;
  readonly length: Tensor;
  readonly prefixRow?: Tensor;
  readonly prefixLength?: Tensor;
}

/** Every row's first slots hold the same past: keys [heads][blocks][headWidth][lanes], values [heads][slots][headWidth]. */
function fillPast(cache: KeyValueCache, past: number): void {
  cache.layers.forEach(({ keys, values }, layer) => {
    const [pastKeys, pastValues] = [pastOf(layer, "keys", past), pastOf(layer, "values", past)];
    const [rows, slots] = [keys.buffer.shape[0] as number, cache.slots];
    const [keyRow, valueRow] = [new Float32Array(heads * slots * headWidth), new Float32Array(heads * slots * headWidth)];
    for (let head = 0; head < heads; head++) {
      for (let slot = 0; slot < past; slot++) {
        for (let d = 0; d < headWidth; d++) {
          const from = (head * past + slot) * headWidth + d;
          const block = (head * slots) / keyLanes + Math.floor(slot / keyLanes);
          keyRow[(block * headWidth + d) * keyLanes + (slot % keyLanes)] = pastKeys[from] as number;
          valueRow[(head * slots + slot) * headWidth + d] = pastValues[from] as number;
        }
      }
    }
    keys.write(repeated(keyRow, rows));
    values.write(repeated(valueRow, rows));
  });
}

function repeated(row: Float32Array, rows: number): Float32Array {
  const all = new Float32Array(row.length * rows);
  for (let at = 0; at < all.length; at += row.length) all.set(row, at);
  return all;
}

let loaded: { key: string; decoder: Decoder } | undefined;

function open({ name, tokens, past, shared }: DecoderCase, mode: Mode, threads: number): Session {
  const { device } = openDevice("native", { threads });
  if (loaded?.key !== device.description) {
    loaded?.decoder.dispose();
    loaded = { key: device.description, decoder: new Decoder(device) };
  }
  const { decoder } = loaded;
  const prefill = past === 0;
  const shape = { layers, heads, keyWidth: headWidth, valueWidth: headWidth };
  const own = new KeyValueCache(device, "own", shape);
  const prefix = new KeyValueCache(device, "prefix", shape);
  own.ensure(prefill ? 1 : tokens, prefill ? tokens : shared ? 16 : past + 1);
  prefix.ensure(1, Math.max(past, keyLanes));
  if (!prefill) fillPast(shared ? prefix : own, past);
  const vector = (value: (n: number) => number): Tensor =>
    Tensor.from(
      Int32Array.from({ length: tokens }, (_, n) => value(n)),
      [size("tokens", tokens)],
    );
  const at: Vectors = {
    position: vector((n) => (prefill ? n : past)),
    row: vector((n) => (prefill ? 0 : n)),
    slot: vector((n) => (prefill ? n : shared ? past % 16 : past)),
    length: vector((n) => (prefill ? n + 1 : past + 1)),
    ...(shared ? { prefixRow: vector(() => 0), prefixLength: vector(() => past) } : {}),
  };
  const program = compile(
    (x: Tensor, cache: readonly KeyValueState[], where: Vectors, common: readonly KeyValueState[]) =>
      decoder.forward(x, cache, where, shared ? common : undefined),
    {
      device,
      mode,
      name,
      dynamic: { tokens: [1, 4096] },
    },
  );
  const x = Tensor.from(decoderInput(tokens), [size("tokens", tokens), width]);
  let last: Tensor | undefined;
  return {
    device,
    run: () => void (last = program(x, own.layers, at, prefix.layers)),
    runOffLoop: async () => void (last = await program.run([x, own.layers, at, prefix.layers])),
    output: () => (last as Tensor).data() as Float32Array,
    recompiles: () => program.report().recompiles,
    dispose: () => {
      program.dispose();
      own.dispose();
      prefix.dispose();
    },
  };
}

const taskOf = ({ tokens, past, shared }: DecoderCase): string => {
  if (past === 0) return `12 layers of Toto 1's shape, prefill of ${tokens} tokens`;
  const caches = shared ? "one shared prefix" : tokens === 1 ? "a past" : "private pasts";
  return `12 layers of Toto 1's shape, one token of ${tokens === 1 ? "one sequence" : `${tokens} sequences`}, ${caches} of ${past}`;
};

export const decoderWorkloads: readonly Workload[] = decoderCases.map((entry) => {
  const { name, tokens, past, shared } = entry;
  const keys = past === 0 ? causalKeys(tokens) : tokens * (past + 1);
  return {
    name,
    task: taskOf(entry),
    passes: [
      stackPass(past === 0 ? "prefill" : "step", stack, {
        tokens,
        answers: 0,
        keys,
        cached: shared ? past : past === 0 ? 0 : tokens * past,
      }),
    ],
    open: (mode: Mode, threads: number) => open(entry, mode, threads),
  };
});
