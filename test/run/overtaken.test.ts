import { setTimeout as pause } from "node:timers/promises";

import { expect, test } from "vitest";

import { createDatabase } from "../support/database.ts";
import { leaseOptions, never } from "../support/steps.ts";
import { signedStore, tableMigrations } from "../support/target.ts";

/** A run that has looked at the first release and waits for the lease, while the second is published and begun. */
async function overtaken(release: "newest" | "first") {
  const database = await createDatabase();
  const store = await signedStore(tableMigrations(1));
  const target = await store.open(database.url);
  const other = await store.open(database.url);
  const first = await target.releases.head(never);
  const running = await other.driver.withLease(leaseOptions(), async (session) => {
    const run = target.run({ trigger: "event", release: release === "first" ? (first ?? null) : null });
    while (!target.events.some(({ kind }) => kind === "lease.waiting")) await pause(20);
    const digest = await store.publish(tableMigrations(2));
    const context = { highWaterMark: undefined, expected: digest, now: new Date(), applied: async () => [] };
    const { rank } = await other.releases.fetch(context, never);
    if (rank === undefined) throw new TypeError("it is signed");
    const place = { fromVersion: null, toVersion: null, steps: 0 };
    await session.begin({ ...place, highWaterMark: { ...rank, digest }, releaseDigest: digest });
    return { run };
  });
  return { result: await running.run, database, newest: await other.releases.head(never) };
}

test("a run for the newest takes the release that became it while the run waited for the lease", async () => {
  const { result, database, newest } = await overtaken("newest");
  expect(result).toMatchObject({ status: "succeeded", outcome: "applied", release: { digest: newest } });
  expect(await database.query("select from t2")).toEqual([]);
});

test("a run for one release is refused when a newer one was begun while it waited for the lease", async () => {
  const { result, database } = await overtaken("first");
  expect(result).toMatchObject({
    status: "failed",
    outcome: "refused",
    error: { code: "ROLLBACK" },
    done: [],
  });
  expect(await database.query("select to_regclass('t1') as t")).toEqual([{ t: null }]);
});
