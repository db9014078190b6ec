import { beforeAll, describe } from "vitest";
import { openMongo } from "../../../src/driver/mongodb/mongodb.ts";
import { driverSuite } from "../../conformance/driver.ts";
import type { DriverUnderTest } from "../../conformance/driver-start.ts";
import { createMongoDatabase, ownMongo, type MongoTestDatabase } from "../../support/mongo.ts";
import { needs } from "../../support/parts.ts";

/** The bodies of a part, on the collection of their effects. */
interface Bodies {
  adds(collection: string, n: number): readonly object[];
  fails(collection: string, n: number): readonly object[];
}

const header = { $lockkeeper: { tx: "one" } };

const transactional: Bodies = {
  adds: (insert, n) => [header, { insert, documents: [{ _id: n }] }],
  fails: (insert, n) => [header, { insert, documents: [{ _id: n }] }, { insert, documents: [{ _id: n }] }],
};

/** One command each, which has its effect or none. */
const single: Bodies = {
  adds: (insert, n) => [{ insert, documents: [{ _id: n }] }],
  fails: (update, n) => [{ update, updates: [{ q: { _id: n }, u: { $nothing: { n } }, upsert: true }] }],
};

// A replica set, unless LOCKKEEPER_TEST_MONGODB names another server.
describe("MongoDB with all that it has", () => {
  needs("mongodb");
  let database: MongoTestDatabase;
  let bodies = transactional;
  beforeAll(async () => {
    database = await createMongoDatabase();
    const { setName, msg } = await database.db.command({ hello: 1 });
    if (setName === undefined && msg !== "isdbgrid") bodies = single;
  });
  driverSuite(() => underTest(database, bodies));
});

describe("MongoDB stand-alone, without transactions", () => {
  needs("secantusdb");
  let database: MongoTestDatabase;
  beforeAll(async () => {
    database = await createMongoDatabase({ server: await ownMongo({ standalone: true }) });
  });
  driverSuite(() => underTest(database, single));
});

let made = 0;

/** A part of the database that nobody has used: our own collections and those of the bodies are named after the test. */
function underTest({ url, db }: MongoTestDatabase, bodies: Bodies): Promise<DriverUnderTest> {
  made += 1;
  const schema = `part_${made} "of" it's own`;
  const collection = `effects_${made}`;
  return Promise.resolve({
    open: (options) => Promise.resolve(openMongo(url, { ...options, schema })),
    adds: (n) => ({ path: `${n}_add.up.json`, up: JSON.stringify(bodies.adds(collection, n)) }),
    fails: (n) => ({ path: `${n}_fail.up.json`, up: JSON.stringify(bodies.fails(collection, n)) }),
    async effects() {
      const found = await db.collection<{ _id: number }>(collection).find().sort({ _id: 1 }).toArray();
      return found.map(({ _id }) => _id);
    },
    async expire() {
      await db
        .collection(`${schema}.leases`)
        .updateMany({ runId: { $ne: null } }, { $set: { renewedAt: new Date(0) } });
    },
  });
}
