import { describe, expect, onTestFinished, test } from "vitest";
import { openDriver } from "../../../src/driver/open.ts";
import { noopRecorder } from "../../../src/driver/postgres/accept-noop.ts";
import { openPool } from "../../../src/driver/postgres/pool.ts";
import { PostgresDatabase } from "../../../src/driver/postgres/database.ts";
import { enough } from "../../../src/driver/postgres/prepared.ts";
import { tableNames } from "../../../src/driver/postgres/tables.ts";
import { whereaboutsOf } from "../../../src/driver/postgres/whereabouts.ts";
import { createDatabase } from "../../support/database.ts";
import { needs } from "../../support/parts.ts";
import { startPgBouncer } from "../../support/pgbouncer.ts";
import { applyBodies, leaseOptions, never, newRun } from "../../support/steps.ts";
import { openWire, type Wire } from "../../support/wire.ts";

needs("pgbouncer");

/** More often than a connection is sent statements whole. */
const often = Array.from({ length: enough + 2 });

/** A way to the server that says what it was asked, and its URL. */
async function openCounted(url: string): Promise<{ readonly wire: Wire; readonly url: string }> {
  const counted = new URL(url);
  const wire = await openWire(Number(counted.port), "postgres");
  onTestFinished(() => wire[Symbol.asyncDispose]());
  counted.port = String(wire.port);
  counted.searchParams.set("sslmode", "disable");
  return { wire, url: counted.href };
}

/** What each message begins with. */
function verbs(wire: Wire): readonly string[] {
  return wire.asked().map((asked) => /^\w+/.exec(asked)?.[0] ?? "");
}

/** A run without anything to do, with a token of its own. */
function noop() {
  const run = newRun({ bodyDigest: "b" });
  const singleUse = { issuer: "https://issuer", jti: run.id, expiresAt: new Date(Date.now() + 60_000) };
  return { run: { ...run, singleUse }, releaseDigest: null, version: "7", records: [`of ${run.id}`] };
}

describe("what a connection is asked again and again", () => {
  test("is prepared once it was sent whole a few times, and then only named", async () => {
    const { wire, url } = await openCounted((await createDatabase()).url);
    const driver = await openDriver(url);
    onTestFinished(() => driver.close());
    await driver.withLease(leaseOptions(), () => Promise.resolve());
    wire.reset();
    for (const _ of often) await driver.state("orders", never);
    expect(verbs(wire)).toEqual([
      ...Array.from({ length: enough }, () => "SELECT"),
      "SELECT",
      "DEALLOCATE",
      "EXECUTE",
      "EXECUTE",
    ]);
  });

  test("is sent whole again after migrations have had the connection, which may have put away what was prepared", async () => {
    const { wire, url } = await openCounted((await createDatabase()).url);
    const driver = await openDriver(url);
    onTestFinished(() => driver.close());
    await driver.withLease(leaseOptions(), () => Promise.resolve());
    for (const _ of often) await driver.state("orders", never);
    await driver.withLease(leaseOptions(), (session) =>
      applyBodies(session, [{ path: "1_away.up.sql", up: "DEALLOCATE ALL" }]),
    );
    wire.reset();
    expect(await driver.state("orders", never)).toMatchObject({ position: { length: 1 } });
    expect(verbs(wire)).toEqual(["SELECT"]);
  });

  test("is sent whole through a pooler, which gives each transaction another backend", async () => {
    const database = await createDatabase();
    const pooler = await startPgBouncer(database.url);
    const { wire, url } = await openCounted(pooler.url);
    const driver = await openDriver(url);
    onTestFinished(() => driver.close());
    await driver.withLease(leaseOptions(), () => Promise.resolve());
    wire.reset();
    for (const _ of often) {
      await driver.state("orders", never);
      await driver.acceptNoop(noop(), never);
    }
    const each = often.flatMap(() => ["SELECT", "BEGIN"]);
    expect(verbs(wire)).toEqual([...each.slice(0, enough), "SELECT", ...each.slice(enough)]);
    expect(wire.asked().filter((asked) => asked.includes("EXECUTE"))).toEqual([]);
  });
});

describe("a connection with prepared statements", () => {
  test.for([
    ["has nothing prepared any more", "DEALLOCATE ALL"],
    ["finds a column more in the streams", "ALTER TABLE lockkeeper.streams ADD COLUMN later int"],
    ["finds a column more in the runs", "ALTER TABLE lockkeeper.runs ADD COLUMN later int"],
    ["finds a column more in the audit log", "ALTER TABLE lockkeeper.audit ADD COLUMN later int"],
    ["finds no audit log", "DROP TABLE lockkeeper.audit"],
    ["finds none of our tables", "DROP SCHEMA lockkeeper CASCADE"],
  ] as const)("that %s gives the same answers as any other, and records each run once", async ([, sql]) => {
    const { url } = await createDatabase();
    const pool = openPool(whereaboutsOf(url));
    onTestFinished(() => pool.close());
    const database = new PostgresDatabase(pool, tableNames("lockkeeper"));
    const recorder = noopRecorder(database);
    const state = () => database.use(never, (connection) => database.readState(connection, "orders", never));
    const audit = () => database.rows("SELECT text FROM lockkeeper.audit ORDER BY seq", never);
    const record = async () => {
      const wanted = noop();
      expect(await recorder.add(wanted, never)).toMatchObject({
        kind: "accepted",
        run: { id: wanted.run.id, toVersion: "7" },
        entries: [{ text: wanted.records[0] }],
      });
      return wanted.records[0];
    };
    await record();
    for (const _ of often) await state();
    for (let recorded = 1; recorded < 8; recorded += 1) await record();
    expect(await database.rows("SELECT name FROM pg_prepared_statements", never)).toHaveLength(3);
    const { now: _, ...before } = await state();

    await database.rows(sql, never);
    const written = (await audit()).length;
    const { now: __, ...after } = await state();
    expect(after).toEqual(before);
    const records = [await record(), await record()];
    expect((await audit()).slice(written)).toEqual(records.map((text) => ({ text })));
    for (const name of ["lockkeeper.runs", "lockkeeper.requests"])
      expect(await database.rows(`SELECT count(*)::int FROM ${name}`, never)).toEqual([
        { count: sql.startsWith("DROP SCHEMA") ? 2 : 10 },
      ]);
  });
});
