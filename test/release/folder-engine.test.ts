import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { engineOfFolder } from "../../src/release/folder/folder-engine.ts";
import { openSource } from "../../src/source/open.ts";
import { never } from "../support/steps.ts";

async function engineOf(names: readonly string[]) {
  const folder = await mkdtemp(path.join(tmpdir(), "lockkeeper-engine-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  for (const name of names) await writeFile(path.join(folder, name), "");
  return engineOfFolder(await openSource(folder), never);
}

describe("the engine of a folder", () => {
  test.each([
    [["1_a.up.json", "1_a.down.json", "README.md", "package.json"], "mongodb"],
    [["1_a.up.sql", "1_a.down.sql", "package.json"], "postgres"],
    // golang-migrate's layout then says which of them does not belong
    [["1_a.up.sql", "2_b.up.json"], "postgres"],
    [["1_a.up.json", "2_b.up.ts"], "mongodb"],
    [["1_a.up.sql", "2_b.up.ts"], "postgres"],
    [["package.json"], "postgres"],
    [[], "postgres"],
  ])("of %j is %s", async (names, engine) => {
    expect(await engineOf(names)).toBe(engine);
  });

  test.each([[["1_a.up.ts"]], [["1_a.down.mjs", "1_a.up.js", "tsconfig.json"]]])(
    "of %j is nothing that could be told from programs",
    async (names) => {
      await expect(engineOf(names)).rejects.toMatchObject({
        code: "USAGE",
        hint: expect.stringContaining("--engine mongodb") as string,
      });
    },
  );
});
