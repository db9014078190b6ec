import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "vitest";
import { playScript } from "./script/session.ts";

const folder = join(import.meta.dirname, "script");
const scripts = readdirSync(folder).filter((name) => name.endsWith(".txt"));

describe("a session at the command line", () => {
  // each has its own folder, database and processes
  test.concurrent.for(scripts)("%s", { timeout: 180_000 }, async (name, { expect }) => {
    await expect(playScript(join(folder, name))).resolves.toBeUndefined();
  });
});
