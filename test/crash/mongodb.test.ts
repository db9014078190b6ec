import type { Document } from "mongodb";
import { beforeAll, describe, expect, test } from "vitest";

import { mongoServer, ownMongo, type MongoServer } from "../support/mongo.ts";
import { needs } from "../support/parts.ts";
import { faults, runMongoRound, type MongoRound, type MongoRoundResult } from "./mongodb-round.ts";

/** A fast selection of what `node test/crash/mongodb.ts --kills N` does for as long as one likes. */

needs("secantusdb", "mongodb");

let replicaSet: MongoServer;
let standalone: MongoServer;
beforeAll(async () => {
  [replicaSet, standalone] = await Promise.all([mongoServer(), ownMongo({ standalone: true })]);
});

/** What went wrong, with the story that leads there. */
function wrongIn({ violations, struck, log }: MongoRoundResult, expected: number): object {
  return violations.length === 0 && struck.length === expected ? {} : { violations, struck, log };
}

/** Where each fault strikes: a write to an entry, a command that no transaction takes, one that is in a transaction. */
const places: Readonly<Record<(typeof faults)[number], (command: Document) => boolean>> = {
  "kill-before": (command) => "commitTransaction" in command,
  "kill-in": (command) => isBody(command) && "createIndexes" in command,
  "kill-after": (command) => isBody(command) && "create" in command,
  cut: (command) => isBody(command) && "insert" in command,
  swallow: (command) => isBody(command) && "dropIndexes" in command,
  freeze: (command) => "commitTransaction" in command,
};

function isBody({ comment }: Document): boolean {
  return typeof comment === "string" && comment.startsWith("lockkeeper:");
}

describe.concurrent("every MongoDB migration is applied once, and nobody is asked, when", () => {
  test.for([
    ...faults.map((fault) => ({ fault, server: "a replica set" }) as const),
    ...(["kill-in", "kill-after", "swallow"] as const).map(
      (fault) => ({ fault, server: "stand-alone" }) as const,
    ),
  ])("$fault strikes on $server", { timeout: 240_000 }, async ({ fault, server }) => {
    const hasTransactions = server === "a replica set";
    const round: MongoRound = {
      seed: 7,
      hasTransactions,
      kinds: ["insert", "collection", "out", "backfill"],
      strikes: [{ fault, after: 20, isWanted: places[fault] }],
    };
    const { url } = hasTransactions ? replicaSet : standalone;
    expect(wrongIn(await runMongoRound(url, round), 1)).toEqual({});
  });
});

/** Looks at its own clock and lease as good as never: only the fence keeps it from writing. */
const careless = { leaseMs: 4_000, heartbeatMs: 3_600_000, marginMs: -3_600_000, cancelPollMs: 3_600_000 };

const stale: MongoRound = {
  seed: 3,
  hasTransactions: true,
  kinds: ["insert"],
  times: careless,
  // well behind what a run does before its bodies, and before the last of them
  strikes: [{ fault: "freeze", after: 34, isWanted: isFence }],
};

function isFence(command: Document): boolean {
  return command["findAndModify"] === "lockkeeper.streams" && command["query"]?.["runId"] !== undefined;
}

describe.concurrent("a holder that wakes with its fence under way", () => {
  test("writes nothing more", { timeout: 240_000 }, async () => {
    expect(wrongIn(await runMongoRound(replicaSet.url, stale), 1)).toEqual({});
  });

  test(
    "applies migrations a second time where the fences let everybody through",
    { timeout: 240_000 },
    async () => {
      const rewrite = (command: Document): Document => {
        if (isFence(command)) return { ...command, query: { _id: command["query"]["_id"] } };
        // Of an entry that is its writer's alone: a fence of its own.
        if (command["update"] !== "lockkeeper.history") return command;
        const updates = (command["updates"] as readonly Document[]).map((each) => ({
          ...each,
          q: { _id: each["q"]["_id"] },
        }));
        return { ...command, updates };
      };
      const { violations } = await runMongoRound(replicaSet.url, { ...stale, rewrite });
      expect(violations.join("\n")).toContain("was not done exactly once");
    },
  );
});
