import { join } from "node:path";
import { expect, test } from "vitest";
import { createDatabase } from "../support/database.ts";
import { folderWith, run } from "./program.ts";

const slow = "CREATE TABLE t ();\nSELECT pg_sleep(300);";

test.for([
  ["a flag", slow, ["--statement-timeout", "300ms"]],
  ["the configuration file", slow, ["--target", "orders", "--unsigned"]],
  ["its own header", `-- lockkeeper: statement_timeout=300ms\n${slow}`, []],
  [
    "its own header, which wins",
    `-- lockkeeper: statement_timeout=300ms\n${slow}`,
    ["--statement-timeout", "5m"],
  ],
] as const)("a statement ends after the statement_timeout of %s", async ([, body, flags]) => {
  const database = await createDatabase();
  const folder = await folderWith({
    "migrations/1_slow.up.sql": body,
    "lockkeeper.yaml": `version: 1
targets:
  orders:
    engine: postgres
    stream: orders
    source: ./migrations
    database: { urlEnv: DB }
    limits: { statementTimeout: 300ms }
`,
  });
  const at = [
    "--source",
    join(folder, "migrations"),
    "--unsigned",
    "--stream",
    "orders",
    "--database",
    database.url,
  ];
  const byTarget = flags[0] === "--target";
  const { code, stdout } = await run(
    ["up", "--output", "json", ...(byTarget ? [] : at), ...flags],
    folder,
    byTarget ? { DB: database.url } : {},
  );
  expect(code).toBe(21);
  expect(JSON.parse(stdout)).toMatchObject({
    error: {
      code: "MIGRATION_FAILED",
      fields: { sqlstate: "57014", migration: "1_slow.up.sql", line: expect.any(Number) as number },
    },
  });
  expect(await database.query("SELECT 1 FROM pg_tables WHERE tablename = 't'")).toEqual([]);
});
