/**
 * Property: whatever the graph, every mode and number of threads gives the bits of eager, and the reference agrees within bounds. Fifty graphs share a C file.
 * `TEMPOGRAPH_FUZZ_GRAPHS` sets how many graphs are run, `TEMPOGRAPH_FUZZ_SEED` the first seed.
 */
import { describe, expect, it } from "vitest";
import { printGraph } from "../src/ir/graph.js";
import type { CompiledGraph, Device } from "../src/runtime/device.js";
import { openDevice } from "../src/trace/devices.js";
import { bitsOf, compileTogether, differenceOf, nativeTargets, runCase, type GraphCase, type Outcome } from "./graph-harness.js";
import { randomGraph } from "./random-graph.js";

const total = Number(process.env["TEMPOGRAPH_FUZZ_GRAPHS"] ?? 500);
const firstSeed = Number(process.env["TEMPOGRAPH_FUZZ_SEED"] ?? 1);
const graphsPerFile = 50;
const reference = openDevice("reference").device;
const targets = nativeTargets(1).filter(({ device }) => device);

interface Batch {
  readonly cases: readonly GraphCase[];
  readonly eager: readonly CompiledGraph[];
  readonly fused: readonly CompiledGraph[];
}

function compileBatch(device: Device, seed: number, count: number): Batch {
  const cases = Array.from({ length: count }, (_, index) => randomGraph(seed + index));
  const compiled = compileTogether(`random_graphs_${seed}`, device, cases, ["eager", "default"]);
  return { cases, eager: compiled.get("eager") ?? [], fused: compiled.get("default") ?? [] };
}

/** Largest difference from the reference in units of the answer's own size. */
function fromReference(got: Outcome, want: Outcome): string | undefined {
  for (const [name, expected] of want) {
    const values = got.get(name);
    const size = Array.from(expected).reduce((most, x) => Math.max(most, Math.abs(x)), 1);
    for (let i = 0; i < expected.length; i++) {
      const [a, b] = [values?.[i] ?? NaN, expected[i] as number];
      if (!(Math.abs(a - b) <= 2e-4 * size)) return `${name}[${i}]: got ${a}, reference ${b}`;
    }
  }
  return undefined;
}

function describeCase(graphCase: GraphCase, binding: number, what: string, problem: string): string {
  return `${graphCase.name} (TEMPOGRAPH_FUZZ_SEED=${graphCase.name.replace("random_", "")} TEMPOGRAPH_FUZZ_GRAPHS=1) ${JSON.stringify(graphCase.bindings[binding]?.sizes)}, ${what}: ${problem}\n${printGraph(graphCase.graph)}`;
}

function problemsOf(batch: Batch, index: number, one: Device, two: Device): string[] {
  const graphCase = batch.cases[index] as GraphCase;
  const [eager, fused] = [batch.eager[index] as CompiledGraph, batch.fused[index] as CompiledGraph];
  const want = runCase(one, graphCase, eager, "per-kernel");
  const others: [string, Outcome[]][] = [
    ["default, 1 thread", runCase(one, graphCase, fused, "per-kernel")],
    ["default, 2 threads", runCase(two, graphCase, fused, "per-kernel")],
    ["reduce-overhead, 2 threads", runCase(two, graphCase, fused, "one-call")],
    ["eager, 2 threads", runCase(two, graphCase, eager, "one-call")],
  ];
  const oracle = compileTogether("oracle", reference, [graphCase], ["eager"]).get("eager")?.[0] as CompiledGraph;
  const references = runCase(reference, graphCase, oracle, "per-kernel");
  return want.flatMap((outcome, binding) => {
    const note = (what: string, problem: string | undefined): string[] =>
      problem ? [describeCase(graphCase, binding, what, problem)] : [];
    return [
      ...others.flatMap(([what, outcomes]) => note(`${what} against eager`, differenceOf(outcomes[binding] as Outcome, outcome))),
      ...note("reference", fromReference(outcome, references[binding] as Outcome)),
    ];
  });
}

describe("random graphs", () => {
  const [best, ...others] = targets;
  if (!best?.device) {
    it.skip("need a C compiler, and there is none", () => undefined);
    return;
  }
  console.info(`random graphs: ${total}, seeds ${firstSeed} .. ${firstSeed + total - 1}`);
  const two = openDevice("native", { target: best.target, threads: 2 }).device;
  for (let start = 0; start < total; start += graphsPerFile) {
    const count = Math.min(graphsPerFile, total - start);
    it(`seeds ${firstSeed + start} .. ${firstSeed + start + count - 1}: all modes and threads alike, reference within bounds`, () => {
      const batch = compileBatch(best.device as Device, firstSeed + start, count);
      const problems = batch.cases.flatMap((_, index) => problemsOf(batch, index, best.device as Device, two));
      expect(problems).toEqual([]);
    });
  }

  for (const { target, device } of others) {
    it(`${target} gives the bits of ${best.target}`, () => {
      const count = Math.min(10, total);
      const [mine, best1] = [compileBatch(device as Device, firstSeed, count), compileBatch(best.device as Device, firstSeed, count)];
      mine.cases.forEach((graphCase, index) => {
        const want = runCase(best.device as Device, graphCase, best1.fused[index] as CompiledGraph, "one-call");
        const got = runCase(device as Device, graphCase, mine.fused[index] as CompiledGraph, "one-call");
        got.forEach((outcome, binding) =>
          expect(differenceOf(outcome, want[binding] as Outcome), describeCase(graphCase, binding, target, "differs")).toBeUndefined(),
        );
      });
    });
  }

  it("sees a difference of one bit", () => {
    const graphCase = randomGraph(firstSeed);
    const batch = compileBatch(best.device as Device, firstSeed, 1);
    const [outcome] = runCase(best.device as Device, graphCase, batch.fused[0] as CompiledGraph, "one-call") as [Outcome];
    const changed = new Map([...outcome].map(([name, values]) => [name, values.slice()]));
    const [, values] = [...changed].find(([, array]) => array.length > 0) as [string, Float32Array];
    new Uint32Array(values.buffer)[0] = (bitsOf(values)[0] as number) ^ 1;
    expect(differenceOf(changed, outcome)).toMatch(/got .*, expected/);
  });
});
