import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

import { beforeAll, describe, expect, onTestFinished, test } from "vitest";

import { openDriver } from "../../src/driver/open.ts";
import { plainReleases } from "../../src/release/folder/plain.ts";
import { run, type RunRequest, type Target } from "../../src/runner.ts";
import { createDatabase, ownPostgres, type PostgresServer, type TestDatabase } from "../support/database.ts";
import { needs, part } from "../support/parts.ts";
import { folderSource } from "../support/release.ts";
import { never } from "../support/steps.ts";
import { requestOf } from "../support/target.ts";

needs("psql", "pg_dump");

const execute = promisify(execFile);
const corpus = join(import.meta.dirname, "superplane");
const files = (direction: "up" | "down") =>
  readdirSync(corpus)
    .filter((name) => name.endsWith(`.${direction}.sql`))
    .toSorted();

/** PostgreSQL 15, because pg_dump 15 compares what it made. */
let server: PostgresServer;
/** what psql makes of the up files, and then of the down files in reverse */
let afterUp: string;
let afterDown: string;
/** and of the up files once more, in a schema emptied by hand */
let afterAgain: string;

beforeAll(async () => {
  server = await ownPostgres({ major: 15 });
  const byPsql = await createDatabase({ server });
  await psql(byPsql, files("up"));
  afterUp = await schemaOf(byPsql);
  await psql(byPsql, files("down").toReversed());
  afterDown = await schemaOf(byPsql);
  await empty(byPsql);
  await psql(byPsql, files("up"));
  afterAgain = await schemaOf(byPsql);
}, 120_000);

async function psql(database: TestDatabase, names: readonly string[]): Promise<void> {
  const args = names.flatMap((name) => ["-f", join(corpus, name)]);
  await execute(part("psql"), ["-qX", "-v", "ON_ERROR_STOP=1", "-d", database.url, ...args], {
    maxBuffer: 1 << 26,
  });
}

const toNone = { action: "rollback", goal: { kind: "version", version: "0", allow: "down" } } as const;

async function empty(database: TestDatabase): Promise<void> {
  await database.query("DROP SCHEMA public CASCADE");
  await database.query("CREATE SCHEMA public");
}

/** What pg_dump says of a database, less our own schema and the random marks of newer pg_dumps. */
async function schemaOf(database: TestDatabase): Promise<string> {
  const args = ["--schema-only", "--exclude-schema=lockkeeper", "-d", database.url];
  const { stdout } = await execute(part("pg_dump"), args, { maxBuffer: 1 << 26 });
  return stdout.replaceAll(/^\\(?:un)?restrict .*$/gm, "");
}

describe("178 migrations of a public project, from a plain folder", () => {
  test("make what psql makes of them: up, nothing to do, down to none, and up again once the schema is empty", async () => {
    const database = await createDatabase({ server });
    const driver = await openDriver(database.url);
    onTestFinished(() => driver.close());
    const target: Target = {
      name: "t",
      stream: "superplane",
      environment: "default",
      releases: plainReleases({
        source: folderSource(corpus),
        stream: "superplane",
        environment: "default",
        engine: "postgres",
        allowLate: false,
      }),
      driver,
      limits: { waitMs: 0, lockTimeoutMs: 5_000, statementTimeoutMs: 0, deadlineMs: 0 },
    };
    const go = (change: Partial<RunRequest> = {}) =>
      run(requestOf(target, change), target, { signal: never, emit: () => undefined, now: () => new Date() });

    const up = await go();
    expect(up).toMatchObject({ status: "succeeded", outcome: "applied", left: 0 });
    expect(up.done.map(({ path }) => path)).toEqual(files("up"));
    expect(await schemaOf(database)).toBe(afterUp);

    const before = await driver.history("superplane", {}, never);
    expect(await go()).toMatchObject({ status: "succeeded", outcome: "noop", done: [] });
    expect(await driver.history("superplane", {}, never)).toEqual(before);

    const down = await go(toNone);
    expect(down).toMatchObject({ status: "succeeded", outcome: "rolled_back", to: { length: 0 } });
    expect(down.done).toHaveLength(files("up").length);
    expect(await schemaOf(database)).toBe(afterDown);

    // Most down files of this project are empty, so what they should take away is soon in the way of an up file.
    const blocked = await go();
    expect(blocked).toMatchObject({
      status: "failed",
      error: { code: "MIGRATION_FAILED", fields: { sqlstate: "42P07" } },
    });
    expect(blocked.done.length + blocked.left).toBe(178);
    expect(blocked.left).toBeGreaterThan(0);
    expect(await go(toNone)).toMatchObject({ outcome: "rolled_back", to: { length: 0 } });
    await empty(database);
    expect(await go()).toMatchObject({ status: "succeeded", outcome: "applied", to: { length: 178 } });
    expect(await schemaOf(database)).toBe(afterAgain);
  }, 120_000);
});
