/** Lowered programs kept as records: found again for the same graph, and for nothing else. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { GraphBuilder } from "../src/ir/builder.js";
import { sizeVar } from "../src/ir/dim.js";
import { printGraph, type Graph } from "../src/ir/graph.js";
import { printProgramJson } from "../src/ir/serialise.js";
import type { Device, DeviceRecords } from "../src/runtime/device.js";
import { lowerGraph, type Mode } from "../src/trace/lower.js";
import { onProgram, programKey } from "../src/trace/ahead.js";

/** A chain of `length` ops over rows of 32. */
function chain(length: number, last = "silu"): Graph {
  const builder = new GraphBuilder("chain");
  let value = builder.input("x", [sizeVar("rows", 1, 64), 32], "f32");
  for (let step = 0; step < length; step++)
    value = builder.add(step % 5 === 4 ? "rmsNorm" : "silu", [value], step % 5 === 4 ? { epsilon: 1e-6 } : {});
  return builder.finish([{ name: "out0", node: builder.add(last, [value], {}) }]);
}

const kept = new Map<string, string>();
const records: DeviceRecords = {
  find: (name, key) => kept.get(`${name} ${key}`),
  add: (name, key, text) => !!kept.set(`${name} ${key}`, text),
};
const device = { name: "native", target: "plain", records } as Device;
const lower = (graph: Graph, mode: Mode = "default"): string => printProgramJson(lowerGraph(graph, device, mode).program);

beforeEach(() => void vi.stubEnv("TEMPOGRAPH_PROGRAMS", ""));
afterEach(() => {
  kept.clear();
  vi.unstubAllEnvs();
});

describe("program records", () => {
  it("give a later process the very program, and its graph when somebody asks", () => {
    const made = lower(chain(60));
    const [key] = kept.keys();
    expect(key).toMatch(/^program_chain /);
    // Only what is found can carry this mark.
    kept.set(key as string, (kept.get(key as string) as string).replaceAll("silu", "SILU"));
    const found = lowerGraph(chain(60), device, "reduce-overhead");
    expect(printProgramJson(found.program)).toBe(made.replaceAll("silu", "SILU"));
    kept.clear();
    expect(printGraph(found.graph)).toBe(printGraph(lowerGraph(chain(60), device, "default").graph));
  });

  it("are each about one graph, fused or not, for one instruction set", () => {
    lower(chain(60));
    lower(chain(61));
    lower(chain(60, "sqrt"));
    lower(chain(60), "eager");
    lowerGraph(chain(60), { ...device, target: "avx2" } as Device, "default");
    expect(kept.size).toBe(5);
    lower(chain(60));
    expect(kept.size).toBe(5);
  });

  it("are told apart by the compiler in the digits that name a file, too", () => {
    lower(chain(60));
    const [, key] = ([...kept.keys()][0] as string).split(" ");
    expect(key).toMatch(/^[0-9a-f]{64}$/);
    expect(key?.slice(0, 16)).not.toBe(programKey(chain(60), true, "plain").slice(0, 16));
  });

  it("are not made of small graphs, nor read by who wants the program made", () => {
    lower(chain(10));
    expect(kept.size).toBe(0);
    const heard: string[] = [];
    lower(chain(60));
    const stop = onProgram((_, { name }) => heard.push(name));
    lower(chain(60));
    stop();
    expect(heard).toEqual(["chain"]);
    kept.clear();
    vi.stubEnv("TEMPOGRAPH_PROGRAMS", "fresh");
    lower(chain(60));
    expect(kept.size).toBe(0);
  });
});
