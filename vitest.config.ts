import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/setup.ts"],
    reporters: ["default", "./test/support/reporter.ts"],
    // Tests start servers, send signals and read exit codes: each file in a process of its own.
    pool: "forks",
    // Twice the cores: most of a test's time is spent waiting for a server.
    maxWorkers: 4,
    // Bounds, not expectations: a test says what it waits for, and a slow machine may take its time.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 50_000 } },
    teardownTimeout: 10_000,
    // A test that leaves a promise unhandled fails, a repeated run tells nothing.
    retry: 0,
    unstubEnvs: true,
  },
});
