/** `tempograph demo`: what the first look shows, with and without trained weights. */
import { expect, test } from "vitest";
import { runCli } from "./cli-harness.js";

test("untrained weights: table, chart, device, timings, compile report, and no word of skill but the warning", async () => {
  const run = await runCli(["demo"], { model: { trained: false } });
  expect(run).toMatchObject({ code: 0, error: "" });
  expect(run.loads[0]?.reference).toBe("bundled:toto2-nano");
  expect(run.out).toContain("untrained weights: this shows the engine, not skill");
  expect(run.out.replace("untrained weights: this shows the engine, not skill", "")).not.toMatch(/skill/i);
  expect(run.out).toMatch(/time +mean +0\.1 +0\.5 +0\.9/);
  expect(run.out).toMatch(/░/);
  expect(run.out).toMatch(/device fake, mode reduce-overhead/);
  expect(run.out).toMatch(/compiles 2, recompiles 0/);
  expect(run.models[0]?.disposed).toBe(1);
});

test("trained weights: skill against naive and seasonal naive over several windows", async () => {
  const run = await runCli(["demo"], { environment: { TEMPOGRAPH_MODEL: "/models/toto" } });
  expect(run.code).toBe(0);
  expect(run.out).not.toContain("untrained");
  expect(run.out).toMatch(/skill over 5 rolling windows of 24 steps/);
  expect(run.out).toMatch(/seasonal naive +\d/);
  expect(run.out).toMatch(/\nnaive +\d/);
  // The windows are asked for together, each without its own end.
  const windows = run.models[0]?.requests.find((request) => request.series.length === 5);
  expect(new Set(windows?.series.map((series) => series.values[0]?.at(-1))).size).toBe(5);
});
