/**
 * The native runtime: step tables over several threads, abort, off-loop runs, memory and the two weight-preparation loops.
 * Kernels here are a few lines of C written for the purpose; nothing of the code generator is used.
 */
import { availableParallelism, release, tmpdir } from "node:os";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findCompiler } from "../src/runtime/native/compiler.js";
import {
  runStatus,
  stepFlags,
  stepLayout,
  type KernelSource,
  type NativeBuffer,
  type NativeLibrary,
} from "../src/runtime/native/contract.js";
import { loadNativeLibrary } from "../src/runtime/native/library.js";

const compiler = findCompiler(process.env);
if (!compiler) console.log("skipped: no C compiler on this machine");

const signature = "(char *const *pointers, const int64_t *numbers, int64_t begin, int64_t end, char *scratch)";
const kernels: KernelSource = {
  name: "test_kernels",
  symbols: ["fill_index", "add_previous", "count_calls", "sum_scratch", "spin_for", "subnormal", "set_flush", "raise_word"],
  text: `#include <stdint.h>
#include <time.h>
/* y[i] = i + numbers[0] */
void fill_index${signature} {
  (void)scratch;
  for (int64_t i = begin; i < end; i++) ((int64_t *)pointers[0])[i] = i + numbers[0];
}
/* y[i] = x[units - 1 - i] + 1: reads what other threads wrote */
void add_previous${signature} {
  (void)scratch;
  for (int64_t i = begin; i < end; i++) ((int64_t *)pointers[0])[i] = ((int64_t *)pointers[1])[numbers[0] - 1 - i] + 1;
}
/* adds to a counter for every call, and notes where a range began */
void count_calls${signature} {
  (void)scratch; (void)numbers; (void)end;
  int64_t *calls = (int64_t *)pointers[0];
  calls[1 + __atomic_fetch_add(calls, 1, __ATOMIC_RELAXED)] = begin * 1000 + end;
}
/* fills this thread's scratch and sums it */
void sum_scratch${signature} {
  int64_t *mine = (int64_t *)scratch, count = numbers[0];
  for (int64_t unit = begin; unit < end; unit++) {
    for (int64_t i = 0; i < count; i++) mine[i] = unit + i;
    int64_t sum = (int64_t)((uintptr_t)scratch % 64);
    for (int64_t i = 0; i < count; i++) sum += mine[i];
    ((int64_t *)pointers[0])[unit] = sum;
  }
}
/* busy for numbers[0] microseconds */
void spin_for${signature} {
  (void)scratch; (void)pointers; (void)begin; (void)end;
  struct timespec start, now;
  clock_gettime(CLOCK_MONOTONIC, &start);
  do clock_gettime(CLOCK_MONOTONIC, &now);
  while ((now.tv_sec - start.tv_sec) * 1000000 + (now.tv_nsec - start.tv_nsec) / 1000 < numbers[0]);
}
/* y[i] = smallest normal / 2, which a thread that flushes to zero loses */
void subnormal${signature} {
  (void)scratch; (void)numbers;
  volatile float smallest = 1.17549435e-38f;
  for (int64_t i = begin; i < end; i++) ((float *)pointers[0])[i] = smallest * 0.5f;
}
/* leaves flush-to-zero on, as a careless library would */
void set_flush${signature} {
  (void)scratch; (void)numbers; (void)pointers; (void)begin; (void)end;
#if defined(__x86_64__)
  __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040);
#endif
}
/* sets an abort word from inside a run */
void raise_word${signature} {
  (void)scratch; (void)numbers; (void)begin; (void)end;
  __atomic_store_n((int32_t *)pointers[0], 1, __ATOMIC_SEQ_CST);
}
`,
};

interface StepDescription {
  readonly kernel: string;
  readonly pointers?: readonly number[];
  readonly numbers?: readonly number[];
  readonly units?: number;
  readonly grain?: number;
  readonly flags?: number;
}

/** Lays steps and their arguments out in one native buffer. */
function writeTable(library: NativeLibrary, addresses: ReadonlyMap<string, number>, steps: readonly StepDescription[]): NativeBuffer {
  const argumentBytes = 128;
  const buffer = library.allocate(Math.max(1, steps.length) * (stepLayout.bytes + argumentBytes));
  const cells = new BigInt64Array(buffer.view);
  steps.forEach((step, index) => {
    const argumentsAt = steps.length * stepLayout.bytes + index * argumentBytes;
    (step.pointers ?? []).forEach((pointer, i) => (cells[argumentsAt / 8 + i] = BigInt(pointer)));
    (step.numbers ?? []).forEach((number, i) => (cells[argumentsAt / 8 + 8 + i] = BigInt(number)));
    const row: Record<number, number> = {
      [stepLayout.entry]: addresses.get(step.kernel) ?? 0,
      [stepLayout.pointers]: buffer.address + argumentsAt,
      [stepLayout.numbers]: buffer.address + argumentsAt + 64,
      [stepLayout.units]: step.units ?? 1,
      [stepLayout.grain]: step.grain ?? 1,
      [stepLayout.flags]: step.flags ?? 0,
    };
    for (const [offset, value] of Object.entries(row)) cells[(index * stepLayout.bytes + Number(offset)) / 8] = BigInt(value);
  });
  return buffer;
}

/** Length of a thread's turns on its core in ns, where the system lets threads ask for one and tells: Linux from 6.12 on. NaN when it does not, or the thread has gone. */
function turnOf(thread: number | string): number {
  try {
    return Number(/^se\.slice +: +(\d+)$/m.exec(readFileSync(`/proc/self/task/${thread}/sched`, "utf8"))?.[1]);
  } catch {
    return NaN;
  }
}
const [major = 0, minor = 0] = release().split(".").map(Number);
const hasTurns = (major > 6 || (major === 6 && minor >= 12)) && turnOf(process.pid) > 0;
if (compiler && !hasTurns) console.log("skipped: lengths of turns; this system tells none");

const plainRun = { threads: 1, abortWord: 0, scratchBytes: 0, profile: false };
const threadCounts = [1, 2, 3, 4];

describe.skipIf(!compiler)("native runtime", { timeout: 60_000 }, () => {
  let folder: string;
  let library: NativeLibrary;
  let addresses: Map<string, number>;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "tempograph-runtime-"));
    // More threads than cores on purpose: nothing may hang or change when they take turns.
    library = loadNativeLibrary({ cacheDirectory: folder, maximumThreads: Math.max(4, availableParallelism()) });
    addresses = await library.build([kernels]);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("builds and exports every symbol", () => {
    expect([...addresses.keys()].sort()).toEqual([...kernels.symbols].sort());
    for (const address of addresses.values()) expect(Number.isSafeInteger(address) && address > 0).toBe(true);
  });

  test.each(threadCounts)("a chain of dependent steps, %i threads", (threads) => {
    const count = 1000;
    const rounds = 60;
    const first = library.allocate(count * 8);
    const second = library.allocate(count * 8);
    const steps: StepDescription[] = [{ kernel: "fill_index", pointers: [first.address], numbers: [0], units: count, grain: 7 }];
    for (let round = 0; round < rounds; round++) {
      const [from, to] = round % 2 === 0 ? [first, second] : [second, first];
      steps.push({
        kernel: "add_previous",
        pointers: [to.address, from.address],
        numbers: [count],
        units: count,
        grain: 7,
        flags: stepFlags.barrier,
      });
    }
    const table = writeTable(library, addresses, steps);
    for (let repeat = 0; repeat < 50; repeat++) {
      new BigInt64Array(first.view).fill(-1n);
      expect(library.run(table.address, steps.length, { ...plainRun, threads })).toBe(runStatus.done);
      const result = new BigInt64Array(first.view);
      for (let i = 0; i < count; i++) expect(result[i]).toBe(BigInt(i + rounds));
    }
    for (const buffer of [first, second, table]) buffer.free();
  });

  test("splits units by grain, skips empty ranges, keeps serial steps whole", () => {
    const calls = library.allocate(64 * 8);
    const cells = new BigInt64Array(calls.view);
    const rangesOf = (step: Omit<StepDescription, "kernel">, threads: number): bigint[] => {
      cells.fill(0n);
      // A wide first step keeps all threads in the region.
      const wide = { kernel: "spin_for", numbers: [0], units: 4 };
      const table = writeTable(library, addresses, [
        wide,
        { kernel: "count_calls", pointers: [calls.address], flags: stepFlags.barrier, ...step },
      ]);
      library.run(table.address, 2, { ...plainRun, threads });
      table.free();
      return [...cells.slice(1, 1 + Number(cells[0]))].sort((a, b) => Number(a - b));
    };
    expect(rangesOf({ units: 10, grain: 4 }, 2)).toEqual([8n, 8010n]);
    expect(rangesOf({ units: 10, grain: 4 }, 1)).toEqual([10n]);
    expect(rangesOf({ units: 3, grain: 4 }, 4)).toEqual([3n]);
    expect(rangesOf({ units: 0 }, 4)).toEqual([]);
    // A divisible grain is halved until every thread can have two of it, and once more for what is open.
    const flags = stepFlags.barrier | stepFlags.divisible;
    expect(rangesOf({ units: 16, grain: 4, flags }, 2)).toEqual([8n, 8012n, 12014n, 14016n]);
    expect(rangesOf({ units: 15, grain: 4, flags }, 2)).toEqual([6n, 6012n, 12013n, 13014n, 14015n]);
    expect(rangesOf({ units: 3, grain: 4, flags }, 4)).toEqual([1n, 1002n, 2003n]);
    // Three quarters in equal parts, the rest in pieces that whoever is ready takes; every run of a table deals them again.
    const [dealt, open] = [
      [24n, 24048n],
      [48050n, 50052n, 52054n, 54056n, 56058n, 58060n, 60062n, 62064n],
    ];
    expect(rangesOf({ units: 64 }, 2)).toEqual([...dealt, ...open]);
    const again = writeTable(library, addresses, [{ kernel: "count_calls", pointers: [calls.address], units: 64 }]);
    for (let run = 0; run < 3; run++) {
      cells.fill(0n);
      library.run(again.address, 1, { ...plainRun, threads: 2 });
      expect([...cells.slice(1, 11)].sort((a, b) => Number(a - b))).toEqual([...dealt, ...open]);
    }
    again.free();
    expect(rangesOf({ units: 10, flags: stepFlags.barrier | stepFlags.serial }, 4)).toEqual([10n]);
    calls.free();
  });

  test("each thread has its own aligned scratch, which grows", () => {
    const units = 97;
    const result = library.allocate(units * 8);
    for (const count of [5, 5000, 40]) {
      const table = writeTable(library, addresses, [{ kernel: "sum_scratch", pointers: [result.address], numbers: [count], units }]);
      library.run(table.address, 1, { ...plainRun, threads: 4, scratchBytes: count * 8 });
      const sums = new BigInt64Array(result.view);
      for (let unit = 0; unit < units; unit++) expect(sums[unit]).toBe(BigInt(unit * count + (count * (count - 1)) / 2));
      table.free();
    }
    result.free();
  });

  test.each(threadCounts)("an abort word stops a run between steps, %i threads", (threads) => {
    const word = library.allocate(4);
    const target = library.allocate(8 * 8);
    const steps: StepDescription[] = [
      { kernel: "fill_index", pointers: [target.address], numbers: [1], units: 8 },
      { kernel: "raise_word", pointers: [word.address], flags: stepFlags.barrier | stepFlags.serial },
      { kernel: "fill_index", pointers: [target.address], numbers: [100], units: 8, flags: stepFlags.barrier },
    ];
    const table = writeTable(library, addresses, steps);
    for (let repeat = 0; repeat < 200; repeat++) {
      new Int32Array(word.view)[0] = 0;
      expect(library.run(table.address, 3, { ...plainRun, threads, abortWord: word.address })).toBe(runStatus.aborted);
      expect(new BigInt64Array(target.view)[7]).toBe(8n);
    }
    // Set before the run: nothing at all happens.
    new BigInt64Array(target.view).fill(0n);
    expect(library.run(table.address, 3, { ...plainRun, threads, abortWord: word.address })).toBe(runStatus.aborted);
    expect(new BigInt64Array(target.view)[7]).toBe(0n);
    expect(library.run(table.address, 3, { ...plainRun, threads })).toBe(runStatus.done);
    expect(new BigInt64Array(target.view)[7]).toBe(107n);
    for (const buffer of [word, target, table]) buffer.free();
  });

  test("submit keeps the event loop free and settles jobs in order", async () => {
    const step: StepDescription = { kernel: "spin_for", numbers: [20_000], units: 2 };
    const table = writeTable(library, addresses, [step]);
    const order: string[] = [];
    let turns = 0;
    const timer = setInterval(() => (turns += 1), 1);
    const first = library.submit(table.address, 1, { ...plainRun, threads: 2 }).then((status) => order.push(`first ${status}`));
    const second = library.submit(table.address, 1, plainRun).then((status) => order.push(`second ${status}`));
    const waitsBefore = library.counters.waits;
    await Promise.all([first, second]);
    clearInterval(timer);
    expect(order).toEqual(["first 0", "second 0"]);
    expect(turns).toBeGreaterThan(2);
    expect(library.counters.waits - waitsBefore).toBeGreaterThanOrEqual(1);
    expect(library.counters.waits - waitsBefore).toBeLessThanOrEqual(2);
    table.free();
  });

  test.skipIf(!hasTurns)("threads of the pool and the dispatcher cut in when they wake, threads of Node stay as they are", async () => {
    const table = writeTable(library, addresses, [{ kernel: "spin_for", numbers: [0], units: 2 }]);
    const turns = (): number[] => readdirSync("/proc/self/task").map(turnOf);
    const before = turnOf(process.pid);
    await library.submit(table.address, 1, { ...plainRun, threads: 2 });
    expect(turns().filter((turn) => turn === 100_000).length).toBeGreaterThanOrEqual(2);
    expect(turnOf(process.pid)).toBe(before);
    expect(before).toBeGreaterThan(100_000);
    table.free();
  });

  test("a submitted run is aborted from JavaScript, and run() works beside it", async () => {
    const word = library.allocate(4);
    const steps = Array.from({ length: 2000 }, (): StepDescription => ({
      kernel: "spin_for",
      numbers: [5000],
      units: 2,
      flags: stepFlags.barrier,
    }));
    const table = writeTable(library, addresses, steps);
    const target = library.allocate(64);
    const quick = writeTable(library, addresses, [{ kernel: "fill_index", pointers: [target.address], numbers: [5], units: 8 }]);
    const running = library.submit(table.address, steps.length, { ...plainRun, threads: 2, abortWord: word.address });
    await delay(10);
    Atomics.store(new Int32Array(word.view), 0, 1);
    expect(library.run(quick.address, 1, { ...plainRun, threads: 2 })).toBe(runStatus.done);
    expect(new BigInt64Array(target.view)[7]).toBe(12n);
    expect(await running).toBe(runStatus.aborted);
    for (const buffer of [word, table, target, quick]) buffer.free();
  });

  test("kernels keep subnormals on every thread, and the caller's state comes back", () => {
    const target = library.allocate(4 * 64);
    const table = writeTable(library, addresses, [
      { kernel: "set_flush", units: 4 },
      { kernel: "subnormal", pointers: [target.address], units: 64, flags: stepFlags.barrier },
    ]);
    // The first run leaves flush-to-zero on inside the region only; the second starts clean on all threads.
    library.run(table.address, 2, { ...plainRun, threads: 4 });
    const second = writeTable(library, addresses, [{ kernel: "subnormal", pointers: [target.address], units: 64 }]);
    library.run(second.address, 1, { ...plainRun, threads: 4 });
    for (const value of new Float32Array(target.view)) expect(value).toBe(Math.fround(1.17549435e-38 / 2));
    // JavaScript's own arithmetic runs on thread 0.
    const smallest = new Float64Array([2.2250738585072014e-308]);
    expect((smallest[0] ?? 0) / 2).toBe(1.1125369292536007e-308);
    for (const buffer of [target, table, second]) buffer.free();
  });

  test("profiling records ticks per step", () => {
    const table = writeTable(library, addresses, [
      { kernel: "spin_for", numbers: [3000], units: 2 },
      { kernel: "spin_for", numbers: [0], units: 2, flags: stepFlags.barrier },
    ]);
    library.run(table.address, 2, { ...plainRun, threads: 2, profile: true });
    const cells = new BigInt64Array(table.view);
    const seconds = [0, 1].map((step) => Number(cells[(step * stepLayout.bytes + stepLayout.cycles) / 8]) / library.ticksPerSecond);
    expect(seconds[0]).toBeGreaterThan(0.0029);
    expect(seconds[1]).toBeGreaterThan(0);
    table.free();
  });

  test("memory is zeroed, aligned, counted, and freed once", () => {
    const before = library.allocatedBytes;
    for (const bytes of [0, 1, 100, 262_144, 5_000_001]) {
      for (const huge of [false, true]) {
        const buffer = library.allocate(bytes, { huge });
        expect(buffer.address % 64).toBe(0);
        expect(buffer.view.byteLength).toBe(bytes);
        const bytesSeen = new Uint8Array(buffer.view);
        expect(bytesSeen.every((byte) => byte === 0)).toBe(true);
        bytesSeen.fill(255);
        buffer.free();
        buffer.free();
        expect(() => buffer.view).toThrow(/was freed/);
      }
    }
    expect(library.allocatedBytes).toBe(before);
    expect(() => library.allocate(2 ** 52)).toThrow(/no 4503599627370496 bytes left/);
    expect(() => library.allocate(-1)).toThrow(/bytes is -1/);
    expect(() => library.run(0, 0, { ...plainRun, threads: 0 })).toThrow(/threads is 0/);
  });

  test("small blocks share slabs of huge pages: neighbours, zero again when reused, gone with the last", () => {
    const before = library.allocatedBytes;
    const filled = (bytes: number): NativeBuffer => {
      const block = library.allocate(bytes, { huge: true });
      new Uint8Array(block.view).fill(255);
      return block;
    };
    const [first, second, third] = [filled(20_000), filled(1_048_640), filled(3_000_000)];
    expect([second.address - first.address, third.address - second.address]).toEqual([20_032, 1_048_640]);
    second.free();
    third.free();
    // The two made one hole; what was written there does not show.
    const wide = library.allocate(4_000_000, { huge: true });
    expect(wide.address).toBe(second.address);
    expect(new Uint8Array(wide.view).every((byte) => byte === 0)).toBe(true);
    expect(new Uint8Array(first.view).every((byte) => byte === 255)).toBe(true);
    const blocks = [first, wide, ...Array.from({ length: 5 }, () => filled(16 << 20))];
    const ends = blocks.map(({ address, bytes }) => [address, address + bytes] as const).sort(([a], [b]) => a - b);
    ends.slice(1).forEach(([start], index) => expect(start).toBeGreaterThanOrEqual((ends[index] as readonly [number, number])[1]));
    for (const block of blocks) block.free();
    expect(library.allocatedBytes).toBe(before);
  });

  test.each([
    [1, 1],
    [48, 16],
    [49, 17],
    [100, 33],
    [47, 768],
  ])("packPanels: %i rows, depth %i", (rows, depth) => {
    const rowStride = depth + 3;
    const panels = Math.ceil(rows / 48);
    const target = library.allocate(panels * 48 * depth * 4);
    const values = Float32Array.from({ length: rows * rowStride }, (_, index) => Math.sin(index));
    const packed = new Float32Array(target.view).fill(NaN);
    library.packPanels(values, rowStride, rows, depth, target.address);
    expect(() => library.packPanels(values, rowStride, rows + 1, depth, target.address)).toThrow(/need more than/);
    for (let panel = 0; panel < panels; panel++) {
      for (let k = 0; k < depth; k++) {
        for (let lane = 0; lane < 48; lane++) {
          const row = panel * 48 + lane;
          expect(packed[(panel * depth + k) * 48 + lane]).toBe(row < rows ? values[row * rowStride + k] : 0);
        }
      }
    }
    target.free();
  });

  test.each([
    [1, 1, 1],
    [4, 8, 32],
    [5, 7, 33],
    [67, 40, 70],
    [130, 3, 31],
    [2, 0, 5],
  ])("multiplyF64 [%i x %i x %i] equals the f64 chain bit for bit", (m, k, n) => {
    const a = library.allocate(m * k * 4);
    const b = library.allocate(k * n * 4);
    const target = library.allocate(m * n * 4);
    const left = new Float32Array(a.view);
    const right = new Float32Array(b.view);
    left.set(left.map((_, index) => Math.sin(index * 1.7) * 10 ** ((index % 9) - 4)));
    right.set(right.map((_, index) => Math.cos(index * 0.9) * 10 ** ((index % 7) - 3)));
    library.multiplyF64(a.address, b.address, target.address, m, k, n);
    const product = new Float32Array(target.view);
    for (let row = 0; row < m; row++) {
      for (let column = 0; column < n; column++) {
        let sum = 0;
        for (let i = 0; i < k; i++) sum += (left[row * k + i] ?? NaN) * (right[i * n + column] ?? NaN);
        expect(product[row * n + column]).toBe(Math.fround(sum));
      }
    }
    for (const buffer of [a, b, target]) buffer.free();
  });
});
