import { describe, expect, onTestFinished, test } from "vitest";
import { signedReleases } from "../../src/release/signed.ts";
import { createMongoDatabase } from "../support/mongo.ts";
import { portOf, throughProxy } from "../support/mongo-proxy.ts";
import { needs } from "../support/parts.ts";
import { makeKeys, publishTo, tempFolder } from "../support/release.ts";
import { targetOn, type TestTarget } from "../support/target.ts";
import { openWire, type Wire } from "../support/wire.ts";
import { stopTheClock, unhurried } from "./unhurried.ts";

needs("mongodb");

/** Commands of a run besides those of its steps: where the database is; the lease; the run's beginning and end; the audit log. */
const aroundSteps = 19;
/** More of a run on a database that has never been asked: its collections are made, and it is read under the lease. */
const firstOfAll = 3;
/** Of each migration: its command, and its entry, which carries the fence. */
const perMigration = 2;
/** Of a long run: a transaction that met another is tried again, and on some servers a run meets itself. */
const triedAgain = 3;

stopTheClock();

/** What a run of so many migrations may cost; the run's beginning makes the places of their entries, for 256 at most. */
function most(count: number): number {
  return aroundSteps + count * perMigration;
}

/** A database, and a release of which more and more migrations are published. */
interface Counted {
  readonly target: TestTarget;
  readonly wire: Wire;
  publish(count: number): Promise<unknown>;
}

async function openCounted(): Promise<Counted> {
  const database = await createMongoDatabase();
  const wire = await openWire(portOf(database.url), "mongodb");
  onTestFinished(() => wire[Symbol.asyncDispose]());
  const folder = await tempFolder();
  onTestFinished(() => folder[Symbol.asyncDispose]());
  const { key, trust } = makeKeys();
  const what = {
    source: folder.source,
    stream: "orders",
    environment: "default",
    engine: "mongodb",
    trust,
  } as const;
  const target = await targetOn(throughProxy(database.url, wire), signedReleases(what), {
    driver: { times: unhurried },
  });
  return {
    target,
    wire,
    publish: (count) => publishTo(folder.source, indexes(count), { keys: [key], engine: "mongodb" }),
  };
}

/** `count` migrations, each of which makes an index. */
function indexes(count: number): Readonly<Record<string, string>> {
  const files = Array.from({ length: count }, (_, index) => {
    const command = { createIndexes: `c${index + 1}`, indexes: [{ key: { a: 1 }, name: "a" }] };
    return [`${String(index + 1).padStart(6, "0")}_c.up.json`, JSON.stringify([command])] as const;
  });
  return Object.fromEntries(files);
}

describe("a run on MongoDB", () => {
  test("with nothing to do costs one command and the same bytes with 11 migrations and with 101", async () => {
    const { target, wire, publish } = await openCounted();
    const idleBytes: number[] = [];
    for (const count of [11, 101]) {
      await publish(count);
      await target.run();
      wire.reset();
      expect(await target.run()).toMatchObject({ outcome: "noop" });
      expect(wire.asked()).toEqual(["aggregate"]);
      idleBytes.push(wire.traffic().bytesDown);
    }
    // Digits of times and of numbers.
    expect(Math.max(...idleBytes) - Math.min(...idleBytes)).toBeLessThanOrEqual(64);
  });

  test("costs two commands for each migration, and for one pending as many on top of 100 as on top of 10", async () => {
    const { target, wire, publish } = await openCounted();
    const costOf = async (count: number): Promise<number> => {
      await publish(count);
      wire.reset();
      expect(await target.run()).toMatchObject({ outcome: "applied", to: { length: count } });
      return wire.traffic().exchanges;
    };
    // The least of three: a transaction may have met another.
    const costOfOne = async (count: number): Promise<number> => {
      const costs: number[] = [];
      for (const next of [1, 2, 3]) costs.push(await costOf(count + next));
      return Math.min(...costs);
    };
    expect(await costOf(10)).toBeLessThanOrEqual(firstOfAll + most(10) + triedAgain);
    const onFew = await costOfOne(10);
    expect(await costOf(100)).toBeLessThanOrEqual(most(87) + triedAgain);
    expect([onFew, await costOfOne(100)]).toEqual([onFew, onFew]);
    expect(onFew).toBeLessThanOrEqual(most(1));
    expect(wire.traffic().connections).toBe(0);
  });
});
