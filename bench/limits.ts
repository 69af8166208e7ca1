/** The machine's limits, measured by kernels of the package's own runtime: f32 fused multiply-add peak and stream read bandwidth. */
import { prelude } from "../src/codegen/prelude.js";
import { loadNativeLibrary } from "../src/runtime/native/library.js";
import { stepLayout, type NativeLibrary } from "../src/runtime/native/contract.js";

export interface Limits {
  readonly fmaGflops: number;
  readonly streamGBs: number;
}

const streamBytes = 256 << 20;
const rounds = 200_000;

const kernels = `void fma_peak(char *const *p, const int64_t *n, int64_t begin, int64_t end, char *scratch) {
  (void)n; (void)scratch;
  for (int64_t unit = begin; unit < end; unit++) {
    f32x16 a[24];
#pragma GCC unroll 24
    for (int j = 0; j < 24; j++) a[j] = splat_f32((float)j);
    const f32x16 x = splat_f32(0.999f), y = splat_f32(0.001f);
    for (int i = 0; i < ${rounds}; i++) {
#pragma GCC unroll 24
      for (int j = 0; j < 24; j++) a[j] = fma_f32(a[j], x, y);
    }
    f32x16 sum = splat_f32(0);
#pragma GCC unroll 24
    for (int j = 0; j < 24; j++) sum += a[j];
    ((float *)p[0])[16 * unit] = sum_lanes(sum);
  }
}
void stream_read(char *const *p, const int64_t *n, int64_t begin, int64_t end, char *scratch) {
  (void)scratch;
  for (int64_t unit = begin; unit < end; unit++) {
    const float *const data = (const float *)p[1] + unit * n[0];
    f32x16 a[8];
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) a[j] = splat_f32(0);
    for (int64_t i = 0; i < n[0]; i += 128) {
#pragma GCC unroll 8
      for (int j = 0; j < 8; j++) { a[j] += load_f32(data + i + 16 * j); __builtin_prefetch((const char *)(data + i + 16 * j) + 8192, 0, 3); }
    }
#pragma GCC unroll 8
    for (int j = 1; j < 8; j++) a[0] += a[j];
    ((float *)p[0])[16 * unit] = sum_lanes(a[0]);
  }
}
`;

const source = (library: NativeLibrary): string => prelude(library.isa, kernels) + kernels;

export class LimitMeter {
  readonly #library: NativeLibrary;
  readonly #entries: ReadonlyMap<string, number>;
  readonly #data: ReturnType<NativeLibrary["allocate"]>;
  readonly #out: ReturnType<NativeLibrary["allocate"]>;
  readonly #table: ReturnType<NativeLibrary["allocate"]>;

  constructor() {
    this.#library = loadNativeLibrary();
    this.#entries = this.#library.buildSync([{ name: "limits", symbols: ["fma_peak", "stream_read"], text: source(this.#library) }]);
    this.#data = this.#library.allocate(streamBytes, { huge: true });
    this.#out = this.#library.allocate(4096);
    this.#table = this.#library.allocate(4096);
    new Float32Array(this.#data.view).fill(0.5);
  }

  get machine(): string {
    return `${this.#library.isa}, ${this.#library.maximumThreads} cores`;
  }

  /** Best of a few short runs: a limit is what the machine can do, so the best counts. */
  measure(threads: number, repeats = 5): Limits {
    const seconds = (kernel: string, units: number, perUnit: number): number => {
      let best = Infinity;
      this.#fill(kernel, units, perUnit);
      for (let round = 0; round < repeats; round++) {
        const start = performance.now();
        this.#library.run(this.#table.address, 1, { threads, abortWord: 0, scratchBytes: 64, profile: false });
        best = Math.min(best, performance.now() - start);
      }
      return best / 1000;
    };
    const fma = (24 * 32 * rounds * threads) / seconds("fma_peak", threads, 0) / 1e9;
    const units = threads * 8;
    const perUnit = Math.floor(streamBytes / 4 / units / 128) * 128;
    return { fmaGflops: fma, streamGBs: (perUnit * units * 4) / seconds("stream_read", units, perUnit) / 1e9 };
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
