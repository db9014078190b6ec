import { describe, expect, onTestFinished, test } from "vitest";

import { converge, ConvergeError, RunnerError, type ConvergeOptions, type RunEvent } from "../src/index.ts";
import { createDatabase } from "./support/database.ts";
import { makeKey, publishTo, tempFolder } from "./support/release.ts";

/** An application with a signed release of its own in a folder, and an empty database. */
async function application(
  files: Readonly<Record<string, string>>,
): Promise<ConvergeOptions & { readonly query: (sql: string) => Promise<unknown[]> }> {
  const folder = await tempFolder();
  onTestFinished(() => folder[Symbol.asyncDispose]());
  const database = await createDatabase();
  const key = makeKey();
  await publishTo(folder.source, files, { keys: [key] });
  return {
    source: folder.path,
    stream: "orders",
    trust: { threshold: 1, keys: [key.publicPem] },
    database: database.url,
    query: (sql) => database.query(sql),
  };
}

describe("converge", () => {
  test("brings a database to the newest release and says so, then finds nothing to do", async () => {
    const options = await application({
      "1_users.up.sql": "CREATE TABLE users (id int);",
      "1_users.down.sql": "DROP TABLE users;",
    });
    const events: RunEvent["kind"][] = [];
    const first = await converge(options, { onEvent: ({ kind }) => events.push(kind) });
    expect(first).toMatchObject({ status: "succeeded", outcome: "applied", to: { length: 1, version: "1" } });
    expect(events).toContain("step.succeeded");
    expect(await options.query("SELECT * FROM users")).toEqual([]);
    expect(await converge(options)).toMatchObject({ status: "succeeded", outcome: "noop", done: [] });
  });

  test("four processes of an application that start at once apply each migration once", async () => {
    const files = Object.fromEntries(
      Array.from({ length: 20 }, (_, index) => [
        `${index + 1}_t.up.sql`,
        `CREATE TABLE t_${index + 1} (id int);`,
      ]),
    );
    const options = await application(files);
    const results = await Promise.all(Array.from({ length: 4 }, () => converge(options)));
    expect(results.filter(({ outcome }) => outcome === "applied")).toHaveLength(1);
    expect(results.filter(({ outcome }) => outcome === "noop")).toHaveLength(3);
    expect(await options.query("SELECT seq FROM lockkeeper.history WHERE status = 'done'")).toHaveLength(20);
  });

  test("throws the code of what failed, with what was done before it", async () => {
    const options = await application({
      "1_users.up.sql": "CREATE TABLE users (id int);",
      "2_broken.up.sql": "CREATE TABLE broken (id int);\nALTER TABLE absent ADD COLUMN x int;",
    });
    const failure: unknown = await converge(options).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(ConvergeError);
    expect(failure).toBeInstanceOf(RunnerError);
    expect(failure).toMatchObject({
      code: "MIGRATION_FAILED",
      fields: { migration: "2_broken.up.sql", line: 2, sqlstate: "42P01" },
      result: { done: [{ path: "1_users.up.sql" }], left: 1 },
    });
    expect(await options.query("SELECT to_regclass('broken') AS found")).toEqual([{ found: null }]);
  });

  test("stops when its signal aborts and leaves nothing half done", async () => {
    const options = await application({
      "1_users.up.sql": "CREATE TABLE users (id int);",
      "2_slow.up.sql": "CREATE TABLE slow (id int); SELECT pg_sleep(600);",
    });
    const stop = new AbortController();
    const running = converge(options, { signal: stop.signal }).catch((error: unknown) => error);
    const asleep =
      "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    while ((await options.query(asleep)).length === 0);
    stop.abort(new RunnerError("CANCELED", "the application is stopping"));
    expect(await running).toMatchObject({ code: "CANCELED", result: { done: [{ version: "1" }], left: 1 } });
    expect(await options.query("SELECT to_regclass('slow') AS found")).toEqual([{ found: null }]);
    expect(await options.query("SELECT holder FROM lockkeeper.streams")).toEqual([{ holder: null }]);
  });

  test("refuses a release that the trusted keys did not sign", async () => {
    const options = await application({ "1_users.up.sql": "CREATE TABLE users (id int);" });
    const stranger = { threshold: 1, keys: [makeKey().publicPem] };
    await expect(converge({ ...options, trust: stranger })).rejects.toMatchObject({ code: "THRESHOLD" });
  });

  test("asks the databases of other services that it is told of, and applies what breaks only where it may", async () => {
    const billing = await createDatabase();
    const options = await application({
      "1_users.up.sql": "CREATE TABLE users (id int);",
      ".migration-registry.yaml":
        "service: orders\ndatabase: d\nmigrations: [{ version: 1, breaking: true, dependencies: [{ service: billing, min-version: 1 }] }]\n",
    });
    const codeOf = async (more: Partial<ConvergeOptions>): Promise<unknown> =>
      converge({ ...options, ...more }).catch((error: unknown) =>
        error instanceof RunnerError ? error.code : error,
      );
    expect(await codeOf({})).toBe("BREAKING_REFUSED");
    expect(await codeOf({ allowBreaking: true })).toBe("CONFIG");
    const more = { allowBreaking: true, services: { billing: billing.url } };
    expect(await codeOf(more)).toBe("DEPENDENCY");
    const other = await application({ "1_a.up.sql": "CREATE TABLE a (id int);" });
    expect(await converge({ ...other, stream: "orders", database: billing.url })).toMatchObject({
      outcome: "applied",
    });
    await billing.query("UPDATE lockkeeper.history SET stream = 'billing'");
    await billing.query("UPDATE lockkeeper.streams SET name = 'billing'");
    expect(await codeOf(more)).toMatchObject({ outcome: "applied" });
  });
});
