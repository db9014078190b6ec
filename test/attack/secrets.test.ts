import { randomBytes } from "node:crypto";
import { readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { makeWiring } from "../../src/bin/wire.ts";
import { main } from "../../src/cli/main.ts";
import { traits, type RunnerErrorCode } from "../../src/error.ts";
import { generateKey } from "../../src/release/trust/key.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { folderSource, makeKey, never, publishTo, tempFolder, type Files } from "../support/release.ts";
import { createWorld, type SendOptions } from "../http/world.ts";

/** What stands in files, variables, rows and tokens, and may come out nowhere. */
const planted = {
  password: `planted-password-${randomBytes(4).toString("hex")}`,
  wrongPassword: "planted-wrong-password",
  passphrase: "planted-passphrase",
  token: "planted-token.planted-token.planted-token",
  awsSecret: "planted-aws-secret",
  sql: "planted-sql-text",
  row: "planted-row-data",
} as const;

/** Lines of a stack, ours or a library's. */
const stack = /^\s+at .*(:\d+:\d+|node:)/m;

/** A superuser with a password that stands nowhere else. */
const role = `planted_${randomBytes(4).toString("hex")}`;
let admin: TestDatabase;
beforeAll(async () => {
  admin = await createDatabase({ endsWith: "file" });
  await admin.query(`create role ${role} login superuser password '${planted.password}'`);
});
afterAll(() => admin.query(`drop role ${role}`));

/** A folder, a database and a key pair of one case. */
interface Site {
  readonly folder: string;
  readonly database: TestDatabase;
  /** with the planted password */
  readonly url: string;
  /** `lockkeeper VERB …` on plain files in `m`; more words after it */
  plain(verb: string, ...more: readonly string[]): readonly string[];
  /** the same on what is published in `bucket` */
  signed(verb: string, ...more: readonly string[]): readonly string[];
  /** `lockkeeper publish` of `m` */
  publishing(...more: readonly string[]): readonly string[];
  publish(files: Files, options?: { environments?: readonly string[]; stream?: string }): Promise<string>;
  write(path: string, content: string | Uint8Array): Promise<void>;
  /** Runs a command line and forgets what it said. */
  run(argv: readonly string[]): Promise<void>;
}

async function createSite(files: Files): Promise<Site> {
  const [database, { path: folder, ...made }] = await Promise.all([
    createDatabase(),
    tempFolder({ "m/.keep": "", ...files }),
  ]);
  onTestFinished(() => made[Symbol.asyncDispose]());
  const url = new URL(database.url);
  [url.username, url.password] = [role, planted.password];
  const key = makeKey();
  await writeFile(join(folder, "key.pub"), key.publicPem);
  await writeFile(join(folder, "key"), key.privatePem);
  const at = ["--stream", "orders", "--database", url.href];
  return {
    folder,
    database,
    url: url.href,
    plain: (verb, ...more) => [verb, "--source", join(folder, "m"), "--unsigned", ...at, ...more],
    signed: (verb, ...more) =>
      [verb, "--source", join(folder, "bucket"), "--trust", join(folder, "key.pub")].concat(at, more),
    publishing: (...more) =>
      ["publish", join(folder, "m"), join(folder, "bucket")].concat(
        ["--stream", "orders", "--key", join(folder, "key")],
        more,
      ),
    publish: async (release, options = {}) =>
      (await publishTo(folderSource(join(folder, "bucket")), release, { keys: [key], ...options })).digest,
    write: (path, content) => writeFile(join(folder, path), content),
    run: async (argv) => void (await call(argv)),
  };
}

/** The command line with its real clients, in this process. */
async function call(argv: readonly string[]): Promise<{ code: number; said: string }> {
  const variables = { AWS_SECRET_ACCESS_KEY: planted.awsSecret, AWS_ACCESS_KEY_ID: "AKIAPLANTED" };
  let said = "";
  const sink = { isTerminal: false, columns: undefined, write: (text: string) => void (said += text) };
  const context = {
    variables,
    stdout: sink,
    stderr: sink,
    signal: never,
    wire: () => Promise.resolve(makeWiring(variables)),
  };
  return { code: await main(argv, context), said };
}

function assertNothingSaid(said: string, url = ""): void {
  for (const [name, secret] of Object.entries(planted)) expect(said, name).not.toContain(secret);
  expect(said).not.toMatch(stack);
  if (url !== "") expect(said).not.toContain(url);
}

/** One way to fail: the code, the files, and the command line that fails so. */
interface Case {
  readonly code: RunnerErrorCode;
  readonly title: string;
  readonly files?: Files;
  argv(site: Site): readonly string[] | Promise<readonly string[]>;
}

const note = `-- ${planted.sql}\n`;
const users = { "1_users.up.sql": `${note}create table users (id int, name text);` };
const inM = (files: Files): Files =>
  Object.fromEntries(Object.entries(files).map(([name, content]) => [`m/${name}`, content]));
const broken = (sql: string): Files => inM({ ...users, "2_broken.up.sql": sql });
const bad = `insert into users values (1, '${planted.row}');`;

/** Refusals of the files that `up --unsigned` is given. */
const ofFiles = (
  [
    ["NO_MIGRATIONS", {}],
    ["NAME", { "1_a b.up.sql": bad }],
    ["DUPLICATE_VERSION", { ...users, "01_again.up.sql": bad }],
    ["NO_UP", { "1_users.down.sql": bad }],
    ["EMPTY_MIGRATION", { "1_users.up.sql": "" }],
    ["ENCODING", { "1_users.up.sql": Buffer.concat([Buffer.from(bad), Buffer.from([0xff])]) }],
    ["HEADER", { "1_users.up.sql": `-- lockkeeper: colour=${planted.sql}\n${bad}` }],
    ["BACKFILL", { "1_users.up.sql": `-- lockkeeper: backfill table=users key=id\n${bad}${bad}` }],
    ["SQL_OPEN", { "1_users.up.sql": `select '${planted.row}` }],
    ["TRANSACTION_CONTROL", { "1_users.up.sql": `${bad} commit; ${bad}` }],
  ] as const
).map(([code, files]): Case => ({ code, title: "", files: inM(files), argv: (site) => site.plain("up") }));

/** What a server says of a body often quotes rows and statements. */
const ofServer = (
  [
    ["a duplicate", `create unique index on users (name); ${bad} ${bad}`],
    ["a check", `alter table users add check (name <> '${planted.row}'); ${bad}`],
    [
      "a not-null",
      `alter table users alter id set not null; insert into users values (null, '${planted.row}');`,
    ],
    ["a number", `select '${planted.row}'::int;`],
    ["a date", `select '${planted.row}'::date;`],
    ["JSON", `select '${planted.row}'::json;`],
    ["an enum", `create type mood as enum ('ok'); select '${planted.row}'::mood;`],
    ["a syntax error", `do $$ begin execute 'select 1 ''${planted.sql}'' ''x'''; end $$;`],
    ["dynamic SQL", `do $$ begin execute 'select ''${planted.sql}'' from from'; end $$;`],
    [
      "a foreign key",
      `create table a (n text primary key); alter table users add foreign key (name) references a; ${bad}`,
    ],
    ["a long text", `create table short (n varchar(3)); insert into short values ('${planted.row}');`],
  ] as const
).map(([title, sql]): Case => ({
  code: "MIGRATION_FAILED",
  title,
  files: broken(sql),
  argv: (site) => site.plain("up"),
}));

const others: readonly Case[] = [
  { code: "USAGE", title: "", argv: (site) => site.plain("up", "--nowhere", planted.token) },
  {
    code: "USAGE",
    title: "a URL",
    argv: () => ["up", "--source", "m", "--unsigned", "--database", `postgres://u:${planted.password}@[`],
  },
  {
    code: "CONFIG",
    title: "",
    files: {
      "c.yaml": `version: 1\ntargets: { t: { database: { url: "postgres://u:${planted.password}@h/d" }, colour: red } }\n`,
    },
    argv: (site) => ["up", "--config", join(site.folder, "c.yaml"), "--target", "t"],
  },
  {
    code: "CONFIG",
    title: "YAML",
    files: { "c.yaml": `version: 1\n url: postgres://u:${planted.password}@h/d: {\n` },
    argv: (site) => ["up", "--config", join(site.folder, "c.yaml"), "--target", "t"],
  },
  { code: "SOURCE_NOT_FOUND", title: "", argv: ({ plain }) => plain("up", "--source", "/nowhere/at/all") },
  {
    code: "SOURCE_UNSAFE",
    title: "",
    argv: async (site) => {
      await site.write("secret", planted.row);
      await symlink(join(site.folder, "secret"), join(site.folder, "m/1_users.up.sql"));
      return site.plain("up");
    },
  },
  {
    code: "FORMAT",
    title: "",
    files: inM({ "1_users.sql": `-- +goose Up\n-- +goose Nonsense ${planted.sql}\n${bad}` }),
    argv: (site) => site.plain("up", "--format", "goose"),
  },
  {
    code: "FOLDER_SUM",
    title: "",
    files: inM({ "1_users.sql": bad, "atlas.sum": `h1:AAAA=\n1_users.sql h1:AAAA=\n` }),
    argv: (site) => site.plain("up", "--format", "atlas"),
  },
  {
    code: "DATABASE_DENIED",
    title: "",
    files: inM(users),
    argv: (site) => site.plain("up", "--database", site.url.replace(planted.password, planted.wrongPassword)),
  },
  {
    code: "DATABASE_UNAVAILABLE",
    title: "",
    files: inM(users),
    argv: (site) => site.plain("up", "--database", `postgres://${role}:${planted.password}@127.0.0.1:1/d`),
  },
  {
    code: "DATABASE_TLS",
    title: "",
    files: inM(users),
    argv: (site) => site.plain("up", "--database", `${site.url}?sslmode=verify-full`),
  },
  { code: "UNKNOWN_VERSION", title: "", files: inM(users), argv: (site) => site.plain("goto", "99") },
  {
    code: "NO_DOWN",
    title: "",
    files: inM(users),
    argv: async (site) => {
      await site.run(site.plain("up"));
      return site.plain("down");
    },
  },
  {
    code: "CHANGED_FILE",
    title: "",
    files: inM(users),
    argv: async (site) => {
      await site.run(site.plain("up"));
      await site.write("m/1_users.up.sql", bad);
      return site.plain("up");
    },
  },
  {
    code: "OUT_OF_ORDER",
    title: "",
    files: inM({ "2_users.up.sql": bad.replace("insert", "-- insert") + "\nselect 1;" }),
    argv: async (site) => {
      await site.run(site.plain("up"));
      await site.write("m/1_early.up.sql", "select 1;");
      return site.plain("up");
    },
  },
  {
    code: "PLAN_CHANGED",
    title: "",
    files: inM(users),
    argv: (site) => site.plain("up", "--plan", `sha256:${"0".repeat(64)}`),
  },
  {
    code: "NOTHING_TO_REPAIR",
    title: "",
    files: inM(users),
    argv: async (site) => {
      await site.run(site.plain("up"));
      return site.plain("repair", "--as", "applied", "--reason", "because");
    },
  },
  {
    code: "HISTORY_NOT_EMPTY",
    title: "",
    files: inM(users),
    argv: async (site) => {
      await site.run(site.plain("up"));
      return [...site.plain("baseline"), "1", "--reason", "because"];
    },
  },
  {
    code: "DATABASE_AHEAD",
    title: "",
    files: {
      ...inM({ ...users, "2_more.up.sql": "create table more ();" }),
      "n/1_users.up.sql": users["1_users.up.sql"],
    },
    argv: async (site) => {
      await site.run(site.plain("up"));
      return site.plain("up", "--source", join(site.folder, "n"));
    },
  },
  {
    code: "SQL_SYNTAX",
    title: "",
    files: inM({ "1_users.up.sql": `${bad}\nselect 1 '${planted.sql}' '${planted.row}' 'x';` }),
    argv: (site) => site.publishing(),
  },
  {
    code: "COMMAND_SYNTAX",
    title: "",
    files: inM({ "1_users.up.json": `[{"insert":"users","documents":[{"name":"${planted.row}"]}]` }),
    argv: (site) => site.publishing("--engine", "mongodb"),
  },
  {
    code: "RELEASE_NOT_FOUND",
    title: "",
    argv: (site) => site.signed("up", "--source", join(site.folder, "m")),
  },
  {
    code: "UNEXPECTED_RELEASE",
    title: "",
    argv: async (site) => {
      const digest = await site.publish(users);
      const other = `sha256:${"1".repeat(64)}`;
      const from = join(site.folder, "bucket/releases", `${digest.replace(":", "-")}.sigstore.jsonl`);
      await site.write(`bucket/releases/${other.replace(":", "-")}.sigstore.jsonl`, await readFile(from));
      return site.signed("up", "--release", other);
    },
  },
  {
    code: "THRESHOLD",
    title: "",
    argv: async (site) => {
      await site.publish(users);
      await site.write("key.pub", makeKey().publicPem);
      return site.signed("up");
    },
  },
  {
    code: "WRONG_STREAM",
    title: "",
    argv: async (site) => {
      await site.publish(users);
      return site.signed("up", "--stream", "billing");
    },
  },
  {
    code: "WRONG_ENVIRONMENT",
    title: "",
    argv: async (site) => {
      await site.publish(users);
      return site.signed("up", "--environment", "production");
    },
  },
  {
    code: "BLOB_DIGEST",
    title: "",
    argv: async (site) => {
      await site.publish(users);
      await replaceAll(site, "blobs", Buffer.from(bad));
      return site.signed("up");
    },
  },
  {
    code: "MANIFEST_DIGEST",
    title: "",
    argv: async (site) => {
      await site.publish(users);
      await replaceAll(site, "manifests", Buffer.from(`{"schema":"${planted.row}"}`));
      return site.signed("up");
    },
  },
  {
    code: "JSON_SYNTAX",
    title: "",
    argv: async (site) => {
      await site.publish(users);
      await replaceAll(site, "releases", Buffer.from(`{"${planted.row}`));
      return site.signed("up");
    },
  },
  {
    code: "JSON_DUPLICATE",
    title: "",
    argv: async (site) => {
      await site.publish(users);
      await replaceAll(site, "releases", Buffer.from(`{"${planted.row}":"a","${planted.row}":"b"}`));
      return site.signed("up");
    },
  },
  {
    code: "BUNDLE",
    title: "",
    argv: async (site) => {
      await site.publish(users);
      await replaceAll(site, "releases", Buffer.from(`{"${planted.row}":"${planted.sql}"}`));
      return site.signed("up");
    },
  },
  {
    code: "UNSIGNED_REFUSED",
    title: "",
    files: inM(users),
    argv: async (site) => {
      await site.publish(users);
      await site.run(site.signed("up"));
      return site.plain("up");
    },
  },
  {
    code: "PAUSED",
    title: "",
    files: inM(users),
    argv: async (site) => {
      await site.run(site.plain("up"));
      await site.database.query("update lockkeeper.streams set paused = true");
      return site.plain("up");
    },
  },
  {
    code: "KEY_PRIVATE",
    title: "",
    argv: async (site) => {
      await site.publish(users);
      await site.write("key.pub", makeKey().privatePem);
      return site.signed("up");
    },
  },
  {
    code: "KEY_INVALID",
    title: "",
    argv: async (site) => {
      await site.publish(users);
      await site.write("key.pub", `-----BEGIN PUBLIC KEY-----\n${planted.token}\n-----END PUBLIC KEY-----\n`);
      return site.signed("up");
    },
  },
  {
    code: "TRUST_INVALID",
    title: "",
    argv: async (site) => {
      await site.publish(users);
      await site.write("key.pub", `{"keys":["${planted.token}"],"secret":"${planted.password}"}`);
      return site.signed("up");
    },
  },
  {
    code: "KEY_PASSPHRASE",
    title: "",
    files: { ...inM(users), wrong: planted.passphrase },
    argv: async (site) => {
      await site.write("key", generateKey("ecdsa-p256", `${planted.passphrase}, but another`).privatePem);
      return site.publishing("--passphrase-file", join(site.folder, "wrong"));
    },
  },
  {
    code: "BACKUP_FAILED",
    title: "",
    files: inM(users),
    argv: (site) => site.plain("up", "--backup-command", JSON.stringify(["false", planted.password])),
  },
  {
    code: "BACKUP_FAILED",
    title: "a webhook",
    files: { ...inM(users), header: `Authorization: Bearer ${planted.token}` },
    argv: (site) =>
      site.plain(
        "up",
        "--backup-url",
        `http://127.0.0.1:1/${planted.token}?key=${planted.password}`,
        "--backup-header-file",
        join(site.folder, "header"),
      ),
  },
];

/** Puts these bytes in the place of every object of a folder of the bucket. */
async function replaceAll(site: Site, folder: string, bytes: Uint8Array): Promise<void> {
  for (const name of await readdir(join(site.folder, "bucket", folder)))
    await site.write(join("bucket", folder, name), bytes);
}

describe("no secret, SQL text, row or stack comes out of the command line", () => {
  test.for([...ofFiles, ...ofServer, ...others])(
    "$code $title",
    { timeout: 60_000 },
    async ({ code, files, argv }) => {
      const site = await createSite(files ?? {});
      const words = await argv(site);
      const [people, programs] = [
        await call([...words, "--verbose"]),
        await call([...words, "--output", "json"]),
      ];
      expect(people.said).toContain(code);
      expect([people.code, programs.code]).toEqual([traits[code].exit, traits[code].exit]);
      assertNothingSaid(people.said, site.url);
      assertNothingSaid(programs.said, site.url);
    },
  );
});

describe("no secret, token, SQL text, row or stack comes out of the server", () => {
  const apply = { target: "orders", action: "apply" };
  const claim = { role: "admin", deploy_key: planted.token, sub: "ci" };

  test("in an answer or a log line, whatever is refused", async () => {
    const world = await createWorld({ limits: { bodyBytes: 2_000 } });
    await world.bucket.publish(users);
    const [good, stranger] = [
      await world.token(claim),
      await world.token({ role: "nobody", note: planted.row }),
    ];
    const run = "/v1/runs/orders.01ARZ3NDEKTSV4RRFFQ69G5FAV";
    const asked: readonly [string, RunnerErrorCode, string, string, SendOptions][] = [
      ["no token at all", "UNAUTHENTICATED", "POST", "/v1/runs", { token: planted.token, body: apply }],
      [
        "an expired one",
        "UNAUTHENTICATED",
        "GET",
        "/v1/targets",
        { token: await world.token({ ...claim, exp: 1 }) },
      ],
      [
        "one whose claim is wrong",
        "UNAUTHENTICATED",
        "GET",
        "/v1/targets",
        { token: await world.token({ ...claim, nbf: planted.row }) },
      ],
      ["a token in the query", "UNAUTHENTICATED", "GET", `/v1/targets?token=${good}`, { token: null }],
      ["a caller without a rule", "NOT_ALLOWED", "POST", "/v1/runs", { token: stranger, body: apply }],
      ["a target of others", "UNKNOWN_TARGET", "POST", "/v1/runs", { body: { ...apply, target: "nowhere" } }],
      ["a run of nobody", "UNKNOWN_RUN", "GET", run, {}],
      ["SQL in a field", "INVALID_REQUEST", "POST", "/v1/runs", { body: { ...apply, sql: planted.sql } }],
      [
        "a URL in a field",
        "INVALID_REQUEST",
        "POST",
        "/v1/runs",
        { body: { ...apply, databaseUrl: `postgres://u:${planted.password}@h/d` } },
      ],
      ["a wrong value", "INVALID_REQUEST", "POST", "/v1/runs", { body: { ...apply, to: planted.row } }],
      ["no JSON", "INVALID_REQUEST", "POST", "/v1/runs", { text: `{"${planted.row}` }],
      [
        "a wrong header",
        "INVALID_REQUEST",
        "POST",
        "/v1/runs",
        { body: apply, headers: { "idempotency-key": `${planted.row}\u00e9` } },
      ],
      [
        "another type",
        "UNSUPPORTED_MEDIA_TYPE",
        "POST",
        "/v1/runs",
        { text: planted.row, headers: { "content-type": "text/plain" } },
      ],
      ["too much", "BODY_TOO_LARGE", "POST", "/v1/runs", { text: planted.row.repeat(1_000) }],
      ["another method", "METHOD_NOT_ALLOWED", "DELETE", "/v1/runs", {}],
      [
        "another release",
        "RELEASE_NOT_FOUND",
        "POST",
        "/v1/runs",
        { body: { ...apply, release: { digest: `sha256:${"0".repeat(64)}` } } },
      ],
    ];
    for (const [what, code, method, path, options] of asked) {
      const { body, text } = await world.send(method, path, { token: good, ...options });
      expect(body.code ?? body.problem?.code ?? body.error?.code, what).toBe(code);
      assertNothingSaid(text);
      expect(text, what).not.toContain(good);
    }
    const log = JSON.stringify(world.log);
    assertNothingSaid(log);
    for (const token of [good, stranger]) expect(log).not.toContain(token);
    expect(world.log.filter(({ event }) => event === "http.request")).toHaveLength(asked.length);
  });

  test.for(ofServer)("in a run's answer, events, history or log when $title fails", async ({ files }) => {
    const world = await createWorld();
    await world.bucket.publish(
      Object.fromEntries(Object.entries(files ?? {}).map(([name, body]) => [name.slice(2), body])),
    );
    const begun = await world.send("POST", "/v1/runs", { body: apply });
    expect(begun.body).toMatchObject({ status: "failed", error: { code: "MIGRATION_FAILED" } });
    const id = String(begun.body.id);
    for (const path of [
      `/v1/runs/${id}`,
      `/v1/runs/${id}/events`,
      "/v1/targets/orders",
      "/v1/targets/orders/history",
    ]) {
      assertNothingSaid((await world.send("GET", path)).text);
    }
    assertNothingSaid(begun.text);
    assertNothingSaid(JSON.stringify(world.log));
    const rows = await world.database.query(
      "select error::text as text from lockkeeper.history union all select error::text from lockkeeper.runs union all select text from lockkeeper.audit",
    );
    assertNothingSaid(JSON.stringify(rows));
  });
});
