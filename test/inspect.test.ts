/** `tempograph inspect` on real tiny models: what it counts must agree with itself, with the files it names, and with the strategy that was asked for. */
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { Forecaster, type ModelInspection } from "../src/index.js";
import type { LoadOptions } from "../src/index.js";
import { runCli } from "./cli-harness.js";
import { loadToto1 } from "./toto1-harness.js";

/** A tiny Toto 1.0 in place of the model the command names. */
const load = (_reference: string, options: LoadOptions): Promise<Forecaster> =>
  Promise.resolve(
    Forecaster.fromModel(
      loadToto1({
        kvCache: options.kvCache ?? "static",
        mode: options.mode ?? "reduce-overhead",
        device: options.device === "reference" ? "reference" : "native",
      }),
    ),
  );

interface Answer {
  readonly request: { context: number; horizon: number };
  readonly report: { recompiles: number; compiles: number; graphBreaks: number; steps: number };
  readonly device: ModelInspection["device"];
  readonly programs: readonly (Omit<ModelInspection["programs"][number], "profile"> & {
    readonly profile?: {
      milliseconds: number;
      labels: { label: string; launches: number; share: number; flops: number; bytes: number }[];
      launches: unknown[];
    };
  })[];
}

async function inspect(...words: string[]): Promise<Answer> {
  const run = await runCli(["inspect", "anything", "--json", "--context", "64", "--horizon", "96", "--samples", "2", ...words], { load });
  expect(run.error).toBe("");
  expect(run.code).toBe(0);
  return JSON.parse(run.out) as Answer;
}

describe("inspect --json", () => {
  test("programs, kernels, memory, stages and sources of a captured model", async () => {
    const { programs, report, device, request } = await inspect();
    expect(request).toEqual({ context: 64, horizon: 96 });
    expect(programs.map(({ name }) => name)).toEqual(["toto1.prefill", "toto1.decode"]);
    expect(programs.reduce((sum, { compiles }) => sum + compiles, 0)).toBe(report.compiles);
    expect(programs.reduce((sum, { calls }) => sum + calls, 0)).toBe(report.steps);
    for (const program of programs) {
      expect(program.specializations).toHaveLength(1);
      const [one] = program.specializations;
      expect(one?.segments).toBe(1);
      expect(one?.nodes).toBeGreaterThan(one?.launches as number);
      expect(one?.kernels).toBeLessThanOrEqual(one?.launches as number);
      expect(one?.sources).toHaveLength(one?.kernels as number);
      expect(one?.arenaBytes).toBeGreaterThan(0);
      expect(one?.constantBytes).toBeGreaterThan(10_000);
      expect(one?.mutableBytes).toBeGreaterThan(0);
      expect(program.foreignCalls).toBe(program.calls);
      for (const stage of ["trace", "lower", "build"] as const) expect(program.milliseconds[stage]).toBeGreaterThan(0);
      for (const { name, path } of one?.sources ?? []) {
        expect(path && existsSync(path), name).toBe(true);
        expect(readFileSync(path as string, "utf8")).toContain(`void ${name}(`);
      }
    }
    expect(device.allocatedBytes).toBeGreaterThan(
      Math.max(...programs.map(({ specializations }) => specializations[0]?.constantBytes as number)),
    );
    expect(device.kernelsCompiled + device.cacheHits).toBeGreaterThan(0);
  });

  test("--profile: shares of all launches, by label", async () => {
    const { programs } = await inspect("--profile");
    for (const { profile, specializations } of programs) {
      expect(profile?.launches).toHaveLength(specializations[0]?.launches as number);
      expect(profile?.labels.reduce((sum, { launches }) => sum + launches, 0)).toBe(specializations[0]?.launches);
      expect(profile?.labels.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1, 6);
      expect(profile?.labels.some(({ label, flops, bytes }) => /^layer\d/.test(label) && flops > 0 && bytes > 0)).toBe(true);
    }
  });

  test("host: breaks by source line, and the segments they leave", async () => {
    const { programs, report } = await inspect("--kv-cache", "host", "--profile");
    const decode = programs.find(({ name }) => name === "toto1.decode");
    expect(report.graphBreaks).toBe(33);
    expect(Object.values(decode?.breaksByLocation ?? {})).toEqual([33]);
    expect(Object.keys(decode?.breaksByLocation ?? {})[0]).toMatch(/^src\/models\/toto1\/forward\.ts:\d+$/);
    expect(decode?.brokenSegments.count).toBe(4);
    expect(decode?.brokenSegments.kernels).toBeGreaterThan(4);
    // A function in pieces has no single program to profile.
    expect(decode?.profile).toBeUndefined();
  });

  test("growing: recompiles by guard", async () => {
    const { programs } = await inspect("--kv-cache", "growing");
    const decode = programs.find(({ name }) => name === "toto1.decode");
    expect(decode).toMatchObject({ compiles: 11, recompiles: 8, fallbacks: 2 });
    expect(Object.entries(decode?.recompilesByGuard ?? {}).map(([guard, count]) => [/position == \d+$/.test(guard), count])).toEqual(
      new Array(8).fill([true, 1]),
    );
  });

  test("the reference device has graphs and no kernels", async () => {
    const { programs, device } = await inspect("--device", "reference", "--horizon", "8");
    expect(device.description).toMatch(/reference/);
    for (const { specializations } of programs) {
      expect(specializations[0]?.sources).toEqual([]);
      expect(specializations[0]?.nodes).toBeGreaterThan(10);
    }
  });
});

describe("inspect for people", () => {
  test("names programs, guards, files and shares", async () => {
    const run = await runCli(["inspect", "bundled:some", "--profile", "--context", "64", "--horizon", "24"], { load });
    expect(run.code).toBe(0);
    for (const words of [
      "bundled:some (toto1), one forecast of 24 steps from 64",
      "toto1.prefill",
      "toto1.decode",
      "foreign calls",
      "GFLOP/s",
      "layer0",
    ])
      expect(run.out).toContain(words);
    expect(run.out).toMatch(/source \S+\.c\n/);
  });

  test("a model without compiled programs is bad input", async () => {
    const run = await runCli(["inspect", "fake"]);
    expect(run).toMatchObject({ code: 2, out: "" });
    expect(run.error).toMatch(/^tempograph: fake has no compiled programs to inspect\n$/);
  });

  test("excess words and unknown flags are wrong usage", async () => {
    expect((await runCli(["inspect", "a", "b"])).code).toBe(2);
    expect((await runCli(["inspect", "--profil"])).code).toBe(2);
  });
});
