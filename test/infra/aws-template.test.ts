import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

import { describe, expect, onTestFinished, test } from "vitest";

import { needs, part } from "../support/parts.ts";

const template = join(import.meta.dirname, "../../infra/aws/template.yaml");

describe("infra/aws/template.yaml", () => {
  needs("sam");

  test("has nothing that sam validate or cfn-lint, which it runs, finds", { timeout: 180_000 }, async () => {
    // it leaves its settings at home
    const home = mkdtempSync(join(tmpdir(), "lockkeeper-sam-"));
    onTestFinished(() => rmSync(home, { recursive: true, force: true }));
    const env = {
      PATH: process.env["PATH"] ?? "",
      HOME: home,
      SAM_CLI_TELEMETRY: "0",
      AWS_DEFAULT_REGION: "us-east-1",
      // it asks nobody, but would not begin without
      AWS_ACCESS_KEY_ID: "none",
      AWS_SECRET_ACCESS_KEY: "none",
    };
    const lint = ["validate", "--lint", "--template-file", template];
    const { stdout } = await promisify(execFile)(part("sam"), lint, { env });
    expect(stdout).toContain("is a valid SAM Template");
  });
});
