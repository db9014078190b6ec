import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { playScript } from "./script/session.ts";

const folder = join(import.meta.dirname, "script");
const scripts = readdirSync(folder).filter((name) => name.endsWith(".txt"));

describe("a session at the command line", () => {
  test.for(scripts)("%s", { timeout: 180_000 }, async (name) => {
    await expect(playScript(join(folder, name))).resolves.toBeUndefined();
  });
});
