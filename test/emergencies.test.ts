import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { chmod, cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { afterAll, expect, onTestFinished, test } from "vitest";

import { sha256Hex } from "../src/migration/checksum.ts";
import { formatChainEnd } from "../src/release/chain.ts";
import { readHead } from "../src/release/head.ts";
import { writeKeyFiles } from "../src/release/trust/key-file.ts";
import { parsePrivateKey } from "../src/release/trust/key.ts";
import type { SigningKey } from "../src/release/trust/key.ts";
import { layout } from "../src/release/layout.ts";
import type { PublishResult } from "../src/release/publish/publish.ts";
import { createDatabase } from "./support/database.ts";
import { folderSource, manifestOf, overwrite, plant, publishTo, readKey } from "./support/release.ts";
import type { Files } from "./support/release.ts";

const root = join(import.meta.dirname, "..");

/** One block of the document that is run: how it must end, and what it must say. */
interface Block {
  readonly id: string;
  readonly language: string;
  readonly exit: number;
  readonly says: string | undefined;
  readonly text: string;
}

const blocks = readBlocks();

function readBlocks(): ReadonlyMap<string, Block> {
  const text = readFileSync(join(root, "infra/emergencies.md"), "utf8");
  const found = [...text.matchAll(/^```(\w+) do=(\S+)([^\n]*)\n([\s\S]*?)^```$/gm)].map(
    ([, language = "", id = "", words = "", body = ""]): Block => ({
      id,
      language,
      exit: Number(/exit=(\d+)/.exec(words)?.[1] ?? 0),
      says: /says=(\w+)/.exec(words)?.[1],
      text: body,
    }),
  );
  return new Map(found.map((block) => [block.id, block]));
}

const compileCache = await mkdtemp(join(tmpdir(), "lockkeeper-compiled-"));
afterAll(() => rm(compileCache, { recursive: true, force: true }));

const first = { "1_users.up.sql": "CREATE TABLE users (id int);", "1_users.down.sql": "DROP TABLE users;" };
const evilSql = "CREATE TABLE evil (id int);";

/** A folder as the one that publishes and the one on call have it, a bucket, and a database at its first release. */
async function world(options: { readonly trust: object; readonly signers?: readonly string[] }) {
  const folder = await mkdtemp(join(tmpdir(), "lockkeeper-emergency-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const database = await createDatabase();
  const at = (name: string): string => join(folder, name);
  await mkdir(at(".bin"));
  await mkdir(at("migrations"));
  const program = `#!/bin/sh\nexec "${process.execPath}" "${join(root, "src/bin/cli.ts")}" "$@"\n`;
  await writeFile(at(".bin/lockkeeper"), program);
  await chmod(at(".bin/lockkeeper"), 0o755);
  const variables: Record<string, string> = {
    PATH: `${at(".bin")}:${process.env["PATH"] ?? ""}`,
    HOME: folder,
    DATABASE_URL: database.url,
    LOCKKEEPER_SOURCE: "./bucket",
    LOCKKEEPER_STREAM: "orders",
    LOCKKEEPER_TRUST: "trust.json",
    // most of the time of so short a program is that of reading it
    NODE_COMPILE_CACHE: compileCache,
  };
  const bucket = folderSource(at("bucket"));
  const sh = async (text: string, more: Readonly<Record<string, string>> = {}) =>
    new Promise<{ code: number; said: string }>((resolve) => {
      const child = execFile(
        "sh",
        ["-e", "-c", text],
        { cwd: folder, env: { ...variables, ...more } },
        (_, stdout, stderr) => resolve({ code: child.exitCode ?? -1, said: `${stdout}${stderr}` }),
      );
    });
  const w = {
    at,
    bucket,
    database,
    /** what the document's text tells a person to find out */
    know: (found: Readonly<Record<string, string>>): void => void Object.assign(variables, found),
    write: (name: string, text: string) => writeFile(at(name), text),
    copy: (from: string, to: string) => cp(at(from), at(to), { recursive: true }),
    keygen: (...names: readonly string[]) =>
      Promise.all(names.map((name) => writeKeyFiles(at(name), "ecdsa-p256", undefined))),
    signer: (name: string): SigningKey =>
      parsePrivateKey(readFileSync(at(name), "utf8"), undefined, `"${name}"`),
    async migrations(files: Files) {
      await rm(at("migrations"), { recursive: true });
      await mkdir(at("migrations"));
      for (const [name, text] of Object.entries(files)) await writeFile(at(`migrations/${name}`), text);
    },
    /** as the pipeline would have, before it all began */
    publish: async (files: Files, change: { readonly now?: Date } = {}): Promise<PublishResult> => {
      await w.migrations(files);
      const [one, ...others] = (options.signers ?? ["release.key"]).map(w.signer);
      if (one === undefined) throw new Error("nobody signs");
      return publishTo(bucket, files, { keys: [one, ...others], ...change });
    },
    head: async () => readHead(await readKey(bucket, layout.head)),
    up: async (more: Readonly<Record<string, string>> = {}): Promise<void> => {
      const { code, said } = await sh("lockkeeper up", more);
      expect(code, said).toBe(0);
    },
    /** Runs a block of the document, and holds it to what the document says of it. */
    block: async (id: string, more: Readonly<Record<string, string>> = {}): Promise<string> => {
      const block = blocks.get(id);
      if (block === undefined) throw new Error(`the document has no block ${id}`);
      if (block.language === "sql") {
        await database.query(block.text);
        return "";
      }
      const { code, said } = await sh(block.text, more);
      expect({ id, code, said }).toEqual({ id, code: block.exit, said: expect.any(String) });
      if (block.says !== undefined) expect(said).toMatch(new RegExp(`code: +${block.says}$`, "m"));
      return said;
    },
    tables: async (): Promise<readonly unknown[]> => {
      const rows = await database.query(
        "select table_name as name from information_schema.tables where table_schema = 'public' order by 1",
      );
      return rows.map(({ name }) => name as unknown);
    },
  };
  await w.keygen("release.key", ...(options.signers ?? []));
  await w.write("trust.json", JSON.stringify(options.trust));
  return w;
}

type World = Awaited<ReturnType<typeof world>>;

const pinned = { keys: ["release.key.pub"] };

/** A world whose runners pin a root, with two offline keys, in place of the release key itself. */
async function rootWorld(): Promise<World> {
  const w = await world({ trust: {} });
  await w.keygen("root-a.key", "root-b.key");
  await w.block("root-given");
  return w;
}

/** Whoever has the release key publishes the highest version there is, with a migration of his own. */
async function steal(w: World, good: PublishResult): Promise<string> {
  const files = { "1_users.up.sql": first["1_users.up.sql"], "2_evil.up.sql": evilSql };
  await w.bucket.write(
    layout.blob(sha256Hex(evilSql)),
    Buffer.from(evilSql),
    { absent: true },
    new AbortController().signal,
  );
  const thief = await plant(w.bucket, {
    manifest: manifestOf(files),
    statement: { version: Number.MAX_SAFE_INTEGER, previous: good.digest },
    keys: [w.signer("release.key")],
  });
  w.know({ GOOD: good.digest, THIEF: thief, EVIL: sha256Hex(evilSql) });
  return thief;
}

const timeout = 240_000;

test("every block that says what to do is run here", () => {
  const here = readFileSync(import.meta.filename, "utf8");
  const run = new Set([...here.matchAll(/\.block\("([\w-]+)"/g)].map(([, id]) => id));
  expect(blocks.size).toBeGreaterThan(25);
  expect([...blocks.keys()].filter((id) => !run.has(id))).toEqual([]);
});

test("everything is stopped, by command or by hand, and goes on", { timeout }, async () => {
  const w = await world({ trust: pinned });
  const { chain } = await w.publish(first);
  await w.up();
  await w.publish({ ...first, "2_items.up.sql": "CREATE TABLE items ();" });
  w.know({ CHAIN: formatChainEnd(chain) });
  await w.block("stop");
  await w.block("stopped");
  await w.block("stopped-wait");
  expect(await w.tables()).toEqual(["users"]);
  const said = await w.block("resume");
  expect(said).toContain("paused");
  expect(await w.tables()).toEqual(["items", "users"]);
  await w.block("stop-by-hand");
  await w.up();
  await w.publish({
    ...first,
    "2_items.up.sql": "CREATE TABLE items ();",
    "3_more.up.sql": "CREATE TABLE more ();",
  });
  await w.block("stopped");
});

test("a bad migration is corrected, and one that worked is taken back", { timeout }, async () => {
  const w = await world({ trust: pinned });
  const { digest } = await w.publish(first);
  await w.up();
  const down = { "2_items.down.sql": "DROP TABLE items;" };
  const bad = {
    ...first,
    ...down,
    "2_items.up.sql": "CREATE TABLE items (); SELECT 1 / count(*) FROM users;",
  };
  w.know({ GOOD: digest, BAD: (await w.publish(bad)).digest });
  await w.block("bad");
  expect(await w.tables()).toEqual(["users"]);
  // somewhere else it went well, because there were rows
  const staging = await createDatabase();
  const there = { DATABASE_URL: staging.url };
  await w.up({ ...there, LOCKKEEPER_RELEASE: digest });
  await staging.query("INSERT INTO users VALUES (1)");
  await w.up(there);
  await w.migrations({ ...first, ...down, "2_items.up.sql": "CREATE TABLE items ();" });
  await w.block("bad-corrected");
  expect(await w.tables()).toEqual(["items", "users"]);
  await expect(w.up(there)).rejects.toThrow("HISTORY_REWRITTEN");
  await w.block("bad-elsewhere", there);
  expect(await w.block("bad-down")).toMatch(/^held /m);
  expect(await w.tables()).toEqual(["users"]);
  await w.migrations({ ...first, "2_goods.up.sql": "CREATE TABLE goods ();" });
  await w.block("bad-corrected");
  expect(await w.tables()).toEqual(["goods", "users"]);
});

test("a lost release key is replaced", { timeout }, async () => {
  const w = await world({ trust: pinned });
  await w.publish(first);
  await w.up();
  await w.block("lost");
  expect(await w.head()).toMatchObject({ version: 2 });
});

test("a lost release key is replaced by the root", { timeout }, async () => {
  const w = await rootWorld();
  await w.publish(first);
  await w.up();
  await w.block("lost-root");
  expect(await w.head()).toMatchObject({ version: 2 });
});

test("a thief who took the highest version is shut out by a new epoch", { timeout }, async () => {
  const w = await world({ trust: pinned });
  const good = await w.publish(first);
  await w.up();
  await w.block("stop");
  const thief = await steal(w, good);
  expect(await w.block("stolen-look")).toContain("2_evil.up.sql");
  await w.block("stolen");
  expect(await w.head()).toMatchObject({ epoch: 2, version: 1 });
  const stolen = { epoch: 1, version: Number.MAX_SAFE_INTEGER, digest: thief };
  await overwrite(w.bucket, layout.head, Buffer.from(JSON.stringify(stolen)));
  await w.block("stolen-again");
  expect(await w.tables()).toEqual(["users"]);
});

test("what a thief has had applied is history, and is undone by a migration", { timeout }, async () => {
  const w = await world({ trust: pinned });
  const good = await w.publish(first);
  await steal(w, good);
  await w.up();
  expect(await w.tables()).toEqual(["evil", "users"]);
  await w.block("stop");
  await w.block("stolen-applied");
  await w.block("stolen");
  expect(await w.tables()).toEqual(["users"]);
});

test("a root shuts a thief out without a deployment", { timeout }, async () => {
  const w = await rootWorld();
  const good = await w.publish(first);
  await w.up();
  await w.block("stop");
  const thief = await steal(w, good);
  await w.block("stolen-root");
  expect(await w.head()).toMatchObject({ epoch: 2, version: 1 });
  const stolen = { epoch: 1, version: Number.MAX_SAFE_INTEGER, digest: thief };
  await overwrite(w.bucket, layout.head, Buffer.from(JSON.stringify(stolen)));
  await w.block("stolen-again");
  expect(await w.tables()).toEqual(["users"]);
});

test("a signer whose laptop is gone is taken out by the other two", { timeout }, async () => {
  const keys = ["alice.key.pub", "bob.key.pub", "carol.key.pub"];
  const w = await world({ trust: { keys, threshold: 2 }, signers: ["alice.key", "bob.key"] });
  await w.keygen("carol.key");
  await w.publish(first);
  await w.up();
  await w.block("laptop");
  expect(await w.head()).toMatchObject({ version: 2 });
});

test("a lost bucket is replaced by a copy, or by a new epoch", { timeout }, async () => {
  const w = await world({ trust: pinned });
  await w.publish(first);
  const two = { ...first, "2_items.up.sql": "CREATE TABLE items ();" };
  await w.publish(two);
  await w.up();
  const three = { ...two, "3_goods.up.sql": "CREATE TABLE goods ();" };
  await w.publish(three);
  await w.copy("bucket", "copy");
  await rm(w.at("bucket"), { recursive: true });
  await w.block("copy");
  expect(await w.tables()).toEqual(["goods", "items", "users"]);
  await w.migrations({ ...three, "4_more.up.sql": "CREATE TABLE more ();" });
  await w.block("anew-refused");
  await w.block("anew");
  expect(await w.tables()).toEqual(["goods", "items", "more", "users"]);
});

test("a lost root is replaced by a new one, after the database was told", { timeout }, async () => {
  const w = await rootWorld();
  await w.publish(first);
  await w.block("lost-root");
  // from here on the release key is the new one
  await w.copy("new.key", "release.key");
  await w.copy("new.key.pub", "release.key.pub");
  await w.block("root");
  await w.publish({ ...first, "2_items.up.sql": "CREATE TABLE items ();" });
  await w.block("root-refused");
  await w.block("root-reset");
  expect(await w.tables()).toEqual(["items", "users"]);
  expect(await w.database.query("select root_version::int as root from lockkeeper.streams")).toEqual([
    { root: 1 },
  ]);
});

test(
  "a withheld release is found by its digest, or by a timestamp; a withheld root is demanded",
  { timeout },
  async () => {
    const w = await world({ trust: pinned });
    await w.publish(first);
    await w.up();
    const old = await readKey(w.bucket, layout.head);
    const two = { ...first, "2_items.up.sql": "CREATE TABLE items ();" };
    const { digest } = await w.publish(two);
    await overwrite(w.bucket, layout.head, old);
    w.know({ NEWEST: digest });
    await w.block("withheld");
    expect(await w.tables()).toEqual(["items", "users"]);
    await w.block("withheld-older");

    await w.keygen("clock.key");
    await w.write("trust.json", JSON.stringify({ ...pinned, timestamp: { keys: ["clock.key.pub"] } }));
    await overwrite(w.bucket, layout.head, Buffer.from(JSON.stringify({ epoch: 1, version: 2, digest })));
    const three = { ...two, "3_goods.up.sql": "CREATE TABLE goods ();" };
    await w.publish(three);
    const third = await readKey(w.bucket, layout.head);
    await w.publish({ ...three, "4_more.up.sql": "CREATE TABLE more ();" });
    await w.block("timestamp");
    await overwrite(w.bucket, layout.head, third);
    await w.block("stale");
    expect(await w.tables()).toEqual(["items", "users"]);

    await w.keygen("root-a.key", "root-b.key");
    await w.block("root-given");
    await w.block("root-withheld");
  },
);

test("an expired release is renewed, and a wrong clock is told", { timeout }, async () => {
  const w = await world({ trust: pinned });
  await w.publish(first, { now: new Date(Date.now() - 100 * 86_400_000) });
  await w.block("expired");
  await w.block("renew");
  await w.publish({ ...first, "2_items.up.sql": "CREATE TABLE items ();" });
  const clock = pathToFileURL(join(root, "test/support/wrong-clock.ts"));
  clock.searchParams.set("by", String(3_600_000));
  await w.block("clock", { NODE_OPTIONS: `--import ${clock.href}` });
  expect(await w.tables()).toEqual(["users"]);
});
