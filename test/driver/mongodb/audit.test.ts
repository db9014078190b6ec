import { expect, onTestFinished, test } from "vitest";

import { openMongo } from "../../../src/driver/mongodb/mongodb.ts";
import { linkOf } from "../../../src/history/audit.ts";
import { createMongoDatabase } from "../../support/mongo.ts";
import { portOf, throughProxy } from "../../support/mongo-proxy.ts";
import { needs } from "../../support/parts.ts";
import { never } from "../../support/steps.ts";
import { openWire } from "../../support/wire.ts";

needs("mongodb");

test("an entry that follows one of our own is added without asking for the newest; after another's it is linked to that", async () => {
  const database = await createMongoDatabase();
  await using wire = await openWire(portOf(database.url), "mongodb");
  const driver = openMongo(throughProxy(database.url, wire));
  onTestFinished(() => driver.close());
  const other = openMongo(database.url);
  onTestFinished(() => other.close());
  await driver.audit.append("first", never);
  wire.reset();
  await driver.audit.append("second", never);
  expect(wire.asked()).toEqual(["update"]);
  const third = await other.audit.append("third", never);
  const fourth = await driver.audit.append("fourth", never);
  expect(fourth).toEqual({
    seq: 4,
    previous: third.sha256,
    sha256: linkOf(third.sha256, "fourth"),
    text: "fourth",
  });
});

test("an entry of our own that somebody takes away leaves a gap that shows", async () => {
  const database = await createMongoDatabase();
  const driver = openMongo(database.url);
  onTestFinished(() => driver.close());
  const first = await driver.audit.append("first", never);
  const second = await driver.audit.append("second", never);
  await database.db.collection<{ _id: number }>("lockkeeper.audit").deleteOne({ _id: second.seq });
  const third = await driver.audit.append("third", never);
  expect(await driver.audit.read({ after: 0, limit: 10 }, never)).toEqual([first, third]);
  expect(third).toMatchObject({ seq: 3, previous: second.sha256 });
});
