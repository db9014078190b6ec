import { createServer } from "node:http";
import { once } from "node:events";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { createServer as createGate, type AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { folderWith, run, start } from "./program.ts";

/** Two good migrations, each with its down file. */
const good = {
  "m/1_users.up.sql": "create table users (id int);",
  "m/1_users.down.sql": "drop table users;",
  "m/2_orders.up.sql": "create table orders (id int);",
  "m/2_orders.down.sql": "drop table orders;",
};
const broken = { "m/3_broken.up.sql": "select 1 / 0;", "m/3_broken.down.sql": "select 1;" };

interface Site {
  readonly database: TestDatabase;
  readonly folder: string;
  /** Arguments of a verb on the folder's migrations and the database. */
  at(...verb: readonly string[]): readonly string[];
}

async function site(files: Readonly<Record<string, string>> = good): Promise<Site> {
  const [database, folder] = await Promise.all([createDatabase(), folderWith(files)]);
  const flags = ["--source", "m", "--unsigned", "--stream", "orders", "--database", database.url];
  return { database, folder, at: (...verb) => [...verb, ...flags] };
}

async function tables({ database }: Site): Promise<readonly string[]> {
  const rows = await database.query<{ tablename: string }>(
    "select tablename from pg_tables where schemaname = 'public' order by 1",
  );
  return rows.map(({ tablename }) => tablename);
}

const asJson = (text: string): Record<string, unknown> => JSON.parse(text) as Record<string, unknown>;
const nodeCommand = (script: string): string => JSON.stringify([process.execPath, "-e", script]);
const backups = async ({ database }: Site): Promise<unknown> =>
  (await database.query("select backup from lockkeeper.runs order by created_at")).map(
    ({ backup }) => backup,
  );

describe("--on-failure rollback", () => {
  test("takes back what the run applied, says so, and exits 21", { timeout: 120_000 }, async () => {
    const here = await site({ ...good, ...broken });
    const ended = await run(here.at("up", "--on-failure", "rollback"), here.folder);
    expect(ended.code).toBe(21);
    expect(await tables(here)).toEqual([]);
    expect(ended.stderr).toContain("taking back what the run has applied, to version 0 (2 steps)");
    expect(ended.stderr).toContain("2_orders.down.sql taken back in");
    expect(ended.stdout).toMatch(/rolled back in .*, 3 left; orders is at 0/);
    expect(ended.stderr).toMatch(/database: at version 0, where the run began; it is held/);
    const again = await run(here.at("up", "--on-failure", "rollback", "--output", "json"), here.folder);
    expect(asJson(again.stdout)).toMatchObject({
      outcome: "rolled_back",
      to: null,
      left: 3,
      backup: null,
      error: { code: "MIGRATION_FAILED", fields: { rollback: "done" } },
    });
    const status = await run(here.at("status"), here.folder);
    expect(status.stdout).toContain("3_broken.up.sql failed, and the run was rolled back");
  });

  test("is not known to verbs that go back", { timeout: 120_000 }, async () => {
    const here = await site();
    const refused = await run(here.at("redo", "--on-failure", "rollback"), here.folder);
    expect(refused).toMatchObject({ code: 2, stdout: "" });
    expect(await run(here.at("up"), here.folder)).toMatchObject({ code: 0 });
    expect(await run(here.at("goto", "1", "--on-failure", "rollback"), here.folder)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("this one takes back itself"),
    });
    expect(await tables(here)).toEqual(["orders", "users"]);
  });

  test(
    "killed in the middle of a rollback leaves a held stream and no doubt: the next up goes on from there",
    { timeout: 120_000 },
    async () => {
      const here = await site({
        ...good,
        ...broken,
        "m/1_users.down.sql": "select pg_sleep(600); drop table users;",
      });
      const running = start(here.at("up", "--on-failure", "rollback"), here.folder);
      await expect
        .poll(
          () =>
            here.database.query(
              "select from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()",
            ),
          { timeout: 60_000 },
        )
        .toHaveLength(1);
      running.child.kill("SIGKILL");
      await running.ended;
      expect(await tables(here)).toEqual(["users"]);
      // The server may still sleep for the dead one; a person ends that, and its lease.
      await here.database.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()",
      );
      await here.database.query("update lockkeeper.streams set expires_at = now() - interval '1 minute'");
      expect(
        await here.database.query(
          "select held ->> 'version' as v, held is null as free from lockkeeper.streams",
        ),
      ).toEqual([{ v: null, free: false }]);
      await writeFile(join(here.folder, "m/3_broken.up.sql"), "create table whole (id int);");
      expect(await run(here.at("up"), here.folder)).toMatchObject({
        code: 0,
        stdout: expect.stringContaining("2 migrations done"),
      });
      expect(await tables(here)).toEqual(["orders", "users", "whole"]);
      expect(await here.database.query("select held from lockkeeper.streams")).toEqual([{ held: null }]);
    },
  );
});

describe("a backup", () => {
  test(
    "by a command is made before the first step, recorded, and not made where there is nothing to do",
    { timeout: 120_000 },
    async () => {
      const here = await site();
      const script =
        "require('node:fs').appendFileSync('made', process.env.LOCKKEEPER_RUN_FROM + '>' + process.env.LOCKKEEPER_RUN_TO + '\\n'); console.log('dumped')";
      const flags = ["--backup-command", nodeCommand(script)];
      const first = await run(here.at("up", "1", ...flags), here.folder);
      expect(first).toMatchObject({
        code: 0,
        stderr: expect.stringMatching(/backup: dumped\nbackup made in/),
      });
      const second = await run(here.at("up", "--output", "json", ...flags), here.folder);
      expect(asJson(second.stdout)).toMatchObject({
        outcome: "applied",
        backup: { by: "command node", result: "done" },
      });
      expect(await run(here.at("up", ...flags), here.folder)).toMatchObject({
        code: 0,
        stdout: expect.stringContaining("nothing to do"),
      });
      expect(await readFile(join(here.folder, "made"), "utf8")).toBe("0>1\n1>2\n");
      const done = { by: "command node", result: "done", durationMs: expect.any(Number) as number };
      expect(await backups(here)).toEqual([done, done]);
    },
  );

  test(
    "that fails stops the run before anything is changed, and tells no secret",
    { timeout: 120_000 },
    async () => {
      const here = await site();
      const script = "console.error('dump of postgres://u:s3cret@h/d failed'); process.exit(4)";
      const ended = await run(
        here.at("up", "--output", "json", "--backup-command", nodeCommand(script)),
        here.folder,
        { BACKUP_KEY: "k3y" },
      );
      expect(ended.code).toBe(20);
      expect(asJson(ended.stdout)).toMatchObject({
        outcome: "refused",
        done: [],
        backup: { by: "command node", result: "failed" },
        error: { code: "BACKUP_FAILED", retryable: true, fields: { exitCode: 4 } },
      });
      expect(ended.stderr).toContain('"kind":"backup.output"');
      expect(ended.stdout + ended.stderr).not.toMatch(/s3cret|k3y/);
      expect(await tables(here)).toEqual([]);
      expect(await here.database.query("select from lockkeeper.history")).toEqual([]);
      expect(await backups(here)).toMatchObject([{ result: "failed" }]);
      // It was no fault of the release.
      expect(await here.database.query("select failed from lockkeeper.streams")).toEqual([{ failed: null }]);
      expect(await run(here.at("up"), here.folder)).toMatchObject({ code: 0 });
    },
  );

  test("that takes too long is ended with its children", { timeout: 120_000 }, async () => {
    const here = await site();
    const flags = ["--backup-timeout", "1s", "--backup-command", '["sh", "-c", "sleep 600; true"]'];
    const ended = await run(here.at("up", ...flags), here.folder);
    expect(ended).toMatchObject({ code: 20, stderr: expect.stringContaining("took longer than 1 s") });
    expect(await tables(here)).toEqual([]);
  });

  test("is ended by SIGTERM, and nothing is changed", { timeout: 120_000 }, async () => {
    const here = await site();
    const script = "console.log('pid', process.pid); setInterval(() => {}, 1000)";
    const running = start(here.at("up", "--backup-command", nodeCommand(script)), here.folder);
    await expect.poll(() => running.said().stderr, { timeout: 40_000 }).toMatch(/backup: pid \d+/);
    running.child.kill("SIGTERM");
    expect(await running.ended).toBe(143);
    const pid = Number(/backup: pid (\d+)/.exec(running.said().stderr)?.[1]);
    expect(() => process.kill(pid, 0)).toThrow(expect.objectContaining({ code: "ESRCH" }));
    expect(await tables(here)).toEqual([]);
    expect(await backups(here)).toMatchObject([{ result: "stopped" }]);
  });

  test("outlives its lease's length, because the lease is kept meanwhile", { timeout: 120_000 }, async () => {
    const here = await site();
    const script =
      "process.stdin.resume(); require('node:net').connect(+process.argv[1], '127.0.0.1').on('close', () => process.exit(0))";
    // It ends when the test says so.
    const gate = createGate().listen(0, "127.0.0.1");
    onTestFinished(() => void gate.close());
    await once(gate, "listening");
    const connected = once(gate, "connection");
    const command = JSON.stringify([
      process.execPath,
      "-e",
      script,
      String((gate.address() as AddressInfo).port),
    ]);
    const running = start(here.at("up", "--backup-command", command), here.folder);
    const [socket] = (await connected) as [{ destroy(): void }];
    const lease = async (): Promise<string> =>
      String((await here.database.query("select expires_at::text as at from lockkeeper.streams"))[0]?.["at"]);
    const before = await lease();
    await expect.poll(lease, { timeout: 40_000 }).not.toBe(before);
    expect(await tables(here)).toEqual([]);
    socket.destroy();
    expect(await running.ended).toBe(0);
    expect(await tables(here)).toEqual(["orders", "users"]);
  });

  test("by a webhook gets the header of its file; 500 stops the run", { timeout: 120_000 }, async () => {
    const here = await site({ ...good, header: "X-Key: s3cret\n" });
    const seen: unknown[] = [];
    let status = 500;
    const server = createServer((request, response) => {
      seen.push(request.headers["x-key"]);
      response.writeHead(status).end();
    }).listen(0, "127.0.0.1");
    onTestFinished(() => void server.close());
    await once(server, "listening");
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hooks/t0ken`;
    const flags = ["--backup-url", url, "--backup-header-file", "header"];
    const failed = await run(here.at("up", ...flags), here.folder);
    expect(failed).toMatchObject({ code: 20, stderr: expect.stringContaining("answered 500") });
    expect(failed.stderr + failed.stdout).not.toMatch(/s3cret|t0ken/);
    status = 200;
    expect(await run(here.at("up", ...flags), here.folder)).toMatchObject({ code: 0 });
    expect(seen).toEqual(["s3cret", "s3cret"]);
    expect(await backups(here)).toMatchObject([{ result: "failed" }, { result: "done" }]);
  });

  test("and the rollback may be a target's own", { timeout: 120_000 }, async () => {
    const database = await createDatabase();
    const folder = await folderWith({
      ...good,
      ...broken,
      "backup.sh": "#!/bin/sh\necho $LOCKKEEPER_RUN_TARGET > made\n",
      "lockkeeper.yaml": `version: 1
targets:
  shop:
    engine: postgres
    stream: shop
    source: m
    database: { url: "${database.url}" }
    onFailure: rollback
    backup: { command: [./backup.sh], timeout: 1m }
`,
    });
    await chmod(join(folder, "backup.sh"), 0o755);
    expect(await run(["plan", "--target", "shop", "--unsigned"], folder)).toMatchObject({ code: 0 });
    await expect(readFile(join(folder, "made"))).rejects.toMatchObject({ code: "ENOENT" });
    const ended = await run(["up", "--target", "shop", "--unsigned", "--output", "json"], folder);
    expect(asJson(ended.stdout)).toMatchObject({
      outcome: "rolled_back",
      to: null,
      backup: { by: "command backup.sh", result: "done" },
    });
    expect(await readFile(join(folder, "made"), "utf8")).toBe("shop\n");
    const kept = await run(["up", "--target", "shop", "--unsigned", "--on-failure", "keep"], folder);
    expect(kept).toMatchObject({ code: 21, stderr: expect.stringContaining("at version 2") });
  });
});
