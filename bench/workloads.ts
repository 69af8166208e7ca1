/** The workloads of the benches: what is run, and the useful work of one run, from which the limit follows. Formula weights have the published models' shapes. */
import { compile, linear, Tensor } from "../src/tensor/index.js";
import { openDevice, size, State, type Mode } from "../src/trace/entry.js";
import { formulaCheckpoint } from "../src/models/formula/checkpoint.js";
import { Toto1Model } from "../src/models/toto1/model.js";
import type { ModelSeries } from "../src/models/model.js";
import { decoderWorkloads } from "./decoder.js";

export interface Session {
  run(): Promise<void> | void;
  recompiles(): number;
  dispose(): void;
}

export interface Workload {
  readonly name: string;
  /** Useful operations of one run, and weight bytes that must be read. */
  readonly gflop: number;
  readonly weightBytes: number;
  readonly open: (mode: Mode, threads: number) => Session;
}

const wave = (variates: number, length: number): ModelSeries => ({
  values: Array.from({ length: variates }, (_, v) => Float32Array.from({ length }, (_, i) => 50 + 10 * Math.sin(i / 24 + v) + (i % 7))),
  stream: 1,
});

let toto1: { key: string; model: Toto1Model } | undefined;

/** One loaded toto1-base at a time: 600 MB of weights. */
function toto1Base(mode: Mode, threads: number, kvCache: "static" | "none"): Toto1Model {
  const key = `${mode} ${threads} ${kvCache}`;
  if (toto1?.key === key) return toto1.model;
  toto1?.model.dispose();
  const model = Toto1Model.load("toto1-base", formulaCheckpoint("toto1-base", { seed: 1 }), openDevice("native", { threads }), {
    mode,
    kvCache,
  });
  toto1 = { key, model };
  return model;
}

function toto1Workload(
  name: string,
  request: { variates?: number; context: number; horizon: number; samples: number; cached?: boolean },
  gflop: number,
  passes: number,
): Workload {
  const series = wave(request.variates ?? 1, request.context);
  return {
    name,
    gflop,
    weightBytes: 472e6 * passes,
    open: (mode, threads) => {
      const model = toto1Base(mode, threads, request.cached === false ? "none" : "static");
      return {
        run: async () => void (await model.predict({ series: [series], horizon: request.horizon, samples: request.samples, seed: 1 })),
        recompiles: () => model.report().recompiles,
        dispose: () => undefined,
      };
    },
  };
}

/** One contraction of M rows, K 768, N 3072: with one matrix, which stays in the cache, or with twelve in turn, which come from memory. */
function gemm(name: string, rows: number, matrices: number): Workload {
  const [depth, width, rounds] = [768, 3072, 12];
  return {
    name,
    gflop: (2 * rows * depth * width * rounds) / 1e9,
    weightBytes: matrices === 1 ? 0 : depth * width * 4 * rounds,
    open: (mode, threads) => {
      const { device } = openDevice("native", { threads });
      const weights = Array.from({ length: matrices }, (_, index) => {
        const state = new State(device, `weight${index}`, [width, depth], "f32", { kind: "constant", layout: "panels" });
        state.write(Float32Array.from({ length: width * depth }, (_, i) => ((i * 2654435761 + index) % 1000) / 1000 - 0.5));
        return state;
      });
      // A sum over each result keeps it alive; x differs per round, so that equal contractions are not merged.
      const body = (x: Tensor): Tensor =>
        Array.from({ length: rounds }, (_, round) => linear(x.mul(1 + round), weights[round % matrices] as State).sum()).reduce((a, b) =>
          a.add(b),
        );
      const program = compile(body, { device, mode, name, dynamic: { rows: [1, 4096] } });
      const x = Tensor.from(new Float32Array(rows * depth).fill(0.5), [size("rows", rows), depth]);
      return {
        run: () => void program(x),
        recompiles: () => program.report().recompiles,
        dispose: () => {
          program.dispose();
          for (const weight of weights) weight.dispose();
        },
      };
    },
  };
}

export const workloads: readonly Workload[] = [
  gemm("gemm", 256, 1),
  gemm("gemm-m64", 64, 1),
  gemm("gemm-m64-memory", 64, 12),
  gemm("gemm-m256-memory", 256, 12),
  gemm("gemm-m8-memory", 8, 12),
  gemm("stream", 1, 12),
  ...decoderWorkloads,
  toto1Workload("T1-mean", { context: 512, horizon: 256, samples: 0 }, 2.1, 4),
  toto1Workload("T1-mean-nokv", { context: 512, horizon: 256, samples: 0, cached: false }, 7.6, 4),
  toto1Workload("T1-samples", { context: 512, horizon: 64, samples: 256 }, 1.9, 1),
  toto1Workload("T1-paths", { context: 2048, horizon: 256, samples: 256 }, 190, 4),
  toto1Workload("T1-multi", { variates: 8, context: 1024, horizon: 128, samples: 64 }, 150, 2),
];
