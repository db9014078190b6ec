import { rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { atlasSum } from "../../src/migration/format/atlas-sum.ts";
import { namedFormat } from "../../src/migration/format/choose-format.ts";
import type { FormatName } from "../../src/migration/format/format.ts";
import { plainReleases } from "../../src/release/folder/plain.ts";
import { signedReleases } from "../../src/release/signed.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { type Files, makeKeys, publishTo, tempFolder } from "../support/release.ts";
import { targetOn, type TestTarget } from "../support/target.ts";

const at = { stream: "orders", environment: "default", engine: "postgres" } as const;

/** A tool's folder whose files can be exchanged. */
interface ToolFolder {
  /** Writes these, and takes away those without a text. */
  write(files: Readonly<Record<string, string | undefined>>): Promise<void>;
  open(database: TestDatabase, placeholders?: Readonly<Record<string, string>>): Promise<TestTarget>;
}

async function toolFolder(format: FormatName, files: Files): Promise<ToolFolder> {
  const folder = await tempFolder(files);
  onTestFinished(() => folder[Symbol.asyncDispose]());
  return {
    async write(changed) {
      for (const [name, text] of Object.entries(changed)) {
        const place = path.join(folder.path, name);
        await (text === undefined ? rm(place) : writeFile(place, text));
      }
    },
    open(database, placeholders = {}) {
      const settings = { engine: "postgres", variables: {}, placeholders } as const;
      return targetOn(
        database.url,
        plainReleases({
          ...at,
          source: folder.source,
          format: namedFormat(format, settings),
          allowLate: false,
        }),
      );
    },
  };
}

const toNone = { action: "rollback", goal: { kind: "version", version: "0", allow: "down" } } as const;

describe("a folder of Flyway's", () => {
  const files = {
    "V1__users.sql": "CREATE TABLE users (id int PRIMARY KEY, name text);",
    "U1__users.sql": "DROP TABLE users CASCADE;",
    "V1.10__late.sql": "INSERT INTO users VALUES (10, '${who}');",
    "U1.10__late.sql": "DELETE FROM users WHERE id = 10;",
    "V1.9__early.sql": "INSERT INTO users VALUES (9, '${flyway:filename}');",
    "U1.9__early.sql": "DELETE FROM users WHERE id = 9;",
    "R__b.sql": "CREATE OR REPLACE VIEW b AS SELECT * FROM a WHERE name <> '${nobody}';",
    "R__a.sql": "CREATE OR REPLACE VIEW a AS SELECT * FROM users;",
  };

  test("comes up in the order of dotted versions, and goes down by its undo scripts to any of them", async () => {
    const database = await createDatabase();
    const folder = await toolFolder("flyway", files);
    const target = await folder.open(database, { who: "alice", nobody: "nobody" });
    expect(await target.run()).toMatchObject({ outcome: "applied", left: 0 });
    expect(await database.query("SELECT * FROM b ORDER BY id")).toEqual([
      { id: 9, name: "V1.9__early.sql" },
      { id: 10, name: "alice" },
    ]);
    const down = { kind: "version", version: "1.09.0", allow: "down" } as const;
    expect(await target.run({ action: "rollback", goal: down })).toMatchObject({ outcome: "rolled_back" });
    expect(await database.query("SELECT id FROM users")).toEqual([{ id: 9 }]);
    expect(await target.run(toNone)).toMatchObject({ outcome: "rolled_back" });
    expect(await database.query("SELECT to_regclass('users') AS users")).toEqual([{ users: null }]);
  });

  test("runs a repeatable script again when a placeholder's value has changed, and only that one", async () => {
    const database = await createDatabase();
    const folder = await toolFolder("flyway", files);
    const first = await folder.open(database, { who: "alice", nobody: "x" });
    expect(await first.run()).toMatchObject({ outcome: "applied" });
    const second = await folder.open(database, { who: "alice", nobody: "alice" });
    const { done } = await second.run();
    expect(done.map((step) => step.path)).toEqual(["R__b.sql"]);
    expect(await database.query("SELECT id FROM b")).toEqual([{ id: 9 }]);
    expect(await second.run()).toMatchObject({ outcome: "noop" });
  });

  test("is refused where it holds a folder, which Flyway would read as well", async () => {
    const tool = await toolFolder("flyway", { "V1__a.sql": "SELECT 1;", "2024/V2__b.sql": "SELECT 2;" });
    expect(await (await tool.open(await createDatabase())).run()).toMatchObject({
      error: { code: "FORMAT", fields: { folder: "2024/" } },
    });
  });

  test("tells of a placeholder without a value before anything is changed", async () => {
    const database = await createDatabase();
    const target = await (await toolFolder("flyway", files)).open(database, { who: "alice" });
    const { outcome, error } = await target.run();
    expect(outcome).toBe("refused");
    expect(error?.code).toBe("FORMAT");
    expect(error?.message).toContain('R__b.sql:1: the placeholder "nobody" has no value');
    expect(await database.query("SELECT to_regclass('users') AS users")).toEqual([{ users: null }]);
  });

  test("with a baseline script takes it on an empty database, and not on one that is past it", async () => {
    const folder = await toolFolder("flyway", files);
    const values = { who: "alice", nobody: "nobody" };
    const old = await createDatabase();
    const oldTarget = await folder.open(old, values);
    expect(await oldTarget.run()).toMatchObject({ outcome: "applied" });

    await folder.write({
      "B1.9__all.sql":
        "CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users VALUES (9, 'baseline');",
    });
    expect(await oldTarget.run()).toMatchObject({ outcome: "noop", error: null });

    const fresh = await createDatabase();
    const target = await folder.open(fresh, values);
    const { done } = await target.run();
    expect(done.map((step) => step.path)).toEqual([
      "B1.9__all.sql",
      "V1.10__late.sql",
      "R__a.sql",
      "R__b.sql",
    ]);
    expect(await fresh.query("SELECT name FROM users ORDER BY id")).toEqual([
      { name: "baseline" },
      { name: "alice" },
    ]);
    await folder.write({ "V2__more.sql": "INSERT INTO users VALUES (2, 'more');" });
    const more = await target.run();
    expect(more.done.map((step) => step.path)).toEqual(["V2__more.sql"]);
    expect(
      await target.run({ action: "rollback", goal: { kind: "version", version: "1.9", allow: "down" } }),
    ).toMatchObject({
      error: { code: "NO_DOWN" },
    });
  });

  test("that begins with a baseline script goes on after it", async () => {
    const database = await createDatabase();
    const folder = await toolFolder("flyway", {
      "B5__all.sql": "CREATE TABLE users (id int);",
      "V6__more.sql": "INSERT INTO users VALUES (6);",
      "V6__more.sql.conf": "executeInTransaction=false",
    });
    const target = await folder.open(database);
    expect(await target.run()).toMatchObject({ outcome: "applied" });
    expect(await target.run()).toMatchObject({ outcome: "noop" });
    expect(await database.query("SELECT id FROM users")).toEqual([{ id: 6 }]);
  });

  test("mixes what runs in a transaction with what cannot, which Flyway refuses", async () => {
    const database = await createDatabase();
    const folder = await toolFolder("flyway", {
      "V1__a.sql": "CREATE TABLE a (id int);\nCREATE INDEX CONCURRENTLY a_id ON a (id);\n",
    });
    const target = await folder.open(database);
    expect(await target.run()).toMatchObject({ outcome: "applied" });
    expect(
      await database.query("SELECT indisvalid FROM pg_index WHERE indexrelid = 'a_id'::regclass"),
    ).toEqual([{ indisvalid: true }]);
  });
});

describe("a folder of Atlas's", () => {
  const checked = [
    "-- atlas:txtar",
    "",
    "-- checks/users.sql --",
    "-- nobody is left",
    "SELECT true;",
    "SELECT NOT EXISTS (",
    "  SELECT * FROM users -- any",
    ");",
    "-- checks/roles.sql --",
    "-- atlas:assert oneof",
    "SELECT false;",
    "SELECT current_user IS NOT NULL;",
    "-- migration.sql --",
    "DROP TABLE users;",
    "-- down.sql --",
    "CREATE TABLE users (id int);",
    "",
  ].join("\n");
  const files = {
    "1_users.sql": "CREATE TABLE users (id int);\nINSERT INTO users VALUES (1);\n",
    "2_no_users.sql": checked,
  };

  function withSum(texts: Readonly<Record<string, string>>): Files {
    const all = Object.entries(texts).map(([name, text]) => ({ name, bytes: Buffer.from(text) }));
    return { ...texts, "atlas.sum": atlasSum(all) };
  }

  test("runs a migration only when its checks are true, in the same transaction, and goes back by its down part", async () => {
    const database = await createDatabase();
    const target = await (await toolFolder("atlas", withSum(files))).open(database);
    const failed = await target.run();
    expect(failed).toMatchObject({ outcome: "failed", left: 1 });
    expect(failed.error?.code).toBe("MIGRATION_FAILED");
    expect(failed.error?.message).toContain(
      "check checks/users.sql failed: assertion 2 (line 6) is not true",
    );
    await database.query("DELETE FROM users");
    expect(await target.run({ goal: { kind: "latest" } })).toMatchObject({ outcome: "applied", left: 0 });
    expect(await database.query("SELECT to_regclass('users') AS users")).toEqual([{ users: null }]);
    expect(
      await target.run({ action: "rollback", goal: { kind: "version", version: "1", allow: "down" } }),
    ).toMatchObject({ outcome: "rolled_back" });
    expect(await database.query("SELECT count(*)::int AS n FROM users")).toEqual([{ n: 0 }]);
  });

  test("fails a check file with oneof where none of its assertions is true", async () => {
    const database = await createDatabase();
    const none = checked.replace("current_user IS NOT NULL", "NULL::boolean").replace("NOT EXISTS", "EXISTS");
    const target = await (
      await toolFolder("atlas", withSum({ ...files, "2_no_users.sql": none }))
    ).open(database);
    const { error } = await target.run();
    expect(error?.message).toContain(
      "check checks/roles.sql failed: none of its 2 assertions (from line 11) is true",
    );
    expect(await database.query("SELECT count(*)::int AS n FROM users")).toEqual([{ n: 1 }]);
  });

  test("tells the line of the file where a statement of the migration fails", async () => {
    const database = await createDatabase();
    const wrong = checked
      .replace("DROP TABLE users;", "SELECT 1;\nDROP TABLE nobody;")
      .replace("NOT EXISTS", "EXISTS");
    const target = await (
      await toolFolder("atlas", withSum({ ...files, "2_no_users.sql": wrong }))
    ).open(database);
    const { error } = await target.run();
    expect(error?.message).toContain("2_no_users.sql");
    expect(error?.fields).toMatchObject({ migration: "2_no_users.sql", sqlstate: "42P01" });
  });

  test("that was changed without its sum is refused before the database is changed", async () => {
    const database = await createDatabase();
    const folder = await toolFolder("atlas", withSum(files));
    await folder.write({ "1_users.sql": "CREATE TABLE users (id bigint);\n" });
    const { outcome, error } = await (await folder.open(database)).run();
    expect(outcome).toBe("refused");
    expect(error?.code).toBe("FOLDER_SUM");
    expect(error?.message).toBe('atlas.sum:2: "1_users.sql" was edited after the sums were made');
    expect(await database.query("SELECT to_regclass('users') AS users")).toEqual([{ users: null }]);
  });

  test("without its sum is refused by publish as well", async () => {
    const destination = await tempFolder();
    onTestFinished(() => destination[Symbol.asyncDispose]());
    const settings = { engine: "postgres", variables: {}, placeholders: {} } as const;
    const format = namedFormat("atlas", settings);
    await expect(
      publishTo(destination.source, files, { keys: [makeKeys().key], format }),
    ).rejects.toMatchObject({
      code: "FOLDER_SUM",
    });
  });

  test("comes up from its checkpoint on an empty database, from a signed release too", async () => {
    const texts = {
      "1_users.sql": "CREATE TABLE users (id int);\nINSERT INTO users VALUES (1);\n",
      "2_checkpoint.sql":
        "-- atlas:checkpoint\n\nCREATE TABLE users (id int);\nINSERT INTO users VALUES (2);\n",
      "3_more.sql":
        "-- atlas:delimiter \\n\\n\nINSERT INTO users VALUES (3)\n\nINSERT INTO users VALUES (4)\n",
    };
    const settings = { engine: "postgres", variables: {}, placeholders: {} } as const;
    const destination = await tempFolder();
    onTestFinished(() => destination[Symbol.asyncDispose]());
    const { key, trust } = makeKeys();
    await publishTo(destination.source, withSum(texts), {
      keys: [key],
      format: namedFormat("atlas", settings),
    });
    const plain = await createDatabase();
    const signed = await createDatabase();
    const targets = [
      await (await toolFolder("atlas", withSum(texts))).open(plain),
      await targetOn(signed.url, signedReleases({ ...at, source: destination.source, trust })),
    ];
    for (const target of targets) {
      expect(await target.run()).toMatchObject({ outcome: "applied", left: 0 });
      expect(await target.run()).toMatchObject({ outcome: "noop" });
    }
    for (const database of [plain, signed]) {
      expect(await database.query("SELECT id FROM users ORDER BY id")).toEqual([
        { id: 2 },
        { id: 3 },
        { id: 4 },
      ]);
    }
  });
});
