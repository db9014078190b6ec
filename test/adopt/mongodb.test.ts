import { describe, expect, test } from "vitest";
import { ownMongo } from "../support/mongo.ts";
import { needs } from "../support/parts.ts";
import { golangMigrate } from "../support/peer.ts";
import { makeMongoSite, pair } from "./mongo-site.ts";
import { back } from "./site.ts";

needs("mongodb", "secantusdb");

describe("golang-migrate's collection", () => {
  needs("golang-migrate");

  test("is taken over, kept in step, and taken up by the real tool again", async () => {
    const { site, db } = await makeMongoSite({ ...pair(1), ...pair(2) });
    const record = () =>
      db
        .collection("schema_migrations")
        .find({}, { projection: { _id: 0 } })
        .toArray();
    expect(await golangMigrate(site, "up")).toMatchObject({ code: 0 });
    const { finding, inStep } = await site.adopt({ keepsInStep: true });
    expect(finding.applied.map(({ assumed }) => assumed === null)).toEqual([false, true]);
    expect(inStep).toMatchObject({ tool: "golang-migrate", table: "schema_migrations" });

    await site.write(pair(3));
    expect(await site.run()).toMatchObject({ outcome: "applied", error: null });
    expect(await record()).toEqual([{ version: 3, dirty: false }]);
    expect((await golangMigrate(site, "up")).stderr).toContain("no change");
    expect(await site.run(back(1))).toMatchObject({ outcome: "rolled_back", error: null });
    expect(await record()).toEqual([{ version: 2, dirty: false }]);
    expect(await golangMigrate(site, "up")).toMatchObject({ code: 0 });
    expect(await site.run()).toMatchObject({ error: { code: "ADOPTION" } });
    expect((await site.adopt()).changes).toHaveLength(1);
    expect(await site.run(back(3))).toMatchObject({ outcome: "rolled_back", error: null });
    expect(await record()).toEqual([{ version: -1, dirty: false }]);
    expect(await golangMigrate(site, "up")).toMatchObject({ code: 0 });
    expect(await db.collection("migrate_advisory_lock").countDocuments()).toBe(0);
  });

  test("is not touched while its lock has another holder, but for one of ours that died", async () => {
    const { site, db, open } = await makeMongoSite(pair(1));
    expect(await golangMigrate(site, "up")).toMatchObject({ code: 0 });
    const locks = db.collection("migrate_advisory_lock");
    const theirs = { locking_key: 0, pid: 1, hostname: "pod-7", created_at: new Date() };
    await locks.insertOne(theirs);
    const impatient = await open(0);
    await expect(impatient.adopt()).rejects.toMatchObject({
      code: "LEASE_HELD",
      hint: expect.stringContaining("migrate_advisory_lock"),
    });
    expect(await locks.countDocuments()).toBe(1);
    await locks.replaceOne({}, { ...theirs, hostname: "lockkeeper/orders" });
    expect((await impatient.adopt()).changes).toHaveLength(1);
    expect(await locks.countDocuments()).toBe(0);
  });

  test("is refused where it is dirty", async () => {
    const { site, db } = await makeMongoSite({ ...pair(1), "0002_wrong.up.json": '[{"drop": "t9"}]' });
    await golangMigrate(site, "up");
    await db.collection("schema_migrations").updateOne({}, { $set: { dirty: true } });
    await expect(site.adopt()).rejects.toMatchObject({
      code: "ADOPTION",
      hint: expect.stringContaining("force"),
    });
    expect(await site.history()).toEqual([]);
  });

  test("is kept true by a server without transactions too", async () => {
    const server = await ownMongo({ standalone: true });
    const { site, db } = await makeMongoSite({ ...pair(1), ...pair(2) }, server);
    await db.collection("schema_migrations").insertOne({ version: 1, dirty: false });
    await db.createCollection("t1");
    await site.adopt({ keepsInStep: true });
    expect(await site.run()).toMatchObject({ outcome: "applied", error: null });
    expect(await db.collection("schema_migrations").findOne()).toMatchObject({ version: 2, dirty: false });
    // A runner that died between the record and the history: the migration is begun, and the record has it.
    await db
      .collection<{ _id: string }>("lockkeeper.history")
      .updateOne({ seq: 2 }, { $set: { status: "started", statementsDone: 1 } });
    expect(await site.run()).toMatchObject({ outcome: "applied", error: null });
  });
});
