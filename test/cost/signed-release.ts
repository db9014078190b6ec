import { setTimeout as pause } from "node:timers/promises";
import { beforeAll, describe, expect, test } from "vitest";
import type { BucketServer } from "../support/bucket.ts";
import { migrations, openSite, startBuckets, type BucketKind, type Cost, type Site } from "./site.ts";

/** GETs that are under way at once where there are many bodies, at the least (`design.md` 8). */
const leastAtOnce = 32;
/** head, release, manifest */
const beforeBodies = 3;
/** Bytes of a manifest per migration, which one that is pending has to fetch whole: it says in which order all stand. */
const manifestBytes = 300;
/** What a run of one step asks of the database. Lower it when it can be lowered; `round-trips.test.ts` says what they are. */
const roundTripsOfAStep = 9;

/** What the program costs on a signed release of so many migrations. */
interface Costs {
  readonly fresh: Cost;
  readonly idle: Cost;
  readonly status: Cost;
  /** one more migration, on top of the others */
  readonly onePending: Cost;
}

/** The guard of what a signed release costs: the same on every machine, and on every kind of bucket. */
export function describeSignedRelease(kind: BucketKind): void {
  let server: BucketServer;
  let few: Costs;
  let many: Costs & Record<"init" | "wait", Cost>;
  beforeAll(async () => {
    server = await startBuckets(kind);
    [few, many] = await Promise.all([
      costsOf(await openSite(server), 10),
      openSite(server).then(async (site) => ({
        ...(await costsOf(site, 1_000)),
        init: await site.cost(["init"]),
        wait: await site.cost(["wait", "--min", "1000", "--stream", "orders"], []),
      })),
    ]);
  });

  describe(`a signed release in ${kind}`, () => {
    test("costs one request and one round trip on one connection when there is nothing to do, of 10 migrations and of 1,000", () => {
      for (const { idle } of [few, many]) {
        expect(idle.said).toMatchObject({ outcome: "noop" });
        expect(idle.bucket.asked).toEqual([expect.stringMatching(/^GET \S*head\.json/)]);
        expect(idle.database.asked).toHaveLength(1);
        expect(idle.database.connections).toBe(1);
      }
    });

    test("costs as many bytes when there is nothing to do, whether it has 10 migrations or 1,000", () => {
      // Digits of a version and of a time.
      const digits = 32;
      for (const at of ["bucket", "database"] as const) {
        expect(Math.abs(many.idle[at].bytesDown - few.idle[at].bytesDown)).toBeLessThanOrEqual(digits);
        expect(Math.abs(many.idle[at].bytesUp - few.idle[at].bytesUp)).toBeLessThanOrEqual(digits);
      }
      expect(many.idle.bucket.bytesDown).toBeLessThanOrEqual(1_024);
      expect(many.idle.database.bytesDown).toBeLessThanOrEqual(6 * 1_024);
    });

    test("costs `init` one request and one round trip when there is nothing to do, and `wait` one round trip alone", () => {
      const { init, wait } = many;
      expect(init.said).toMatchObject({ outcome: "noop" });
      expect(init.bucket.asked).toEqual([expect.stringMatching(/^GET \S*head\.json/)]);
      expect(init.database.asked).toHaveLength(1);
      expect(wait.bucket.exchanges).toBe(0);
      expect(wait.database.asked).toHaveLength(1);
    });

    test("costs `status` three requests and two round trips, of 10 migrations and of 1,000", () => {
      for (const { status } of [few, many]) {
        expect(status.bucket.exchanges).toBeLessThanOrEqual(beforeBodies);
        expect(status.database.asked.length).toBeLessThanOrEqual(2);
      }
    });

    test("costs at most four requests for all of its bodies, however many, and as many bytes as they and the manifest have", () => {
      expect(few.fresh.bucket.exchanges).toBeLessThanOrEqual(beforeBodies + 1);
      expect(many.fresh.bucket.exchanges).toBeLessThanOrEqual(beforeBodies + 1);
      expect(many.fresh.bucket.bytesDown).toBeLessThanOrEqual(1_000 * (manifestBytes + 40));
    });

    test("costs one pending migration as many round trips on top of 1,000 as on top of 10, and one request more than there are before bodies", () => {
      for (const { onePending } of [few, many]) {
        expect(onePending.said).toMatchObject({ outcome: "applied" });
        expect(onePending.bucket.exchanges).toBeLessThanOrEqual(beforeBodies + 1);
      }
      expect(many.onePending.database.asked).toHaveLength(few.onePending.database.asked.length);
      expect(many.onePending.database.asked.length).toBeLessThanOrEqual(roundTripsOfAStep);
      // Whoever is slow looks at its lease meanwhile, and logs in for it; a history of 1,000 would be 100 times that.
      const grown = many.onePending.database.bytesDown - few.onePending.database.bytesDown;
      expect(grown).toBeLessThanOrEqual(4 * 1_024);
      expect(many.onePending.bucket.bytesDown).toBeLessThanOrEqual(1_001 * manifestBytes);
    });
  });

  describe(`bodies in ${kind} that are not worth their pack`, () => {
    test(`cost a request each, ${leastAtOnce} of them at a time`, async () => {
      const held = new Set<string>();
      const { promise: over, resolve: end } = Promise.withResolvers<void>();
      let isHolding = false;
      const hold = (asked: string): Promise<void> => {
        if (!isHolding || !/blobs(%2F|\/)/.test(asked)) return Promise.resolve();
        held.add(asked);
        return over;
      };
      const site = await openSite(server, hold);
      const pending = 40;
      // The first alone is most of the pack.
      const big = { "000000_big.up.sql": `-- ${"x".repeat(100_000)}\nCREATE TABLE big (id int);\n` };
      await site.publish(big);
      await site.cost(["up"]);
      await site.publish({ ...big, ...migrations(pending) });
      isHolding = true;
      const running = site.cost(["up"]);
      // None of them is answered before so many are there: asked one after another, or in small groups, they never would be.
      const enough = (): boolean => held.size >= leastAtOnce;
      while (!enough() && (await Promise.race([running, pause(20)])) === undefined) continue;
      end();
      const { said, bucket } = await running;
      expect(held.size).toBeGreaterThanOrEqual(leastAtOnce);
      expect(said).toMatchObject({ outcome: "applied" });
      expect(bucket.exchanges).toBeLessThanOrEqual(beforeBodies + pending);
    });
  });
}

/** Everything once, in the order in which it happens to a database. */
async function costsOf(site: Site, count: number): Promise<Costs> {
  // A run that reads all bodies reads their pack: were it to ask for one of them by itself, it would fail.
  await site.publish(migrations(count), (key) => !key.startsWith("blobs/"));
  const fresh = await site.cost(["up"]);
  const idle = await site.cost(["up"]);
  const status = await site.cost(["status"]);
  await site.publish(migrations(count + 1));
  return { fresh, idle, status, onePending: await site.cost(["up"]) };
}
