/** What each workload is held to: a share of the machine's limit, a ratio to the peer, or both. Data only. */
export interface Aim {
  /** limit / median. */
  readonly share?: number;
  /** peer's median / ours. */
  readonly peer?: number;
}

const toto: Aim = { share: 0.75 };
const kronos: Aim = { share: 0.7 };

export const aims: Readonly<Record<string, Aim>> = {
  gemm: { share: 0.9 },
  "gemm-m64": { share: 0.9 },
  "gemm-m64-memory": { share: 0.8 },
  "gemm-m256-memory": { share: 0.8 },
  "gemm-m2-memory": { share: 0.9 },
  "gemm-m4-memory": { share: 0.9 },
  "gemm-m8-memory": { share: 0.9 },
  stream: { share: 0.9 },
  "decoder-prefill64": { peer: 1.2 },
  "decoder-b1": { share: 0.85, peer: 1 },
  "decoder-b256": { peer: 1.25 },
  "decoder-b256-shared": { peer: 1.45 },
  "T1-mean": toto,
  "T1-mean-nokv": toto,
  "T1-samples": toto,
  "T1-paths": toto,
  "T1-multi": toto,
  "T2-22m-b1": toto,
  "T2-22m-b32": toto,
  "T2-4m-b1": toto,
  "T2-4m-b32": toto,
  "T2-22m-block": toto,
  "K-small-1": kronos,
  "K-small-16": kronos,
  "K-mini-16": kronos,
  "K-base-1": kronos,
  "K-small-slide": kronos,
};
