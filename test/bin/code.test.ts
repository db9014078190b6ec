import { readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { createMongoDatabase } from "../support/mongo.ts";
import { needs } from "../support/parts.ts";
import { folderWith, run, start } from "./program.ts";

/** A program that uses what it imports, values, and several statements. */
const fill = `
import { createHash } from "node:crypto";
import { names } from "../lib/names.ts";
import type { MigrationFunction } from "lockkeeper";

const up: MigrationFunction = async ({ sql, log, direction, version }) => {
  for (const name of names) {
    const key: string = createHash("sha256").update(name).digest("hex");
    await sql("insert into users (name, key) values ($1, $2)", [name, key]);
  }
  const [row] = await sql("select count(*)::int as n from users");
  log(\`\${direction} \${version}: \${String(row?.["n"])} users\`);
};
export default up;
`;

const files = {
  "m/1_users.up.sql": "create table users (name text, key text);",
  "m/2_fill.up.ts": fill,
  "m/2_fill.down.mjs": "export default async ({ sql }) => { await sql('delete from users'); };",
  "m/3_after.up.sql": "create table after_fill (id int);",
  "m/3_after.down.sql": "drop table after_fill;",
  "lib/names.ts": 'export const names: readonly string[] = ["ada", "grace"];\n',
};

interface Site {
  readonly database: TestDatabase;
  readonly folder: string;
  call(...argv: readonly string[]): ReturnType<typeof run>;
  start(...argv: readonly string[]): ReturnType<typeof start>;
  /** on what was published */
  signed(...argv: readonly string[]): ReturnType<typeof run>;
}

async function site(more: Readonly<Record<string, string>> = {}): Promise<Site> {
  const [database, folder] = await Promise.all([createDatabase(), folderWith({ ...files, ...more })]);
  const at = ["--source", "m", "--unsigned", "--stream", "s", "--database", database.url];
  const signed = [
    "--source",
    "./released",
    "--trust",
    "key.pub",
    "--stream",
    "s",
    "--database",
    database.url,
  ];
  return {
    database,
    folder,
    call: (verb, ...rest) => run([verb ?? "", ...rest, ...at], folder),
    start: (verb, ...rest) => start([verb ?? "", ...rest, ...at], folder),
    signed: (...argv) => run([...argv, ...signed], folder),
  };
}

async function publish(folder: string) {
  await run(["keygen", "--out", "key"], folder);
  return run(["publish", "./m", "./released", "--stream", "s", "--key", "key"], folder);
}

async function blobWith(part: string, folder: string): Promise<{ place: string; text: string }> {
  for (const name of await readdir(folder)) {
    const place = join(folder, name);
    const text = await readFile(place, "utf8");
    if (text.includes(part)) return { place, text };
  }
  throw new Error(`no blob has ${part}`);
}

const users = ({ database }: Site) => database.query("select name, length(key) as k from users order by 1");
const history = async ({ database }: Site) =>
  (await database.query("select version, direction, status from lockkeeper.history order by id")).map((row) =>
    Object.values(row).join(" "),
  );

describe("migrations that are programs", () => {
  test("run signed, with what they import, from what was signed alone", { timeout: 240_000 }, async () => {
    const here = await site();
    const published = await publish(here.folder);
    expect(published).toMatchObject({ code: 0 });
    expect(published.stderr).toContain('"2_fill.down.mjs" (and 1 more) is a program: golang-migrate would');
    // What they were made of is not needed any more.
    await rm(join(here.folder, "lib"), { recursive: true });
    const plan = await here.signed("plan");
    expect(plan.stdout).toMatch(/2_fill\.up\.ts +program/);

    // Somebody who can write the bucket changes a program.
    const { place, text } = await blobWith('createHash("sha256")', join(here.folder, "released/blobs"));
    await writeFile(place, text.replace('"sha256"', '"sha512"'));
    const refused = await here.signed("up");
    expect(refused).toMatchObject({ code: 20, stderr: expect.stringContaining("BLOB_DIGEST") });
    expect(await here.database.query("select to_regclass('users') as there")).toEqual([{ there: null }]);
    await writeFile(place, text);

    const up = await here.signed("up");
    expect(up).toMatchObject({ code: 0 });
    expect(up.stderr).toContain("2_fill.up.ts: up 2: 2 users");
    expect(await users(here)).toEqual([
      { name: "ada", k: 64 },
      { name: "grace", k: 64 },
    ]);
    expect(await here.signed("down", "2")).toMatchObject({ code: 0 });
    expect(await users(here)).toEqual([]);
  });

  test(
    "killed in the middle are as if they had never begun, and run again",
    { timeout: 240_000 },
    async () => {
      const slow = `export default async ({ sql, log }) => { await sql("insert into users values ('half', '')"); log("half way"); await new Promise((go) => setTimeout(go, 600000)); };`;
      const here = await site({ "m/2_fill.up.ts": slow });
      const running = here.start("up");
      await expect.poll(() => running.said().stderr, { timeout: 60_000 }).toContain("half way");
      running.child.kill("SIGKILL");
      await running.ended;
      const left = () =>
        here.database.query(
          "select from pg_stat_activity where application_name like 'lockkeeper%' and datname = current_database()",
        );
      await expect.poll(left, { timeout: 60_000 }).toHaveLength(0);
      expect(await users(here)).toEqual([]);
      await here.database.query("update lockkeeper.streams set expires_at = now() - interval '1 minute'");
      await writeFile(join(here.folder, "m/2_fill.up.ts"), fill);
      expect(await here.call("up")).toMatchObject({ code: 0 });
      expect(await history(here)).toEqual(["1 up done", "2 up done", "3 up done"]);
      expect(await users(here)).toHaveLength(2);
    },
  );

  test(
    "stop with the run although they do not listen, end with the program, and fail without a stack",
    { timeout: 240_000 },
    async () => {
      const deaf = `export default async ({ sql, log }) => { await sql("insert into users values ('half', '')"); log("deaf"); await new Promise(() => setInterval(() => undefined, 1000)); };`;
      const here = await site({ "m/2_fill.up.ts": deaf });
      const running = here.start("up");
      await expect.poll(() => running.said().stderr, { timeout: 60_000 }).toContain("deaf");
      running.child.kill("SIGTERM");
      expect(await running.ended).toBe(143);
      expect(await users(here)).toEqual([]);
      expect(await history(here)).toEqual(["1 up done"]);
      await writeFile(
        join(here.folder, "m/2_fill.up.ts"),
        "export default () => {\n  throw new Error('no luck');\n};\n",
      );
      const failed = await here.call("up");
      expect(failed).toMatchObject({ code: 21 });
      expect(failed.stderr).toContain("2_fill.up.ts:2:9: no luck; nothing of this migration was applied");
      expect(failed.stderr).not.toMatch(/\n +at /);
    },
  );

  test(
    "that were changed after their release cannot be published, wherever the change is",
    { timeout: 120_000 },
    async () => {
      const folder = await folderWith(files);
      expect(await publish(folder)).toMatchObject({ code: 0 });
      const again = ["publish", "./m", "./released", "--stream", "s", "--key", "key"];
      expect(await run(again, folder)).toMatchObject({
        code: 0,
        stdout: expect.stringContaining("unchanged"),
      });
      await writeFile(join(folder, "lib/names.ts"), 'export const names = ["eve"];\n');
      expect(await run(again, folder)).toMatchObject({
        code: 20,
        stderr: expect.stringContaining("CHANGED_FILE"),
      });
    },
  );
});

describe("migrations for MongoDB that are programs", () => {
  needs("mongodb");

  /** Waits in the middle of its transaction until there is a file "go". */
  const names = `
import { existsSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { ObjectId } from "bson";
import type { MigrationFunction } from "lockkeeper";
import { names } from "../lib/names.ts";

const up: MigrationFunction<"mongodb"> = async ({ db, session, log }) => {
  const users = db.collection<{ _id: ObjectId; name: string }>("users");
  for (const name of names) await users.insertOne({ _id: new ObjectId(), name }, { session });
  log("half way");
  while (!existsSync("go")) await pause(20);
  await db.collection("counts").insertOne({ n: await users.countDocuments({}, { session }) }, { session });
};
export default up;
`;

  test(
    "run signed; killed in the middle they are as if they had never begun, and then run once",
    { timeout: 240_000 },
    async () => {
      const [database, folder] = await Promise.all([
        createMongoDatabase(),
        folderWith({
          "m/1_names.up.ts": names,
          "m/1_names.down.js":
            "export default async ({ db, session }) => { await db.collection('users').deleteMany({}, { session }); };",
          "lib/names.ts": files["lib/names.ts"],
        }),
      ]);
      await symlink(join(import.meta.dirname, "../../node_modules"), join(folder, "node_modules"));
      await run(["keygen", "--out", "key"], folder);
      const publishing = ["publish", "./m", "./released", "--stream", "s", "--key", "key"];
      // Nothing in the folder says for which database they are.
      expect(await run(publishing, folder)).toMatchObject({
        code: 2,
        stderr: expect.stringContaining("--engine mongodb"),
      });
      const published = await run([...publishing, "--engine", "mongodb"], folder);
      expect(published, published.stderr).toMatchObject({ code: 0 });
      await rm(join(folder, "lib"), { recursive: true });
      await rm(join(folder, "node_modules"));

      const release = ["--source", "./released", "--trust", "key.pub", "--stream", "s"];
      const argv = ["up", ...release, "--database", database.url];
      const running = start(argv, folder);
      await expect.poll(() => running.said().stderr, { timeout: 60_000 }).toContain("half way");
      running.child.kill("SIGKILL");
      await running.ended;
      const users = async () =>
        (await database.db.collection("users").find().sort({ name: 1 }).toArray()).map(
          (user): unknown => user["name"],
        );
      expect(await users()).toEqual([]);
      const leases = database.db.collection("lockkeeper.leases");
      await leases.updateOne({}, { $set: { renewedAt: new Date(0) } });
      await writeFile(join(folder, "go"), "");
      const again = await run(argv, folder);
      expect(again, again.stderr).toMatchObject({ code: 0 });
      expect(again.stderr).toContain("1_names.up.ts: half way");
      expect(await users()).toEqual(["ada", "grace"]);
      expect(await database.db.collection("counts").find().toArray()).toMatchObject([{ n: 2 }]);
      const history = database.db.collection("lockkeeper.history");
      expect(await history.find().toArray()).toMatchObject([{ version: "1", status: "done", signed: true }]);
      const down = await run(["down", "1", ...release, "--database", database.url], folder);
      expect(down, down.stderr).toMatchObject({ code: 0 });
      expect(await users()).toEqual([]);
    },
  );
});
