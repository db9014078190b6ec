import { expect, test } from "vitest";

import { openMongo } from "../../../src/driver/mongodb/mongodb.ts";
import { findOrphan } from "../../../src/driver/mongodb/orphan.ts";
import { applyStatements } from "../../../src/driver/mongodb/statements.ts";
import { createMongoDatabase, ownMongo } from "../../support/mongo.ts";
import { portOf, startMongoProxy, throughProxy } from "../../support/mongo-proxy.ts";
import { needs } from "../../support/parts.ts";
import { leaseOptions, never, settings } from "../../support/steps.ts";
import { holdBench, statementStep } from "./hold-bench.ts";

needs("mongodb", "secantusdb");

test(
  "a command of a dead run is in the way for as long as the server may work on it, and then found out",
  { timeout: 240_000 },
  async () => {
    const server = await ownMongo({ standalone: true });
    const database = await createMongoDatabase({ server });
    const held = Promise.withResolvers<void>();
    const arrived = Promise.withResolvers<void>();
    let struck = 0;
    await using proxy = await startMongoProxy(portOf(server.url), async (command) => {
      if (!("create" in command) || (struck += 1) > 1) return "pass";
      // The server has it, and its runner never hears of it: dead, as far as anybody can see.
      arrived.resolve();
      await held.promise;
      return "cut";
    });
    const dying = await holdBench(throughProxy(database.url, proxy));
    const limited = { ...settings, statementTimeoutMs: 3_000 };
    const body = [{ create: "orders" }, { insert: "orders", documents: [{ _id: 1 }] }];
    const dead = applyStatements(dying.bench, statementStep(body), limited, () => undefined).catch(
      () => undefined,
    );
    await arrived.promise;
    await database.db.createCollection("orders");
    const [unfinished = null] = await dying.history();
    expect(unfinished).toMatchObject({
      status: "started",
      checkpoint: { kind: "sent", before: { command: "create" } },
    });
    const search = { stream: "orders", throughToken: 1, unfinished };
    expect(await findOrphan(dying.bench.database, search, never)).toMatchObject({ runId: unfinished?.runId });
    dying.freeze();
    await database.db.collection("lockkeeper.leases").updateOne({}, { $set: { renewedAt: new Date(0) } });

    const driver = openMongo(database.url);
    const orphans: unknown[] = [];
    const verdicts: unknown[] = [];
    const options = leaseOptions({ waitMs: 120_000, onOrphan: (orphan) => orphans.push(orphan) });
    await driver.withLease(options, async (session) => {
      const step = statementStep(body, { unfinished });
      await session.applyStatements(
        step,
        limited,
        (one) => one.kind === "probed" && verdicts.push(one.verdict),
      );
    });
    expect(orphans.length).toBeGreaterThan(0);
    expect(verdicts).toEqual(["done"]);
    expect(await database.db.collection("orders").countDocuments()).toBe(1);
    await driver.close();
    held.resolve();
    await dying[Symbol.asyncDispose]();
    await dead;
  },
);
