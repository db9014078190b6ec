import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { listen } from "../../src/bin/listen.ts";
import { cloudRunHandOver } from "../../src/host/cloud-run-hand-over.ts";
import { createWorld, openBarrier, orders, users, type World } from "../http/world.ts";
import { folderWith, run, start, type Running } from "./program.ts";

/** A world's server on a socket, that has runs done by processes of `lockkeeper work`, as Cloud Run's jobs are. */
async function site(world: World, ...given: readonly string[]) {
  const folder = await folderWith({
    "alice.pub": world.bucket.publicKey,
    "db-url": world.database.url,
    "lockkeeper.yaml": `version: 1
trust: { team: { keys: [alice.pub] } }
targets:
  orders: { engine: postgres, stream: orders, source: ${world.bucket.path}, trust: team, database: { urlFile: db-url } }
  gone: { engine: postgres, stream: gone, source: ./gone, trust: team, database: { url: "postgres://u:p@127.0.0.1:9/gone" } }
`,
  });
  const executions: Running[] = [];
  const work = (...flags: string[]): Running => {
    const running = start(["work", "--target", "orders", ...flags], folder);
    executions.push(running);
    return running;
  };
  const handOver = { start: async () => void work(...given) };
  const at = { host: "127.0.0.1", port: 0 };
  const server = await listen({ ...world.deps, handOver, publicUrl: undefined }, at);
  onTestFinished(async () => {
    world.stop();
    await server.stopped;
  });
  const ask = async (path: string, body?: unknown) => {
    const headers = {
      authorization: `Bearer ${await world.token()}`,
      "content-type": "application/json",
      prefer: "respond-async",
    };
    const post = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    const response = await fetch(`${server.url}${path}`, { headers, ...post });
    // oxlint-disable-next-line typescript/no-explicit-any -- the answer's shape is checked by the HTTP room's own tests
    return { status: response.status, body: (await response.json()) as any };
  };
  const ended = async (id: string) => {
    for (;;) {
      const { body } = await ask(`/v1/runs/${id}?wait=5`);
      if (body.done === true) return body;
      await pause(20);
    }
  };
  return { folder, executions, work, ask, ended };
}

const apply = { target: "orders", action: "apply" };

/** Whoever held the lease is dead: it need not be waited for in a test. */
const expire =
  "update lockkeeper.streams set expires_at = now() - interval '1 second' where holder is not null";

describe("work", { timeout: 120_000 }, () => {
  test("executes what a server has accepted and answered with 202, which executes nothing itself", async () => {
    const world = await createWorld();
    await world.bucket.publish({ ...users, ...orders });
    const { executions, work, ask, ended } = await site(world);
    const { status, body } = await ask("/v1/runs", apply);
    expect([status, body.done]).toEqual([202, false]);
    expect(await ended(body.id)).toMatchObject({
      status: "succeeded",
      outcome: "applied",
      attempt: 1,
      to: "2",
    });
    expect(executions).toHaveLength(1);
    expect(await executions[0]?.ended).toBe(0);
    const lines = executions[0]?.said().stdout ?? "";
    expect(lines).toContain('"event":"run.continued"');
    expect(lines).toContain('"event":"work.ended","runs":1,"succeeded":1,"handedOver":0');
    expect(world.log.map(({ event }) => event)).not.toContain("run.continued");

    // what is pending and nobody asked for is left alone
    await world.bucket.publish({ ...users, ...orders, "3_more.up.sql": "create table more (id int);" });
    const idle = work();
    expect(await idle.ended).toBe(0);
    expect(idle.said().stdout).toContain('"event":"work.ended","runs":0');
    expect(await world.database.query("select to_regclass('more') as t")).toEqual([{ t: null }]);
  });

  test("ends with the code of the worst that became of a run, and says again nothing about it", async () => {
    const world = await createWorld();
    await world.bucket.publish({ "1_bad.up.sql": "select 1/0;", "1_bad.down.sql": "select 1;" });
    const { executions, work, ask, ended } = await site(world);
    const { body } = await ask("/v1/runs", apply);
    expect(await ended(body.id)).toMatchObject({ status: "failed", error: { code: "MIGRATION_FAILED" } });
    expect(await executions[0]?.ended).toBe(21);
    // a platform that tries a failed job again does no harm
    expect(await work().ended).toBe(0);
  });

  test("of two processes at once does each run once", async () => {
    const world = await createWorld();
    await world.bucket.publish({ ...users, ...orders });
    const { executions, work, ask, ended } = await site(world);
    const { body } = await ask("/v1/runs", apply);
    work();
    work();
    expect(await ended(body.id)).toMatchObject({ status: "succeeded", attempt: 1 });
    expect(await Promise.all(executions.map((one) => one.ended))).toEqual([0, 0, 0]);
    expect(
      await world.database.query("select seq from lockkeeper.history where status = 'done' order by id"),
    ).toEqual([{ seq: 1 }, { seq: 2 }]);
  });

  test.for(["SIGTERM", "SIGKILL"] as const)(
    "stopped by %s leaves its run to the next process, which goes on with it",
    async (signal) => {
      const world = await createWorld();
      const barrier = await openBarrier(world);
      await world.bucket.publish({ ...barrier.migration, ...orders });
      const { executions, work, ask, ended } = await site(world);
      const { body } = await ask("/v1/runs", apply);
      await reached(world);
      const [first] = executions;
      first?.child.kill(signal);
      if (first !== undefined) await once(first.child, "close");
      // whoever looks at once finds a run that is somebody's, and stays until it is seen that nobody renews it
      const second = work();
      if (signal === "SIGTERM") expect(await first?.ended).toBe(143);
      else await world.database.query(expire);
      await barrier.release();
      expect(await ended(body.id)).toMatchObject({ status: "succeeded", attempt: 2, to: "2" });
      expect(await second.ended).toBe(0);
      expect(
        await world.database.query("select seq from lockkeeper.history where status = 'done' order by id"),
      ).toEqual([{ seq: 1 }, { seq: 2 }]);
    },
  );

  test("hands over when its time is over", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    await world.bucket.publish({ ...barrier.migration, ...orders });
    const { executions, work, ask, ended } = await site(world, "--deadline", "8s");
    const { body } = await ask("/v1/runs", apply);
    expect(await executions[0]?.ended).toBe(32);
    await barrier.release();
    expect(await work().ended).toBe(0);
    expect(await ended(body.id)).toMatchObject({ status: "succeeded" });
  });

  test("says which targets it could not ask, and does the others", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    const { folder } = await site(world);
    const all = await run(["work"], folder);
    expect(all.code).toBe(31);
    expect(all.stdout).toContain('"event":"pickup.failed","target":"gone"');
    expect(all.stdout).toContain('"unreachable":"gone"');
    expect(all.stdout).not.toContain("u:p@");
    const refused = await run(["work", "--target", "order"], folder);
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining("did you mean orders?") });
  });
});

describe("a server whose job cannot be started", () => {
  test("says so, and leaves no run that nobody would end", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    const handOver = cloudRunHandOver("projects/p/locations/l/jobs/j", {
      endpoint: "http://127.0.0.1:9",
      token: () => Promise.resolve("t"),
    });
    const at = { host: "127.0.0.1", port: 0 };
    const server = await listen({ ...world.deps, handOver, publicUrl: undefined }, at);
    onTestFinished(async () => {
      world.stop();
      await server.stopped;
    });
    const response = await fetch(`${server.url}/v1/runs`, {
      method: "POST",
      headers: { authorization: `Bearer ${await world.token()}`, "content-type": "application/json" },
      body: JSON.stringify(apply),
    });
    expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([
      503,
      "HAND_OVER_FAILED",
    ]);
    const open = "select id from lockkeeper.runs where ended_at is null";
    while ((await world.database.query(open)).length > 0) await pause(20);
  });
});

/** Until the barrier's migration waits there. */
async function reached(world: World): Promise<void> {
  const waiting = `select from pg_locks where locktype = 'advisory' and objid = 42 and not granted
 and database = (select oid from pg_database where datname = current_database())`;
  while ((await world.database.query(waiting)).length === 0) await pause(20);
}
