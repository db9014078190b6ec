import path from "node:path";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { plainReleases } from "../../src/release/folder/plain.ts";
import { publishRelease } from "../../src/release/publish/publish.ts";
import { signedReleases } from "../../src/release/signed.ts";
import { createMongoDatabase, type MongoTestDatabase } from "../support/mongo.ts";
import { needs } from "../support/parts.ts";
import { golangMigrate, succeeded } from "../support/peer.ts";
import { folderSource, makeKeys, never, tempFolder } from "../support/release.ts";
import { targetOn } from "../support/target.ts";

needs("mongodb", "golang-migrate");

const folder = path.join(import.meta.dirname, "folder", "golang-migrate-mongodb");
const toNone = { action: "rollback", goal: { kind: "version", version: "0", allow: "down" } } as const;

/** What golang-migrate makes of the folder, up, down and up again. */
let afterUp: unknown;
let afterDown: unknown;
let afterAgain: unknown;

beforeAll(async () => {
  const database = await createMongoDatabase();
  const site = { url: database.url, folder };
  await succeeded(golangMigrate(site, "up"));
  afterUp = await everythingIn(database);
  await succeeded(golangMigrate(site, "down", "-all"));
  afterDown = await everythingIn(database);
  await succeeded(golangMigrate(site, "up"));
  afterAgain = await everythingIn(database);
  await dropUsers(database);
});

describe("a folder of commands made for golang-migrate", () => {
  const stream = { stream: "orders", environment: "default", engine: "mongodb" } as const;

  test("comes up plain, goes down and comes up again as by the tool itself", async () => {
    const database = await createMongoDatabase();
    const releases = plainReleases({ ...stream, source: folderSource(folder), allowLate: false });
    const target = await targetOn(database.url, releases);
    expect(await target.run()).toMatchObject({ error: null, outcome: "applied", left: 0 });
    expect(await everythingIn(database)).toEqual(afterUp);
    expect(await target.run()).toMatchObject({ error: null, outcome: "noop" });
    expect(await target.run(toNone)).toMatchObject({ error: null, outcome: "rolled_back" });
    expect(await everythingIn(database)).toEqual(afterDown);
    expect(await target.run()).toMatchObject({ error: null, outcome: "applied" });
    expect(await everythingIn(database)).toEqual(afterAgain);
    await dropUsers(database);
  });

  test("comes up signed as by the tool itself", async () => {
    const database = await createMongoDatabase();
    const destination = await tempFolder();
    onTestFinished(() => destination[Symbol.asyncDispose]());
    const { key, trust } = makeKeys();
    await publishRelease(
      {
        stream: "orders",
        engine: "mongodb",
        folder: folderSource(folder),
        destination: destination.source,
        environments: ["default"],
        expiresInDays: 1,
        keys: [key],
        allowLate: false,
        now: new Date(),
        emit: () => undefined,
      },
      never,
    );
    const releases = signedReleases({ ...stream, source: destination.source, trust });
    const target = await targetOn(database.url, releases);
    expect(await target.run()).toMatchObject({ error: null, outcome: "applied", left: 0 });
    expect(await everythingIn(database)).toEqual(afterUp);
    await dropUsers(database);
  });
});

/** They are the server's, and would outlive the database. */
async function dropUsers({ db }: MongoTestDatabase): Promise<void> {
  await db.command({ dropUser: "reader" });
}

/** What either side keeps for itself. */
const own = /^(lockkeeper|schema_migrations$|migrate_advisory_lock$|system\.)/;

/** Collections with their options, documents and indexes byte for byte, and users; less what either side keeps for itself. */
async function everythingIn({ db }: MongoTestDatabase): Promise<unknown> {
  const collections = (await db.listCollections({}, { nameOnly: false }).toArray()).filter(
    ({ name }) => !own.test(name),
  );
  const users = await db.command({ usersInfo: 1 });
  return {
    users: users["users"].map(({ user, roles }: { user: unknown; roles: unknown }) => ({ user, roles })),
    collections: await Promise.all(
      collections
        .toSorted((a, b) => (a.name < b.name ? -1 : 1))
        .map(async ({ name, type, options }) => ({
          name,
          type,
          options,
          // An object of JavaScript would put keys like "2" first, and make one kind of number of four.
          documents: await raw(db.collection(name).find({}, { raw: true, sort: { _id: 1 } })),
          indexes: await raw(db.collection(name).listIndexes({ raw: true })),
        })),
    ),
  };
}

async function raw(cursor: { toArray(): Promise<unknown[]> }): Promise<string[]> {
  return (await cursor.toArray()).map((document) => {
    if (!Buffer.isBuffer(document)) throw new TypeError("not as it came");
    return document.toString("latin1");
  });
}
