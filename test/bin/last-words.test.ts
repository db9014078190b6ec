import { expect, test } from "vitest";
import { createDatabase } from "../support/database.ts";
import { folderWith, run } from "./program.ts";

/** What a program may leave behind: nobody waits for it, and what it throws holds a password. */
const leftover = `
export default async ({ sql }) => {
  setTimeout(() => { throw new Error("no answer of postgres://app:planted-password@db/app"); }, 1);
  await sql("select pg_sleep(60)");
};
`;

test.for([
  ["for a person", [], "stderr"],
  ["for a program", ["--output", "json"], "stdout"],
] as const)("an error that nobody caught is told as any other, %s", async ([, flags, where]) => {
  const database = await createDatabase();
  const folder = await folderWith({
    "m/1_first.up.sql": "create table t ();",
    "m/2_leftover.up.mjs": leftover,
  });
  const at = ["--source", "m", "--unsigned", "--stream", "s", "--database", database.url];
  const { code, stdout, stderr } = await run(["up", ...at, ...flags], folder);
  expect(code).toBe(1);
  expect({ stdout, stderr }[where]).toContain("INTERNAL");
  for (const said of [stdout, stderr]) {
    expect(said).not.toMatch(/planted-password|\bat .*:\d+:\d+/);
  }
  expect(await database.query("select version, status from lockkeeper.history order by id")).toEqual([
    { version: "1", status: "done" },
  ]);
});
