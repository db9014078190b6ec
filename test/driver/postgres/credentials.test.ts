import { once } from "node:events";
import { chownSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import path from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import type { DatabaseAccess, LogInToken } from "../../../src/driver/access.ts";
import type { Driver } from "../../../src/driver/driver.ts";
import { openDriver, type DriverOptions } from "../../../src/driver/open.ts";
import { parseAddress } from "../../../src/driver/postgres/address.ts";
import {
  createDatabase,
  ownPostgres,
  type PostgresServer,
  type TestDatabase,
} from "../../support/database.ts";
import { plainUser, serverFolder } from "../../support/server.ts";
import { leaseOptions, never, settings, statementStep, transactionSteps } from "../../support/steps.ts";

/** A place where a URL is kept, and how often it was asked. */
class Keeper implements DatabaseAccess {
  readonly engine = "postgres";
  readonly shown = "the database of secret orders";
  asked = 0;
  kept: string;
  #known: string | undefined;

  constructor(kept: string) {
    this.kept = kept;
  }

  async url(refused?: string): Promise<string> {
    if (refused !== undefined && refused === this.#known) this.#known = undefined;
    if (this.#known === undefined) {
      this.asked += 1;
      this.#known = this.kept;
    }
    return this.#known;
  }
}

/** Until a pool has seen that its connections were ended. */
const patience = { timeout: 30_000 };

async function open(access: string | DatabaseAccess, options: DriverOptions = {}): Promise<Driver> {
  const driver = await openDriver(access, options);
  onTestFinished(() => driver.close());
  return driver;
}

/** Roles are the server's, not the database's: each test has its own, gone when it ends. */
let database: TestDatabase;
const made: string[] = [];
async function createRole(name: string, password: string): Promise<string> {
  const role = `${name}_${database.name.slice(-8)}`;
  made.push(role);
  await database.query(`CREATE ROLE ${role} LOGIN PASSWORD '${password}'`);
  return role;
}
function urlOf(user: string, password: string): string {
  const url = new URL(database.url);
  url.username = user;
  url.password = password;
  return url.href;
}

/** Whatever connections a role has, it has to make new ones. */
async function endSessions(role: string): Promise<void> {
  const sessions = `FROM pg_stat_activity WHERE usename = '${role}'`;
  await database.query(`SELECT pg_terminate_backend(pid) ${sessions}`);
  while ((await database.query(`SELECT 1 ${sessions}`)).length > 0);
}

describe("a password that is kept elsewhere", () => {
  beforeEach(async () => {
    database = await createDatabase({ endsWith: "file" });
  });
  afterEach(async () => {
    const roles = made.splice(0);
    for (const role of roles) await database.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
    await database.drop();
  });

  test("is read at the first connection, and again when the server does not take it any more", async () => {
    const role = await createRole("runner", "first");
    const keeper = new Keeper(urlOf(role, "first"));
    const driver = await open(keeper);
    expect([keeper.asked, driver.url]).toEqual([0, "the database of secret orders"]);
    await driver.state("orders", never);
    expect(driver.url).toBe(`postgres://${role}@127.0.0.1:${new URL(database.url).port}/${database.name}`);

    await database.query(`ALTER ROLE ${role} PASSWORD 'second'`);
    keeper.kept = urlOf(role, "second");
    await driver.state("orders", never);
    expect(keeper.asked).toBe(1);
    await endSessions(role);
    await expect
      .poll(() => driver.state("orders", never).then(() => "known", String), patience)
      .toBe("known");
    expect(keeper.asked).toBe(2);
  });

  test("may come with another user: those who rotate secrets take turns", async () => {
    const [blue, green] = [await createRole("blue", "b"), await createRole("green", "g")];
    const keeper = new Keeper(urlOf(blue, "b"));
    const driver = await open(keeper);
    await driver.state("orders", never);
    keeper.kept = urlOf(green, "g");
    await database.query(`ALTER ROLE ${blue} NOLOGIN`);
    await endSessions(blue);
    await expect
      .poll(() => driver.state("orders", never).then(() => driver.url, String), patience)
      .toContain(green);
  });

  test("is asked for once, however many find it refused at the same time", async () => {
    const role = await createRole("runner", "first");
    const keeper = new Keeper(urlOf(role, "first"));
    const driver = await open(keeper);
    await driver.state("orders", never);
    await database.query(`ALTER ROLE ${role} PASSWORD 'second'`);
    keeper.kept = urlOf(role, "second");
    await endSessions(role);
    await expect
      .poll(() => driver.state("orders", never).then(() => "known", String), patience)
      .toBe("known");
    const states = Array.from({ length: 12 }, () => driver.state("orders", never));
    expect((await Promise.all(states)).map(({ exists }) => exists)).toEqual(states.map(() => false));
    expect(keeper.asked).toBe(2);
  });

  test("that changes during a run keeps nobody from going on: not the run, and not those who look", async () => {
    const role = await createRole("runner", "first");
    await database.query(`GRANT CREATE ON DATABASE ${database.name} TO ${role}`);
    await database.query(`GRANT CREATE ON SCHEMA public TO ${role}`);
    const keeper = new Keeper(urlOf(role, "first"));
    const driver = await open(keeper);
    await driver.withLease(leaseOptions(), async (session) => {
      const steps = await transactionSteps([{ path: "1_a.up.sql", up: "CREATE TABLE a (b int)" }]);
      expect((await session.applyInTransactions(steps, settings)).failure).toBeNull();
      await database.query(`ALTER ROLE ${role} PASSWORD 'second'`);
      keeper.kept = urlOf(role, "second");
      // more than there are connections that stand
      const states = Array.from({ length: 12 }, () => driver.state("orders", never));
      expect((await Promise.all(states)).every(({ exists }) => exists)).toBe(true);
      expect(keeper.asked).toBe(2);
      const outside = await statementStep("CREATE INDEX CONCURRENTLY i ON a (b)");
      await session.applyStatements(outside, settings, () => undefined);
    });
    expect(await driver.history("orders", {}, never)).toMatchObject([{ status: "done" }, { status: "done" }]);
  });

  test("that is wrong where it is kept is denied, with one more look and without its text", async () => {
    const role = await createRole("runner", "right");
    const keeper = new Keeper(urlOf(role, "planted-wrong"));
    const driver = await open(keeper);
    const error: unknown = await driver.state("orders", never).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "DATABASE_DENIED" });
    expect(JSON.stringify(error) + String(error)).not.toContain("planted");
    expect(keeper.asked).toBe(2);
    keeper.kept = urlOf(role, "right");
    expect((await driver.state("orders", never)).exists).toBe(false);
  });
});

describe("a token in place of a password", () => {
  let server: PostgresServer;
  beforeAll(async () => {
    // Tokens are looked at as RDS does: they come in clear, inside TLS.
    const hba = path.join(serverFolder("hba", true), "pg_hba.conf");
    writeFileSync(hba, "hostssl all iam_user all password\nhostssl all all all scram-sha-256\n");
    server = await ownPostgres({ tls: {}, settings: { hba_file: hba } });
  });

  /** The server takes the token that is the role's password now; the first one made is. */
  async function tokens(change: Partial<LogInToken> = {}) {
    const admin = await createDatabase({ server });
    await admin.query("DROP ROLE IF EXISTS iam_user; CREATE ROLE iam_user LOGIN");
    const tokenOf = (n: number): string => `token-${n}-${"x".repeat(1_500)}`;
    const take = (n: number) => admin.query(`ALTER ROLE iam_user PASSWORD '${tokenOf(n)}'`);
    await take(1);
    const given: string[] = [];
    const token: LogInToken = {
      mayStayLocal: false,
      hint: "GRANT rds_iam",
      make() {
        given.push(tokenOf(given.length + 1));
        return Promise.resolve(given.at(-1) ?? "");
      },
      ...change,
    };
    const url = `postgres://iam_user@127.0.0.1:${server.port}/${admin.name}`;
    const access = (parameters = ""): DatabaseAccess => ({
      engine: "postgres",
      shown: "shown",
      url: () => Promise.resolve(`${url}${parameters}`),
      token,
    });
    const ca = `?sslrootcert=${encodeURIComponent(server.caFile ?? "")}`;
    return { admin, take, given, access, ca };
  }

  test("is made anew for every connection, and sent over TLS to a server that has proven itself", async () => {
    const { admin, take, given, access, ca } = await tokens();
    const driver = await open(access(ca));
    await driver.state("orders", never);
    expect(given).toHaveLength(1);
    await take(2);
    const ended = await admin.query(
      "SELECT s.ssl, pg_terminate_backend(pid) FROM pg_stat_ssl s JOIN pg_stat_activity USING (pid) WHERE usename = 'iam_user'",
    );
    expect(ended).toMatchObject([{ ssl: true }]);
    await expect
      .poll(() => driver.state("orders", never).then(() => "known", String), patience)
      .toBe("known");
    expect(given).toHaveLength(2);
  });

  test("that has expired is refused, with what to do about it", async () => {
    const { admin, access, ca } = await tokens({ make: () => Promise.resolve("old") });
    await admin.query("ALTER ROLE iam_user PASSWORD 'old' VALID UNTIL '2000-01-01'");
    const driver = await open(access(ca));
    await expect(driver.state("orders", never)).rejects.toMatchObject({
      code: "DATABASE_DENIED",
      hint: "GRANT rds_iam",
    });
  });

  test("is not even made for a server whose certificate proves nothing", async () => {
    const { given, access } = await tokens();
    const driver = await open(access());
    await expect(driver.state("orders", never)).rejects.toMatchObject({ code: "DATABASE_TLS" });
    expect(given).toEqual([]);
  });

  test("is not even made for a server without TLS", async () => {
    const { given, access, ca } = await tokens();
    const plain = createServer((socket) => {
      // As a server without TLS answers, and whoever only wants to listen.
      socket.once("data", () => socket.write("N"));
      socket.on("error", () => undefined);
    }).listen(0, "127.0.0.1");
    onTestFinished(() => void plain.close());
    await once(plain, "listening");
    const { port } = plain.address() as AddressInfo;
    const { token } = access();
    const url = `postgres://iam_user@127.0.0.1:${port}/orders${ca}`;
    const driver = await open({
      ...access(),
      url: () => Promise.resolve(url),
      ...(token === undefined ? {} : { token }),
    });
    await expect(driver.state("orders", never)).rejects.toMatchObject({ code: "DATABASE_TLS" });
    expect(given).toEqual([]);
  });

  test("goes to an endpoint that is reached by another name, and proves that it is that endpoint", async () => {
    const asked: unknown[] = [];
    const { admin, access, ca } = await tokens({
      endpoint: { host: "localhost", port: 5432 },
      make(to) {
        asked.push(to);
        return Promise.resolve("t");
      },
    });
    await admin.query("ALTER ROLE iam_user PASSWORD 't'");
    await (await open(access(ca))).state("orders", never);
    expect(asked).toEqual([{ host: "localhost", port: 5432, user: "iam_user" }]);

    const other = await tokens({ endpoint: { host: "orders.eu-west-1.rds.amazonaws.com", port: 5432 } });
    const wrong = await open(other.access(other.ca));
    await expect(wrong.state("orders", never)).rejects.toMatchObject({ code: "DATABASE_TLS" });
    expect(other.given).toEqual([]);
  });

  test("trusts the authorities of RDS where the endpoint is of RDS, or sslrootcert says so", async () => {
    const rdsRoots = (): Promise<readonly string[]> =>
      Promise.resolve([readFileSync(server.caFile ?? "", "utf8")]);
    const { access } = await tokens();
    await (await open(access("?sslrootcert=rds"), { rdsRoots })).state("orders", never);
    const bare = await open(access("?sslrootcert=rds"));
    await expect(bare.state("orders", never)).rejects.toMatchObject({ code: "CONFIG" });
  });

  const token: LogInToken = { mayStayLocal: false, hint: "h", make: () => Promise.resolve("t") };
  const local: LogInToken = { ...token, mayStayLocal: true };
  test.for([
    ["disable", token, "postgres://u@h/d?sslmode=disable"],
    ["prefer", token, "postgres://u@h/d?sslmode=prefer"],
    ["require, which proves nothing", token, "postgres://u@h/d?sslmode=require"],
    ["disable on loopback", token, "postgres://u@127.0.0.1/d?sslmode=disable"],
    ["a socket", token, "postgres://u@/d?host=/run/proxy"],
    ["disable elsewhere, of a proxy", local, "postgres://u@h/d?sslmode=disable"],
    ["a password beside it", token, "postgres://u:p@h/d"],
    ["nobody whom it is for", token, "postgres://h/d"],
  ] as const)("is refused with %s", ([, given, url]) => {
    expect(() => parseAddress(url, given)).toThrow(expect.objectContaining({ code: "USAGE" }));
  });

  test.for([
    ["a socket of a proxy", "postgres://u@/d?host=/cloudsql/p:europe-west1:i", "disable"],
    ["a proxy on loopback", "postgres://u@127.0.0.1/d?sslmode=disable", "disable"],
    ["loopback by itself", "postgres://u@127.0.0.1/d", "require"],
  ] as const)("of a platform with a proxy may go to %s", ([, url, tls]) => {
    expect(parseAddress(url, local).tls).toBe(tls);
  });
});

describe("whom TLS has to prove", () => {
  test.for([
    ["postgres://u@h/d?sslrootcert=rds", "require", true, true],
    ["postgres://u@h/d?sslrootcert=system", "require", true, false],
    ["postgres://u@orders.c0ffee.eu-west-1.rds.amazonaws.com/d?sslmode=verify-full", "require", true, true],
    ["postgres://u@orders.c0ffee.eu-west-1.rds.amazonaws.com/d", "prefer", false, false],
    ["postgres://u@orders.c0ffee.eu-west-1.rds.amazonaws.com/d?sslmode=require", "require", false, false],
    ["postgres://u@h/d?sslmode=verify-full", "require", true, false],
  ] as const)("%s", ([url, tls, verifies, needsRdsRoots]) => {
    const address = parseAddress(url);
    expect([address.tls, address.tlsOptions.rejectUnauthorized, address.needsRdsRoots]).toEqual([
      tls,
      verifies,
      needsRdsRoots,
    ]);
  });

  test("cannot be anybody and somebody at once", () => {
    for (const root of ["rds", "system"])
      expect(() => parseAddress(`postgres://u@h/d?sslmode=prefer&sslrootcert=${root}`)).toThrow(
        `sslmode=prefer takes any server, and sslrootcert=${root} does not`,
      );
  });
});

describe("a Unix socket, as Cloud SQL gives one", () => {
  test("is reached by each way to write it, with a password and with a token", async () => {
    const name = "my-shop:europe-west1:orders";
    const folder = path.join(serverFolder("sql", true), name);
    mkdirSync(folder, { recursive: true });
    const user = plainUser();
    if (user !== undefined) chownSync(folder, user.uid, user.gid);
    const server = await ownPostgres({ settings: { unix_socket_directories: folder } });
    const query = `host=${folder}&port=${server.port}`;
    for (const url of [
      `postgres://postgres:postgres@/postgres?${query}`,
      `postgresql://postgres:postgres@/postgres?${query}`,
      `postgres:///postgres?user=postgres&password=postgres&${query}`,
      `postgres://postgres:postgres@localhost/postgres?${query}`,
      `postgres://postgres:postgres@${encodeURIComponent(folder)}:${server.port}/postgres`,
    ]) {
      const driver = await open(url);
      expect((await driver.state("orders", never)).exists).toBe(false);
      expect(driver.url).toBe(`postgres://postgres@${folder}/postgres`);
    }
    const token: LogInToken = { mayStayLocal: true, hint: "", make: () => Promise.resolve("postgres") };
    const url = (): Promise<string> => Promise.resolve(`postgres://postgres@/postgres?${query}`);
    const driver = await open({ engine: "postgres", shown: "s", url, token });
    expect((await driver.state("orders", never)).exists).toBe(false);
  });
});
