import { expect, onTestFinished, test } from "vitest";

import { openMongo } from "../../../src/driver/mongodb/mongodb.ts";
import { createMongoDatabase } from "../../support/mongo.ts";
import { portOf, throughProxy } from "../../support/mongo-proxy.ts";
import { needs } from "../../support/parts.ts";
import { leaseOptions } from "../../support/steps.ts";
import { openWire } from "../../support/wire.ts";

needs("mongodb");

test("where roots are remembered already, their collection is not made ready once more", async () => {
  const database = await createMongoDatabase();
  await using wire = await openWire(portOf(database.url), "mongodb");
  const begin = async (version: number): Promise<void> => {
    const driver = openMongo(throughProxy(database.url, wire));
    onTestFinished(() => driver.close());
    const files = [{ version, document: "{}", bundles: "{}" }];
    await driver.withLease(leaseOptions(), (session) =>
      session.begin({
        highWaterMark: { epoch: 1, version, digest: "sha256:d" },
        root: { version, files },
        releaseDigest: "sha256:d",
        fromVersion: null,
        toVersion: "1",
        steps: 1,
      }),
    );
  };
  await begin(1);
  expect(wire.asked()).toContain("createIndexes");
  wire.reset();
  await begin(2);
  expect(wire.asked()).not.toContain("createIndexes");
  expect(await database.db.collection("lockkeeper.roots").countDocuments()).toBe(2);
});
