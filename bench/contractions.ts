/** Contractions alone: M rows, K 768, N 3072, with one matrix, which stays in the cache, or with twelve in turn, which come from memory. */
import { compile, linear, Tensor } from "../src/tensor/index.js";
import { openDevice, size, State, type Mode } from "../src/trace/entry.js";
import type { Session, Workload } from "./workload.js";

export const [depth, width] = [768, 3072] as const;

/** Rows of x, and matrices that take turns. */
export interface ContractionCase {
  readonly name: string;
  readonly rows: number;
  readonly matrices: number;
}

/** Contractions of one run: with one matrix so many that its first way into the cache does not count. */
export const roundsOf = ({ matrices }: ContractionCase): number => (matrices === 1 ? 48 : 12);

export const contractionCases: readonly ContractionCase[] = [
  { name: "gemm", rows: 256, matrices: 1 },
  { name: "gemm-m64", rows: 64, matrices: 1 },
  { name: "gemm-m64-memory", rows: 64, matrices: 12 },
  { name: "gemm-m256-memory", rows: 256, matrices: 12 },
  { name: "gemm-m2-memory", rows: 2, matrices: 12 },
  { name: "gemm-m4-memory", rows: 4, matrices: 12 },
  { name: "gemm-m8-memory", rows: 8, matrices: 12 },
  { name: "stream", rows: 1, matrices: 12 },
];

/** [width, depth], a row per output. */
export const contractionWeights = (index: number): Float32Array =>
  Float32Array.from({ length: width * depth }, (_, i) => (((i * 2654435761 + index) % 1000) / 1000 - 0.5) * weightScale);

/** Keeps the products as large as x. */
const weightScale = 0.125;

/** [rows, depth] */
export const contractionInput = (rows: number): Float32Array => Float32Array.from({ length: rows * depth }, (_, i) => Math.sin(i));

function open(one: ContractionCase, mode: Mode, threads: number): Session {
  const { name, rows, matrices } = one;
  const { device } = openDevice("native", { threads });
  const weights = Array.from({ length: matrices }, (_, index) => {
    const state = new State(device, `weight${index}`, [width, depth], "f32", { kind: "constant", layout: "panels" });
    state.write(contractionWeights(index));
    return state;
  });
  // Each product's first columns are the next x, so that none can be left out, and nothing but contractions is timed.
  const body = (x: Tensor): Tensor =>
    Array.from({ length: roundsOf(one) }, (_, round) => weights[round % matrices] as State).reduce(
      (rows, matrix) => linear(rows, matrix).slice(1, 0, depth),
      x,
    );
  const program = compile(body, { device, mode, name, dynamic: { rows: [1, 4096] } });
  const x = Tensor.from(contractionInput(rows), [size("rows", rows), depth]);
  let last: Tensor | undefined;
  return {
    device,
    run: () => void (last = program(x)),
    runOffLoop: async () => void (last = await program.run([x])),
    output: () => (last as Tensor).data() as Float32Array,
    recompiles: () => program.report().recompiles,
    dispose: () => {
      program.dispose();
      for (const weight of weights) weight.dispose();
    },
  };
}

function workload(one: ContractionCase): Workload {
  const { name, rows, matrices } = one;
  const rounds = roundsOf(one);
  const from = matrices === 1 ? "weights in the cache" : "weights from memory";
  return {
    name,
    task: `${rows} x ${depth} times ${depth} x ${width}, ${from}, ${rounds} times`,
    passes: [
      {
        name: "contraction",
        count: rounds,
        gflop: (2 * rows * depth * width) / 1e9,
        bytes: matrices === 1 ? 0 : depth * width * 4,
      },
    ],
    open: (mode, threads) => open(one, mode, threads),
  };
}

export const contractionWorkloads: readonly Workload[] = contractionCases.map(workload);
