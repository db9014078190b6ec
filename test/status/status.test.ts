import { writeFile } from "node:fs/promises";
import { join } from "node:path";

import { expect, onTestFinished, test } from "vitest";

import { openDriver } from "../../src/driver/open.ts";
import { plainReleases } from "../../src/release/folder/plain.ts";
import { run, type Target } from "../../src/runner.ts";
import { readStatus } from "../../src/status/status.ts";
import { createDatabase } from "../support/database.ts";
import { tempFolder, type Files } from "../support/release.ts";
import { leaseOptions, never } from "../support/steps.ts";
import { requestOf } from "../support/target.ts";

const options = { signal: never, now: () => new Date() };

/** A target on a real folder of plain files. */
async function folderTarget(
  files: Files,
  allowLate = false,
): Promise<{ target: Target; write(name: string, text: string): Promise<void> }> {
  const database = await createDatabase();
  const folder = await tempFolder(files);
  onTestFinished(() => folder[Symbol.asyncDispose]());
  const driver = await openDriver(database.url);
  onTestFinished(() => driver.close());
  const releases = plainReleases({
    source: folder.source,
    stream: "orders",
    environment: "default",
    engine: "postgres",
    allowLate,
  });
  const limits = { waitMs: 0, lockTimeoutMs: 0, statementTimeoutMs: 0, deadlineMs: 0 };
  const target = { name: "t", stream: "orders", environment: "default", releases, driver, limits };
  return { target, write: (name, text) => writeFile(join(folder.path, name), text) };
}

function up(target: Target): ReturnType<typeof run> {
  return run(requestOf(target), target, { ...options, emit: () => undefined });
}

test("a fresh database has everything pending, and asking creates nothing", async () => {
  const { target } = await folderTarget({ "1_a.up.sql": "SELECT 1", "2_b.up.sql": "SELECT 2" });
  for (let twice = 0; twice < 2; twice += 1) {
    expect(await readStatus(target, options)).toMatchObject({
      position: { length: 0 },
      completed: null,
      fresh: true,
      pending: [{ version: "1" }, { version: "2" }],
      applied: [],
      problem: null,
    });
  }
  expect((await target.driver.state("orders", never)).exists).toBe(false);
});

test("what is applied, pending, failed and held by whom is told", async () => {
  const { target, write } = await folderTarget({ "1_a.up.sql": "SELECT 1", "2_b.up.sql": "SELECT 1/0" });
  await up(target);
  expect(await readStatus(target, options)).toMatchObject({
    position: { length: 1, version: "1" },
    pending: [{ path: "2_b.up.sql" }],
    applied: [{ path: "1_a.up.sql" }],
    unfinished: { path: "2_b.up.sql", status: "failed", error: { code: "MIGRATION_FAILED" } },
    lease: null,
  });
  await target.driver.withLease(leaseOptions({ holder: "host/3" }), async () => {
    expect((await readStatus(target, options)).lease).toMatchObject({ holder: "host/3" });
  });
  await write("2_b.up.sql", "SELECT 1");
  await up(target);
  expect(await readStatus(target, options)).toMatchObject({
    position: { length: 2 },
    pending: [],
    unfinished: null,
  });
});

test("a changed file, one gone and one too late are problems that status tells and a run refuses", async () => {
  const { target, write } = await folderTarget({ "1_a.up.sql": "SELECT 1", "3_c.up.sql": "SELECT 3" });
  await up(target);
  await write("2_b.up.sql", "SELECT 2");
  expect((await readStatus(target, options)).problem).toMatchObject({
    code: "OUT_OF_ORDER",
    fields: { migration: "2_b.up.sql" },
  });
  expect(await up(target)).toMatchObject({ outcome: "refused", error: { code: "OUT_OF_ORDER" } });
  const changed = await folderTarget({ "1_a.up.sql": "SELECT 1" });
  await up(changed.target);
  await changed.write("1_a.up.sql", "SELECT 11");
  expect(await up(changed.target)).toMatchObject({ outcome: "refused", error: { code: "CHANGED_FILE" } });
  expect(await readStatus(changed.target, options)).toMatchObject({
    problem: { code: "CHANGED_FILE" },
    applied: [{ version: "1" }],
  });
});

test("a database that has more than the folder is ahead of it", async () => {
  const { target } = await folderTarget({ "1_a.up.sql": "SELECT 1", "2_b.up.sql": "SELECT 2" });
  await up(target);
  const fewer = await folderTarget({ "1_a.up.sql": "SELECT 1" });
  const behind: Target = { ...target, releases: fewer.target.releases };
  expect(await up(behind)).toMatchObject({
    outcome: "refused",
    error: { code: "DATABASE_AHEAD", fields: { migration: "2_b.up.sql" } },
  });
  expect((await readStatus(behind, options)).problem).toMatchObject({ code: "DATABASE_AHEAD" });
});

test("a late file is applied at the end where that was asked for, and stays there", async () => {
  const { target, write } = await folderTarget({ "1_a.up.sql": "SELECT 1", "3_c.up.sql": "SELECT 3" }, true);
  await up(target);
  await write("2_b.up.sql", "SELECT 2");
  expect(await up(target)).toMatchObject({ outcome: "applied", done: [{ version: "2" }] });
  await write("4_d.up.sql", "SELECT 4");
  expect(await up(target)).toMatchObject({ outcome: "applied", done: [{ version: "4" }] });
  expect((await target.driver.history("orders", {}, never)).map(({ version }) => version)).toEqual([
    "1",
    "3",
    "2",
    "4",
  ]);
});
