import { expect, test } from "vitest";
import type { Driver } from "../../src/driver/driver.ts";
import type { LeasedSession } from "../../src/driver/session.ts";
import { applyBodies, declaration, leaseOptions, never } from "../support/steps.ts";
import { type Start } from "./driver-start.ts";

/** What is done and written under a lease. */
export function workSuite(start: Start): void {
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
      const { done, failure } = await applyBodies(session, [adds(1), adds(2), fails(3), adds(4)]);
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

  test("42. a later attempt at a run does not take for its own what an earlier one has done", async () => {
    const { driver, effects, adds, fails } = await start();
    const { run } = leaseOptions();
    const attempt = (work: (session: LeasedSession) => Promise<void>) =>
      driver.withLease(leaseOptions({ run }), work);
    await attempt(async (session) => {
      await session.state();
      await applyBodies(session, [adds(1), adds(2)]);
    });
    await attempt(async (session) => {
      const { position } = await session.state();
      expect(position.length).toBe(2);
      const bodies = [adds(1), adds(2), adds(3), fails(4), adds(5)];
      const { done, failure } = await applyBodies(session, bodies, 3);
      expect(done).toHaveLength(1);
      expect(failure).toMatchObject({ fields: { migration: fails(4).path } });
    });
    expect(await effects()).toEqual([1, 2, 3]);
  });

  test("17. a failed migration's next attempt succeeds and is the newest entry", async () => {
    const { driver, adds, fails, effects } = await start();
    await driver.withLease(leaseOptions(), async (session) => {
      await applyBodies(session, [fails(1)]);
      const { failure } = await applyBodies(session, [adds(1)]);
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
    const held = { runId: "t.x", version: "1", reason: "rolled back", highWaterMark: null };
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
}
