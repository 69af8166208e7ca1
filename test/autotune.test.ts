/**
 * Mode max-autotune: the search changes no bit and no State, is bounded, can be aborted, and what it chose is kept for the next process. The first tests drive the search
 * with made-up timings, so that what it decides is known.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, it, vi } from "vitest";
import { sizeVar } from "../src/ir/dim.js";
import { scheduleDifference, type ContractionSchedule, type KernelSchedule } from "../src/ir/schedule.js";
import type { Device, Executable, RunRequest } from "../src/runtime/device.js";
import { cacheEntries } from "../src/runtime/native/cache-maintenance.js";
import { findCompiler } from "../src/runtime/native/compiler.js";
import { compile, linear, rmsNorm, Tensor, type Compiled } from "../src/tensor/index.js";
import { AutotuneExecutable, lowerUsual } from "../src/trace/autotune/executable.js";
import { familiesOf, shapeClassOf, type KernelFamily } from "../src/trace/autotune/families.js";
import { searchSchedules } from "../src/trace/autotune/search.js";
import { fasterInTurns, gainBeyondSpread } from "../src/trace/autotune/statistics.js";
import type { FamilyOutcome } from "../src/trace/autotune/steps.js";
import { onEvent, openDevice, size, State, type CompileReport } from "../src/trace/entry.js";
import { lowerOpen, type OrderedTrial, type Trial } from "../src/trace/lower.js";
import { CaseBuilder, noise, type GraphCase } from "./graph-harness.js";

const compiler = findCompiler(process.env);
if (!compiler) console.log("skipped: no C compiler on this machine");

const folder = mkdtempSync(join(tmpdir(), "tempograph-autotune-"));
const before = { cache: process.env["TEMPOGRAPH_CACHE_DIR"], seconds: process.env["TEMPOGRAPH_AUTOTUNE_SECONDS"] };
process.env["TEMPOGRAPH_CACHE_DIR"] = folder;
process.env["TEMPOGRAPH_AUTOTUNE_SECONDS"] = "60";

afterAll(() => {
  for (const [name, value] of [
    ["TEMPOGRAPH_CACHE_DIR", before.cache],
    ["TEMPOGRAPH_AUTOTUNE_SECONDS", before.seconds],
  ] as const)
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  rmSync(folder, { recursive: true, force: true });
});
afterEach(() => vi.restoreAllMocks());

const records = (): string[] => readdirSync(folder).filter((file) => /^schedule_.*\.json$/.test(file));
const removeRecords = (): void => records().forEach((file) => rmSync(join(folder, file)));

function numbers(length: number, seed: number, scale = 1): Float32Array {
  return noise(seed, scale)(length, {}) as Float32Array;
}

const depth = 48;
const hidden = 100;

/** A normalised gated block on a device, and a State that every call writes. */
function blockOn(device: Device): { step: (x: Tensor) => Tensor; dispose: () => void } {
  const state = (name: string, shape: number[], seed: number, layout: "panels" | "plain"): State => {
    const made = new State(device, name, shape, "f32", { kind: "constant", layout });
    made.write(
      numbers(
        shape.reduce((a, b) => a * b, 1),
        seed,
        0.2,
      ),
    );
    return made;
  };
  const norm = state("norm", [depth], 1, "plain");
  const [gate, up, down] = [
    state("gate", [hidden, depth], 2, "panels"),
    state("up", [hidden, depth], 3, "panels"),
    state("down", [depth, hidden], 4, "panels"),
  ];
  return {
    step: (x) => {
      const y = rmsNorm(x, norm, 1e-8);
      return x.add(linear(linear(y, gate).silu().mul(linear(y, up)), down));
    },
    dispose: () => [norm, gate, up, down].forEach((one) => one.dispose()),
  };
}

const input = (rows: number): Tensor => Tensor.from(numbers(rows * depth, 9), [size("rows", rows), depth]);

type Step = Compiled<[Tensor], Tensor>;

function withStep<T>(name: string, mode: "reduce-overhead" | "max-autotune", body: (step: Step) => T, device = native()): T {
  const block = blockOn(device);
  const step = compile(block.step, { device, mode, dynamic: { rows: [1, 1024] }, name });
  const done = (): void => {
    step.dispose();
    block.dispose();
  };
  const result = body(step);
  if (result instanceof Promise) return result.finally(done) as T;
  done();
  return result;
}

const native = (): Device => openDevice("native", { threads: 2 }).device;
const schedulesOf = (report: CompileReport): CompileReport["specializations"][0]["schedules"] =>
  report.specializations.flatMap(({ schedules }) => schedules);

/** A graph of one family of two members, and one of one member. */
function twoFamilies(): GraphCase {
  const rows = sizeVar("rows", 0, 1024);
  const c = new CaseBuilder("two_families");
  let x = c.f32([rows, 64], noise(1));
  for (const fill of [2, 3]) x = c.add("linear", [x], {}, [c.weight(64, 64, noise(fill))]);
  c.output(c.add("linear", [c.add("rmsNorm", [x], { epsilon: 1e-6 })], {}, [c.weight(200, 64, noise(4))]));
  return c.finish([{ rows: 300 }]);
}

describe.skipIf(!compiler)("the search", () => {
  type Time = (schedule: KernelSchedule, call: number) => number;

  /**
   * Drives a search without a device: `time` says what a schedule takes, in ms per trial, and `between` what a launch with it takes among the program's other kernels. The
   * search proper may take `steps` timings, confirming may take them up to `last`.
   */
  function pretend(
    time: Time,
    { steps = Infinity, last = steps, between = time }: { steps?: number; last?: number; between?: Time } = {},
  ): { outcomes: FamilyOutcome[]; timings: number; dropped: string[] } {
    const device = native();
    const open = lowerOpen(twoFamilies().graph, device, "max-autotune");
    let timings = 0;
    const dropped: string[] = [];
    const search = searchSchedules({
      open,
      families: familiesOf(open.usual.program),
      setting: { sizes: { rows: 300 }, threads: 2, target: device.target },
      over: () => timings >= last,
      closing: () => timings >= steps,
      onFamily: () => undefined,
      onDropped: ({ schedule, family }) => dropped.push(scheduleDifference(schedule, family.usual)),
    });
    const profile = (executable: Executable): number[] => {
      const { launches } = (executable as unknown as { trial: OrderedTrial }).trial.compiled.program;
      const times = launches.slice(0, -1).map(({ schedule }) => (schedule ? between(schedule, timings) : 0));
      timings++;
      return [...times, 0];
    };
    let answer: unknown;
    for (;;) {
      const next = search.next(answer);
      if (next.done) return { outcomes: next.value, timings, dropped };
      const step = next.value;
      if (step.kind === "build") answer = step.trials.map((trial) => ({ trial, dispose: () => undefined }) as unknown as Executable);
      else answer = step.kind === "profile" ? profile(step.executable) : time(scheduleOf(step.trial), timings++);
    }
  }

  const scheduleOf = ({ compiled }: Trial): KernelSchedule => {
    const { launches } = compiled.program;
    return launches[launches.length - 1]?.schedule as KernelSchedule;
  };
  const isContraction = (schedule: KernelSchedule): schedule is ContractionSchedule => schedule.kind === "contraction";

  it("takes a candidate that is better beyond the spread, and the best changes together when that is better still", () => {
    const faster = (schedule: KernelSchedule): number =>
      isContraction(schedule) ? 10 - (schedule.blockRows === 64 ? 2 : 0) - (schedule.prologue === "separate" ? 3 : 0) : 1;
    const { outcomes } = pretend((schedule, call) => faster(schedule) + 0.01 * (call % 3));
    expect(outcomes.map(({ schedule, family }) => scheduleDifference(schedule, family.usual))).toEqual([
      expect.stringMatching(/^blockRows=64/),
      expect.stringMatching(/^prologue=separate blockRows=64/),
    ]);
    for (const { gain } of outcomes) expect(gain).toBeGreaterThan(0.15);
  });

  it("keeps the usual schedule when nothing is better, when the difference drowns in noise, and when it is tiny", () => {
    const drowned = (schedule: KernelSchedule, call: number): number =>
      10 + [0, 4, -4, 3, -3, 2, -2][call % 7]! - (isContraction(schedule) && schedule.blockRows === 64 ? 0.3 : 0);
    for (const time of [
      () => 10,
      drowned,
      (schedule: KernelSchedule) => (isContraction(schedule) && schedule.blockRows === 64 ? 9.9 : 10),
    ]) {
      const { outcomes } = pretend(time);
      expect(outcomes.map(({ gain }) => gain)).toEqual([0, 0]);
      expect(outcomes.every(({ schedule, family }) => schedule === family.usual)).toBe(true);
    }
  });

  it("stops when the budget is over, and decides nothing on half a measurement", () => {
    const all = pretend(() => 10).timings;
    for (const steps of [0, 1, 7, 30]) {
      const { outcomes, timings } = pretend((schedule) => (isContraction(schedule) && schedule.blockRows === 64 ? 1 : 10), { steps });
      expect(timings).toBe(steps);
      expect(outcomes.filter(({ gain }) => gain > 0)).toEqual([]);
    }
    expect(all).toBeGreaterThan(40);
  });

  const cutRows: Time = (schedule) => (isContraction(schedule) && schedule.blockRows === 64 ? 8 : 10);

  it("takes back what is not faster between the program's other kernels, and says so", () => {
    const slower = pretend(cutRows, { between: (schedule) => (isContraction(schedule) && schedule.blockRows === 64 ? 11 : 10) });
    expect(slower.dropped).toEqual([expect.stringMatching(/^blockRows=64/), expect.stringMatching(/^blockRows=64/)]);
    expect(slower.outcomes.map(({ gain }) => gain)).toEqual([0, 0]);
    expect(slower.outcomes.every(({ schedule, family }) => schedule === family.usual)).toBe(true);
    const drowned = pretend(cutRows, { between: (_, call) => 10 + [0, 4, -4, 3, -3, 2, -2][call % 7]! });
    expect(drowned.outcomes.map(({ gain }) => gain)).toEqual([0, 0]);
  });

  it("takes back one family's choice and keeps the other's when they differ in that", () => {
    const apart: Time = (schedule) => (isContraction(schedule) && schedule.prologue === "separate" ? 7 : cutRows(schedule, 0));
    const { outcomes, dropped } = pretend(apart, {
      between: (schedule) => (isContraction(schedule) && schedule.prologue === "separate" ? 20 : cutRows(schedule, 0)),
    });
    expect(dropped).toEqual([expect.stringMatching(/^prologue=separate/)]);
    expect(outcomes.map(({ schedule, family }) => scheduleDifference(schedule, family.usual))).toEqual([
      expect.stringMatching(/^blockRows=64/),
      "",
    ]);
    expect(outcomes[0]?.gain).toBeGreaterThan(0.15);
  });

  it("keeps nothing that there was no time left to confirm", () => {
    const { timings } = pretend(cutRows);
    const cut = pretend(cutRows, { last: timings - 20 });
    expect(cut.outcomes.map(({ gain }) => gain)).toEqual([0, 0]);
    expect(cut.dropped).toHaveLength(2);
    expect(pretend(cutRows).outcomes.every(({ gain }) => gain > 0)).toBe(true);
  });

  it("is faster in turns when it wins most rounds, whatever slows both meanwhile", () => {
    const usual = [10, 20, 11, 40, 10, 12];
    expect(
      fasterInTurns(
        usual,
        usual.map((time) => time * 0.99),
      ),
    ).toBe(true);
    expect(fasterInTurns(usual, usual)).toBe(false);
    expect(fasterInTurns(usual, [9, 19, 10, 41, 11, 13])).toBe(false);
    expect(fasterInTurns([], [])).toBe(false);
  });

  it("a gain counts when it exceeds the spread of both", () => {
    expect(gainBeyondSpread([10, 10.1, 9.9, 10], [8, 8.1, 7.9, 8])).toBeCloseTo(0.2, 5);
    expect(gainBeyondSpread([10, 14, 6, 10], [8, 12, 4, 8])).toBe(0);
    expect(gainBeyondSpread([8, 8, 8], [10, 10, 10])).toBe(0);
  });

  it("looks at no kernel that touches a mutable State, and names classes of sizes by powers of two", () => {
    const c = new CaseBuilder("writes", { capacity: 9 });
    const rows = sizeVar("rows", 0, 64);
    const cache = c.state([16, 20], "f32", noise(1));
    const x = c.add("asinh", [c.f32([rows, 20], noise(2))]);
    const ids = c.i32([rows], (count) => new Int32Array(count));
    c.add("writeRows", [x, ids], {}, [cache]);
    c.output(c.add("linear", [x], {}, [c.weight(30, 20, noise(3))]));
    const { usual } = lowerOpen(c.finish([{ rows: 4 }]).graph, native(), "max-autotune");
    const families: KernelFamily[] = familiesOf(usual.program);
    const searched = new Set(families.flatMap(({ members }) => members));
    const touching = usual.program.launches.flatMap(({ pointers }, index) =>
      pointers.some((one) => one.kind === "state" && one.name === cache.name) ? [index] : [],
    );
    expect(touching.length).toBeGreaterThan(0);
    expect(families.length).toBeGreaterThan(0);
    expect(touching.some((index) => searched.has(index))).toBe(false);
    expect(
      ["0", "1", "2", "3", "4", "5", "255", "256", "257"].map((rows) => shapeClassOf(["rows"], { rows: Number(rows), other: 7 })),
    ).toEqual([0, 1, 2, 4, 4, 8, 256, 256, 512].map((bound) => `rows=${bound}`));
    expect(shapeClassOf([], { rows: 3 })).toBe("fixed");
  });
});

describe.skipIf(!compiler)("a compiled function in mode max-autotune", () => {
  it("gives the bits of reduce-overhead, keeps what it chose, and the next one uses it without a search", async () => {
    const counts = [1, 40, 257, 300];
    const want = withStep("kept", "reduce-overhead", (step) => counts.map((rows) => step(input(rows)).data()));
    const first = await withStep("kept", "max-autotune", async (step) => {
      for (const [index, rows] of counts.entries()) expect((await step.run([input(rows)])).data(), `${rows} rows`).toEqual(want[index]);
      return step.report();
    });
    const searched = schedulesOf(first);
    expect(searched.map(({ shape }) => shape)).toEqual(["rows=1", "rows=64", "rows=512"]);
    for (const { source, candidates, kernels } of searched) {
      expect(source).toBe("search");
      expect(candidates).toBeGreaterThan(0);
      expect(kernels.length).toBeGreaterThan(1);
    }
    expect(first).toMatchObject({ compiles: 1, recompiles: 0, capturedCalls: counts.length, foreignCalls: counts.length });
    expect(first.milliseconds.search).toBeGreaterThan(0);
    expect(records()).toHaveLength(searched.length);
    expect(cacheEntries(folder).filter(({ name }) => name.startsWith("schedule_kept"))).toHaveLength(searched.length);

    const second = await withStep("kept", "max-autotune", async (step) => {
      for (const [index, rows] of counts.entries()) expect((await step.run([input(rows)])).data()).toEqual(want[index]);
      return step.report();
    });
    expect(schedulesOf(second).map(({ shape, source, candidates, seconds }) => ({ shape, source, candidates, seconds }))).toEqual(
      searched.map(({ shape }) => ({ shape, source: "cache", candidates: 0, seconds: 0 })),
    );
    expect(schedulesOf(second).map(({ kernels }) => kernels)).toEqual(searched.map(({ kernels }) => kernels));
  });

  it("prepare searches too, and so does a blocking call", async () => {
    removeRecords();
    const want = withStep("prepared", "reduce-overhead", (step) => step(input(40)).data());
    await withStep("prepared", "max-autotune", async (step) => {
      await step.prepare(input(40));
      expect(schedulesOf(step.report())).toMatchObject([{ shape: "rows=64", source: "search" }]);
      expect(step(input(40)).data()).toEqual(want);
      expect(schedulesOf(step.report())).toHaveLength(1);
    });
    removeRecords();
    withStep("prepared", "max-autotune", (step) => {
      expect(step(input(40)).data()).toEqual(want);
      expect(schedulesOf(step.report())).toMatchObject([{ shape: "rows=64", source: "search" }]);
    });
    expect(records()).toHaveLength(1);
  });

  it("a damaged record, and a whole one of something else, are removed or ignored with a line, and searched again", async () => {
    removeRecords();
    const run = async (): Promise<string | undefined> =>
      withStep("damaged", "max-autotune", async (step) => {
        await step.run([input(40)]);
        return schedulesOf(step.report())[0]?.source;
      });
    expect(await run()).toBe("search");
    const [file] = records() as [string];
    const whole = readFileSync(join(folder, file), "utf8");
    writeFileSync(join(folder, file), whole.replace("seconds", "second"));
    const lines: string[] = [];
    vi.spyOn(process.stderr, "write").mockImplementation((text) => lines.push(String(text)) > 0);
    expect(await run()).toBe("search");
    expect(lines.join("")).toMatch(/artifact cache: .*schedule_damaged.*checksum differs.*made again/);

    for (const foreign of ["no json", '{"format":"tempograph-schedule-1"}', whole.replace(/"family": "[^"]*"/, '"family": "other"')]) {
      removeRecords();
      const text = foreign === whole ? `${whole} ` : foreign;
      const sum = createHash("sha256")
        .update(`${Buffer.byteLength(text)}:`)
        .update(text)
        .digest("hex")
        .slice(0, 32);
      writeFileSync(join(folder, file.replace(/[0-9a-f]{32}\.json$/, `${sum}.json`)), text, { mode: 0o600 });
      const events: string[] = [];
      const stop = onEvent(({ stream, fields }) => void (stream === "schedule" && events.push(String(fields["cache"]))));
      // A record that chose nothing names no family and is as good as before.
      expect(await run()).toBe(text.includes('"kernels": []') ? "cache" : "search");
      stop();
      expect(events[0]).toMatch(text.includes('"kernels": []') ? /hit/ : /unusable/);
    }
  });

  it("an abort in mid-search leaves nothing behind, and the next call searches again", async () => {
    removeRecords();
    const device = native();
    await withStep("aborted", "max-autotune", async (step) => {
      for (const at of ["begins", "candidate"]) {
        const controller = new AbortController();
        let bytes = 0;
        const stop = onEvent(({ stream, fields }) => {
          if (stream !== "schedule") return;
          if (fields["search"] === "begins") bytes = device.allocatedBytes;
          if (fields["search"] === at || (at === "candidate" && fields["done"] === 1)) controller.abort(new Error("enough"));
        });
        await expect(step.run([input(40)], controller.signal)).rejects.toMatchObject({ name: "AbortError", code: "aborted" });
        stop();
        // What a compiler was still building is let go of when it is done.
        await vi.waitFor(() => expect(device.allocatedBytes).toBe(bytes));
        expect(records()).toEqual([]);
        expect(schedulesOf(step.report())).toEqual([]);
      }
      await step.run([input(40)]);
      expect(schedulesOf(step.report())).toMatchObject([{ source: "search" }]);
    });
  });

  it("two calls at once share a search; when the first is aborted the second goes on", async () => {
    removeRecords();
    const want = withStep("shared", "reduce-overhead", (step) => step(input(40)).data());
    await withStep("shared", "max-autotune", async (step) => {
      const controller = new AbortController();
      const stop = onEvent(({ fields }) => void (fields["search"] === "begins" && controller.abort()));
      const [one, two] = await Promise.allSettled([step.run([input(40)], controller.signal), step.run([input(40)])]);
      stop();
      expect(one.status).toBe("rejected");
      expect(two.status === "fulfilled" && two.value.data()).toEqual(want);
    });
  });

  it("writes no State while it searches", async () => {
    removeRecords();
    const graphCase = ((): GraphCase => {
      const c = new CaseBuilder("stateful");
      const rows = sizeVar("rows", 0, 1024);
      const cache = c.state([16, 48], "f32", noise(1));
      const x = c.add("linear", [c.f32([rows, 64], noise(2))], {}, [c.weight(48, 64, noise(3))]);
      c.add("writeRows", [x, c.i32([rows], (count) => Int32Array.from({ length: count }, (_, i) => i % 16))], {}, [cache]);
      c.output(c.add("linear", [x], {}, [c.weight(30, 48, noise(4))]));
      return c.finish([{ rows: 40 }]);
    })();
    await onGraph(graphCase, {}, async (executable, request) => {
      const cache = request.states.get("s0");
      const start = cache?.read();
      await executable.ready(request);
      expect(executable.schedules).toMatchObject([{ source: "search" }]);
      expect(cache?.read()).toEqual(start);
      executable.runSync(request);
      expect(cache?.read()).not.toEqual(start);
    });
  });

  /** A device whose executables say that they are timed, before they are. */
  function counting(onTiming: () => void): Device {
    const device = native();
    const load: Device["load"] = async (compiled) => {
      const executable = await device.load(compiled);
      const measure = (executable.measure as NonNullable<Executable["measure"]>).bind(executable);
      return Object.assign(executable, { measure: (request: RunRequest) => (onTiming(), measure(request)) });
    };
    return new Proxy(device, {
      get: (target, name) => {
        if (name === "load") return load;
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === "function" ? (value.bind(target) as unknown) : value;
      },
    });
  }

  it("counts its own seconds: an injected clock bounds the timings", async () => {
    removeRecords();
    let now = 0;
    let timings = 0;
    const options = { seconds: 20, clock: (): number => now++ };
    const device = counting(() => timings++);
    await onGraph(twoFamilies(), options, (executable, request) => executable.ready(request), device);
    expect(timings).toBeGreaterThan(3);
    expect(timings).toBeLessThanOrEqual(20);
  });

  it("says so where the budget was spent on other sizes", async () => {
    removeRecords();
    let now = 0;
    let timings = 0;
    const options = { seconds: 20, clock: (): number => now };
    // The fourth timing takes all that is left.
    const device = counting(() => void (++timings === 4 && (now = 20)));
    await onGraph(
      twoFamilies(),
      options,
      async (executable, request) => {
        await executable.ready(request);
        expect(timings).toBe(4);
        await executable.ready({ ...request, sizes: { rows: 2 } });
        expect(timings).toBe(4);
        expect(executable.schedules[1]).toMatchObject({
          shape: "rows=2",
          source: "usual",
          reason: expect.stringContaining("20 s") as string,
        });
      },
      device,
    );
  });

  it("is the interpreter on the reference device, and says so", () => {
    const device = openDevice("reference").device;
    withStep(
      "interpreted",
      "max-autotune",
      (step) => {
        step(input(2));
        expect(schedulesOf(step.report())).toMatchObject([
          { source: "usual", reason: expect.stringContaining("interprets") as string, kernels: [] },
        ]);
      },
      device,
    );
  });

  it("searches nothing when TEMPOGRAPH_AUTOTUNE_SECONDS is 0", () => {
    removeRecords();
    vi.stubEnv("TEMPOGRAPH_AUTOTUNE_SECONDS", "0");
    try {
      withStep("never", "max-autotune", (step) => {
        step(input(2));
        expect(schedulesOf(step.report())).toMatchObject([{ source: "usual", reason: expect.stringContaining("is 0") as string }]);
      });
    } finally {
      vi.unstubAllEnvs();
    }
    expect(records()).toEqual([]);
  });
});

/** An executable of one graph with its states, as a compiled function has it. */
async function onGraph(
  { graph, states, stateSizes, bindings }: GraphCase,
  options: { seconds?: number; clock?: () => number },
  body: (executable: AutotuneExecutable, request: RunRequest) => Promise<void>,
  device = native(),
): Promise<void> {
  const buffers = states.map(({ declaration, values }) => {
    const buffer = device.allocate(declaration, stateSizes);
    buffer.write(values);
    return buffer;
  });
  const executable = await AutotuneExecutable.load(graph, device, lowerUsual(graph, device), options);
  try {
    const [{ sizes, inputs }] = bindings as [(typeof bindings)[0]];
    const bound = new Map(buffers.map((buffer) => [buffer.declaration.name, buffer]));
    await body(executable, { inputs, states: bound, sizes, replay: "one-call" });
  } finally {
    executable.dispose();
    for (const buffer of buffers) buffer.free();
  }
}
