/** Tests: all of test/**, at most two processes, no absolute time limits to trip over on a busy machine. */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    // Searches for schedules belong to the tests of searches; elsewhere mode max-autotune has the usual ones.
    // And tests are about what the compiler makes, not about what an earlier run has kept; some plant faults in it that must not be kept.
    env: { TEMPOGRAPH_AUTOTUNE_SECONDS: "0", TEMPOGRAPH_PROGRAMS: "fresh" },
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});
