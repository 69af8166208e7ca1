/**
 * The decoder of the peers' comparison: twelve layers of RMSNorm, q/k/v, RoPE, causal attention, out projection and SwiGLU, width 768, hidden 3072; no embedding,
 * no head. Random weights; the same graph is written for the peer by bench/peers.
 */
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
import { causalKeys, stackPass, type Session, type Stack, type Workload } from "./workload.js";

const [layers, width, hidden, heads] = [12, 768, 3072, 12];
const headWidth = width / heads;
const stack: Stack = { layers, attentionWidth: width, tokenMatrices: layers * (4 * width * width + 3 * width * hidden), answerMatrices: 0 };

interface Layer {
  readonly norm1: State;
  readonly norm2: State;
  readonly matrices: Readonly<Record<"query" | "key" | "value" | "out" | "gate" | "up" | "down", State>>;
}

class Decoder {
  readonly #states: State[] = [];
  readonly layers: readonly Layer[];
  readonly rotary: RotaryTables;

  constructor(private readonly device: Device) {
    this.layers = Array.from({ length: layers }, (_, layer) => {
      const matrix = (name: string, rows: number, depth: number): State =>
        this.#weight(`${layer}.${name}`, [rows, depth], 1 / Math.sqrt(depth), "panels");
      return {
        norm1: this.#weight(`${layer}.norm1`, [width], 1, "plain"),
        norm2: this.#weight(`${layer}.norm2`, [width], 1, "plain"),
        matrices: {
          query: matrix("query", width, width),
          key: matrix("key", width, width),
          value: matrix("value", width, width),
          out: matrix("out", width, width),
          gate: matrix("gate", hidden, width),
          up: matrix("up", hidden, width),
          down: matrix("down", width, hidden),
        },
      };
    });
    this.rotary = rotaryTables(device, "rotary", { positions: 128, headWidth, width: headWidth, pairing: "half" });
  }

  #weight(name: string, shape: readonly number[], scale: number, layout: "panels" | "plain"): State {
    const state = new State(this.device, name, shape, "f32", { kind: "constant", layout });
    const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
    for (let i = 0; i < values.length; i++) values[i] = scale * (((Math.imul(i + name.length, 0x9e3779b1) >>> 8) & 0xffff) / 32768 - 1);
    state.write(values);
    this.#states.push(state);
    return state;
  }

  /** x [tokens, width] through all layers; keys go to `own`, the ones before them are read there or in the shared prefix. */
  forward(x: Tensor, own: readonly KeyValueState[], at: Vectors, prefix: readonly KeyValueState[] | undefined): Tensor {
    let h = x;
    for (const [index, layer] of this.layers.entries()) {
      const { query, key, value, out, gate, up, down } = layer.matrices;
      const y = rmsNorm(h, layer.norm1, 1e-6);
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
      const z = rmsNorm(h, layer.norm2, 1e-6);
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

interface DecoderCase {
  readonly name: string;
  readonly tokens: number;
  /** Keys before the tokens; with `shared` all rows read one prefix. */
  readonly past: number;
  readonly shared: boolean;
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
  prefix.ensure(1, Math.max(past, 16));
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
  const x = Tensor.from(
    Float32Array.from({ length: tokens * width }, (_, i) => Math.sin(i)),
    [size("tokens", tokens), width],
  );
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

const cases: readonly DecoderCase[] = [
  { name: "decoder-prefill64", tokens: 64, past: 0, shared: false },
  { name: "decoder-b1", tokens: 1, past: 64, shared: false },
  { name: "decoder-b256", tokens: 256, past: 64, shared: false },
  { name: "decoder-b256-shared", tokens: 256, past: 64, shared: true },
];

const taskOf = ({ tokens, past, shared }: DecoderCase): string => {
  if (past === 0) return `12 layers of Toto 1's shape, prefill of ${tokens} tokens`;
  const caches = shared ? "one shared prefix" : tokens === 1 ? "a past" : "private pasts";
  return `12 layers of Toto 1's shape, one token of ${tokens === 1 ? "one sequence" : `${tokens} sequences`}, ${caches} of ${past}`;
};

export const decoderWorkloads: readonly Workload[] = cases.map((entry) => {
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
