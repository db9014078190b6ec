import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { openDriver } from "../../src/driver/open.ts";
import { RunnerError } from "../../src/error.ts";
import type { RunEvent } from "../../src/executor/event.ts";
import { plainReleases } from "../../src/release/folder/plain.ts";
import { run, type RunRequest, type Target } from "../../src/runner.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { type Files, never, tempFolder } from "../support/release.ts";
import { requestOf } from "../support/target.ts";

interface World {
  readonly database: TestDatabase;
  readonly events: RunEvent[];
  write(name: string, text: string): Promise<void>;
  run(change?: Partial<RunRequest>, target?: Partial<Target>, signal?: AbortSignal): ReturnType<typeof run>;
  rows(): Promise<readonly unknown[]>;
  history(): Promise<readonly string[]>;
}

const table = {
  "1_users.up.sql": "create table users (name text);",
  "1_users.down.sql": "drop table users;",
};

/** A target on a folder of plain files, as the command line has it. */
async function world(files: Files): Promise<World> {
  const database = await createDatabase();
  const folder = await tempFolder({ ...table, ...files });
  onTestFinished(() => folder[Symbol.asyncDispose]());
  const driver = await openDriver(database.url);
  onTestFinished(() => driver.close());
  const events: RunEvent[] = [];
  const target: Target = {
    name: "t",
    stream: "s",
    environment: "default",
    releases: plainReleases({
      source: folder.source,
      stream: "s",
      environment: "default",
      engine: "postgres",
      allowLate: false,
    }),
    driver,
    limits: { waitMs: 20_000, lockTimeoutMs: 5_000, statementTimeoutMs: 0, deadlineMs: 0 },
    mayRunCode: true,
  };
  return {
    database,
    events,
    write: (name, text) => writeFile(join(folder.path, name), text),
    run: (change = {}, more = {}, signal = never) =>
      run(
        requestOf(target, change),
        { ...target, ...more },
        { signal, emit: (event) => events.push(event), now: () => new Date() },
      ),
    rows: async () =>
      (await database.query<{ name: string }>("select name from users order by 1")).map(({ name }) => name),
    history: async () =>
      (await database.query("select direction, version, status from lockkeeper.history order by id")).map(
        (row) => Object.values(row).join(" "),
      ),
  };
}

/** A program whose function has these lines; its third line is the first of them. */
const program = (lines: string): string =>
  `type Given = { sql(text: string, values?: readonly unknown[]): Promise<readonly Record<string, unknown>[]>; log(line: string): void; signal: AbortSignal; version: string; direction: string };
export default async ({ sql, log, signal, version, direction }: Given): Promise<void> => {
${lines}
};
`;

/** What a test and a program of it tell each other: they live in one process. */
interface Meeting {
  readonly reached: Promise<void>;
  readonly goOn: () => void;
  /** lines for the program: says that it is here, and waits */
  readonly lines: string;
}

function meeting(): Meeting {
  const name = `lockkeeperTest${Math.random().toString(36).slice(2)}`;
  const [reached, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  Reflect.set(globalThis, name, () => {
    reached.resolve();
    return released.promise;
  });
  onTestFinished(() => {
    released.resolve();
    Reflect.deleteProperty(globalThis, name);
  });
  return {
    reached: reached.promise,
    goOn: () => released.resolve(),
    lines: `await (globalThis as any).${name}();`,
  };
}

describe("a migration that is a program", () => {
  test("is one transaction with its history entry, up and down, with rows, values and lines", async () => {
    const here = await world({
      "2_fill.up.ts": program(`
        await sql("insert into users select 'u' || n from generate_series(1, 3) n; insert into users values ('last')");
        const [row] = await sql("select count(*)::int as n, $1::date as day from users where name <> $2", ["2026-01-02", "last"]);
        log(\`\${direction} \${version} \${row?.["n"]} \${row?.["day"] instanceof Date}\`);`),
      "2_fill.down.js": "export default async ({ sql }) => { await sql('delete from users') };",
      "3_after.up.sql": "insert into users values ('after');",
      "3_after.down.sql": "delete from users where name = 'after';",
    });
    expect(await here.run()).toMatchObject({ status: "succeeded", done: [{}, { path: "2_fill.up.ts" }, {}] });
    expect(here.events).toContainEqual({ kind: "step.output", path: "2_fill.up.ts", line: "up 2 3 true" });
    expect(await here.rows()).toEqual(["after", "last", "u1", "u2", "u3"]);
    const [entry] = await here.database.query(
      "select statements, statements_done, error, duration_ms >= 0 as took from lockkeeper.history where version = '2'",
    );
    expect(entry).toEqual({ statements: 1, statements_done: 1, error: null, took: true });
    expect(
      await here.run({ goal: { kind: "steps", direction: "down", count: 2 }, action: "rollback" }),
    ).toMatchObject({ error: null });
    expect(await here.rows()).toEqual([]);
    expect(await here.history()).toEqual([
      "up 1 done",
      "up 2 done",
      "up 3 done",
      "down 3 done",
      "down 2 done",
    ]);
    expect(await here.run()).toMatchObject({ error: null });
  });

  test.for<readonly [string, string, string, string]>([
    [
      "throws",
      "  throw new Error('no luck');",
      "MIGRATION_FAILED",
      "2_x.up.ts:4:9: no luck; nothing of this migration was applied",
    ],
    [
      "sends what the server refuses",
      "  await sql('insert into nowhere values (1)');",
      "MIGRATION_FAILED",
      '2_x.up.ts:4:9: relation "nowhere" does not exist (SQLSTATE 42P01)',
    ],
    [
      "catches what the server said",
      "  try { await sql('select 1/0'); } catch {}",
      "MIGRATION_FAILED",
      "2_x.up.ts:4:15: division by zero (SQLSTATE 22012)",
    ],
    [
      "wraps what the server said",
      "  await sql('select 1/0').catch((cause) => { throw new Error('oh', { cause }); });",
      "MIGRATION_FAILED",
      "2_x.up.ts:4:9: division by zero",
    ],
    [
      "does not wait for what fails",
      "  void sql('select 1/0');",
      "MIGRATION_FAILED",
      "2_x.up.ts:4:8: division by zero",
    ],
    [
      "commits",
      "  await sql('/* now */ commit');",
      "TRANSACTION_CONTROL",
      '2_x.up.ts:4:9: "2_x.up.ts" sends COMMIT',
    ],
    [
      "commits behind something else",
      "  await sql('select 1; rollback; select 2');",
      "TRANSACTION_CONTROL",
      "sends ROLLBACK",
    ],
    [
      "commits in a block",
      "  await sql('do $$ begin commit; end $$');",
      "MIGRATION_FAILED",
      "invalid transaction termination",
    ],
    [
      "cancels its nonce",
      "  await sql('reset all');",
      "TRANSACTION_CONTROL",
      "it ended its transaction itself",
    ],
    [
      "throws nothing",
      "  throw undefined;",
      "MIGRATION_FAILED",
      "undefined; nothing of this migration was applied",
    ],
    [
      "throws a password",
      "  throw new Error('postgres://u:topsecret@h/x is away');",
      "MIGRATION_FAILED",
      "postgres://…@h/x is away",
    ],
  ])("that %s leaves nothing behind and is told with its line", async ([, line, code, said]) => {
    const here = await world({
      "2_x.up.ts": program(`  await sql("insert into users values ('half')");\n${line}`),
    });
    const { error } = await here.run();
    expect(error).toMatchObject({
      code,
      message: expect.stringContaining(said) as string,
      fields: { migration: "2_x.up.ts" },
    });
    expect(error?.message).not.toContain("topsecret");
    expect(await here.rows()).toEqual([]);
    expect(await here.history()).toEqual(["up 1 done", "up 2 failed"]);
    await here.write(
      "2_x.up.ts",
      program(
        `  await sql("savepoint a");\n  await sql("select 1/0").catch(() => sql("rollback to a"));\n  await sql("insert into users values ('whole')");`,
      ),
    );
    expect(await here.run()).toMatchObject({ error: null });
    expect(await here.rows()).toEqual(["whole"]);
  });

  test("cannot send anything once its transaction is over", async () => {
    const late = meeting();
    const here = await world({
      "2_x.up.ts": program(
        `  void (async () => { ${late.lines}\n await sql("insert into users values ('late')"); })().catch((e) => Reflect.set(globalThis, "lockkeeperLate", String(e)));`,
      ),
    });
    expect(await here.run()).toMatchObject({ error: null });
    late.goOn();
    await expect
      .poll(() => Reflect.get(globalThis, "lockkeeperLate") as unknown)
      .toBe("Error: the transaction of this migration is over");
    Reflect.deleteProperty(globalThis, "lockkeeperLate");
    expect(await here.rows()).toEqual([]);
  });

  test(
    "is stopped by a cancel although it does not listen, and nothing of it stays",
    { timeout: 120_000 },
    async () => {
      const deaf = meeting();
      const here = await world({
        "2_x.up.ts": program(`  await sql("insert into users values ('half')");\n${deaf.lines}`),
      });
      const stop = new AbortController();
      const running = here.run({}, {}, stop.signal);
      await deaf.reached;
      stop.abort(new RunnerError("CANCELED", "enough"));
      expect(await running).toMatchObject({
        status: "canceled",
        error: { code: "CANCELED" },
        done: [{ version: "1" }],
      });
      expect(await here.rows()).toEqual([]);
      expect(await here.history()).toEqual(["up 1 done"]);
    },
  );

  test("has a statement cancelled on the server when the run is to stop", { timeout: 120_000 }, async () => {
    const here = await world({ "2_x.up.ts": program(`  await sql("select pg_sleep($1)", [600]);`) });
    const stop = new AbortController();
    const running = here.run({}, {}, stop.signal);
    const asleep = () =>
      here.database.query(
        "select from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()",
      );
    await expect.poll(async () => (await asleep()).length, { timeout: 30_000 }).toBe(1);
    stop.abort(new RunnerError("DEADLINE", "too late"));
    expect(await running).toMatchObject({ error: { code: "DEADLINE" } });
    expect(await asleep()).toEqual([]);
  });

  test(
    "may do something else for longer than the server lets a transaction be silent",
    { timeout: 120_000 },
    async () => {
      const busy = meeting();
      const here = await world({
        "2_x.up.ts": program(`  await sql("insert into users values ('whole')");\n${busy.lines}`),
      });
      const running = here.run();
      await busy.reached;
      const words = async (): Promise<string> => {
        const [row] = await here.database.query<{ since: string }>(
          "select state_change::text as since from pg_stat_activity where state = 'idle in transaction' and datname = current_database()",
        );
        return row?.since ?? "";
      };
      await expect.poll(words, { timeout: 20_000 }).not.toBe("");
      const first = await words();
      // The server hears from it without its doing.
      await expect.poll(words, { timeout: 30_000 }).not.toBe(first);
      busy.goOn();
      expect(await running).toMatchObject({ error: null });
      expect(await here.rows()).toEqual(["whole"]);
    },
  );

  test("is called again where it met a lock, from its beginning", { timeout: 120_000 }, async () => {
    const here = await world({
      "2_x.up.ts": program(
        `  log("called");\n  await sql("set local lock_timeout = '100ms'");\n  await sql("lock table users");\n  await sql("insert into users values ('whole')");`,
      ),
    });
    await here.run({ goal: { kind: "steps", direction: "up", count: 1 } });
    const blocker = await here.database.connect();
    await blocker.query("begin; lock table users");
    const running = here.run();
    await expect
      .poll(() => here.events.some(({ kind }) => kind === "step.retried"), { timeout: 30_000 })
      .toBe(true);
    await blocker.query("rollback");
    expect(await running).toMatchObject({ error: null });
    expect(here.events.filter(({ kind }) => kind === "step.output").length).toBeGreaterThan(1);
    expect(await here.rows()).toEqual(["whole"]);
  });

  test(
    "loses its session and is called again; what it had done is done once",
    { timeout: 120_000 },
    async () => {
      const pause = meeting();
      const here = await world({
        "2_x.up.ts": program(
          `  await sql("insert into users values ('whole')");\n${pause.lines}\n  await sql("select 1");`,
        ),
      });
      const running = here.run();
      await pause.reached;
      await here.database.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where state = 'idle in transaction' and datname = current_database()",
      );
      pause.goOn();
      expect(await running).toMatchObject({ error: null });
      expect(await here.rows()).toEqual(["whole"]);
      expect(await here.history()).toEqual(["up 1 done", "up 2 done"]);
    },
  );

  test("is taken back with the run, by its own way down", async () => {
    const here = await world({
      "2_fill.up.ts": program(`  await sql("insert into users values ('x')");`),
      "2_fill.down.ts": program(`  await sql("delete from users");\n  log("taken back");`),
      "3_broken.up.sql": "select 1/0;",
      "3_broken.down.sql": "select 1;",
    });
    await here.run({ goal: { kind: "steps", direction: "up", count: 1 } });
    expect(await here.run({ onFailure: "rollback" })).toMatchObject({ outcome: "rolled_back" });
    expect(here.events).toContainEqual({ kind: "step.output", path: "2_fill.down.ts", line: "taken back" });
    expect(await here.rows()).toEqual([]);
  });

  test("is refused before the lease is taken where nobody said that programs may run", async () => {
    const here = await world({ "2_x.up.ts": program("") });
    expect(await here.run({}, { mayRunCode: false })).toMatchObject({
      outcome: "refused",
      done: [],
      error: { code: "CODE_REFUSED", fields: { migration: "2_x.up.ts", version: "2" } },
    });
    expect(here.events.map(({ kind }) => kind)).not.toContain("lease.acquired");
    // What comes before it is no program.
    expect(
      await here.run({ goal: { kind: "steps", direction: "up", count: 1 } }, { mayRunCode: false }),
    ).toMatchObject({ error: null });
    expect(await here.run()).toMatchObject({ error: null });
    expect(await here.run({}, { mayRunCode: false })).toMatchObject({ outcome: "noop" });
  });
});
