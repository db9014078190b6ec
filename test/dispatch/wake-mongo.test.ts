import { describe, expect, test } from "vitest";

import { createMongoDatabase } from "../support/mongo.ts";
import { needs } from "../support/parts.ts";
import { never } from "../support/steps.ts";
import { openTarget } from "../support/target.ts";
import { processOf, type Process } from "./process.ts";

needs("mongodb");

const text = (collection: string, n: number) => ({
  path: `${n}_${collection}.up.json`,
  up: JSON.stringify([{ create: collection }]),
});

describe("waking on MongoDB", () => {
  test(
    "many deliveries of one release at once, in several processes, begin one run, and the next release has its own",
    { timeout: 60_000 },
    async () => {
      const database = await createMongoDatabase();
      const releases = [[text("users", 1)], [text("users", 1), text("orders", 2)]] as const;
      const counts: number[] = [];
      for (const texts of releases) {
        const processes: Process[] = [];
        for (let count = 0; count < 3; count++)
          processes.push(processOf(await openTarget(database.url, texts)));
        const woken = await Promise.all(processes.flatMap((one) => [one.wake(), one.wake(), one.sweep()]));
        expect(new Set(woken.flatMap((one) => (one.kind === "run" ? [one.run.id] : []))).size).toBe(1);
        const [one] = processes;
        expect(await one?.wake()).toEqual({ target: "t", kind: "up-to-date" });
        const runs = await one?.target.driver.runs({ target: "t", limit: 10 }, never);
        expect(runs?.map(({ status, outcome }) => [status, outcome])[0]).toEqual(["succeeded", "applied"]);
        counts.push(runs?.length ?? 0);
      }
      expect(counts).toEqual([1, 2]);
      const names = (await database.db.listCollections().toArray()).map(({ name }) => name);
      expect(names).toEqual(expect.arrayContaining(["users", "orders"]));
    },
  );

  test("a sweep has another execution started as long as a run is open, and no longer", async () => {
    const database = await createMongoDatabase();
    const target = await openTarget(database.url, [text("users", 1)]);
    const started: string[] = [];
    const handOver = { start: async (name: string) => void started.push(name) };
    const host = processOf(target, { handOver, beginsElsewhere: true });
    const woken = await host.wake();
    await host.sweep();
    expect(started).toEqual(["t", "t"]);
    const execution = processOf(target);
    await execution.active.pickUp(target);
    await execution.active.ended(woken.kind === "run" ? woken.run.id : "");
    await host.sweep();
    expect(started).toEqual(["t", "t"]);
  });
});
