/** A decoder layer of the usual shape, for tests of structure and of pinned bits: normalise, project, rotate, append, attend, project, gate. */
import { padded } from "../src/ir/ops/state.js";
import type { Device } from "../src/runtime/device.js";
import { appendToCache, attention, linear, rmsNorm, rope, Tensor, type KeyValueState } from "../src/tensor/index.js";
import { size, State } from "../src/trace/entry.js";
import { noise } from "./graph-harness.js";

export const shape = { width: 96, heads: 4, headWidth: 24, hidden: 160, capacity: 64 } as const;

export interface Layer {
  readonly states: readonly State[];
  readonly cache: KeyValueState;
  (x: Tensor, row: Tensor, position: Tensor, length: Tensor): Tensor;
}

let seed = 0;

export function decoderLayer(device: Device, name: string): Layer {
  const { width, heads, headWidth, hidden, capacity } = shape;
  const states: State[] = [];
  const keep = (state: State, scale: number): State => {
    state.write(
      noise(
        ++seed,
        scale,
        17,
      )(
        state.shape.reduce((a, b) => a * b, 1),
        {},
      ),
    );
    states.push(state);
    return state;
  };
  seed = name.length;
  const weight = (part: string, out: number, depth: number): State =>
    keep(new State(device, `${name}.${part}`, [out, depth], "f32", { kind: "constant", layout: "panels" }), 1 / Math.sqrt(depth));
  const vector = (part: string, length: number): State =>
    keep(new State(device, `${name}.${part}`, [length], "f32", { kind: "constant" }), 1);
  const table = (part: string): State => keep(new State(device, `${name}.${part}`, [capacity, headWidth], "f32", { kind: "constant" }), 1);
  const inner = heads * headWidth;
  const w = {
    before: vector("norm1", width),
    after: vector("norm2", width),
    q: weight("q", inner, width),
    k: weight("k", inner, width),
    v: weight("v", inner, width),
    out: weight("out", width, inner),
    gate: weight("gate", hidden, width),
    up: weight("up", hidden, width),
    down: weight("down", width, hidden),
    bias: vector("bias", width),
  };
  const tables = { cosine: table("cosine"), sine: table("sine") };
  const form = { width: headWidth, pairing: "interleaved" as const };
  const cache = {
    keys: new State(device, `${name}.keys`, [3, heads, capacity / 16, headWidth, 16], "f32"),
    values: new State(device, `${name}.values`, [3, heads, capacity, padded(headWidth)], "f32"),
  };
  states.push(cache.keys, cache.values);
  const step = (x: Tensor, row: Tensor, position: Tensor, length: Tensor): Tensor => {
    const split = (y: Tensor): Tensor => y.reshape([x.shape[0] as number, heads, headWidth]);
    const y = rmsNorm(x, w.before, 1e-6);
    const [q, k, v] = [split(linear(y, w.q)), split(linear(y, w.k)), split(linear(y, w.v))];
    appendToCache(cache, rope(k, position, form, tables), v, row, position);
    const attended = attention(rope(q, position, form, tables), cache, row, length, {
      scale: 1 / Math.sqrt(headWidth),
      valueWidth: headWidth,
    });
    const h = x.add(linear(attended.reshape([x.shape[0] as number, inner]), w.out, w.bias));
    const z = rmsNorm(h, w.after, 1e-6);
    return h.add(linear(linear(z, w.gate).silu().mul(linear(z, w.up)), w.down));
  };
  return Object.assign(step, { states, cache });
}

/** Arguments of one step of `tokens` tokens that continue at `first`, spread over the cache's three rows. */
export function layerArguments(tokens: number, first = 0): [Tensor, Tensor, Tensor, Tensor] {
  const axis = size("tokens", tokens);
  const vector = (value: (token: number) => number): Tensor =>
    Tensor.from(
      Int32Array.from({ length: tokens }, (_, token) => value(token)),
      [axis],
    );
  const place = (token: number): number => first + Math.floor(token / 3);
  return [
    Tensor.from(noise(tokens + first, 1, 29)(tokens * shape.width, {}) as Float32Array, [axis, shape.width]),
    vector((token) => token % 3),
    vector(place),
    vector((token) => place(token) + 1),
  ];
}
