/** The machine's limits, measured by kernels of the package's own runtime: f32 fused multiply-add peak and stream read bandwidth. */
import { prelude } from "../src/codegen/prelude.js";
import { isaTable, type TargetIsa } from "../src/codegen/helpers.js";
import { loadNativeLibrary } from "../src/runtime/native/library.js";
import { stepLayout, type NativeLibrary } from "../src/runtime/native/contract.js";
import { median } from "./measure.js";

export interface Limits {
  readonly fmaGflops: number;
  readonly streamGBs: number;
}

/** As much as takes some 10 ms, and rounds that take some 4: shorter runs would catch what a shared machine gives for a moment only, and no workload gets for long. */
const streamBytes = 256 << 20;
const rounds = 2_000_000;

/** Accumulators of the peak kernel: enough to hide the latency of a fused multiply-add, few enough that all stay in registers. */
const accumulators: Record<TargetIsa, number> = { avx512: 24, avx2: 12, neon: 24, plain: 4 };

const peakKernel = (isa: TargetIsa): string => {
  const { lanes } = isaTable[isa].tile;
  const [type, suffix, count] = [`f32x${lanes}`, lanes === 16 ? "f32" : `f32x${lanes}`, accumulators[isa]];
  return `void fma_peak(char *const *p, const int64_t *n, int64_t begin, int64_t end, char *scratch) {
  (void)n; (void)scratch;
  for (int64_t unit = begin; unit < end; unit++) {
    ${type} a[${count}];
#pragma GCC unroll ${count}
    for (int j = 0; j < ${count}; j++) a[j] = splat_${suffix}((float)j);
    const ${type} x = splat_${suffix}(0.999f), y = splat_${suffix}(0.001f);
    for (int i = 0; i < ${rounds}; i++) {
#pragma GCC unroll ${count}
      for (int j = 0; j < ${count}; j++) a[j] = fma_${suffix}(a[j], x, y);
    }
    ${type} sum = splat_${suffix}(0);
#pragma GCC unroll ${count}
    for (int j = 0; j < ${count}; j++) sum += a[j];
    store_${suffix}((float *)p[0] + 16 * unit, sum);
  }
}
`;
};

/** Ways of reading memory once: which of them is the fastest depends on how the processor fetches by itself. */
const streams = [
  { name: "stream_read", sides: 1, aheadBytes: 8192 },
  { name: "stream_pair", sides: 2, aheadBytes: 0 },
] as const;

const streamKernel = (isa: TargetIsa, { name, sides, aheadBytes }: (typeof streams)[number]): string => {
  const { lanes } = isaTable[isa].tile;
  const [type, suffix] = [`f32x${lanes}`, lanes === 16 ? "f32" : `f32x${lanes}`];
  const ahead = aheadBytes === 0 ? "" : ` __builtin_prefetch((const char *)(data + i + ${lanes} * j) + ${aheadBytes}, 0, 3);`;
  return `void ${name}(char *const *p, const int64_t *n, int64_t begin, int64_t end, char *scratch) {
  (void)scratch;
  for (int64_t unit = begin; unit < end; unit++) {
    const int64_t side = n[0] / ${sides};
    const float *const first = (const float *)p[1] + unit * n[0];
    ${type} a[8];
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) a[j] = splat_${suffix}(0);
    for (int64_t i = 0; i < side; i += ${8 * lanes})
      for (const float *data = first; data < first + n[0]; data += side) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) { a[j] += load_${suffix}(data + i + ${lanes} * j);${ahead} }
      }
#pragma GCC unroll 8
    for (int j = 1; j < 8; j++) a[0] += a[j];
    store_${suffix}((float *)p[0] + 16 * unit, a[0]);
  }
}
`;
};

const source = ({ isa }: NativeLibrary): string => {
  const kernels = peakKernel(isa) + streams.map((stream) => streamKernel(isa, stream)).join("");
  return prelude(isa, kernels) + kernels;
};

export class LimitMeter {
  readonly #library: NativeLibrary;
  readonly #entries: ReadonlyMap<string, number>;
  readonly #data: ReturnType<NativeLibrary["allocate"]>;
  readonly #out: ReturnType<NativeLibrary["allocate"]>;
  readonly #table: ReturnType<NativeLibrary["allocate"]>;

  readonly #best = new Map<number, Limits>();

  constructor() {
    this.#library = loadNativeLibrary();
    this.#entries = this.#library.buildSync([
      { name: "limits", symbols: ["fma_peak", ...streams.map(({ name }) => name)], text: source(this.#library) },
    ]);
    this.#data = this.#library.allocate(streamBytes, { huge: true });
    this.#out = this.#library.allocate(4096);
    this.#table = this.#library.allocate(4096);
    new Float32Array(this.#data.view).fill(0.5);
  }

  get machine(): string {
    return `${this.#library.isa}, ${this.#library.maximumThreads} cores`;
  }

  /** The best single runs that were ever measured with so many threads. */
  best(threads: number): Limits {
    if (!this.#best.has(threads)) this.measure(threads);
    return this.#best.get(threads) as Limits;
  }

  /** Medians of `repeats` runs, of the way of reading that has the better one: workloads are judged by their median too. */
  measure(threads: number, repeats = 5): Limits {
    const { lanes } = isaTable[this.#library.isa].tile;
    const flop = accumulators[this.#library.isa] * lanes * 2 * rounds * threads;
    const units = threads * 8;
    const perUnit = Math.floor(streamBytes / 4 / units / 256) * 256;
    const arithmetic = this.#seconds("fma_peak", threads, 0, threads, repeats);
    const reading = streams.map(({ name }) => this.#seconds(name, units, perUnit, threads, repeats));
    const limits = (pick: (seconds: readonly number[]) => number): Limits => ({
      fmaGflops: flop / pick(arithmetic) / 1e9,
      streamGBs: (perUnit * units * 4) / Math.min(...reading.map(pick)) / 1e9,
    });
    const best = limits((seconds) => Math.min(...seconds));
    const before = this.#best.get(threads) ?? best;
    this.#best.set(threads, {
      fmaGflops: Math.max(before.fmaGflops, best.fmaGflops),
      streamGBs: Math.max(before.streamGBs, best.streamGBs),
    });
    return limits(median);
  }

  #seconds(kernel: string, units: number, perUnit: number, threads: number, repeats: number): number[] {
    this.#fill(kernel, units, perUnit);
    const run = (): number => {
      const start = performance.now();
      this.#library.run(this.#table.address, 1, { threads, abortWord: 0, scratchBytes: 64, profile: false });
      return (performance.now() - start) / 1000;
    };
    // The first wakes the threads.
    run();
    return Array.from({ length: repeats }, run);
  }

  #fill(kernel: string, units: number, perUnit: number): void {
    const view = new BigInt64Array(this.#table.view);
    const at = stepLayout.bytes / 8;
    view.set([BigInt(this.#out.address), BigInt(this.#data.address), BigInt(perUnit)], at);
    view[stepLayout.entry / 8] = BigInt(this.#entries.get(kernel) as number);
    view[stepLayout.pointers / 8] = BigInt(this.#table.address + at * 8);
    view[stepLayout.numbers / 8] = BigInt(this.#table.address + (at + 2) * 8);
    view[stepLayout.units / 8] = BigInt(units);
    view[stepLayout.grain / 8] = 1n;
    view[stepLayout.flags / 8] = 0n;
  }
}
