import { join } from "node:path";

import { describe, expect, test } from "vitest";

import { makeWiring } from "../../src/bin/wire.ts";
import { call } from "../cli/terminal.ts";
import { createDatabase } from "../support/database.ts";
import { folderWith } from "./program.ts";

const zeros = "0".repeat(64);

describe("lockkeeper wait", () => {
  test(
    "takes what publish, release show and status print as the chain, and exits 0 once it is there, 32 before",
    { timeout: 60_000 },
    async () => {
      const database = await createDatabase();
      const folder = await folderWith({ "m/1_a.up.sql": "create table a ();" });
      const at = (name: string): string => join(folder, name);
      const variables = { DATABASE_URL: database.url, LOCKKEEPER_STREAM: "orders" };
      const cli = (...argv: string[]) => call(argv, { variables, wiring: makeWiring(variables) });
      const read = async (...argv: string[]): Promise<Record<string, unknown>> => {
        const { code, stdout } = await cli(...argv, "--output", "json");
        expect(code).toBe(0);
        return JSON.parse(stdout) as Record<string, unknown>;
      };
      await cli("keygen", "--out", at("key"));
      const { chain, digest } = await read("publish", at("m"), at("bucket"), "--key", at("key"));
      const trusted = ["--source", at("bucket"), "--trust", at("key.pub")];
      expect(await read("release", "show", ...trusted)).toMatchObject({ chain, digest });

      const wait = (...more: string[]) =>
        cli("wait", "--expect-chain", String(chain), "--timeout", "0", ...more);
      const early = await wait();
      expect(early).toMatchObject({ code: 32, stderr: expect.stringMatching(/^ *code: +NOT_APPLIED/m) });
      expect(JSON.parse((await wait("--output", "json")).stdout)).toMatchObject({
        error: { code: "NOT_APPLIED" },
      });
      expect(await cli("up", ...trusted)).toMatchObject({ code: 0 });
      expect(await wait()).toMatchObject({ code: 0, stdout: expect.stringContaining(String(chain)) });
      expect(await read("status", ...trusted)).toMatchObject({ chain, fresh: true, stale: null });
      expect(await cli("wait", "--min", "1")).toMatchObject({ code: 0 });
      const higher = await cli("wait", "--min", "2", "--timeout", "0");
      expect(higher).toMatchObject({ code: 32, stderr: expect.stringContaining("not yet version 2") });
      expect(await read("wait", "--release", String(digest))).toEqual({
        stream: "orders",
        version: "1",
        chain,
        completed: digest,
      });
    },
  );

  test("wants a release, a place or a version, one of them, each in its form", async () => {
    for (const words of [
      [],
      ["--release", `sha256:${zeros}`, "--expect-chain", `1:${zeros}`],
      ["--release", "sha256:1"],
      ["--expect-chain", `01:${zeros}`],
      ["--expect-chain", `1:${"A".repeat(64)}`],
      ["--expect-chain", zeros],
      ["--min", "latest"],
      ["--min", "1", "--release", `sha256:${zeros}`],
    ]) {
      const { code, stderr } = await call(["wait", ...words, "--database", "postgres://x@127.0.0.1:1/x"]);
      expect({ words, code }).toEqual({ words, code: 2 });
      expect(stderr).toMatch(/code: +USAGE/);
    }
  });
});
