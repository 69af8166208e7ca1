/** Contractions alone: M rows, K 768, N 3072, with one matrix, which stays in the cache, or with twelve in turn, which come from memory. */
import { compile, linear, Tensor } from "../src/tensor/index.js";
import { openDevice, size, State, type Mode } from "../src/trace/entry.js";
import type { Session, Workload } from "./workload.js";

const [depth, width, rounds] = [768, 3072, 12] as const;

function open(name: string, rows: number, matrices: number, mode: Mode, threads: number): Session {
  const { device } = openDevice("native", { threads });
  const weights = Array.from({ length: matrices }, (_, index) => {
    const state = new State(device, `weight${index}`, [width, depth], "f32", { kind: "constant", layout: "panels" });
    state.write(gemmWeights(index));
    return state;
  });
  // All results are answers, so nothing may leave one out; x differs per round, so that equal contractions are not merged.
  const body = (x: Tensor): Tensor =>
    Array.from({ length: rounds }, (_, round) => linear(x.mul(1 + round), weights[round % matrices] as State).sum()).reduce((a, b) =>
      a.add(b),
    );
  const program = compile(body, { device, mode, name, dynamic: { rows: [1, 4096] } });
  const x = Tensor.from(new Float32Array(rows * depth).fill(0.5), [size("rows", rows), depth]);
  return {
    device,
    run: () => void program(x),
    runOffLoop: async () => void (await program.run([x])),
    recompiles: () => program.report().recompiles,
    dispose: () => {
      program.dispose();
      for (const weight of weights) weight.dispose();
    },
  };
}

/** [N][K]. */
const gemmWeights = (index: number): Float32Array =>
  Float32Array.from({ length: width * depth }, (_, i) => ((i * 2654435761 + index) % 1000) / 1000 - 0.5);

function contraction(name: string, rows: number, matrices: number): Workload {
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
    open: (mode, threads) => open(name, rows, matrices, mode, threads),
  };
}

export const contractionWorkloads: readonly Workload[] = [
  contraction("gemm", 256, 1),
  contraction("gemm-m64", 64, 1),
  contraction("gemm-m64-memory", 64, 12),
  contraction("gemm-m256-memory", 256, 12),
  contraction("gemm-m2-memory", 2, 12),
  contraction("gemm-m4-memory", 4, 12),
  contraction("gemm-m8-memory", 8, 12),
  contraction("stream", 1, 12),
];
