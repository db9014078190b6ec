import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { createDatabase } from "../support/database.ts";
import { openTarget, tableMigrations, type PlainTarget } from "../support/target.ts";
import { openWire, type Wire } from "../support/wire.ts";

/**
 * Round trips of a run besides those of its steps: two to see where the database is, without the lease and with it; the
 * lease taken and given back; the run begun and ended; and what was decided and what came of it, in the audit log.
 */
const aroundSteps = 8;
/** More on a database that has never been asked: without tables, then without the stream, the lease is tried again. */
const firstOfAll = 8;
/** Migrations in the first message, and in any. Each message that was quick lets the next be twice as large. */
const messageSteps = { first: 16, most: 256 };

/** Nothing is asked by the clock, so there is no other reason for a round trip than the run itself. */
const unhurried = { leaseMs: 600_000, heartbeatMs: 600_000, marginMs: 0, cancelPollMs: 600_000 };

// Every message is quick, however slow the machine is.
beforeEach(() => void vi.useFakeTimers({ toFake: ["performance"] }));
afterEach(() => void vi.useRealTimers());

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

/** Messages for so many small migrations. */
function messages(count: number): number {
  let sent = 0;
  for (let [rest, size] = [count, messageSteps.first]; rest > 0; sent += 1) {
    rest -= size;
    size = Math.min(size * 2, messageSteps.most);
  }
  return sent;
}

describe("a run on PostgreSQL", () => {
  test.each([
    [1, 1],
    [16, 1],
    [17, 2],
    [1_000, 7],
  ])(
    "of %i small migrations on an empty database costs %i round trips besides those around them",
    async (count, ofSteps) => {
      expect(messages(count)).toBe(ofSteps);
      const { target, wire } = await openCounted(count);
      expect(await target.run()).toMatchObject({ outcome: "applied", to: { length: count } });
      expect(wire.traffic().exchanges).toBeLessThanOrEqual(firstOfAll + aroundSteps + ofSteps);
      expect(wire.traffic().connections).toBeLessThanOrEqual(2);
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
      costs.push(wire.traffic().exchanges - messages(count === 20 ? 17 : 1));
    }
    expect(Math.max(...costs)).toBeLessThanOrEqual(aroundSteps);
    expect(new Set(costs).size).toBe(1);
  });
});
