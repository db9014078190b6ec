import { setTimeout as pause } from "node:timers/promises";

import { describe, expect, test } from "vitest";

import { ExpectedLinks } from "../../src/audit/expected.ts";
import { maxMigrations } from "../../src/audit/record.ts";
import { verifyAudit } from "../../src/audit/verify.ts";
import { linkOf } from "../../src/history/audit.ts";
import { baseline, repair } from "../../src/maintenance.ts";
import { resetTrust, setPaused, unlock } from "../../src/run/by-hand.ts";
import { newRunId } from "../../src/runner.ts";
import { start } from "../bin/program.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { tempFolder } from "../support/release.ts";
import { newRun, never } from "../support/steps.ts";
import { openTarget, signedStore, tableMigrations, targetOn } from "../support/target.ts";
import { recordsOf, story } from "./records.ts";

const options = { signal: never, emit: () => undefined, now: () => new Date() };
const by = {
  reason: "looked at it",
  caller: { issuer: "cli", subject: "ada@laptop", rule: null },
  trigger: "cli",
} as const;

/** The audit log cannot be added to any more. */
async function breakAudit(database: TestDatabase): Promise<void> {
  await database.query(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'nobody writes here'; END$$`);
  await database.query(
    "CREATE TRIGGER refuse BEFORE INSERT ON lockkeeper.audit FOR EACH ROW EXECUTE FUNCTION refuse()",
  );
}

const tables = async (database: TestDatabase): Promise<readonly string[]> => {
  const rows = await database.query<{ name: string }>(
    "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY 1",
  );
  return rows.map(({ name }) => name);
};

describe("a run", () => {
  test("is recorded before its first change and after its last, with all that trust.md asks for", async () => {
    const database = await createDatabase();
    const store = await signedStore(tableMigrations(2));
    const target = await store.open(database.url);
    const result = await target.run({ caller: { issuer: "cli", subject: "ada@laptop", rule: null } });
    const records = await recordsOf(target.driver);
    expect(story(records)).toEqual(["run.begun", "run.ended applied"]);
    const [begun, ended] = records;
    const release = { epoch: 1, version: 1, digest: result.release?.digest };
    expect(begun).toMatchObject({
      schema: "urn:lockkeeper:audit:v1",
      action: "apply",
      target: "t",
      stream: "orders",
      environment: "default",
      run: result.runId,
      attempt: 1,
      trigger: "cli",
      principal: { issuer: "cli", subject: "ada@laptop", rule: null, claims: {} },
      requested: { goal: "latest", digest: null, plan: null },
      offered: release.digest,
      release,
      highWaterMark: { before: null, after: null },
      from: null,
      to: "2",
      migrations: [],
      outcome: null,
      code: null,
      runner: { node: process.versions.node },
    });
    expect(begun?.signers).toHaveLength(1);
    expect(ended).toMatchObject({
      run: result.runId,
      highWaterMark: { before: null, after: release },
      from: null,
      to: "2",
      code: null,
      allMigrations: null,
    });
    expect(ended?.migrations).toMatchObject([
      { seq: 1, path: "1_t1.up.sql", direction: "up" },
      { seq: 2, path: "2_t2.up.sql", direction: "up" },
    ]);
    for (const { sha256, ms } of ended?.migrations ?? []) {
      expect(sha256).toMatch(/^[0-9a-f]{64}$/);
      expect(ms).toBeTypeOf("number");
    }
    const [first, second] = await target.driver.audit.read({ after: 0, limit: 9 }, never);
    expect(result.audit).toEqual({ seq: 2, sha256: second?.sha256 });
    expect(second?.previous).toBe(first?.sha256);
    expect(target.events.filter(({ kind }) => kind === "audit")).toEqual([
      { kind: "audit", ...first },
      { kind: "audit", ...second },
    ]);
  });

  test("that finds nothing to do, goes down, fails, or is refused, has the records that say so", async () => {
    const database = await createDatabase();
    const store = await signedStore(tableMigrations(2));
    const target = await store.open(database.url);
    await target.run();
    expect(await target.run()).toMatchObject({ outcome: "noop", audit: null });
    const down = { kind: "steps", direction: "down", count: 1 } as const;
    await target.run({ action: "rollback", goal: down });
    await store.publish([...tableMigrations(2), { path: "3_no.up.sql", up: "SELECT nothing_there" }]);
    expect(await target.run()).toMatchObject({ status: "failed" });
    const staging = await store.open(database.url, { environment: "staging" });
    expect(await staging.run()).toMatchObject({ outcome: "refused", audit: { seq: 7 } });
    const records = (await recordsOf(target.driver)).slice(2);
    expect(story(records)).toEqual([
      "run.begun",
      "run.ended rolled_back",
      "run.begun",
      "run.ended failed MIGRATION_FAILED",
      "run.ended refused WRONG_ENVIRONMENT",
    ]);
    expect(records[1]).toMatchObject({
      requested: { goal: "down 1" },
      from: "2",
      to: "1",
      migrations: [{ seq: 2, direction: "down", path: "2_t2.down.sql" }],
    });
    expect(records[3]).toMatchObject({ from: "1", to: "2", migrations: [{ seq: 2, direction: "up" }] });
    expect(records[4]).toMatchObject({ environment: "staging", release: null, migrations: [] });
    expect(records[4]?.highWaterMark.after).toEqual(records[4]?.highWaterMark.before);
  });

  test("whose record cannot be written is refused, and has changed nothing", async () => {
    const database = await createDatabase();
    const store = await signedStore(tableMigrations(1));
    const target = await store.open(database.url);
    await target.run();
    await breakAudit(database);
    await store.publish(tableMigrations(3));
    const before = await target.driver.state("orders", never);
    const result = await target.run();
    expect(result).toMatchObject({ status: "failed", done: [], left: 2, audit: null });
    expect(result.error).toMatchObject({ code: "AUDIT_UNAVAILABLE", exit: 31, retryable: true });
    expect(await tables(database)).toEqual(["t1"]);
    const after = await target.driver.state("orders", never);
    expect(after).toEqual({ ...before, now: after.now });
    expect(await recordsOf(target.driver)).toHaveLength(2);
  });

  test("whose record the database writes otherwise than it was told is refused, and the log has what was to be written", async () => {
    const database = await createDatabase();
    const store = await signedStore(tableMigrations(1));
    const target = await store.open(database.url);
    await target.run();
    // of somebody with the migration role, who has his own runs recorded as another's, with links that are right
    await database.query(`CREATE FUNCTION blame() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
      NEW.text := replace(NEW.text, 'mallory', 'ada');
      NEW.sha256 := encode(sha256(convert_to(NEW.previous || chr(10) || NEW.text, 'UTF8')), 'hex');
      RETURN NEW; END$$`);
    await database.query(
      "CREATE TRIGGER blame BEFORE INSERT ON lockkeeper.audit FOR EACH ROW EXECUTE FUNCTION blame()",
    );
    await store.publish(tableMigrations(2));
    const result = await target.run({ caller: { issuer: "cli", subject: "mallory", rule: null } });
    expect(result.error).toMatchObject({ code: "AUDIT_BROKEN", fields: { seq: 3, fault: "altered" } });
    expect(await tables(database)).toEqual(["t1"]);

    const said = target.events.findLast(({ kind }) => kind === "audit");
    expect(said).toMatchObject({ seq: 4, text: expect.stringContaining("mallory") as string });
    const expected = new ExpectedLinks(undefined);
    for (const event of target.events) expected.addLine(JSON.stringify(event));
    await expect(verifyAudit(target.driver.audit, expected.links, never)).rejects.toMatchObject({
      code: "AUDIT_BROKEN",
      fields: { seq: 3, fault: "rewritten" },
    });
  });

  test("whose end cannot be written is done all the same, and says so", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, [
      ...tableMigrations(1),
      {
        path: "2_close.up.sql",
        up: `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'nobody writes here'; END$$;
          DO $$BEGIN EXECUTE 'CREATE TRIGGER refuse BEFORE INSERT ON lock' || 'keeper.audit FOR EACH ROW EXECUTE FUNCTION refuse()'; END$$;`,
      },
    ]);
    const result = await target.run();
    expect(result).toMatchObject({ status: "succeeded", outcome: "applied", audit: { seq: 1 } });
    expect(target.events).toContainEqual({
      kind: "warning",
      message: expect.stringContaining("the end of this run is not in the audit log") as string,
    });
    expect(story(await recordsOf(target.driver))).toEqual(["run.begun"]);
  });

  test("that starts by itself and is refused again and again for one reason is recorded once", async () => {
    const database = await createDatabase();
    const store = await signedStore(tableMigrations(1));
    await (await store.open(database.url)).run();
    const staging = await store.open(database.url, { environment: "staging" });
    for (const trigger of ["init", "converge", "library", "cli", "cli"] as const)
      await staging.run({ trigger });
    const records = await recordsOf(staging.driver);
    expect(records.slice(2).map(({ trigger, code }) => [trigger, code])).toEqual([
      ["init", "WRONG_ENVIRONMENT"],
      ["cli", "WRONG_ENVIRONMENT"],
      ["cli", "WRONG_ENVIRONMENT"],
    ]);
  });

  test("that is refused leaves a database that was never ours as it was found", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, tableMigrations(1), { environment: "production" });
    expect(await target.run()).toMatchObject({ outcome: "refused", audit: null });
    expect(await database.query("SELECT FROM pg_namespace WHERE nspname = 'lockkeeper'")).toEqual([]);
  });

  test("of many migrations lists the first, and says how many they were, with a digest over all", async () => {
    const database = await createDatabase();
    const count = maxMigrations + 20;
    const target = await openTarget(database.url, tableMigrations(count));
    await target.run();
    const ended = (await recordsOf(target.driver)).at(-1);
    expect(ended?.migrations).toHaveLength(maxMigrations);
    const lines = await database.query<{ line: string }>(
      "SELECT seq || ' ' || direction || ' ' || path || ' ' || sha256 AS line FROM lockkeeper.history ORDER BY id",
    );
    const { createHash } = await import("node:crypto");
    const all = createHash("sha256")
      .update(lines.map(({ line }) => `${line}\n`).join(""))
      .digest("hex");
    expect(ended?.allMigrations).toEqual({ count, sha256: all });
  });

  test("that was accepted has an end in the log whatever it came to, and every attempt is there", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, tableMigrations(1));
    await target.run();
    const id = newRunId("t");
    await target.driver.acceptRun(newRun({ id }), never);
    await target.run({ id, isAccepted: true, trigger: "http" });
    expect(story(await recordsOf(target.driver)).slice(2)).toEqual(["run.ended noop"]);
  });

  test("that is killed leaves its beginning without an end, and the next one says how far it came", async () => {
    const database = await createDatabase();
    await using folder = await tempFolder({
      "1_t.up.sql": "create table t1 ();",
      "2_gate.up.sql": "select pg_advisory_xact_lock(42); create table t2 ();",
    });
    const gate = await database.connect();
    await gate.query("select pg_advisory_lock(42)");
    const at = ["--source", folder.path, "--unsigned", "--stream", "orders", "--database", database.url];
    const first = start(["up", ...at], folder.path);
    const waiting = `select pid from pg_locks where locktype = 'advisory' and objid = 42 and not granted
      and database = (select oid from pg_database where datname = current_database())`;
    while ((await gate.query(waiting)).rowCount === 0) await pause(20);
    first.child.kill("SIGKILL");
    await first.ended;
    // else the server would do what it was sent to its end
    while ((await gate.query(`select pg_terminate_backend(w.pid) from (${waiting}) w`)).rowCount !== 0)
      await pause(20);
    await gate.query("select pg_advisory_unlock(42)");
    await database.query("update lockkeeper.streams set expires_at = now() - interval '1 second'");
    const second = start(["up", ...at, "--output", "json"], folder.path);
    expect(await second.ended).toBe(0);
    const target = await openTarget(database.url, []);
    const records = await recordsOf(target.driver);
    expect(story(records)).toEqual(["run.begun", "run.begun", "run.ended applied"]);
    expect(records.map(({ run }) => run)).toEqual([records[0]?.run, records[1]?.run, records[1]?.run]);
    expect(records[0]?.run).not.toBe(records[1]?.run);
    expect(records[1]).toMatchObject({ from: "1", to: "2" });
    const { audit } = JSON.parse(second.said().stdout) as { audit: unknown };
    const [, , last] = await target.driver.audit.read({ after: 0, limit: 9 }, never);
    expect(audit).toEqual({ seq: 3, sha256: last?.sha256 });
  });
});

describe("what a person does", () => {
  test("is recorded before and after: a baseline, a pause and its end, a reset of trust", async () => {
    const database = await createDatabase();
    const store = await signedStore(tableMigrations(2));
    const target = await store.open(database.url);
    await baseline("1", by, target, options);
    const place = { name: "orders-prod", stream: "orders", driver: target.driver };
    await setPaused(true, by, place, options);
    await setPaused(true, { ...by, reason: "" }, place, options);
    expect(await target.run()).toMatchObject({ outcome: "refused" });
    await setPaused(false, by, place, options);
    await target.run();
    const { audit } = await resetTrust({ releases: true }, by, place, options);
    const records = await recordsOf(target.driver);
    expect(story(records)).toEqual([
      "declared",
      "declared done",
      "paused",
      "paused done",
      "paused",
      "paused noop",
      "run.ended refused PAUSED",
      "resumed",
      "resumed done",
      "run.begun",
      "run.ended applied",
      "trust.reset",
      "trust.reset done",
    ]);
    expect(records[1]).toMatchObject({
      action: "baseline",
      requested: { goal: "version 1" },
      reason: "looked at it",
      principal: { subject: "ada@laptop" },
      migrations: [{ seq: 1, path: "1_t1.up.sql", direction: "up", ms: null }],
    });
    expect(records[3]).toMatchObject({ target: "orders-prod", stream: "orders", environment: null });
    expect(records[5]?.reason).toBeNull();
    const reset = records.at(-1);
    expect(reset).toMatchObject({ environment: "default", requested: { goal: "roots and releases" } });
    expect(reset?.highWaterMark).toMatchObject({ before: { epoch: 1, version: 1 }, after: null });
    expect(audit.seq).toBe(reset?.seq);
  });

  test("is recorded when it is refused, and not when there was nothing to decide", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, tableMigrations(1));
    await target.run();
    await expect(repair("applied", by, target, options)).rejects.toMatchObject({ code: "NOTHING_TO_REPAIR" });
    const place = { name: "t", stream: "orders", driver: target.driver };
    await expect(unlock(newRunId("t"), by, place, options)).rejects.toMatchObject({ code: "UNKNOWN_RUN" });
    const records = await recordsOf(target.driver);
    expect(story(records).slice(2)).toEqual(["unlocked", "unlocked refused UNKNOWN_RUN"]);
  });

  test("is not done where it cannot be recorded", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, tableMigrations(1));
    await target.run();
    await breakAudit(database);
    const place = { name: "t", stream: "orders", driver: target.driver };
    await expect(setPaused(true, by, place, options)).rejects.toMatchObject({ code: "AUDIT_UNAVAILABLE" });
    await expect(resetTrust({ releases: true }, by, place, options)).rejects.toMatchObject({
      code: "AUDIT_UNAVAILABLE",
    });
    expect(await database.query("SELECT paused FROM lockkeeper.streams")).toEqual([{ paused: false }]);
    const other = await createDatabase();
    const fresh = await openTarget(other.url, tableMigrations(2));
    await fresh.run({ goal: { kind: "steps", direction: "up", count: 1 } });
    await other.query("DELETE FROM lockkeeper.history");
    await breakAudit(other);
    await expect(baseline("2", by, fresh, options)).rejects.toMatchObject({ code: "AUDIT_UNAVAILABLE" });
    expect(await other.query("SELECT FROM lockkeeper.history")).toEqual([]);
  });
});

test("24 runners at once, on two streams of one database, write one chain", async () => {
  const database = await createDatabase();
  const releases = (await openTarget(database.url, tableMigrations(2))).releases;
  const runners = await Promise.all(Array.from({ length: 24 }, () => targetOn(database.url, releases)));
  const place = (n: number) => ({ name: "t", stream: n % 2 === 0 ? "orders" : "billing" });
  await Promise.all(
    runners.map((runner, n) =>
      n % 3 === 0
        ? runner.run({ limits: { ...runner.limits, waitMs: 300_000 } })
        : setPaused(n % 3 === 1, by, { ...place(2 * n + 1), driver: runner.driver }, options),
    ),
  );
  const [first] = runners;
  if (first === undefined) throw new TypeError("there are 24");
  const entries = await first.driver.audit.read({ after: 0, limit: 1_000 }, never);
  expect(entries.length).toBeGreaterThanOrEqual(2 + 2 * 16);
  expect(entries.map(({ seq }) => seq)).toEqual(entries.map((_, index) => index + 1));
  for (const [index, { previous, sha256, text }] of entries.entries()) {
    expect(sha256).toBe(linkOf(previous, text));
    if (index > 0) expect(previous).toBe(entries[index - 1]?.sha256);
  }
  const ended = (await recordsOf(first.driver)).filter(({ outcome }) => outcome === "applied");
  expect(ended).toHaveLength(1);
});
