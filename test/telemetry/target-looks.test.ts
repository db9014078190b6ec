import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Target } from "../../src/runner.ts";
import type { ReleaseProvider } from "../../src/release/release.ts";
import { TargetLooks } from "../../src/telemetry/target-looks.ts";
import type { SeriesName } from "../../src/telemetry/series.ts";
import { RunnerError } from "../../src/error.ts";
import { createDatabase } from "../support/database.ts";
import { never } from "../support/release.ts";
import { signedStore, tableMigrations, targetOn } from "../support/target.ts";

/** Asked at every look, and patiently: a busy machine is no database that is away. */
const always = { freshMs: 0, lookMs: 60_000, waitMs: 120_000 };

/** What is said of target `t` now, by name without the prefix. */
async function saidOf(looks: TargetLooks, target = "t"): Promise<Readonly<Record<string, number>>> {
  const samples = (await looks.samples()).filter(({ labels }) => labels["target"] === target);
  return Object.fromEntries(samples.map(({ name, value }) => [name.replace("lockkeeper_", ""), value]));
}

const names = (...some: readonly string[]): readonly SeriesName[] =>
  some.map((name) => `lockkeeper_${name}` as SeriesName);

describe("what databases say", { timeout: 180_000 }, () => {
  test("is true whoever did the work, from before the first run over a failure and a rollback to a pause", async () => {
    const two = tableMigrations(2);
    const store = await signedStore(two);
    const database = await createDatabase();
    const looks = new TargetLooks([await store.open(database.url)], always);
    const fresh = {
      target_up: 1,
      source_up: 1,
      pending_migrations: 2,
      head_version: 1,
      database_version: 0,
      release_unusable: 0,
      last_run_failed: 0,
      open_runs: 0,
      attention_required: 0,
      release_failed: 0,
      held: 0,
      paused: 0,
    };
    expect(await saidOf(looks)).toEqual(fresh);

    // another process, as far as anybody who only looks knows
    const other = await store.open(database.url);
    const beganAt = Date.now() / 1000 - 5;
    expect(await other.run()).toMatchObject({ outcome: "applied" });
    const applied = await saidOf(looks);
    expect(applied).toMatchObject({ ...fresh, pending_migrations: 0, database_version: 2 });
    expect(applied["last_success_timestamp_seconds"]).toBeGreaterThan(beganAt);

    const view = { path: "3_view.up.sql", up: "CREATE VIEW v AS SELECT FROM later;", down: "DROP VIEW v;" };
    await store.publish([...two, view]);
    expect(await saidOf(looks)).toMatchObject({ pending_migrations: 1, head_version: 2, release_failed: 0 });
    expect(await other.run()).toMatchObject({ outcome: "failed" });
    expect(await saidOf(looks)).toMatchObject({
      pending_migrations: 1,
      release_failed: 1,
      last_run_failed: 1,
      last_success_timestamp_seconds: applied["last_success_timestamp_seconds"],
    });

    await database.query("create table later ()");
    expect(await other.run()).toMatchObject({ outcome: "applied" });
    expect(await saidOf(looks)).toMatchObject({
      ...fresh,
      pending_migrations: 0,
      head_version: 2,
      database_version: 3,
    });

    const back = { kind: "steps", direction: "down", count: 1 } as const;
    expect(await other.run({ action: "rollback", goal: back })).toMatchObject({ outcome: "rolled_back" });
    expect(await saidOf(looks)).toMatchObject({ held: 1, pending_migrations: 1, database_version: 2 });
    await other.driver.setPaused("orders", true, never);
    await database.query(
      "update lockkeeper.history set status = 'needs_attention' where id = (select max(id) from lockkeeper.history)",
    );
    expect(await saidOf(looks)).toMatchObject({ paused: 1, attention_required: 1 });
  });

  test("names a release that would be refused, and not what is pending of it", async () => {
    const store = await signedStore(tableMigrations(1));
    const database = await createDatabase();
    const target = await store.open(database.url, { environment: "production" });
    expect(await saidOf(new TargetLooks([target], always))).toMatchObject({
      target_up: 1,
      source_up: 1,
      release_unusable: 1,
    });
    expect(await saidOf(new TargetLooks([target], always))).not.toHaveProperty("pending_migrations");
  });

  test("is asked of the bucket in one request, as long as nothing has changed", async () => {
    const store = await signedStore(tableMigrations(1));
    const database = await createDatabase();
    const looks = new TargetLooks([await store.open(database.url)], always);
    await looks.samples();
    store.requests.length = 0;
    await looks.samples();
    await looks.samples();
    expect(store.requests).toHaveLength(2);
  });

  test("is not asked again within its time", async () => {
    const store = await signedStore(tableMigrations(1));
    const database = await createDatabase();
    const looks = new TargetLooks([await store.open(database.url)], { ...always, freshMs: 3_600_000 });
    await Promise.all([looks.samples(), looks.samples()]);
    const asked = store.requests.length;
    await looks.samples();
    expect(store.requests).toHaveLength(asked);
  });

  test("is left out where a bucket or a database is away or does not answer; the others are told all the same", async () => {
    const store = await signedStore(tableMigrations(1));
    const database = await createDatabase();
    const well = await store.open(database.url);
    const silent = createServer();
    silent.listen(0, "127.0.0.1");
    await once(silent, "listening");
    onTestFinished(() => void silent.close());
    const { port } = silent.address() as AddressInfo;
    const named = (name: string, target: Target): Target => ({ ...target, name });
    const gone: ReleaseProvider = {
      ...well.releases,
      head: () => Promise.reject(new RunnerError("SOURCE_UNAVAILABLE", "the bucket is away")),
    };
    const looks = new TargetLooks(
      [
        named("hanging", await store.open(`postgres://u:p@127.0.0.1:${port}/d`)),
        named("refusing", await store.open("postgres://u:p@127.0.0.1:1/d")),
        named("without a bucket", await targetOn(database.url, gone)),
        well,
      ],
      { ...always, lookMs: 12_000 },
    );
    const samples = await looks.samples();
    const of = (target: string) =>
      Object.fromEntries(
        samples.filter(({ labels }) => labels["target"] === target).map(({ name, value }) => [name, value]),
      );
    expect(of("hanging")).toEqual({ lockkeeper_target_up: 0, lockkeeper_source_up: 1 });
    expect(of("refusing")).toEqual({ lockkeeper_target_up: 0, lockkeeper_source_up: 1 });
    expect(of("without a bucket")).toMatchObject({
      lockkeeper_target_up: 1,
      lockkeeper_source_up: 0,
      lockkeeper_paused: 0,
    });
    for (const name of names("pending_migrations", "head_version", "release_unusable"))
      expect(of("without a bucket")).not.toHaveProperty(name);
    expect(of("t")).toMatchObject({
      lockkeeper_target_up: 1,
      lockkeeper_source_up: 1,
      lockkeeper_pending_migrations: 1,
    });
  });

  test("is waited for only so long, and then a target of which nothing is known is not up", async () => {
    const silent = createServer();
    silent.listen(0, "127.0.0.1");
    await once(silent, "listening");
    onTestFinished(() => void silent.close());
    const { port } = silent.address() as AddressInfo;
    const store = await signedStore(tableMigrations(1));
    const target = await store.open(`postgres://u:p@127.0.0.1:${port}/d`);
    const looks = new TargetLooks([target], { lookMs: 5_000, waitMs: 1 });
    expect(await saidOf(looks)).toEqual({ target_up: 0 });
  });
});
