/** Tests: all of test/**, at most two processes, no absolute time limits to trip over on a busy machine. */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    // Searches for schedules belong to the tests of searches; elsewhere mode max-autotune has the usual ones.
    env: { TEMPOGRAPH_AUTOTUNE_SECONDS: "0" },
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});
