/** Functions, routines and a decoder layer whose bits are pinned, and the pins: taken once on AVX-512, asserted for every instruction set. */
import { createHash } from "node:crypto";
import { sizeVar } from "../src/ir/dim.js";
import type { CompiledGraph, Device } from "../src/runtime/device.js";
import { compile } from "../src/tensor/index.js";
import { bitsOf, CaseBuilder, compileTogether, integers, noise, runCase, type GraphCase, type Outcome } from "./graph-harness.js";
import { decoderLayer, layerArguments } from "./structure-layer.js";

export const functions = ["exp", "log", "log1p", "asinh", "sinh", "sigmoid", "silu", "softplus", "sqrt"] as const;

/** f32 values of both signs spread evenly over all exponents, subnormals included. */
const everywhere = (count: number): Float32Array => {
  const words = Uint32Array.from({ length: count }, (_, index) => Math.floor((index * 2 ** 32) / count) + (index % 7));
  return new Float32Array(words.buffer).map((x) => (Number.isFinite(x) ? x : 0));
};

const rows = sizeVar("rows", 0, 1 << 20);

function functionCase(op: string): GraphCase {
  const c = new CaseBuilder(op);
  c.output(c.add(op, [c.f32([rows, 16], everywhere)]));
  return c.finish([{ rows: 1 << 13 }]);
}

function routineCases(): GraphCase[] {
  const normal = new CaseBuilder("rmsNorm and softmax");
  const x = normal.f32([rows, 77], noise(1, 3, 13));
  normal.output(normal.add("softmax", [normal.add("rmsNorm", [x, normal.table([77], noise(2))], { epsilon: 1e-6 })]));
  const product = new CaseBuilder("matmul");
  product.output(product.add("matmul", [product.f32([rows, 100], noise(3)), product.f32([100, 53], noise(4))]));
  const halves = new CaseBuilder("linear, bf16 weights");
  const gated = halves.add("silu", [
    halves.add("linear", [halves.f32([rows, 100], noise(8))], {}, [halves.weight(53, 100, noise(9), "bf16")]),
  ]);
  halves.output(halves.add("linear", [gated, halves.table([70], noise(10))], {}, [halves.weight(70, 53, noise(11), "bf16")]));
  const draw = new CaseBuilder("mixtureDraw");
  const vectors = [
    draw.i32([rows], integers(3, 0, 3)),
    draw.i32([rows, 3], integers(4, 0, 1000)),
    draw.i32([rows], integers(5, 0, 100000)),
    draw.i32([2], integers(6, -9, 9)),
  ];
  draw.output(draw.add("mixtureDraw", [draw.f32([4, 6, 20], noise(2, 3)), ...vectors], { components: 5 }));
  const scale = new CaseBuilder("causalScaler");
  const options = { fresh: true, addedVariance: 1e-6, minimumScale: 0.1, clamp: true, lowFactor: 0.1, highFactor: 3 };
  const sequence = [0, 40, 9, 0].map((value) => scale.i32([1], () => Int32Array.of(value)));
  scale.output(
    scale.add("causalScaler", [scale.f32([40, 64], noise(7, 3, 50)), scale.i32([40, 64], integers(8, 0, 1)), ...sequence], options, [
      scale.state([1, 6], "f64", (count) => new Float64Array(count)),
    ]),
  );
  return [normal, product, halves, draw, scale].map((c) => c.finish([{ rows: 37 }]));
}

export const cases = [...functions.map(functionCase), ...routineCases()];

/** The numbers may only be changed on purpose, with a line in CHANGELOG. */
export const pinned: Readonly<Record<string, string>> = {
  exp: "e75aba97d7c91103",
  log: "ad041b32c2a221a4",
  log1p: "095777dc73f659dc",
  asinh: "34961dd3e42f02a0",
  sinh: "cb06a42558fb5aae",
  sigmoid: "3ce3e20a13bd1fff",
  silu: "4745fd45006f4ce1",
  softplus: "905e2fbfa1ce4b33",
  sqrt: "06b0cd64de90c21a",
  "rmsNorm and softmax": "25824c5e9052b35d",
  matmul: "c850615f080793ad",
  "linear, bf16 weights": "ebb651c1fdd969eb",
  mixtureDraw: "017f885d8db5c525",
  causalScaler: "a8042cb30baeae75",
  "decoder layer": "b4b3073dfb3bc140",
};

const hashOf = (outcomes: readonly Outcome[]): string => {
  const hash = createHash("sha256");
  for (const outcome of outcomes) for (const values of outcome.values()) hash.update(new Uint8Array(bitsOf(values).slice().buffer));
  return hash.digest("hex").slice(0, 16);
};

function layerHash(device: Device): string {
  const layer = decoderLayer(device, "pinned");
  const step = compile(layer, { device, mode: "reduce-overhead", dynamic: { tokens: [1, 512] }, name: "pinned" });
  const hash = createHash("sha256");
  for (const [tokens, first] of [
    [30, 0],
    [3, 10],
    [3, 11],
  ] as const)
    hash.update(new Uint8Array(bitsOf(step(...layerArguments(tokens, first)).data()).slice().buffer));
  hash.update(new Uint8Array(bitsOf(layer.cache.keys.read()).slice().buffer));
  step.dispose();
  for (const state of layer.states) state.dispose();
  return hash.digest("hex").slice(0, 16);
}

/** The hashes of everything that is pinned, computed on a device. */
export function hashesOn(device: Device): Record<string, string> {
  const compiled = compileTogether("pinned", device, cases, ["default"]).get("default") ?? [];
  const hashes = cases.map((one, index) => [one.name, hashOf(runCase(device, one, compiled[index] as CompiledGraph, "one-call"))] as const);
  return { ...Object.fromEntries(hashes), "decoder layer": layerHash(device) };
}
