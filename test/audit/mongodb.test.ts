import { writeFile } from "node:fs/promises";
import { join } from "node:path";

import { expect, onTestFinished, test } from "vitest";

import { setPaused } from "../../src/run/by-hand.ts";
import { verifyAudit } from "../../src/audit/verify.ts";
import { folderWith, run } from "../bin/program.ts";
import { openDriver } from "../../src/driver/open.ts";
import { createMongoDatabase } from "../support/mongo.ts";
import { needs } from "../support/parts.ts";
import { never } from "../support/steps.ts";
import { recordsOf, story } from "./records.ts";

needs("mongodb");

test("a MongoDB's audit log has its runs, refuses to be changed unseen, and refuses a run when it cannot be written", async () => {
  const database = await createMongoDatabase();
  const folder = await folderWith({
    "m/000001_users.up.json": '[{ "create": "users" }]',
    "m/000001_users.down.json": '[{ "drop": "users" }]',
  });
  const follow = ["--source", "m", "--unsigned", "--stream", "shop"];
  const call = (...argv: readonly string[]) => run(argv, folder, { DATABASE_URL: database.url });
  const first = await call("up", ...follow, "--output", "json");
  expect(first, first.stderr).toMatchObject({ code: 0 });
  const { audit } = JSON.parse(first.stdout) as { audit: { seq: number; sha256: string } };
  const driver = await openDriver(database.url);
  onTestFinished(() => driver.close());
  const place = { name: "shop", stream: "shop", driver };
  const caller = { issuer: "cli", subject: "ada@laptop", rule: null };
  const by = { reason: "looked at it", caller, trigger: "cli" } as const;
  for (const paused of [true, false])
    await setPaused(paused, by, place, { signal: never, emit: () => undefined, now: () => new Date() });
  expect(story(await recordsOf(driver))).toEqual([
    "run.begun",
    "run.ended applied",
    "paused",
    "paused done",
    "resumed",
    "resumed done",
  ]);
  expect(await verifyAudit(driver.audit, new Map([[audit.seq, audit.sha256]]), never)).toMatchObject({
    entries: 6,
    expected: 1,
  });

  // nothing can be added any more
  await database.db.command({ collMod: "lockkeeper.audit", validator: { never: { $exists: true } } });
  await writeFile(join(folder, "m/000002_orders.up.json"), '[{ "create": "orders" }]');
  const refused = await call("up", ...follow);
  expect(refused).toMatchObject({ code: 31 });
  expect(refused.stderr).toContain("AUDIT_UNAVAILABLE");
  expect(await database.db.listCollections({ name: "orders" }).toArray()).toEqual([]);
  await database.db.command({ collMod: "lockkeeper.audit", validator: {} });

  const log = database.db.collection("lockkeeper.audit");
  const [fourth] = await driver.audit.read({ after: 3, limit: 1 }, never);
  const text = fourth?.text.replace("looked", "stared") ?? "";
  expect(await log.updateOne({ text: fourth?.text }, { $set: { text } })).toMatchObject({ modifiedCount: 1 });
  await expect(verifyAudit(driver.audit, new Map(), never)).rejects.toMatchObject({
    code: "AUDIT_BROKEN",
    fields: { seq: 4, fault: "altered" },
  });
});
