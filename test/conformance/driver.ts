import { expect, onTestFinished, test } from "vitest";
import type { Driver, LeasedSession, LeaseHolder } from "../../src/driver/driver.ts";
import type { DriverOptions } from "../../src/driver/open.ts";
import { RunnerError } from "../../src/error.ts";
import { newRunId } from "../../src/run/request.ts";
import type { MigrationText } from "../support/plain-release.ts";
import {
  declaration,
  leaseOptions,
  never,
  newRun,
  settings,
  shortTimes,
  transactionSteps,
} from "../support/steps.ts";

/** A fresh database that has never seen us, and how a driver for it is opened. */
export interface DriverUnderTest {
  /** another driver on the same database; closed by the suite */
  open(options?: DriverOptions): Promise<Driver>;
  /** migration `n`: its effect is `n` in {@link effects}, and it fails when it is there already */
  adds(n: number): MigrationText;
  /** migration `n` has the same effect and then fails */
  fails(n: number): MigrationText;
  /** what the bodies have done, in ascending order */
  effects(): Promise<readonly number[]>;
}

/** The promises of `Driver` and `LeasedSession`; every implementation keeps all of them. */
export function driverSuite(fresh: () => Promise<DriverUnderTest>): void {
  const start = async (options?: DriverOptions) => {
    const under = await fresh();
    const open = async (own = options) => {
      const driver = await under.open(own);
      onTestFinished(() => driver.close());
      return driver;
    };
    const driver = await open();
    const apply = async (session: LeasedSession, numbers: readonly number[]) =>
      session.applyInTransactions(
        await transactionSteps(firstTo(under, Math.max(...numbers))).then((all) =>
          all.slice((numbers[0] ?? 1) - 1),
        ),
        settings,
      );
    return { ...under, open, driver, apply };
  };

  test("1. a fresh database has an empty state, an empty history and no runs, and looking creates nothing", async () => {
    const { driver } = await start();
    const before = Date.now();
    const state = await driver.state("orders", never);
    expect(state).toMatchObject({
      exists: false,
      environment: null,
      highWaterMark: null,
      completed: null,
      unfinished: null,
      position: { length: 0, chain: null, version: null },
      held: null,
      paused: false,
      lease: null,
    });
    expect(Math.abs(state.now.getTime() - before)).toBeLessThan(60_000);
    expect(await driver.history("orders", {}, never)).toEqual([]);
    expect(await driver.runs({ target: "t", limit: 10 }, never)).toEqual([]);
    expect(await driver.run("t.x", never)).toBeUndefined();
    expect(await driver.requestCancel("t.x", "why", never)).toBe(false);
    await driver.updateRun("t.x", { status: "failed" }, never);
    expect((await driver.state("orders", never)).exists).toBe(false);
  });

  test("2. the first lease creates what is needed, is shown while it is held and gone afterwards", async () => {
    const { driver } = await start();
    const options = leaseOptions({ holder: "host/7" });
    await driver.withLease(options, async (session) => {
      expect(session.token).toBe(1);
      const { lease, exists, targetId, now } = await driver.state("orders", never);
      expect({ exists, targetId }).toEqual({ exists: true, targetId: "t" });
      expect(lease).toMatchObject({ holder: "host/7", runId: options.run.id, token: 1 });
      expect(lease?.expiresAt.getTime()).toBeGreaterThan(now.getTime());
      expect(await driver.run(options.run.id, never)).toMatchObject({
        status: "running",
        stream: "orders",
        target: "t",
        endedAt: null,
      });
    });
    expect((await driver.state("orders", never)).lease).toBeNull();
  });

  test("3. the token grows with every lease", async () => {
    const { driver } = await start();
    const tokens: number[] = [];
    for (let n = 0; n < 3; n += 1)
      await driver.withLease(leaseOptions(), async (session) => void tokens.push(session.token));
    expect(tokens).toEqual([1, 2, 3]);
  });

  test("4. the lease is given back when the work throws, and the error is the work's own", async () => {
    const { driver } = await start();
    const mine = new TypeError("a defect");
    await expect(driver.withLease(leaseOptions(), () => Promise.reject(mine))).rejects.toMatchObject({
      code: "INTERNAL",
      cause: mine,
    });
    expect((await driver.state("orders", never)).lease).toBeNull();
  });

  test("5. a second holder gets LEASE_HELD with the first one's name, and changes nothing", async () => {
    const { driver, open } = await start();
    const other = await open();
    const first = leaseOptions({ holder: "first/1" });
    await driver.withLease(first, async () => {
      const second = leaseOptions({ holder: "second/2" });
      const work = other.withLease(second, () => Promise.resolve("got it"));
      await expect(work).rejects.toMatchObject({
        code: "LEASE_HELD",
        fields: { holder: "first/1", run: first.run.id },
      });
      expect((await other.state("orders", never)).lease).toMatchObject({ holder: "first/1", token: 1 });
      expect(await other.run(second.run.id, never)).toBeUndefined();
    });
  });

  test("6. a second holder waits, is told for whom, and goes on when the first has done", async () => {
    const { driver, open } = await start();
    const other = await open();
    const waited = Promise.withResolvers<LeaseHolder>();
    const order: string[] = [];
    const holding = driver.withLease(leaseOptions({ holder: "first/1" }), async () => {
      await waited.promise;
      order.push("first done");
    });
    const waiting = untilHeld(driver).then(() =>
      other.withLease(leaseOptions({ waitMs: 20_000, onWaiting: waited.resolve }), async (session) => {
        order.push("second began");
        return session.token;
      }),
    );
    const [, token] = await Promise.all([holding, waiting]);
    expect((await waited.promise).holder).toBe("first/1");
    expect({ order, token }).toEqual({ order: ["first done", "second began"], token: 2 });
  });

  test("7. two streams of one database do not wait for each other", async () => {
    const { driver, open } = await start();
    const other = await open();
    await driver.withLease(leaseOptions(), () =>
      other.withLease(leaseOptions({ stream: "billing" }), async (session) => expect(session.token).toBe(1)),
    );
  });

  test("8. heartbeats keep a lease alive beyond its length", async () => {
    const { driver } = await start({ times: shortTimes });
    await driver.withLease(leaseOptions(), async (session) => {
      const { lease } = await driver.state("orders", never);
      const firstExpiry = lease?.expiresAt ?? new Date(0);
      await until(async () => (await driver.state("orders", never)).now > firstExpiry);
      const later = await driver.state("orders", never);
      expect(later.lease?.token).toBe(1);
      expect(later.lease?.expiresAt.getTime()).toBeGreaterThan(later.now.getTime());
      expect(session.signal.aborted).toBe(false);
    });
  });

  test("9. a lease whose holder is silent is taken over, with a greater token", async () => {
    const { driver, open } = await start({ times: silentTimes });
    const other = await open({ times: shortTimes });
    await driver.withLease(leaseOptions(), async (stale) => {
      const token = await other.withLease(leaseOptions({ waitMs: 10_000 }), async (session) => session.token);
      expect(token).toBeGreaterThan(stale.token);
    });
  });

  test("10. whatever a stale session writes throws LEASE_LOST and changes nothing", async () => {
    const { driver, open, apply, effects, adds } = await start({ times: silentTimes });
    const other = await open({ times: shortTimes });
    const mine = leaseOptions();
    await driver
      .withLease(mine, async (stale) => {
        expect((await apply(stale, [1])).done).toHaveLength(1);
        await other.withLease(leaseOptions({ waitMs: 10_000 }), () => Promise.resolve());
        const before = await driver.state("orders", never);
        const acts: Record<string, () => Promise<unknown>> = {
          begin: () =>
            stale.begin({
              highWaterMark: { epoch: 1, version: 9, digest: "d" },
              releaseDigest: "d",
              fromVersion: null,
              toVersion: "2",
              steps: 1,
            }),
          one: () => apply(stale, [2]),
          many: () => apply(stale, [2, 3, 4]),
          declare: async () => stale.declare([await declaration(adds(2))]),
          finish: () => stale.finish({ status: "succeeded", outcome: "applied", completed: "d" }),
        };
        for (const [name, act] of Object.entries(acts))
          await expect(act(), name).rejects.toMatchObject({ code: "LEASE_LOST" });
        const after = await driver.state("orders", never);
        expect({ ...after, now: null }).toEqual({ ...before, now: null });
        expect(await effects()).toEqual([1]);
        expect(await driver.history("orders", {}, never)).toHaveLength(1);
      })
      .catch((error: unknown) => expect(error).toBeUndefined());
  });

  test("11. a stale holder's end does not give back what another holds", async () => {
    const { driver, open } = await start({ times: silentTimes });
    const other = await open({ times: shortTimes });
    const taken = Promise.withResolvers<void>();
    const gone = Promise.withResolvers<void>();
    const stale = driver.withLease(leaseOptions(), () => taken.promise);
    const taker = untilHeld(driver).then(() =>
      other.withLease(leaseOptions({ waitMs: 10_000, holder: "taker/2" }), async () => {
        taken.resolve();
        await stale;
        expect((await driver.state("orders", never)).lease?.holder).toBe("taker/2");
        gone.resolve();
      }),
    );
    await Promise.all([taker, gone.promise]);
  });

  test("12. the session's signal aborts with LEASE_LOST when another has taken over", async () => {
    const { driver, open } = await start({
      times: { ...shortTimes, leaseMs: 400, heartbeatMs: 1_500, marginMs: -60_000 },
    });
    const other = await open({ times: shortTimes });
    await driver
      .withLease(leaseOptions(), async (stale) => {
        await other.withLease(leaseOptions({ waitMs: 10_000 }), () => Promise.resolve());
        await aborted(stale.signal);
        expect(stale.signal.reason).toMatchObject({ code: "LEASE_LOST" });
      })
      .catch((error: unknown) => expect(error).toBeUndefined());
  });

  test("13. the session's signal aborts when the database does not confirm the lease in time", async () => {
    const { driver } = await start({
      times: { leaseMs: 300, heartbeatMs: 60_000, marginMs: 100, cancelPollMs: 20 },
    });
    await driver.withLease(leaseOptions(), async (session) => {
      await aborted(session.signal);
      expect(session.signal.reason).toMatchObject({ code: "LEASE_LOST" });
      await expect(session.state()).rejects.toMatchObject({ code: "LEASE_LOST" });
    });
  });

  test("14. bodies are applied in order, each with its entry, and the position is the last one's", async () => {
    const { driver, apply, effects } = await start();
    const options = leaseOptions();
    await driver.withLease(options, async (session) => {
      const { done, failure } = await apply(session, [1, 2, 3]);
      expect(failure).toBeNull();
      expect(done).toHaveLength(3);
      for (const { durationMs } of done) expect(durationMs).toBeGreaterThanOrEqual(0);
    });
    const entries = await driver.history("orders", {}, never);
    expect(
      entries.map(({ seq, status, direction, origin, token }) => ({ seq, status, direction, origin, token })),
    ).toEqual([1, 2, 3].map((seq) => ({ seq, status: "done", direction: "up", origin: "run", token: 1 })));
    expect(
      entries.every(
        ({ runId, appliedBy, error, note }) =>
          runId === options.run.id && appliedBy === "tester" && error === null && note === null,
      ),
    ).toBe(true);
    expect(entries.map(({ id }) => id)).toEqual(entries.map(({ id }) => id).toSorted((a, b) => a - b));
    const { position, unfinished } = await driver.state("orders", never);
    expect(position).toEqual({ length: 3, chain: entries[2]?.chain, version: entries[2]?.version });
    expect(unfinished).toBeNull();
    expect(await effects()).toEqual([1, 2, 3]);
  });

  test("15. the history can be asked for what is new, what is one run's, and what is last", async () => {
    const { driver, apply } = await start();
    const [first, second] = [leaseOptions(), leaseOptions()];
    await driver.withLease(first, (session) => apply(session, [1, 2]));
    await driver.withLease(second, (session) => apply(session, [3]));
    const all = await driver.history("orders", {}, never);
    const seqs = async (query: Parameters<Driver["history"]>[1]) =>
      (await driver.history("orders", query, never)).map(({ seq }) => seq);
    expect(await seqs({ afterId: all[0]?.id ?? 0 })).toEqual([2, 3]);
    expect(await seqs({ runId: first.run.id })).toEqual([1, 2]);
    expect(await seqs({ last: 2 })).toEqual([2, 3]);
    expect(await driver.history("billing", {}, never)).toEqual([]);
  });

  test("16. when a body in the middle fails those before it stay, it leaves nothing, and it is the one recorded as failed", async () => {
    const { driver, effects, adds, fails } = await start();
    await driver.withLease(leaseOptions(), async (session) => {
      const steps = await transactionSteps([adds(1), adds(2), fails(3), adds(4)]);
      const { done, failure } = await session.applyInTransactions(steps, settings);
      expect(done).toHaveLength(2);
      expect(failure).toMatchObject({
        code: "MIGRATION_FAILED",
        fields: { migration: fails(3).path, direction: "up" },
      });
    });
    expect(await effects()).toEqual([1, 2]);
    const { position, unfinished } = await driver.state("orders", never);
    expect(position.length).toBe(2);
    expect(unfinished).toMatchObject({ seq: 3, status: "failed", error: { code: "MIGRATION_FAILED" } });
    expect((await driver.history("orders", {}, never)).map(({ seq, status }) => [seq, status])).toEqual([
      [1, "done"],
      [2, "done"],
      [3, "failed"],
    ]);
  });

  test("17. a failed migration's next attempt succeeds and is the newest entry", async () => {
    const { driver, adds, fails, effects } = await start();
    await driver.withLease(leaseOptions(), async (session) => {
      await session.applyInTransactions(await transactionSteps([fails(1)]), settings);
      const { failure } = await session.applyInTransactions(await transactionSteps([adds(1)]), settings);
      expect(failure).toBeNull();
    });
    const { unfinished, position } = await driver.state("orders", never);
    expect({ unfinished, length: position.length }).toEqual({ unfinished: null, length: 1 });
    expect(await effects()).toEqual([1]);
  });

  test("18. what a run is about to do and has done is in its row and the stream's", async () => {
    const { driver, apply } = await start();
    const options = leaseOptions();
    const highWaterMark = { epoch: 1, version: 4, digest: "sha256:d" };
    await driver.withLease(options, async (session) => {
      await session.begin({
        highWaterMark,
        releaseDigest: "sha256:d",
        fromVersion: null,
        toVersion: "2",
        steps: 2,
      });
      expect(await session.state()).toMatchObject({ highWaterMark, environment: "default", completed: null });
      await apply(session, [1]);
      expect(await driver.run(options.run.id, never)).toMatchObject({
        status: "running",
        progress: { applied: 1, total: 2 },
        releaseDigest: "sha256:d",
        releaseVersion: 4,
        toVersion: "2",
      });
      await apply(session, [2]);
      await session.finish({ status: "succeeded", outcome: "applied", completed: "sha256:d" });
    });
    expect(await driver.state("orders", never)).toMatchObject({
      completed: "sha256:d",
      highWaterMark,
      held: null,
    });
    const run = await driver.run(options.run.id, never);
    expect(run).toMatchObject({
      status: "succeeded",
      outcome: "applied",
      progress: { applied: 2, total: 2, current: null },
      error: null,
    });
    expect(run?.endedAt?.getTime()).toBeGreaterThanOrEqual(run?.startedAt?.getTime() ?? Infinity);
  });

  test("19. begin forgets what was completed, and a hold is set and cleared", async () => {
    const { driver } = await start();
    const beginning = {
      highWaterMark: null,
      releaseDigest: "sha256:d",
      fromVersion: null,
      toVersion: null,
      steps: 0,
    };
    const held = { runId: "t.x", version: "1", reason: "rolled back" };
    await driver.withLease(leaseOptions(), (session) =>
      session.finish({ status: "succeeded", completed: "sha256:d", held }),
    );
    expect(await driver.state("orders", never)).toMatchObject({ completed: "sha256:d", held });
    await driver.withLease(leaseOptions(), (session) => session.begin(beginning));
    expect(await driver.state("orders", never)).toMatchObject({
      completed: null,
      held,
      highWaterMark: null,
      environment: null,
    });
    await driver.withLease(leaseOptions(), (session) => session.finish({ status: "succeeded", held: null }));
    expect((await driver.state("orders", never)).held).toBeNull();
  });

  test("20. a declared migration counts as applied and ran nothing", async () => {
    const { driver, adds, effects } = await start();
    await driver.withLease(leaseOptions(), async (session) => {
      await session.declare([await declaration(adds(1), { note: "it's there" })]);
      await session.declare([]);
    });
    expect(await driver.history("orders", {}, never)).toMatchObject([
      { origin: "baseline", note: "it's there", status: "done" },
    ]);
    expect((await driver.state("orders", never)).position.length).toBe(1);
    expect(await effects()).toEqual([]);
  });

  test("21. an accepted run is there at once, as queued", async () => {
    const { driver } = await start();
    const run = newRun({
      labels: { job: "17" },
      caller: { issuer: "https://issuer", subject: "o'brien", rule: "r" },
      trigger: "http",
    });
    expect(await driver.acceptRun(run, never)).toMatchObject({
      kind: "accepted",
      state: { position: { length: 0 } },
    });
    expect(await driver.run(run.id, never)).toMatchObject({
      status: "queued",
      outcome: null,
      labels: { job: "17" },
      caller: run.caller,
      trigger: "http",
      cancelRequested: false,
      startedAt: null,
    });
  });

  test("22. the same idempotency key gives the first run for the same body, and a mismatch for another", async () => {
    const { driver } = await start();
    const first = newRun({ idempotencyKey: "k", bodyDigest: "b1" });
    expect((await driver.acceptRun(first, never)).kind).toBe("accepted");
    const again = newRun({ idempotencyKey: "k", bodyDigest: "b1" });
    expect(await driver.acceptRun(again, never)).toMatchObject({ kind: "existing", run: { id: first.id } });
    expect(await driver.run(again.id, never)).toBeUndefined();
    expect(await driver.acceptRun(newRun({ idempotencyKey: "k", bodyDigest: "b2" }), never)).toEqual({
      kind: "idempotency-mismatch",
    });
  });

  test("23. a single-use id is good for one body: the same body gives the first run, another is a replay", async () => {
    const { driver } = await start();
    const singleUse = { issuer: "https://issuer", jti: "j", expiresAt: new Date(Date.now() + 60_000) };
    const first = newRun({ singleUse, bodyDigest: "b1" });
    expect((await driver.acceptRun(first, never)).kind).toBe("accepted");
    expect(await driver.acceptRun(newRun({ singleUse, bodyDigest: "b1" }), never)).toMatchObject({
      kind: "existing",
      run: { id: first.id },
    });
    expect(await driver.acceptRun(newRun({ singleUse, bodyDigest: "b2" }), never)).toEqual({
      kind: "replay",
    });
    expect(
      await driver.acceptRun(
        newRun({ singleUse: { ...singleUse, issuer: "https://other" }, bodyDigest: "b2" }),
        never,
      ),
    ).toMatchObject({ kind: "accepted" });
  });

  test("24. an honest retry with a new token and the same key is the first run, however often the token is shown", async () => {
    const { driver } = await start();
    const singleUse = (jti: string) => ({
      issuer: "https://issuer",
      jti,
      expiresAt: new Date(Date.now() + 60_000),
    });
    const first = newRun({ idempotencyKey: "k", bodyDigest: "b1", singleUse: singleUse("j1") });
    await driver.acceptRun(first, never);
    for (const idempotencyKey of ["k", "k", null]) {
      const retry = newRun({ idempotencyKey, bodyDigest: "b1", singleUse: singleUse("j2") });
      expect(await driver.acceptRun(retry, never)).toMatchObject({ kind: "existing", run: { id: first.id } });
    }
  });

  test("25. of many equal requests at once one is accepted and the others are given its run", async () => {
    const { driver, open } = await start();
    const others = [driver, await open(), await open()];
    const requests = Array.from({ length: 9 }, () => newRun({ idempotencyKey: "k", bodyDigest: "b" }));
    const answers = await Promise.all(
      requests.map((run, index) => (others[index % 3] ?? driver).acceptRun(run, never)),
    );
    const accepted = answers.flatMap(({ kind }, index) => (kind === "accepted" ? [requests[index]?.id] : []));
    expect(accepted).toHaveLength(1);
    const existing = answers.flatMap((answer) => (answer.kind === "existing" ? [answer.run.id] : []));
    expect(existing).toEqual(Array.from({ length: 8 }, () => accepted[0]));
  });

  test("26. an accepted run becomes the running one when it gets the lease", async () => {
    const { driver } = await start();
    const run = newRun();
    await driver.acceptRun(run, never);
    await driver.withLease(leaseOptions({ run }), async () =>
      expect((await driver.run(run.id, never))?.status).toBe("running"),
    );
  });

  test("27. a run's row changes until it has ended, and no longer", async () => {
    const { driver } = await start();
    const run = newRun();
    await driver.acceptRun(run, never);
    await driver.updateRun(run.id, { status: "waiting_lock" }, never);
    expect((await driver.run(run.id, never))?.status).toBe("waiting_lock");
    const error = {
      code: "SOURCE_DENIED",
      message: "it's denied",
      hint: null,
      fields: { key: "a\\b" },
    } as const;
    await driver.updateRun(run.id, { status: "failed", outcome: "refused", error }, never);
    await driver.updateRun(run.id, { status: "running" }, never);
    const ended = await driver.run(run.id, never);
    expect(ended).toMatchObject({ status: "failed", outcome: "refused", error });
    expect(ended?.endedAt).toBeInstanceOf(Date);
  });

  test("28. the holder hears of a cancel, with its reason", async () => {
    const { driver, open } = await start({ times: shortTimes });
    const other = await open();
    const options = leaseOptions();
    await driver
      .withLease(options, async (session) => {
        expect(await other.requestCancel(options.run.id, "not today", never)).toBe(true);
        await aborted(session.signal);
        expect(session.signal.reason).toMatchObject({
          code: "CANCELED",
          message: expect.stringContaining("not today") as string,
        });
        expect(await other.run(options.run.id, never)).toMatchObject({
          cancelRequested: true,
          status: "canceling",
        });
      })
      .catch((error: unknown) => expect(error).toBeUndefined());
    await driver.updateRun(options.run.id, { status: "canceled" }, never);
    expect(await other.requestCancel(options.run.id, "again", never)).toBe(false);
  });

  test("29. who waits for the lease hears of a cancel as well", async () => {
    const { driver, open } = await start({ times: shortTimes });
    const other = await open();
    await driver.withLease(leaseOptions(), async () => {
      const run = newRun();
      await other.acceptRun(run, never);
      const told = Promise.withResolvers<void>();
      const waiting = other.withLease(
        leaseOptions({ run, waitMs: 20_000, onWaiting: () => told.resolve() }),
        () => Promise.resolve(),
      );
      const canceled = told.promise.then(() => driver.requestCancel(run.id, "not today", never));
      await expect(waiting).rejects.toMatchObject({ code: "CANCELED" });
      expect(await canceled).toBe(true);
    });
  });

  test("30. who waits for the lease goes when its own signal fires, or when it is told that it need not", async () => {
    const { driver } = await start();
    await driver.withLease(leaseOptions(), async () => {
      const stop = new AbortController();
      const mine = new RunnerError("DEADLINE", "enough");
      const waiting = driver.withLease(
        leaseOptions({ waitMs: 20_000, signal: stop.signal, onWaiting: () => stop.abort(mine) }),
        () => Promise.resolve(),
      );
      await expect(waiting).rejects.toBe(mine);
      const noMore = driver.withLease(
        leaseOptions({
          waitMs: 20_000,
          assertStillWanted: (state) => {
            throw new RunnerError("HELD", `seen ${state.lease?.token}`);
          },
        }),
        () => Promise.resolve(),
      );
      await expect(noMore).rejects.toMatchObject({ code: "HELD", message: "seen 1" });
    });
  });

  test("31. unlock takes the lease from a dead holder, whose run has then failed, and from nobody else", async () => {
    const { driver, open } = await start({ times: silentTimes });
    const other = await open();
    const options = leaseOptions();
    await expect(other.unlock("orders", "t.x", "why", never)).rejects.toMatchObject({ code: "UNKNOWN_RUN" });
    await driver
      .withLease(options, async (stale) => {
        await expect(other.unlock("orders", "t.x", "why", never)).rejects.toMatchObject({
          code: "UNKNOWN_RUN",
        });
        await expect(other.unlock("orders", options.run.id, "why", never)).rejects.toMatchObject({
          code: "LEASE_ALIVE",
        });
        await until(async () => {
          const { lease, now } = await other.state("orders", never);
          return lease !== null && lease.expiresAt < now;
        });
        const { token } = await other.unlock("orders", options.run.id, "it is dead", never);
        expect(token).toBeGreaterThan(stale.token);
        expect((await other.state("orders", never)).lease).toBeNull();
        expect(await other.run(options.run.id, never)).toMatchObject({
          status: "failed",
          error: { message: expect.stringContaining("it is dead") as string },
        });
        await expect(stale.finish({ status: "succeeded" })).rejects.toMatchObject({ code: "LEASE_LOST" });
        await expect(other.unlock("orders", options.run.id, "again", never)).rejects.toMatchObject({
          code: "UNKNOWN_RUN",
        });
      })
      .catch((error: unknown) => expect(error).toBeUndefined());
  });

  test("32. runs are listed newest first, by status and time, page by page", async () => {
    const { driver } = await start();
    const ids = Array.from({ length: 5 }, (_, n) => `t.01ARZ3NDEKTSV4RRFFQ69G5FA${n}`);
    for (const id of ids) await driver.acceptRun(newRun({ id }), never);
    await driver.acceptRun(newRun({ id: newRunId("u"), target: "u" }), never);
    await driver.updateRun(ids[1] ?? "", { status: "succeeded", outcome: "applied" }, never);
    const list = async (query: Omit<Parameters<Driver["runs"]>[0], "target">) =>
      (await driver.runs({ target: "t", ...query }, never)).map(({ id }) => id);
    expect(await list({ limit: 10 })).toEqual(ids.toReversed());
    expect(await list({ limit: 2 })).toEqual([ids[4], ids[3]]);
    expect(await list({ limit: 2, beforeId: ids[3] ?? "" })).toEqual([ids[2], ids[1]]);
    expect(await list({ limit: 10, status: "succeeded" })).toEqual([ids[1]]);
    expect(await list({ limit: 10, since: new Date(Date.now() + 3_600_000) })).toEqual([]);
    expect(await list({ limit: 10, since: new Date(Date.now() - 3_600_000) })).toHaveLength(5);
  });

  test("33. the run of a holder that died is ended by the next one", async () => {
    const { driver, open } = await start({ times: silentTimes });
    const other = await open({ times: shortTimes });
    const options = leaseOptions();
    await driver.withLease(options, async () => {
      const next = leaseOptions({ waitMs: 10_000 });
      await other.withLease(next, async () => {
        expect(await other.run(options.run.id, never)).toMatchObject({
          status: "failed",
          outcome: "failed",
          error: { code: "LEASE_LOST" },
        });
        expect((await other.run(next.run.id, never))?.status).toBe("running");
      });
    });
  });

  test("34. many drivers at once on a fresh database: each of them gets the lease once, none at the same time", async () => {
    const { open } = await start();
    let inside = 0;
    const tokens = await Promise.all(
      Array.from({ length: 8 }, async () => {
        const driver = await open();
        return driver.withLease(leaseOptions({ waitMs: 25_000 }), async (session) => {
          inside += 1;
          const together = inside;
          await session.state();
          inside -= 1;
          expect(together).toBe(1);
          return session.token;
        });
      }),
    );
    expect(tokens.toSorted((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });
}

/** A holder that sends no heartbeat and does not look at its own clock: what a frozen process is to the database. */
const silentTimes = { leaseMs: 400, heartbeatMs: 3_600_000, marginMs: -3_600_000, cancelPollMs: 3_600_000 };

function firstTo(under: Pick<DriverUnderTest, "adds">, last: number): readonly MigrationText[] {
  return Array.from({ length: last }, (_, index) => under.adds(index + 1));
}

function untilHeld(driver: Driver): Promise<void> {
  return until(async () => (await driver.state("orders", never)).lease !== null);
}

/** Asks again and again; the test's own time-out is the bound. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
