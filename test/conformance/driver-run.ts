import { expect, test } from "vitest";
import type { Driver } from "../../src/driver/driver.ts";
import type { NewRun, NoopRun } from "../../src/driver/runs.ts";
import { firstLink, linkOf } from "../../src/history/audit.ts";
import { newRunId } from "../../src/run/request.ts";
import { leaseOptions, never, newRun, shortTimes } from "../support/steps.ts";
import { aborted, silentTimes, until, type Start } from "./driver-start.ts";

const pickUp = { target: "t", own: [], limit: 10 };
const beginning = {
  highWaterMark: null,
  releaseDigest: "sha256:d",
  fromVersion: null,
  toVersion: null,
  steps: 0,
};

/** A run that found its database where it should be. */
function noop(run: NewRun): NoopRun {
  const records = [`{"allowed":"${run.id}"}`, `{"ended":"${run.id}"}`];
  return { run, releaseDigest: "sha256:d", version: "7", records };
}

/** Runs that are asked for, listed and canceled. */
export function runSuite(start: Start): void {
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

  test("50. a single-use id that was spent on something else is good for that alone, also for a run of its own", async () => {
    const { driver } = await start();
    const token = (jti: string) => ({
      issuer: "https://issuer",
      jti,
      expiresAt: new Date(Date.now() + 60_000),
    });
    const run = newRun({ singleUse: token("j1"), bodyDigest: "b1" });
    const other = newRun({ singleUse: token("j2"), bodyDigest: "b2" });
    for (const one of [run, other]) await driver.acceptRun(one, never);
    const spend = (jti: string, bodyDigest: string) =>
      driver.spendUse({ ...token(jti), bodyDigest, runId: run.id }, never);
    expect(await spend("j1", "cancel")).toBe(false);
    expect(await spend("j1", "b1")).toBe(true);
    expect(await spend("j2", "cancel")).toBe(false);
    expect(await Promise.all([1, 2, 3, 4].map(() => spend("j3", "cancel")))).toEqual([
      true,
      true,
      true,
      true,
    ]);
    expect(await spend("j3", "unlock")).toBe(false);
    expect(await driver.acceptRun(newRun({ singleUse: token("j3"), bodyDigest: "b3" }), never)).toEqual({
      kind: "replay",
    });
  });

  test("52. a run without anything to do is recorded with its end and its records of the audit log, of many at once each", async () => {
    const { driver, open } = await start();
    const drivers = [driver, await open(), await open()];
    const runs = Array.from({ length: 12 }, () => newRun({ bodyDigest: "b" }));
    const answers = await Promise.all(
      runs.map((run, index) => (drivers[index % 3] ?? driver).acceptNoop(noop(run), never)),
    );
    const written = await driver.audit.read({ after: 0, limit: 100 }, never);
    if (answers.every((answer) => answer === undefined)) {
      // not in one transaction here: then not at all
      expect([written, await driver.run(runs[0]?.id ?? "", never)]).toEqual([[], undefined]);
      return;
    }
    expect(written.map(({ seq }) => seq)).toEqual(written.map((_, index) => index + 1));
    for (const [index, { previous, sha256, text }] of written.entries())
      expect([previous, sha256]).toEqual([written[index - 1]?.sha256 ?? firstLink, linkOf(previous, text)]);
    for (const [index, run] of runs.entries()) {
      const answer = answers[index];
      const ended = { status: "succeeded", outcome: "noop", releaseDigest: "sha256:d", toVersion: "7" };
      expect(answer).toMatchObject({ kind: "accepted", run: { id: run.id, ...ended } });
      expect(await driver.run(run.id, never)).toEqual(answer?.kind === "accepted" ? answer.run : undefined);
      const own = written.filter(({ text }) => text.includes(run.id));
      expect(own.map(({ text }) => text)).toEqual(noop(run).records);
      expect(answer?.kind === "accepted" ? answer.entries : []).toEqual(own);
    }
    expect(await driver.pickUpRuns(pickUp, never)).toEqual([]);
  });

  test("53. a run without anything to do whose key or token was used before is that run or is refused, and adds nothing", async () => {
    const { driver } = await start();
    const singleUse = { issuer: "https://issuer", jti: "j", expiresAt: new Date(Date.now() + 60_000) };
    const first = newRun({ singleUse, idempotencyKey: "k", bodyDigest: "b1" });
    const began = await driver.acceptNoop(noop(first), never);
    if (began === undefined) return;
    expect(began.kind).toBe("accepted");
    const others = [
      newRun({ singleUse, bodyDigest: "b1" }),
      newRun({ singleUse, bodyDigest: "b2" }),
      newRun({ idempotencyKey: "k", bodyDigest: "b1" }),
      newRun({ idempotencyKey: "k", bodyDigest: "b2" }),
    ];
    const answers = await Promise.all(others.map((run) => driver.acceptNoop(noop(run), never)));
    expect(answers.map((answer) => answer?.kind)).toEqual([
      "existing",
      "replay",
      "existing",
      "idempotency-mismatch",
    ]);
    expect(answers[0]).toMatchObject({ run: { id: first.id } });
    expect(await driver.audit.read({ after: 0, limit: 100 }, never)).toHaveLength(2);
    for (const run of others) expect(await driver.run(run.id, never)).toBeUndefined();
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
    await driver.withLease(leaseOptions({ run }), async () => {
      expect((await driver.run(run.id, never))?.status).toBe("running");
      // Word that it waits may arrive late.
      await driver.updateRun(run.id, { status: "waiting_lock" }, never);
      expect((await driver.run(run.id, never))?.status).toBe("running");
    });
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

  test("35. every lease is another attempt at its run, which remembers where the one before began", async () => {
    const { driver } = await start();
    const run = newRun({ order: { goal: 1 } });
    await driver.acceptRun(run, never);
    expect(await driver.run(run.id, never)).toMatchObject({ attempt: 0 });
    const attempts: unknown[] = [];
    for (const mark of ["a", "b", "b"]) {
      await driver.withLease(leaseOptions({ run }), async (session) => {
        attempts.push(session.attempt);
        const { attempt } = session;
        await session.begin({ ...beginning, progress: { mark, stalls: attempt.stalls + 1 } });
      });
    }
    expect(attempts).toEqual([
      { number: 1, mark: null, stalls: 0 },
      { number: 2, mark: "a", stalls: 1 },
      { number: 3, mark: "b", stalls: 2 },
    ]);
    await driver.withLease(leaseOptions(), (session) => {
      expect(session.attempt).toEqual({ number: 1, mark: null, stalls: 0 });
      return Promise.resolve();
    });
  });

  test("36. a run that has ended gets no lease any more, and leaves it to others", async () => {
    const { driver } = await start();
    const run = newRun();
    await driver.acceptRun(run, never);
    await driver.updateRun(run.id, { status: "canceled" }, never);
    await expect(driver.withLease(leaseOptions({ run }), () => Promise.resolve())).rejects.toMatchObject({
      code: "RUN_ENDED",
    });
    expect(await driver.run(run.id, never)).toMatchObject({ status: "canceled", attempt: 0 });
    expect((await driver.state("orders", never)).lease).toBeNull();
  });

  test("37. of several processes at once exactly one picks a handed-over run up, with its order", async () => {
    const { driver, open } = await start();
    const others = [driver, await open(), await open()];
    const run = newRun({ order: { goal: { kind: "latest" } } });
    await driver.acceptRun(run, never);
    await driver.updateRun(run.id, { status: "handing_over" }, never);
    const picked = await Promise.all(others.map((other) => other.pickUpRuns({ ...pickUp, own: [] }, never)));
    expect(picked.flat()).toEqual([
      {
        run: await driver.run(run.id, never),
        order: { goal: { kind: "latest" } },
        ageMs: expect.any(Number) as number,
        hasBegun: false,
      },
    ]);
    expect(picked.flat()[0]?.run).toMatchObject({ status: "handing_over", attempt: 0, trigger: "cli" });
    expect(picked.flat()[0]?.ageMs).toBeGreaterThanOrEqual(0);
  });

  test("51. a run that its process does not execute is picked up by another at once, and then is that one's", async () => {
    const { driver, open } = await start();
    const others = [await open(), await open(), await open()];
    const order = { goal: { kind: "latest" } };
    const unclaimed = newRun({ order, isUnclaimed: true });
    const claimed = newRun({ order });
    for (const run of [unclaimed, claimed]) await driver.acceptRun(run, never);
    expect(await driver.run(unclaimed.id, never)).toMatchObject({ status: "queued", attempt: 0 });
    const picked = await Promise.all(others.map((other) => other.pickUpRuns(pickUp, never)));
    expect(picked.flat().map(({ run, order: kept }) => [run.id, kept])).toEqual([[unclaimed.id, order]]);
    expect(await driver.pickUpRuns(pickUp, never)).toEqual([]);
  });

  test("38. a run that its process has, one that nobody else may have, and one that has ended are not picked up", async () => {
    const { driver } = await start();
    expect(await driver.pickUpRuns(pickUp, never)).toEqual([]);
    const order = { goal: 1 };
    const [accepted, held, own, ended, elsewhere] = [
      newRun({ order }),
      newRun({ order }),
      newRun({ order }),
      newRun({ order }),
      newRun({ order, target: "u" }),
    ];
    const alone = newRun();
    for (const run of [accepted, held, own, ended, elsewhere, alone]) await driver.acceptRun(run, never);
    for (const run of [own, ended, elsewhere, alone])
      await driver.updateRun(run.id, { status: "handing_over" }, never);
    await driver.updateRun(ended.id, { status: "canceled" }, never);
    await driver.withLease(leaseOptions({ run: held }), async () => {
      expect(await driver.pickUpRuns({ ...pickUp, own: [own.id] }, never)).toEqual([]);
    });
    // What was renewed stays its process's own, and what has no lease of its own any more does not.
    expect((await driver.pickUpRuns(pickUp, never)).map(({ run }) => run.id)).toEqual([held.id]);
  });

  test("39. a run whose lease has run out is picked up, also after another run has taken the lease over", async () => {
    const { driver, open, expire } = await start({ times: silentTimes });
    const other = await open();
    const run = newRun({ order: { goal: 1 } });
    await driver
      .withLease(leaseOptions({ run }), async (session) => {
        await session.begin({ ...beginning, steps: 3, fromVersion: "1", toVersion: "4" });
        await expire();
        await other.withLease(leaseOptions(), () => Promise.resolve());
        expect(await other.run(run.id, never)).toMatchObject({ status: "handing_over" });
      })
      .catch(() => undefined);
    const [picked] = await other.pickUpRuns(pickUp, never);
    expect(picked).toMatchObject({
      hasBegun: true,
      run: { id: run.id, fromVersion: "1", toVersion: "4", progress: { total: 3 }, attempt: 1 },
    });
    // The next attempt keeps where the first began.
    await other.withLease(leaseOptions({ run }), (session) =>
      session.begin({ ...beginning, steps: 1, fromVersion: "3", toVersion: "4" }),
    );
    expect(await other.run(run.id, never)).toMatchObject({
      status: "running",
      attempt: 2,
      fromVersion: "1",
      progress: { total: 3 },
    });
  });

  test("40. the late word of an executor that was replaced changes nothing", async () => {
    const { driver } = await start();
    const run = newRun({ order: { goal: 1 } });
    for (let twice = 0; twice < 2; twice += 1)
      await driver.withLease(leaseOptions({ run }), () => Promise.resolve());
    await driver.updateRun(run.id, { status: "failed", attempt: 1 }, never);
    expect(await driver.run(run.id, never)).toMatchObject({ status: "running", attempt: 2 });
    await driver.updateRun(run.id, { status: "failed", attempt: 2 }, never);
    expect(await driver.run(run.id, never)).toMatchObject({ status: "failed" });
  });

  test("41. a cancel ends a run that is between two executors at once", async () => {
    const { driver } = await start();
    const run = newRun({ order: { goal: 1 } });
    await driver.acceptRun(run, never);
    await driver.updateRun(run.id, { status: "handing_over" }, never);
    expect(await driver.requestCancel(run.id, "not today", never)).toBe(true);
    expect(await driver.run(run.id, never)).toMatchObject({
      status: "canceled",
      error: { code: "CANCELED", message: expect.stringContaining("not today") as string },
      endedAt: expect.any(Date) as Date,
    });
    expect(await driver.pickUpRuns(pickUp, never)).toEqual([]);
  });

  test("32. runs are listed newest first, by status and time, page by page", async () => {
    const { driver } = await start();
    // As by runners whose clocks are wrong: their ids say that each is older than the one before.
    const ids = Array.from({ length: 5 }, (_, n) => `t.01ARZ3NDEKTSV4RRFFQ69G5FA${9 - n}`);
    for (const id of ids) {
      await driver.acceptRun(newRun({ id }), never);
      // A database may count no finer than milliseconds.
      const { now } = await driver.state("orders", never);
      await until(async () => (await driver.state("orders", never)).now > now);
    }
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
}
