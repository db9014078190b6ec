import { readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { describe, expect, test } from "vitest";

import { RunnerError, type RunnerErrorCode } from "../../src/error.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { closeGate, waitAtGate } from "../support/gate.ts";
import type { MigrationText } from "../support/plain-release.ts";
import { recordsOf } from "../audit/records.ts";
import { runsOf } from "../support/runs-of.ts";
import { never } from "../support/steps.ts";
import { openTarget, signedStore, tableMigrations, type SignedStore } from "../support/target.ts";
import { bySqs, event, processOf, type Process } from "./process.ts";

interface RunRow {
  readonly id: string;
  readonly status: string;
  readonly outcome: string | null;
  readonly trigger: string;
  readonly idempotency_key: string;
}

async function runs(database: TestDatabase): Promise<RunRow[]> {
  return database.query<RunRow>(
    "SELECT id, status, outcome, trigger, idempotency_key FROM lockkeeper.runs ORDER BY created_at, id",
  );
}

async function tables(database: TestDatabase): Promise<readonly string[]> {
  const rows = await database.query<{ name: string }>(
    "SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1",
  );
  return rows.map(({ name }) => name);
}

interface Site {
  readonly database: TestDatabase;
  readonly store: SignedStore;
  /** Another process on the same bucket and database. */
  process(options?: Parameters<typeof processOf>[1]): Promise<Process>;
}

async function site(texts: readonly MigrationText[]): Promise<Site> {
  const database = await createDatabase();
  const store = await signedStore(texts);
  return { database, store, process: async (options) => processOf(await store.open(database.url), options) };
}

/** Puts down how a run of a release ended, as its executor would have. */
async function endAs(database: TestDatabase, id: string, code: string): Promise<void> {
  await database.query(
    `UPDATE lockkeeper.runs SET status = 'failed', outcome = 'failed', ended_at = now(),
 error = jsonb_build_object('code', $2::text, 'message', 'planted', 'hint', null, 'fields', '{}'::jsonb) WHERE id = $1`,
    [id, code],
  );
}

describe("waking", () => {
  test("events of nobody's objects wake nobody, and say so in the log", async () => {
    const { database, process } = await site(tableMigrations(1));
    const { waker, log } = await process();
    const others = [
      { ...event, bucket: "elsewhere" },
      { ...event, key: "orders/HEAD.json" },
      { ...event, key: "orders/head.json/" },
      { ...event, provider: "gcs" as const },
    ];
    expect(await waker.wake(others, bySqs, never)).toEqual([]);
    expect(log.map(({ event: kind, fields }) => [kind, fields["result"], fields["key"]])).toEqual(
      others.map(({ key }) => ["event.received", "nobody", key]),
    );
    expect(await runsOf(database)).toBe(0);
  });

  test("an event begins a run that is in the audit log with who sent it, and the next one finds nothing to do", async () => {
    const { database, store, process } = await site(tableMigrations(2));
    const one = await process();
    expect(await one.wake()).toMatchObject({ target: "t", kind: "run" });
    expect(await tables(database)).toEqual(["t1", "t2"]);
    const [run] = await runs(database);
    expect(await runs(database)).toEqual([
      expect.objectContaining({ status: "succeeded", outcome: "applied", trigger: "event" }),
    ]);
    expect(
      (await recordsOf(one.target.driver)).map(({ event: kind, principal, run: id, trigger }) => [
        kind,
        principal.subject,
        id,
        trigger,
      ]),
    ).toEqual([
      ["run.begun", bySqs.subject, run?.id, "event"],
      ["run.ended", bySqs.subject, run?.id, "event"],
    ]);
    store.requests.length = 0;
    expect(await one.wake()).toEqual({ target: "t", kind: "up-to-date" });
    expect(store.requests).toEqual(["GET head.json"]);
    expect(await runsOf(database)).toBe(1);
    expect(
      one.log.filter(({ event: kind }) => kind === "event.received").map(({ fields }) => fields),
    ).toEqual([
      expect.objectContaining({ via: "sqs", provider: "s3", result: "run", target: "t", run: run?.id }),
      expect.objectContaining({ via: "sqs", provider: "s3", result: "up-to-date", target: "t", run: null }),
    ]);
  });

  test("of twenty uploads with duplicates, out of order, in three processes at once, each release has one run at the most and all is applied", async () => {
    const { database, store, process } = await site(tableMigrations(1));
    const processes = [await process(), await process(), await process()];
    const digests = new Set<string>();
    const waking: Promise<unknown>[] = [];
    for (let count = 2; count <= 20; count++) {
      digests.add(await store.publish(tableMigrations(count)));
      // Deliveries of this upload, and late ones of earlier uploads, which look no different.
      for (const one of processes)
        waking.push(one.wake(), ...(count % 4 === 0 ? [one.wake(), one.sweep()] : []));
    }
    await Promise.all(waking);
    // The last delivery of all finds it done.
    expect(await processes[0]?.wake()).toEqual({ target: "t", kind: "up-to-date" });
    const all = await runs(database);
    expect(all.filter(({ status }) => status !== "succeeded")).toEqual([]);
    expect(new Set(all.map((run) => run.idempotency_key)).size).toBe(all.length);
    expect(all.filter((run) => run.idempotency_key.includes(":after:"))).toEqual([]);
    expect(all.length).toBeLessThanOrEqual(20);
    expect(await tables(database)).toHaveLength(20);
  }, 240_000);

  test("of many deliveries of one upload at once, in several processes, one begins the run", async () => {
    const { database, process } = await site(tableMigrations(3));
    const processes = [await process(), await process(), await process(), await process()];
    const woken = await Promise.all(processes.flatMap((one) => Array.from({ length: 5 }, () => one.wake())));
    expect(await runsOf(database)).toBe(1);
    const [run] = await runs(database);
    const ids = woken.flatMap((each) => (each.kind === "run" ? [each.run.id] : []));
    expect(new Set(ids)).toEqual(new Set([run?.id]));
    expect(await tables(database)).toEqual(["t1", "t2", "t3"]);
  });
});

describe("a release whose run has ended", () => {
  test("by its own fault is left alone by every further event and sweep, until the next release", async () => {
    const divisor = "(to_regclass('public.mended') IS NOT NULL)::int";
    const broken = { path: "2_broken.up.sql", up: `SELECT 1/${divisor}; CREATE TABLE t2 (id int);` };
    const [first, , third] = tableMigrations(3);
    if (first === undefined || third === undefined) throw new TypeError("three were made");
    const { database, store, process } = await site([first, broken]);
    const one = await process();
    const two = await process();
    expect(await one.wake()).toMatchObject({ kind: "run" });
    for (const each of [one, two]) {
      expect(await each.wake()).toEqual({ target: "t", kind: "left-alone", code: "FAILED_BEFORE" });
      expect(await each.sweep()).toEqual({ target: "t", kind: "left-alone", code: "FAILED_BEFORE" });
    }
    expect(await runs(database)).toEqual([expect.objectContaining({ status: "failed", outcome: "failed" })]);
    await database.query("CREATE TABLE mended ()");
    expect(await one.wake()).toMatchObject({ kind: "left-alone" });
    await store.publish([first, broken, third]);
    expect(await two.wake()).toMatchObject({ kind: "run" });
    expect(await tables(database)).toEqual(["mended", "t1", "t2", "t3"]);
  });

  test("by a refusal has no second run either", async () => {
    const { database, process } = await site(tableMigrations(1));
    const one = await process();
    const { target } = one;
    // Somebody has applied more than the release knows of.
    const other = await signedStore(tableMigrations(2));
    const ahead = await other.open(database.url);
    await ahead.run({});
    expect(await one.wake()).toMatchObject({ kind: "run" });
    const refused = (await runs(database)).at(-1);
    expect(refused).toMatchObject({ status: "failed", outcome: "refused" });
    const again = await one.wake();
    expect(again).toMatchObject({ target: target.name, kind: "left-alone" });
    expect(await runsOf(database)).toBe(2);
  });

  test("by a refusal that somebody has mended since is applied, and until then has no second row", async () => {
    const { database, store, process } = await site(tableMigrations(1));
    const mistaken = processOf(await store.open(database.url, { environment: "staging" }));
    expect(await mistaken.wake()).toMatchObject({ kind: "run" });
    expect(await runs(database)).toEqual([expect.objectContaining({ outcome: "refused" })]);
    expect(await mistaken.wake()).toEqual({ target: "t", kind: "left-alone", code: "WRONG_ENVIRONMENT" });
    expect(await mistaken.sweep()).toEqual({ target: "t", kind: "left-alone", code: "WRONG_ENVIRONMENT" });
    expect(await runsOf(database)).toBe(1);
    const mended = await process();
    expect(await mended.sweep()).toMatchObject({ kind: "run" });
    expect((await runs(database)).map(({ outcome }) => outcome)).toEqual(["refused", "applied"]);
  });

  test("by unreachable infrastructure has one further run, however many ask at once, and is applied", async () => {
    const { database, process } = await site(tableMigrations(2));
    const processes = [await process(), await process(), await process()];
    const [first] = processes;
    if (first === undefined) throw new TypeError("three were made");
    // As a run whose bucket went away after the look.
    const gate = await accepted(first, database);
    await endAs(database, gate, "SOURCE_UNAVAILABLE");
    await Promise.all(processes.flatMap((one) => [one.wake(), one.wake(), one.sweep()]));
    const all = await runs(database);
    expect(all.map(({ status, outcome }) => [status, outcome])).toEqual([
      ["failed", "failed"],
      ["succeeded", "applied"],
    ]);
    expect(all[1]?.idempotency_key).toBe(`${all[0]?.idempotency_key}:after:${gate}`);
    expect(await tables(database)).toEqual(["t1", "t2"]);
  });

  test("by unreachable infrastructure again and again is tried once a wake, after the newest of its runs", async () => {
    const { database, process } = await site(tableMigrations(1));
    const one = await process();
    const ids = [await accepted(one, database)];
    for (let round = 0; round < 3; round++) {
      await endAs(database, ids.at(-1) ?? "", "LOCK_TIMEOUT");
      ids.push(await accepted(one, database));
    }
    const all = await runs(database);
    expect(all.map(({ id }) => id)).toEqual(ids);
    expect(all.slice(1).map((run) => run.idempotency_key.split(":after:")[1])).toEqual(ids.slice(0, -1));
  });

  test("is applied after all where its run met an older head, which the publisher had put back for a while", async () => {
    const { database, store, process } = await site(tableMigrations(1));
    const one = await process();
    await one.wake();
    const older = await readFile(store.head);
    await store.publish(tableMigrations(2));
    const newer = await readFile(store.head);
    const id = await accepted(one, database);
    await writeFile(store.head, older);
    await one.active.pickUp(one.target);
    await one.active.ended(id);
    expect((await runs(database)).at(-1)).toMatchObject({ id, status: "succeeded", outcome: "noop" });
    await writeFile(store.head, newer);
    expect(await one.wake()).toMatchObject({ kind: "run" });
    expect(await tables(database)).toEqual(["t1", "t2"]);
    expect(await one.sweep()).toEqual({ target: "t", kind: "up-to-date" });
  });

  test("by bytes that somebody has replaced is tried again after an hour, and then after ever longer times", async () => {
    const { database, store, process } = await site(tableMigrations(1));
    const one = await process();
    const later = (hours: number): Promise<unknown> =>
      database.query(
        `UPDATE lockkeeper.runs SET created_at = created_at - interval '${hours} h', ended_at = ended_at - interval '${hours} h'`,
      );
    const blobs = path.join(path.dirname(store.head), "blobs");
    const whole = new Map<string, Buffer>();
    for (const name of await readdir(blobs)) {
      const file = path.join(blobs, name);
      const bytes = await readFile(file);
      whole.set(file, bytes);
      await writeFile(file, Buffer.alloc(bytes.length, "-"));
    }
    expect(await one.wake()).toMatchObject({ kind: "run" });
    const leftAlone = { target: "t", kind: "left-alone", code: "BLOB_DIGEST" };
    expect(await one.wake()).toEqual(leftAlone);
    await later(1);
    expect(await one.wake()).toMatchObject({ kind: "run" });
    await later(2);
    expect(await one.sweep()).toMatchObject({ kind: "run" });
    for (const [file, bytes] of whole) await writeFile(file, bytes);
    await later(2);
    expect(await one.sweep()).toEqual(leftAlone);
    await later(2);
    expect(await one.sweep()).toMatchObject({ kind: "run" });
    expect(await tables(database)).toEqual(["t1"]);
    expect((await runs(database)).map(({ outcome }) => outcome)).toEqual([
      "refused",
      "refused",
      "refused",
      "applied",
    ]);
  });

  test("by unreachable infrastructure a hundred times is tried once more, however many runs others have asked for since", async () => {
    const { database, process } = await site(tableMigrations(1));
    const one = await process();
    let last = await accepted(one, database);
    await endAs(database, last, "LOCK_TIMEOUT");
    const copies = (count: number, change: string): Promise<unknown> =>
      database.query(`DO $$ DECLARE last text := '${last}'; next lockkeeper.runs; BEGIN
 FOR n IN 1..${count} LOOP
  SELECT * INTO next FROM lockkeeper.runs ORDER BY created_at DESC, id DESC LIMIT 1;
  next.id := regexp_replace(next.id, '.{6}$', lpad((${change === "" ? 500 : 0} + n)::text, 6, '0')); next.created_at := clock_timestamp(); ${change}
  INSERT INTO lockkeeper.runs SELECT next.*; last := next.id;
 END LOOP; END $$`);
    await copies(
      100,
      "next.idempotency_key := regexp_replace(next.idempotency_key, ':after:.*', '') || ':after:' || last;",
    );
    last = (await runs(database)).at(-1)?.id ?? "";
    await copies(300, "next.idempotency_key := NULL; next.labels := '{}'; next.id := next.id || n;");
    expect(await one.wake()).toMatchObject({ kind: "run" });
    expect((await runs(database)).at(-1)?.idempotency_key).toMatch(`:after:${last}`);
    expect(await tables(database)).toEqual(["t1"]);
  });

  test("is no refusal where its run was passed on before it began, and the run of the next one was faster", async () => {
    const { database, store, process } = await site(tableMigrations(1));
    const one = await process();
    const id = await accepted(one, database);
    // As an executor leaves it whose time was over while it waited for the lease.
    const digest = await one.target.releases.head(never);
    await database.query(
      "UPDATE lockkeeper.runs SET status = 'handing_over', release_digest = $2, release_version = 1 WHERE id = $1",
      [id, digest],
    );
    await store.publish(tableMigrations(2));
    expect(await one.wake()).toMatchObject({ kind: "run" });
    await one.active.pickUp(one.target);
    await one.active.ended(id);
    expect((await runs(database)).map(({ status, outcome }) => [status, outcome])).toEqual([
      ["succeeded", "noop"],
      ["succeeded", "applied"],
    ]);
  });

  test("because a person stopped it does not begin again by itself", async () => {
    const { database, process } = await site(tableMigrations(1));
    const one = await process();
    const id = await accepted(one, database);
    await one.target.driver.requestCancel(id, "not today", never);
    await endAs(database, id, "CANCELED");
    expect(await one.wake()).toEqual({ target: "t", kind: "left-alone", code: "CANCELED" });
    expect(await one.sweep()).toEqual({ target: "t", kind: "left-alone", code: "CANCELED" });
    expect(await runsOf(database)).toBe(1);
  });

  test("is applied anew where the database was put back to before it", async () => {
    const { database, process } = await site(tableMigrations(2));
    const one = await process();
    await one.wake();
    await database.query("DROP SCHEMA lockkeeper CASCADE; DROP TABLE t1, t2");
    expect(await one.wake()).toMatchObject({ kind: "run" });
    expect(await tables(database)).toEqual(["t1", "t2"]);
    expect(await runsOf(database)).toBe(1);
  });

  test("is applied anew where only what it did was taken back, with nobody's hold", async () => {
    const { database, process } = await site(tableMigrations(2));
    const one = await process();
    await one.wake();
    // What is left of a trust reset, a repair, or an older backup of the history alone.
    await database.query("UPDATE lockkeeper.streams SET completed = NULL");
    expect(await one.wake()).toMatchObject({ kind: "run" });
    expect((await runs(database)).map(({ status }) => status)).toEqual(["succeeded", "succeeded"]);
    expect(await one.wake()).toEqual({ target: "t", kind: "up-to-date" });
  });

  test("and was taken back by a person stays so, without a row for each event", async () => {
    const { database, store, process } = await site(tableMigrations(2));
    const one = await process();
    await one.wake();
    const person = await store.open(database.url);
    await person.run({ action: "rollback", goal: { kind: "steps", direction: "down", count: 1 } });
    expect(await one.wake()).toEqual({ target: "t", kind: "left-alone", code: "HELD" });
    expect(await one.sweep()).toEqual({ target: "t", kind: "left-alone", code: "HELD" });
    expect(await runsOf(database)).toBe(2);
    await store.publish(tableMigrations(3));
    expect(await one.wake()).toMatchObject({ kind: "run" });
    expect(await tables(database)).toEqual(["t1", "t2", "t3"]);
  });
});

function failure(code: RunnerErrorCode): RunnerError {
  return new RunnerError(code, "planted");
}

/** A run that the waker has had accepted, and that nobody executes: its process takes none on. */
async function accepted({ target }: Process, database: TestDatabase): Promise<string> {
  const before = await runsOf(database);
  const started: string[] = [];
  const idle = processOf(target, {
    handOver: { start: async (name) => void started.push(name) },
    beginsElsewhere: true,
  });
  expect(await idle.wake()).toMatchObject({ kind: "run" });
  expect([started, await runsOf(database)]).toEqual([["t"], before + 1]);
  return (await runs(database)).at(-1)?.id ?? "";
}

describe("a target that cannot be changed now", () => {
  test("is left alone while it is paused, by its configuration without asking anybody", async () => {
    const { database, store } = await site(tableMigrations(1));
    const opened = await store.open(database.url);
    store.requests.length = 0;
    const paused = processOf({ ...opened, isPaused: true });
    expect(await paused.wake()).toEqual({ target: "t", kind: "left-alone", code: "PAUSED" });
    expect(store.requests).toEqual([]);
    await opened.driver.setPaused("orders", true, never);
    const one = processOf(opened);
    expect(await one.wake()).toEqual({ target: "t", kind: "left-alone", code: "PAUSED" });
    expect(await runsOf(database)).toBe(0);
    await opened.driver.setPaused("orders", false, never);
    expect(await one.wake()).toMatchObject({ kind: "run" });
    expect(await tables(database)).toEqual(["t1"]);
  });

  test("asks for another delivery while its database is away", async () => {
    const { database, store } = await site(tableMigrations(1));
    const one = processOf(await store.open("postgres://nobody@127.0.0.1:1/none?connect_timeout=2"));
    expect(await one.wake()).toEqual({ target: "t", kind: "unreachable", code: "DATABASE_UNAVAILABLE" });
    expect(one.log.find(({ event: kind }) => kind === "event.received")).toMatchObject({
      level: "warn",
      fields: { result: "unreachable", code: "DATABASE_UNAVAILABLE" },
    });
    const two = processOf(await store.open(database.url));
    expect(await two.wake()).toMatchObject({ kind: "run" });
    expect(await tables(database)).toEqual(["t1"]);
  });

  test.for([
    ["SOURCE_UNAVAILABLE", "unreachable"],
    // mended by whoever runs it, and then another delivery finds it
    ["SOURCE_DENIED", "unreachable"],
    ["JSON_SYNTAX", "left-alone"],
    ["INTERNAL", "left-alone"],
  ] as const)("whose bucket answers %s is %s", async ([code, kind]) => {
    const { database, store } = await site(tableMigrations(1));
    const opened = await store.open(database.url);
    const releases = { ...opened.releases, head: () => Promise.reject(failure(code)) };
    const one = processOf({ ...opened, releases });
    expect(await one.wake()).toEqual({ target: "t", kind, code });
    expect(await runsOf(database)).toBe(0);
  });

  test("has its next release applied after the run of the one before, which is under way", async () => {
    const slow = { path: "1_slow.up.sql", up: `SELECT ${waitAtGate()}; CREATE TABLE t1 (id int);` };
    const { database, store, process } = await site([slow]);
    const gate = await closeGate(database);
    const one = await process();
    const two = await process();
    const first = one.wake();
    await gate.reached();
    await store.publish([slow, ...tableMigrations(2).slice(1)]);
    const second = two.wake();
    while ((await runsOf(database)) < 2) await pause(20);
    // The first event comes again, late.
    const third = one.wake();
    await gate.open();
    await Promise.all([first, second, third]);
    expect(await tables(database)).toEqual(["t1", "t2"]);
    expect((await runs(database)).map(({ status }) => status)).toEqual(["succeeded", "succeeded"]);
  });
});

describe("a sweep", () => {
  test("finds what no event told, also in a folder that nothing watches", async () => {
    const database = await createDatabase();
    const opened = await openTarget(database.url, tableMigrations(1));
    const one = processOf(opened);
    expect(await one.sweep()).toMatchObject({ kind: "run" });
    expect(await one.sweep()).toEqual({ target: "t", kind: "up-to-date" });
    await opened.publish(tableMigrations(2));
    expect(await one.sweep()).toMatchObject({ kind: "run" });
    expect(await tables(database)).toEqual(["t1", "t2"]);
    expect((await runs(database)).map(({ trigger, status }) => [trigger, status])).toEqual([
      ["converge", "succeeded"],
      ["converge", "succeeded"],
    ]);
  });

  test("has another execution started for a run that nobody works on, where runs begin elsewhere", async () => {
    const { database, process } = await site(tableMigrations(1));
    const one = await process();
    const id = await accepted(one, database);
    const started: string[] = [];
    const host = await process({
      handOver: { start: async (name) => void started.push(name) },
      beginsElsewhere: true,
    });
    expect(await host.sweep()).toMatchObject({ kind: "run", run: { id, status: "queued" } });
    expect(started).toEqual(["t"]);
    expect(await runsOf(database)).toBe(1);
    // However many runs of people, who work by themselves, there have been since.
    const columns = "target, stream, action, attempt, trigger, caller, labels";
    await database.query(
      `INSERT INTO lockkeeper.runs (id, status, ended_at, ${columns}) SELECT 'since.' || n, 'succeeded', clock_timestamp(), ${columns}
 FROM lockkeeper.runs, generate_series(1, 30) n`,
    );
    await host.sweep();
    expect(started).toEqual(["t", "t"]);
    // What was started picks it up.
    const execution = await process();
    await execution.active.pickUp(execution.target);
    await execution.active.ended(id);
    expect(await tables(database)).toEqual(["t1"]);
    started.length = 0;
    expect(await host.sweep()).toEqual({ target: "t", kind: "up-to-date" });
    expect(started).toEqual([]);
  });
});
