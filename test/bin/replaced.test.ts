import { once } from "node:events";
import { describe, expect, onTestFinished, test } from "vitest";
import { start, type Running } from "./program.ts";
import { servedFolder } from "./served.ts";

/** Version 2 waits for a lock that the test holds. */
const migrations = {
  "1_one.up.sql": "create table effects (n int); insert into effects values (1);",
  "2_two.up.sql": "select pg_advisory_xact_lock(42); insert into effects values (2);",
  "3_three.up.sql": "insert into effects values (3);",
};

/** The address that a server says it listens at. */
async function listening(server: Running): Promise<string> {
  await expect
    .poll(() => /"url":"(http:[^"]+)"/.test(server.said().stdout) || server.said().stderr, {
      timeout: 30_000,
    })
    .toBe(true);
  return /"url":"(http:[^"]+)"/.exec(server.said().stdout)?.[1] ?? "";
}

describe("a server that is replaced in the middle of a run", () => {
  test.for(["SIGTERM", "SIGKILL"] as const)(
    "by %s: a caller who polls sees the end under the same id, and each migration is done once",
    { timeout: 120_000 },
    async (signal) => {
      const { folder, argv, database, issuer, publish } = await servedFolder();
      await publish(migrations);
      const ask = async (url: string, body?: unknown): Promise<Record<string, unknown>> => {
        const authorization = `Bearer ${await issuer.token()}`;
        const headers = { authorization, "content-type": "application/json", prefer: "respond-async" };
        const post = { method: "POST", body: JSON.stringify(body) };
        const response = await fetch(url, { headers, ...(body === undefined ? {} : post) });
        return (await response.json()) as Record<string, unknown>;
      };

      const gate = await database.connect();
      await gate.query("select pg_advisory_lock(42)");
      const first = start(argv, folder);
      const run = await ask(`${await listening(first)}/v1/runs`, { target: "orders", action: "apply" });
      const waiting = `select from pg_locks where locktype = 'advisory' and objid = 42 and not granted
        and database = (select oid from pg_database where datname = current_database())`;
      const waiters = async (): Promise<number | null> => (await gate.query(waiting)).rowCount;
      await expect.poll(waiters, { timeout: 30_000 }).toBe(1);

      first.child.kill(signal);
      await once(first.child, "close");
      // The server notices by itself that nobody is there any more.
      await expect.poll(waiters, { timeout: 30_000 }).toBe(0);
      await database.query(
        "update lockkeeper.streams set expires_at = now() - interval '1 second' where holder is not null",
      );
      const [row] = await database.query<{ status: string }>("select status from lockkeeper.runs");
      expect(row?.status).toBe(signal === "SIGTERM" ? "handing_over" : "running");
      if (signal === "SIGTERM") expect(await first.ended).toBe(0);

      const second = start(argv, folder);
      onTestFinished(() => void second.child.kill("SIGKILL"));
      const url = `${await listening(second)}/v1/runs/${String(run["id"])}`;
      await gate.query("select pg_advisory_unlock(42)");
      let seen = await ask(url);
      while (seen["done"] !== true) seen = await ask(`${url}?wait=5`);
      expect(seen).toMatchObject({
        id: run["id"],
        status: "succeeded",
        outcome: "applied",
        attempt: 2,
        from: null,
        to: "3",
        progress: { applied: 3, total: 3 },
        trigger: { kind: "http", actor: "ci", rule: "deploy" },
      });
      expect(await database.query("select n from effects order by n")).toEqual([
        { n: 1 },
        { n: 2 },
        { n: 3 },
      ]);
      expect(
        await database.query("select seq from lockkeeper.history where status = 'done' order by id"),
      ).toEqual([{ seq: 1 }, { seq: 2 }, { seq: 3 }]);
      second.child.kill("SIGTERM");
      expect(await second.ended).toBe(0);
    },
  );
});
