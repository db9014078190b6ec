import { execFile } from "node:child_process";
import path from "node:path";
import { expect, test } from "vitest";
import { findPart } from "./parts.ts";

const folder = path.join(import.meta.dirname, "fixture");
const vitest = path.join(import.meta.dirname, "../../node_modules/vitest/vitest.mjs");

/** Runs the fixtures with no part to be found anywhere. */
function runFixtures(
  env: Readonly<Record<string, string>>,
): Promise<{ readonly code: number; readonly output: string }> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [vitest, "run", "--config", path.join(folder, "vitest.config.ts")],
      { cwd: folder, env: { PATH: "/nonexistent", LOCKKEEPER_PARTS: "/nonexistent", ...env } },
      (error, stdout, stderr) => resolve({ code: error === null ? 0 : 1, output: stdout + stderr }),
    );
  });
}

test("lists what a missing part kept from running, and ends with the total", async () => {
  const { code, output } = await runFixtures({});
  expect(code).toBe(0);
  expect(output).toMatch(
    /^not run: needs\.fixture\.ts: needs cosign \(.+LOCKKEEPER_TEST_COSIGN\) \(2 tests\)$/m,
  );
  expect(output.trimEnd().split("\n").at(-1)).toBe("1 passed, 0 failed, 2 skipped");
});

test("fails in CI when a part is missing", async () => {
  const { code, output } = await runFixtures({ CI: "1" });
  expect(code).toBe(1);
  expect(output.trimEnd().split("\n").at(-1)).toBe("0 passed, 1 failed");
});

test("takes a part from its environment variable first", () => {
  process.env["LOCKKEEPER_TEST_COSIGN"] = "/somewhere/cosign";
  expect(findPart("cosign")).toBe("/somewhere/cosign");
  delete process.env["LOCKKEEPER_TEST_COSIGN"];
});
