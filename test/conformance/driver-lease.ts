import { expect, test } from "vitest";
import type { LeaseHolder } from "../../src/driver/stream-state.ts";
import { RunnerError } from "../../src/error.ts";
import { declaration, leaseOptions, never, shortTimes } from "../support/steps.ts";
import { aborted, silentTimes, until, untilHeld, type Start } from "./driver-start.ts";

/** Who has the lease, and what those see who have it no more. */
export function leaseSuite(start: Start): void {
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
      inStep: null,
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
    await expect(driver.withLease(leaseOptions(), () => Promise.reject(mine))).rejects.toBe(mine);
    expect((await driver.state("orders", never)).lease).toBeNull();
  });

  test("5. a second holder gets LEASE_HELD with the first one's name, and changes nothing", async () => {
    const { driver, open } = await start();
    const other = await open();
    const first = leaseOptions({ holder: "first/1" });
    await driver.withLease(first, async () => {
      const second = leaseOptions({ holder: "second/2" });
      const since = (await other.state("orders", never)).lease?.acquiredAt.toISOString();
      const work = other.withLease(second, () => Promise.resolve("got it"));
      await expect(work).rejects.toMatchObject({
        code: "LEASE_HELD",
        message: expect.stringContaining(`run ${first.run.id} on first/1, since ${since},`) as string,
        fields: { holder: "first/1", run: first.run.id, since },
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
      other.withLease(leaseOptions({ waitMs: 50_000, onWaiting: waited.resolve }), async (session) => {
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

  test("8. heartbeats prolong a lease again and again, under the same token", async () => {
    const { driver } = await start({ times: shortTimes });
    await driver.withLease(leaseOptions(), async (session) => {
      for (let renewals = 0; renewals < 3; renewals += 1) {
        const { lease } = await driver.state("orders", never);
        const before = lease?.expiresAt ?? new Date(0);
        await until(async () => {
          const now = (await driver.state("orders", never)).lease;
          return now !== null && now.token === 1 && now.expiresAt > before;
        });
      }
      expect(session.signal.aborted).toBe(false);
    });
  });

  test("9. a lease whose holder is silent is taken over, with a greater token", async () => {
    const { driver, open, expire } = await start({ times: silentTimes });
    const other = await open();
    await driver.withLease(leaseOptions(), async (stale) => {
      await expire();
      const token = await other.withLease(leaseOptions({ waitMs: 50_000 }), async (session) => session.token);
      expect(token).toBeGreaterThan(stale.token);
    });
  });

  test("10. whatever a stale session writes throws LEASE_LOST and changes nothing", async () => {
    const { driver, open, apply, effects, adds, expire } = await start({ times: silentTimes });
    const other = await open();
    const mine = leaseOptions();
    await driver
      .withLease(mine, async (stale) => {
        expect((await apply(stale, [1])).done).toHaveLength(1);
        await expire();
        await other.withLease(leaseOptions({ waitMs: 50_000 }), () => Promise.resolve());
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
    const { driver, open, expire } = await start({ times: silentTimes });
    const other = await open();
    const taken = Promise.withResolvers<void>();
    const gone = Promise.withResolvers<void>();
    const stale = driver.withLease(leaseOptions(), () => taken.promise);
    const taker = untilHeld(driver)
      .then(() => expire())
      .then(() =>
        other.withLease(leaseOptions({ waitMs: 50_000, holder: "taker/2" }), async () => {
          taken.resolve();
          await stale;
          expect((await driver.state("orders", never)).lease?.holder).toBe("taker/2");
          gone.resolve();
        }),
      );
    await Promise.all([taker, gone.promise]);
  });

  test("12. the session's signal aborts with LEASE_LOST when another has taken over", async () => {
    const { driver, open, expire } = await start({
      times: { leaseMs: 60_000, heartbeatMs: 500, marginMs: 0, cancelPollMs: 100 },
    });
    const other = await open();
    await driver
      .withLease(leaseOptions(), async (stale) => {
        // A heartbeat may come in between, and prolong it.
        const again = () => void expire();
        await expire();
        await other.withLease(leaseOptions({ waitMs: 50_000, onWaiting: again }), () => Promise.resolve());
        await aborted(stale.signal);
        expect(stale.signal.reason).toMatchObject({ code: "LEASE_LOST" });
      })
      .catch((error: unknown) => expect(error).toBeUndefined());
  });

  test("13. the session's signal aborts when the database does not confirm the lease in time", async () => {
    const { driver } = await start({
      times: { leaseMs: 300, heartbeatMs: 60_000, marginMs: 100, cancelPollMs: 20 },
    });
    const work = driver.withLease(leaseOptions(), async (session) => {
      await aborted(session.signal);
      expect(session.signal.reason).toMatchObject({ code: "LEASE_LOST" });
      await session.state();
    });
    // On a busy machine it may be over before the work has begun.
    await expect(work).rejects.toMatchObject({ code: "LEASE_LOST" });
  });

  test("30. who waits for the lease goes when its own signal fires, or when it is told that it need not", async () => {
    const { driver } = await start();
    await driver.withLease(leaseOptions(), async () => {
      const stop = new AbortController();
      const mine = new RunnerError("DEADLINE", "enough");
      const waiting = driver.withLease(
        leaseOptions({ waitMs: 50_000, signal: stop.signal, onWaiting: () => stop.abort(mine) }),
        () => Promise.resolve(),
      );
      await expect(waiting).rejects.toBe(mine);
      const noMore = driver.withLease(
        leaseOptions({
          waitMs: 50_000,
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
    const { driver, open, expire } = await start({ times: silentTimes });
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
        await expire();
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

  test("33. the run of a holder that died is ended by the next one", async () => {
    const { driver, open, expire } = await start({ times: silentTimes });
    const other = await open();
    const options = leaseOptions();
    await driver.withLease(options, async () => {
      await expire();
      const next = leaseOptions({ waitMs: 50_000 });
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
        return driver.withLease(leaseOptions({ waitMs: 50_000 }), async (session) => {
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
