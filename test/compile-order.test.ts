/**
 * What is compiled when: the longest of the waiting files first, two at a time; and both programs of Toto 1.0 at once, before the first decode, with the same
 * compiles, calls and bits as one after the other.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { formulaCheckpoint } from "../src/models/formula/checkpoint.js";
import { Toto1Model } from "../src/models/toto1/model.js";
import type { KvCacheStrategy } from "../src/models/options.js";
import { compile } from "../src/runtime/native/compiler.js";
import type { Device } from "../src/runtime/device.js";
import { openDevice, type Mode } from "../src/trace/entry.js";
import { firstDifference, makeSeries, numbersOf } from "./toto1-harness.js";

const folder = mkdtempSync(join(tmpdir(), "tempograph-order-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the compiler's queue", () => {
  test("two files at a time, then the longest of those that wait", async () => {
    const log = join(folder, "begun.txt");
    const gate = join(folder, "gate");
    writeFileSync(log, "");
    // Stands in for a compiler: notes the file it is given, and ends once the gate is open.
    const path = join(folder, "noting-cc");
    writeFileSync(path, `#!/bin/sh\necho "$3" >> ${log}\nuntil [ -e ${gate} ]; do sleep 0.02; done\n`, { mode: 0o755 });
    const job = (length: number): Promise<void> =>
      compile(
        { path, leadingArguments: [] },
        { flags: [], sourcePath: String(length), outputPath: join(folder, String(length)), libraries: [], length },
      );
    const begun = (): number[] => readFileSync(log, "utf8").trim().split("\n").map(Number);
    const jobs = [5, 6, 1, 40, 3, 40, 2, 30].map(job);
    while (begun().length < 2) await new Promise((resolve) => setTimeout(resolve, 10));
    expect(begun().sort()).toEqual([5, 6]);
    writeFileSync(gate, "");
    await Promise.all(jobs);
    // Two run side by side, so neighbours may note themselves either way round.
    const order = begun().slice(2);
    expect(order.slice(0, 2)).toEqual([40, 40]);
    expect([...order].sort((a, b) => b - a)).toEqual([40, 40, 30, 3, 2, 1]);
    for (const [index, length] of order.entries()) expect(length).toBeGreaterThanOrEqual(order.slice(index).sort((a, b) => b - a)[1] ?? 0);
  });
});

/** The reference device, its loads slow and counted. */
function slowDevice(): { readonly opened: ReturnType<typeof openDevice>; most: () => number } {
  const { device, ...rest } = openDevice("reference");
  let [under, most] = [0, 0];
  const load: Device["load"] = async (compiled) => {
    most = Math.max(most, ++under);
    await new Promise((resolve) => setTimeout(resolve, 20));
    under--;
    return device.load(compiled);
  };
  const counting = new Proxy(device, {
    get: (target, name) => {
      if (name === "load") return load;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
  return { opened: { device: counting, ...rest }, most: () => most };
}

describe("Toto 1.0", () => {
  const request = {
    series: [{ ...makeSeries({ length: 96, seed: 4 }), stream: 1 }],
    horizon: 40,
    samples: 2,
    seed: 3,
  };

  async function predicted(kvCache: KvCacheStrategy, mode: Mode, horizon = request.horizon) {
    const { opened, most } = slowDevice();
    const model = Toto1Model.load("toto1-tiny", formulaCheckpoint("toto1-tiny", { seed: 7 }), opened, { mode, kvCache });
    try {
      const answers = await model.predict({ ...request, horizon });
      const reports = model.programs.map((program) => program.report());
      const { compile: compiling } = model.report().milliseconds;
      return { numbers: numbersOf(answers), together: most(), reports, compiling };
    } finally {
      model.dispose();
    }
  }

  test("compiles both programs at once, each of them once", async () => {
    const start = performance.now();
    const { together, reports, compiling } = await predicted("static", "reduce-overhead");
    expect(together).toBe(2);
    expect(reports.map(({ name, compiles, recompiles }) => [name, compiles, recompiles])).toEqual([
      ["toto1.prefill", 1, 0],
      ["toto1.decode", 1, 0],
    ]);
    // Compiling at once is not counted twice.
    expect(compiling).toBeLessThanOrEqual(performance.now() - start);
  });

  test("compiles the prefill alone where no step follows it, and one after the other where a step has no program or a search measures", async () => {
    expect((await predicted("static", "reduce-overhead", 8)).reports.map(({ compiles }) => compiles)).toEqual([1, 0]);
    expect((await predicted("host", "default")).together).toBe(1);
    expect((await predicted("static", "max-autotune")).together).toBe(1);
  });

  test("forecasts the same bits either way", async () => {
    const together = await predicted("static", "default");
    const apart = await predicted("static", "max-autotune");
    expect(firstDifference(apart.numbers, together.numbers)).toBeUndefined();
  });
});
