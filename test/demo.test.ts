import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

import { describe, expect, test } from "vitest";

const run = promisify(execFile);
const root = join(import.meta.dirname, "..");

/** What the demo leaves in the folder for temporary files; names are its own. */
function leftOvers(): readonly string[] {
  return readdirSync(tmpdir()).filter((name) => name.startsWith("lockkeeper-demo-"));
}

describe("demo", () => {
  test(
    "shows the whole way, refuses the tampered release and leaves nothing behind",
    { timeout: 120_000 },
    async () => {
      const { stdout } = await run(process.execPath, ["infra/demo/demo.ts"], { cwd: root });
      expect(stdout).toMatch(/HTTP 200 .*"outcome": "applied", "from": null, "to": "000004"/);
      expect(stdout).toContain("step.succeeded");
      expect(stdout).toMatch(/000005_order_notes/);
      expect(stdout).toMatch(/HTTP 422 BLOB_DIGEST: /);
      expect(stdout).toContain("What to try next");
      expect(stdout).toContain("Everything that was started has been stopped.");
      expect(leftOvers()).toEqual([]);
    },
  );
});
