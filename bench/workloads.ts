/**
 * The table of workloads. Their useful GFLOP add up to the figures that the comparison with other engines uses: T1-mean 2.5, T1-samples 1.9, T1-paths 190, T1-multi 150,
 * T2-22m-b1 5.4 (b32: 172), T2-4m-b1 0.96 (b32: 31), T2-22m-block 10, K-small-1 28, K-base-1 106, K-small-slide 597. Sample paths of Kronos share the decoder's context as
 * well, which leaves K-small-16 and K-mini-16 with 115 and 29 instead of the 142 and 56 of a decode per path.
 */
import { contractionWorkloads } from "./contractions.js";
import { decoderWorkloads } from "./decoder.js";
import { kronosWorkload, toto1Workload, toto2Workload } from "./forecasts.js";
import type { Workload } from "./workload.js";

const kronosCandles = { lookback: 400, horizon: 96 } as const;

export const workloads: readonly Workload[] = [
  ...contractionWorkloads,
  ...decoderWorkloads,
  toto1Workload("T1-mean", { context: 512, horizon: 256, samples: 0 }),
  toto1Workload("T1-mean-nokv", { context: 512, horizon: 256, samples: 0, cached: false }),
  toto1Workload("T1-samples", { context: 512, horizon: 64, samples: 256 }),
  toto1Workload("T1-paths", { context: 2048, horizon: 256, samples: 256 }),
  toto1Workload("T1-multi", { variates: 8, context: 1024, horizon: 128, samples: 64 }),
  toto2Workload("T2-22m-b1", { preset: "toto2-22m", batch: 1, horizon: 96 }),
  toto2Workload("T2-22m-b32", { preset: "toto2-22m", batch: 32, horizon: 96 }),
  toto2Workload("T2-4m-b1", { preset: "toto2-4m", batch: 1, horizon: 96 }),
  toto2Workload("T2-4m-b32", { preset: "toto2-4m", batch: 32, horizon: 96 }),
  toto2Workload("T2-22m-block", { preset: "toto2-22m", batch: 1, horizon: 2048, block: 768 }),
  kronosWorkload("K-small-1", { preset: "kronos-small", ...kronosCandles, samples: 1 }),
  kronosWorkload("K-small-16", { preset: "kronos-small", ...kronosCandles, samples: 16 }),
  kronosWorkload("K-mini-16", { preset: "kronos-mini", ...kronosCandles, samples: 16 }),
  kronosWorkload("K-base-1", { preset: "kronos-base", ...kronosCandles, samples: 1 }),
  kronosWorkload("K-small-slide", { preset: "kronos-small", lookback: 512, horizon: 24, samples: 1 }),
];
