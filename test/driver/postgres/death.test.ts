import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { readlinkSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { openDriver } from "../../../src/driver/open.ts";
import { createDatabase, ownPostgres, type TestDatabase } from "../../support/database.ts";
import { needs, notRun } from "../../support/parts.ts";
import { type Pooler, startPgBouncer } from "../../support/pgbouncer.ts";
import { tempFolder } from "../../support/release.ts";
import { leaseOptions, settings, statementStep, transactionSteps } from "../../support/steps.ts";

/** What the server does about a runner that died while it works for it. */

const program = join(import.meta.dirname, "../../../src/bin/cli.ts");
const children = new Set<ChildProcess>();
const cables = new Set<string>();
afterAll(() => {
  for (const child of children) child.kill("SIGKILL");
  for (const cable of cables) execFileSync("ip", ["link", "delete", cable]);
});

/** A command of its own that says nothing; by default with nothing to read. */
function start(command: readonly string[], stdin: "ignore" | "pipe" = "ignore"): Runner {
  const [file = "", ...args] = command;
  const child = spawn(file, args, { env: { PATH: process.env["PATH"] }, stdio: [stdin, "ignore", "ignore"] });
  children.add(child);
  return { child, ended: new Promise((resolve) => void child.once("close", resolve)) };
}

interface Runner {
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
}

/** Applies the folder's migrations. */
function up(folder: string, url: string): readonly string[] {
  const stream = ["--unsigned", "--stream", "orders"];
  return [process.execPath, program, "up", "--source", folder, ...stream, "--database", url];
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 100));
}

async function isAsleep(database: TestDatabase): Promise<boolean> {
  const rows = await database.query(
    "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
  );
  return rows.length > 0;
}

/** Sleeps for five minutes, unless somebody has been here already; then it is done at once. */
const prepared = `CREATE TABLE done (n int PRIMARY KEY); CREATE TABLE fast ();
 CREATE PROCEDURE rest() LANGUAGE plpgsql AS $$ BEGIN
  IF NOT EXISTS (SELECT FROM fast) THEN PERFORM pg_sleep(300); END IF; END $$`;

test("the server is told to look after the runner whatever kind of body it works on", async () => {
  const database = await createDatabase();
  const names =
    "client_connection_check_interval tcp_keepalives_idle tcp_keepalives_interval tcp_keepalives_count tcp_user_timeout";
  await database.query(`CREATE TABLE seen (body text, settings text);
   CREATE FUNCTION note(body text) RETURNS void LANGUAGE sql AS $$ INSERT INTO seen
    SELECT body, string_agg(current_setting(name), ' ') FROM string_to_table('${names}', ' ') name $$;
   CREATE PROCEDURE note_alone() LANGUAGE sql AS $$ SELECT note('alone') $$`);
  const driver = await openDriver(database.url);
  onTestFinished(() => driver.close());
  const steps = await transactionSteps([{ path: "1_a.up.sql", up: "SELECT note('in one transaction')" }]);
  const outside = await statementStep(
    "-- lockkeeper: tx=none\nSELECT note('with its checkpoint');\nCALL note_alone();",
  );
  await driver.withLease(leaseOptions(), async (session) => {
    await session.applyInTransactions(steps, settings);
    await session.applyStatements(outside, settings, () => undefined);
  });
  const settled = "2s 5 3 3 14000";
  expect(await database.query("SELECT body, settings FROM seen")).toEqual([
    { body: "in one transaction", settings: settled },
    { body: "with its checkpoint", settings: settled },
    { body: "alone", settings: settled },
  ]);
});

describe.concurrent("the statement of a runner", () => {
  needs("pgbouncer");
  const cases = {
    "in a transaction": "CALL rest(); INSERT INTO done VALUES (1);",
    "outside transactions": "-- lockkeeper: tx=none\nCALL rest();\nINSERT INTO done VALUES (1);",
    "behind a pooler": "CALL rest(); INSERT INTO done VALUES (1);",
  } as const;
  const databases = new Map<string, TestDatabase>();
  let pooler: Pooler;
  let machine: Machine | undefined;
  // All before the tests: they run side by side, and what is made in one of them might end with another.
  beforeAll(async () => {
    machine = await startMachine();
    if (machine !== undefined) {
      const server = await ownPostgres({
        tls: {},
        settings: { listen_addresses: `127.0.0.1,${machine.gateway}` },
      });
      const database = await createDatabase({ server });
      await database.query(prepared);
      databases.set("vanished", database);
    }
    for (const how of Object.keys(cases)) {
      const database = await createDatabase();
      await database.query(prepared);
      databases.set(how, database);
      if (how === "behind a pooler") pooler = await startPgBouncer(database.url, { poolSize: 3 });
    }
  });
  afterAll(() => pooler.stop());

  test.for(Object.keys(cases) as (keyof typeof cases)[])(
    "%s ends within seconds when the runner was killed",
    { timeout: 90_000 },
    async (how) => {
      const database = databases.get(how);
      if (database === undefined) throw new TypeError("there is a database for each case");
      await using folder = await tempFolder({ "1_rest.up.sql": cases[how] });
      const runner = start(up(folder.path, how === "behind a pooler" ? pooler.url : database.url));
      await until(() => isAsleep(database));
      runner.child.kill("SIGKILL");
      await until(async () => !(await isAsleep(database)));
      expect(await database.query("SELECT n FROM done")).toEqual([]);
    },
  );

  test(
    "ends about a lease after the runner's machine has vanished without a word, and the next run goes on",
    { timeout: 180_000 },
    async (context) => {
      const database = databases.get("vanished");
      if (machine === undefined || database === undefined)
        return notRun(context, "network namespaces (run the tests as root on Linux)");
      await using folder = await tempFolder({ "1_rest.up.sql": cases["in a transaction"] });
      const url = new URL(database.url);
      url.hostname = machine.gateway;
      machine.run(up(folder.path, url.href));
      await until(() => isAsleep(database));
      machine.unplug();
      await database.query("INSERT INTO fast DEFAULT VALUES");
      // The lease is over at once; what keeps the next runner waiting is the transaction that still works.
      await database.query("UPDATE lockkeeper.streams SET expires_at = clock_timestamp() - interval '1 s'");
      expect(await start(up(folder.path, database.url)).ended).toBe(0);
      expect(await isAsleep(database)).toBe(false);
      expect(await database.query("SELECT n FROM done")).toEqual([{ n: 1 }]);
      expect(await database.query("SELECT status, token FROM lockkeeper.history")).toEqual([
        { status: "done", token: "2" },
      ]);
    },
  );
});

/** A machine with one network cable, which leads to us. */
interface Machine {
  /** our end of the cable */
  readonly gateway: string;
  run(command: readonly string[]): void;
  /** Nothing passes any more, and nobody is told. */
  unplug(): void;
}

/** A process in a network of its own. Undefined where we may not make one. */
async function startMachine(): Promise<Machine | undefined> {
  const { child } = start(["unshare", "--net", "sh", "-c", 'read -r line && eval "exec $line"'], "pipe");
  const pid = String(child.pid);
  const ours = readlinkSync("/proc/self/ns/net");
  const place = `198.18.${randomInt(256)}`;
  const first = randomInt(63) * 4;
  const [gateway, address] = [`${place}.${first + 1}`, `${place}.${first + 2}`];
  const [near, far] = [`lk${pid}a`, `lk${pid}b`];
  const ip = (...args: readonly string[]) => execFileSync("ip", args, { stdio: "ignore" });
  const inside = (...args: readonly string[]) =>
    execFileSync("nsenter", ["--target", pid, "--net", "ip", ...args], { stdio: "ignore" });
  try {
    await until(() => Promise.resolve(readlinkSync(`/proc/${pid}/ns/net`) !== ours));
    ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", pid);
    cables.add(near);
    ip("address", "add", `${gateway}/30`, "dev", near);
    ip("link", "set", near, "up");
    inside("address", "add", `${address}/30`, "dev", far);
    inside("link", "set", far, "up");
  } catch {
    return undefined;
  }
  return {
    gateway,
    run(command) {
      const quoted = command.map((part) => `'${part.replaceAll("'", String.raw`'\''`)}'`);
      child.stdin?.write(`${quoted.join(" ")}\n`);
    },
    unplug: () => void inside("link", "set", far, "down"),
  };
}
