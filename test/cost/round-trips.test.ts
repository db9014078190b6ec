import { describe, expect, onTestFinished, test } from "vitest";
import { createDatabase } from "../support/database.ts";
import { openTarget, tableMigrations, type PlainTarget } from "../support/target.ts";
import { openWire, type Wire } from "../support/wire.ts";
import { messages, stopTheClock, unhurried, withoutClock } from "./unhurried.ts";

/**
 * Round trips of a run besides those of its steps: two to see where the database is, without the lease and with it; the
 * lease taken and given back; the run begun and ended; and what was decided and what came of it, in the audit log.
 */
const aroundSteps = 8;
/** More on a database that has never been asked: what kind of server it is, without our tables, and to make them. */
const firstOfAll = 2;
stopTheClock();

async function openCounted(count: number): Promise<{ target: PlainTarget; wire: Wire }> {
  const database = await createDatabase();
  const url = new URL(database.url);
  const wire = await openWire(Number(url.port), "postgres");
  onTestFinished(() => wire[Symbol.asyncDispose]());
  url.port = String(wire.port);
  url.searchParams.set("sslmode", "disable");
  const target = await openTarget(url.href, tableMigrations(count), { driver: { times: unhurried } });
  return { target, wire };
}

describe("a run on PostgreSQL", () => {
  test.each([
    [1, 1],
    [16, 1],
    [17, 2],
    [1_000, 6],
  ])(
    "of %i small migrations on an empty database is sent in %i messages, besides those around them",
    async (count, ofSteps) => {
      expect(messages(count)).toBe(ofSteps);
      // For the second message, which is large enough, the server plans once what surrounds each body.
      const preparing = ofSteps > 2 ? 1 : 0;
      const { target, wire } = await openCounted(count);
      expect(await target.run()).toMatchObject({ outcome: "applied", to: { length: count } });
      const asked = withoutClock(wire.asked());
      expect(asked.length).toBeLessThanOrEqual(firstOfAll + aroundSteps + preparing + ofSteps);
      // One for the run, and one for what is beside it.
      expect(wire.traffic().connections).toBeLessThanOrEqual(asked.length < wire.asked().length ? 3 : 2);
    },
  );

  test("of the second release asks no more around its steps than any later one", async () => {
    const { target, wire } = await openCounted(1);
    await target.run();
    const costs: number[] = [];
    for (const count of [2, 3, 20]) {
      await target.publish(tableMigrations(count));
      wire.reset();
      expect(await target.run()).toMatchObject({ outcome: "applied", to: { length: count } });
      costs.push(withoutClock(wire.asked()).length - messages(count === 20 ? 17 : 1));
    }
    expect(Math.max(...costs)).toBeLessThanOrEqual(aroundSteps);
    expect(new Set(costs).size).toBe(1);
  });
});
