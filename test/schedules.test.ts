/**
 * Property: any schedule of the vocabulary gives the bits of the usual one, whatever the number of rows and threads. `TEMPOGRAPH_FUZZ_SEED` sets the first seed.
 */
import { describe, expect, it } from "vitest";
import { isSchedule, scheduleDifference } from "../src/ir/schedule.js";
import { usualContractionSchedule, usualRowSchedule } from "../src/codegen/schedule.js";
import { sizeVar } from "../src/ir/dim.js";
import { openDevice } from "../src/trace/devices.js";
import { lowerGraphsTogether } from "../src/trace/lower.js";
import { CaseBuilder, differenceOf, nativeTargets, noise, runCase, type GraphCase, type Outcome } from "./graph-harness.js";
import { randomGraph } from "./random-graph.js";
import { RandomSchedules } from "./random-schedule.js";

const seed = Number(process.env["TEMPOGRAPH_FUZZ_SEED"] ?? 1);
const rows = sizeVar("rows", 0, 1024);
/** Around the edges of pairs, tiles and blocks. */
const counts = [0, 1, 2, 3, 4, 7, 8, 9, 63, 64, 65, 255, 256, 257];
/** Around those of blocks that are interleaved, and of tiles below them. */
const wideCounts = [3, 7, 8, 16, 17, 31, 64, 65, 66, 257];

function contraction(name: string, build: (c: CaseBuilder) => void, at = counts): GraphCase {
  const c = new CaseBuilder(name);
  build(c);
  return c.finish(at.map((count) => ({ rows: count })));
}

/**
 * One of each form: no depth, plain, prologue with several segments, gate of two, deep, rows of x a multiple of 2 KB apart, a computed matrix, and so many columns that
 * rows are interleaved for them: in place, a multiple of 2 KB apart, from a prologue and for a gate.
 */
const forms: readonly GraphCase[] = [
  contraction("depth 0, after others have used the scratch", (c) =>
    c.output(c.add("linear", [c.f32([rows, 0], noise(1)), c.table([5], noise(2))], {}, [c.weight(5, 0, noise(2))])),
  ),
  contraction("plain", (c) =>
    c.output(c.add("linear", [c.f32([rows, 33], noise(1, 1, 11)), c.table([97], noise(2))], {}, [c.weight(97, 33, noise(3))])),
  ),
  contraction("prologue", (c) => {
    const x = c.add("rmsNorm", [c.f32([rows, 40], noise(1)), c.table([40], noise(2))], { epsilon: 1e-6 });
    for (const width of [20, 48, 100]) c.output(c.add("linear", [x], {}, [c.weight(width, 40, noise(width))]));
  }),
  contraction("gate", (c) => {
    const x = c.add("asinh", [c.f32([rows, 17], noise(1))]);
    const [gate, up] = [4, 5].map((fill) => c.add("linear", [x], {}, [c.weight(70, 17, noise(fill))]));
    c.output(c.add("mul", [c.add("silu", [gate!]), up!]));
  }),
  contraction("deep", (c) => {
    const y = c.add("linear", [c.f32([rows, 1100], noise(1)), c.table([120], noise(2))], {}, [c.weight(120, 1100, noise(3, 0.05))]);
    c.output(c.add("maximum", [y, c.f32([rows, 120], noise(4))]));
  }),
  contraction("in place", (c) => c.output(c.add("linear", [c.f32([rows, 512], noise(1))], {}, [c.weight(50, 512, noise(2))]))),
  contraction("matrix", (c) => c.output(c.add("matmul", [c.f32([rows, 30], noise(1)), c.f32([30, 50], noise(2))]))),
  contraction("wide", (c) => c.output(c.add("linear", [c.f32([rows, 70], noise(1))], {}, [c.weight(780, 70, noise(2))])), wideCounts),
  contraction(
    "wide in place",
    (c) => c.output(c.add("linear", [c.f32([rows, 512], noise(1))], {}, [c.weight(800, 512, noise(2))])),
    wideCounts,
  ),
  contraction(
    "wide prologue",
    (c) => {
      const x = c.add("rmsNorm", [c.f32([rows, 130], noise(1)), c.table([130], noise(2))], { epsilon: 1e-6 });
      for (const width of [300, 480]) c.output(c.add("linear", [x], {}, [c.weight(width, 130, noise(width))]));
    },
    wideCounts,
  ),
  contraction(
    "wide gate",
    (c) => {
      const x = c.f32([rows, 100], noise(1));
      const [gate, up] = [4, 5].map((fill) => c.add("linear", [x], {}, [c.weight(400, 100, noise(fill))]));
      c.output(c.add("mul", [c.add("silu", [gate!]), up!]));
    },
    wideCounts,
  ),
];

describe("schedules", () => {
  const [best, ...others] = nativeTargets(1).filter(({ device }) => device);
  if (!best?.device) throw new Error("no native device: schedules need a C compiler");

  /** By form: what the first instruction set's usual schedule gives. */
  const first = new Map<string, Outcome[]>();

  for (const { target } of [best, ...others]) {
    const drawings = target === best.target ? 2 : 1;
    it(`${target}: every form of contraction, ${drawings * forms.length} drawn schedules at row counts around the edges`, () => {
      const one = openDevice("native", { target, threads: 1 }).device;
      const two = openDevice("native", { target, threads: 2 }).device;
      for (let drawing = 0; drawing < drawings; drawing++) {
        const schedules = new RandomSchedules(seed + drawing, target, target === best.target ? 2 : 1);
        const usual = forms.map(({ graph }) => ({ graph, mode: "default" as const }));
        const drawn = usual.map((item) => ({ ...item, choose: schedules.choose }));
        const compiled = lowerGraphsTogether(`schedules_${seed + drawing}`, [...usual, ...drawn], one);
        expect(schedules.drawn.every(isSchedule)).toBe(true);
        forms.forEach((form, index) => {
          const want = runCase(one, form, compiled[index]!, "per-kernel");
          const same = first.get(form.name) ?? want;
          first.set(form.name, same);
          want.forEach((outcome, binding) =>
            expect(
              differenceOf(outcome, same[binding] as Outcome),
              `${form.name} ${JSON.stringify(form.bindings[binding]?.sizes)}, ${target} and ${best.target}`,
            ).toBeUndefined(),
          );
          for (const [threads, device] of [one, two].entries()) {
            const got = runCase(device, form, compiled[forms.length + index]!, "one-call");
            got.forEach((outcome, binding) =>
              expect(
                differenceOf(outcome, want[binding] as Outcome),
                `TEMPOGRAPH_FUZZ_SEED=${seed + drawing} ${form.name} ${JSON.stringify(form.bindings[binding]?.sizes)} ${threads + 1} threads ${JSON.stringify(schedules.drawn)}`,
              ).toBeUndefined(),
            );
          }
        });
      }
    });
  }

  it("24 random graphs under drawn schedules, two threads", () => {
    const two = openDevice("native", { target: best.target, threads: 2 }).device;
    const schedules = new RandomSchedules(seed, best.target, 2);
    const cases = Array.from({ length: 24 }, (_, index) => randomGraph(seed + index));
    const items = cases.map(({ graph }) => ({ graph, mode: "default" as const }));
    const compiled = lowerGraphsTogether(
      `scheduled_graphs_${seed}`,
      [...items, ...items.map((item) => ({ ...item, choose: schedules.choose }))],
      two,
    );
    expect(schedules.drawn.length).toBeGreaterThan(40);
    cases.forEach((graphCase, index) => {
      const want = runCase(two, graphCase, compiled[index]!, "one-call");
      const got = runCase(two, graphCase, compiled[cases.length + index]!, "one-call");
      got.forEach((outcome, binding) =>
        expect(differenceOf(outcome, want[binding] as Outcome), `TEMPOGRAPH_FUZZ_SEED=${seed + index} ${graphCase.name}`).toBeUndefined(),
      );
    });
  });

  it("knows its own words and no others", () => {
    const usual = usualContractionSchedule(768, false, best.target);
    expect(isSchedule(usual) && isSchedule(usualRowSchedule)).toBe(true);
    for (const wrong of [null, "rows", {}, { kind: "rows" }, { kind: "rows", grain: 0 }, { kind: "rows", grain: 1, tile: 3 }])
      expect(isSchedule(wrong)).toBe(false);
    for (const change of [{ tileColumns: 32 }, { blockRows: 0 }, { inner: "columns" }, { chunkDepth: 100 }, { prefetchBytes: -1 }])
      expect(isSchedule({ ...usual, ...change })).toBe(false);
    expect(scheduleDifference({ ...usual, blockRows: 64, inner: "rows" }, usual)).toBe("blockRows=64 inner=rows");
  });
});
