import { describe, expect, test } from "vitest";
import { acquire, begin, fence, insertStream } from "../../../src/driver/postgres/lease.ts";
import { createTables } from "../../../src/driver/postgres/tables.ts";
import { createDatabase, type TestDatabase } from "../../support/database.ts";
import { dropIndex, message, t, take, type Weakness } from "../../support/raw-lease.ts";

/**
 * The guarantee of the lease, and the proof that these tests would see it broken: the same attack on two weaker
 * protocols finds what it must find there (`protocol.md`, negative controls).
 */

const leaseMs = 120;
const lease = (runId: string) => ({ stream: "orders", runId, leaseMs });

async function start(): Promise<TestDatabase> {
  const database = await createDatabase();
  await database.query(createTables(t));
  await database.query(insertStream(t, "orders"));
  await database.query("CREATE TABLE effects (n int, token bigint)");
  return database;
}

describe("a fence", () => {
  test.for([
    ["that raises keeps a stale batch from taking effect", true],
    ["that merely gives no row does not (negative control)", false],
  ] as const)("%s", async ([, isOurs]) => {
    const database = await start();
    const stale = await database.connect();
    const taker = await database.connect();
    const key = { stream: "orders", runId: "stale", token: (await take(stale, lease("stale"))) ?? 0 };
    await database.query(`UPDATE ${t.streams} SET expires_at = clock_timestamp() - interval '1 s'`);
    expect(await take(taker, lease("taker"))).toBe(key.token + 1);
    const sent = stale.query(message(key, 1, "INSERT INTO effects VALUES (1, 0)", { silentFence: !isOurs }));
    if (isOurs) await expect(sent).rejects.toMatchObject({ code: "22012" });
    else await sent;
    await stale.query("ROLLBACK");
    expect(await database.query("SELECT n FROM effects")).toHaveLength(isOurs ? 0 : 1);
  });

  test.for([
    ["waits while a fenced transaction is open, because of the index", true],
    ["goes through without the index (negative control)", false],
  ] as const)("a person's plain change of the token %s", async ([, hasIndex]) => {
    const database = await start();
    if (!hasIndex) await database.query(dropIndex);
    const holder = await database.connect();
    const person = await database.connect();
    const key = { stream: "orders", runId: "holder", token: (await take(holder, lease("holder"))) ?? 0 };
    await holder.query(`${begin}; ${fence(t, key)}`);
    await person.query("SET lock_timeout = '300ms'");
    const change = person.query(`UPDATE ${t.streams} SET token = token + 1`);
    if (hasIndex) await expect(change).rejects.toMatchObject({ code: "55P03" });
    else await change;
    // A heartbeat never waits.
    await person.query(`UPDATE ${t.streams} SET expires_at = clock_timestamp()`);
    await holder.query("COMMIT");
  });

  test("of a transaction that began under another default isolation raises as well", async () => {
    const database = await start();
    const stale = await database.connect();
    await stale.query("SET default_transaction_isolation = 'repeatable read'");
    const key = { stream: "orders", runId: "stale", token: (await take(stale, lease("stale"))) ?? 0 };
    const taker = await database.connect();
    await database.query(`UPDATE ${t.streams} SET expires_at = clock_timestamp() - interval '1 s'`);
    await take(taker, lease("taker"));
    await expect(stale.query(message(key, 1, "INSERT INTO effects VALUES (1, 0)"))).rejects.toMatchObject({
      code: "22012",
    });
  });

  test("a token is durable also where the role's commits are not", async () => {
    const database = await start();
    const client = await database.connect();
    await client.query("SET synchronous_commit = off");
    expect(
      acquire(t, { stream: "orders", runId: "r", holder: "h", leaseMs, targetId: "t" }, "SELECT 1"),
    ).toContain("SET LOCAL synchronous_commit = on");
    expect(await take(client, lease("r"))).toBe(1);
  });

  test("nobody who tries for the lease waits for anybody", async () => {
    const database = await start();
    const holder = await database.connect();
    const key = { stream: "orders", runId: "holder", token: (await take(holder, lease("holder"))) ?? 0 };
    await holder.query(`${begin}; ${fence(t, key)}`);
    await database.query(`UPDATE ${t.streams} SET expires_at = clock_timestamp() - interval '1 s'`);
    const taker = await database.connect();
    await taker.query("SET lock_timeout = '1ms'");
    expect(await take(taker, lease("taker"))).toBeUndefined();
    await holder.query("COMMIT");
    expect(await take(taker, lease("taker"))).toBe(2);
  });
});

/** What an attack found. */
interface Findings {
  readonly migrations: number;
  readonly tokens: number;
  readonly terminated: number;
  readonly duplicates: number;
  readonly gaps: number;
  readonly differences: number;
}

/**
 * Workers with a lease of a tenth of a second that nobody renews: each takes it, looks what is next, is held up for a
 * random time, and sends the next migration, whose body takes a random time; now and then a backend is terminated.
 */
async function attack(
  database: TestDatabase,
  weakness: Weakness,
  isEnough: (found: Findings) => boolean,
): Promise<Findings> {
  if (weakness.plainTakeOver === true) await database.query(dropIndex);
  const over = new AbortController();
  let migrations = 0;
  let terminated = 0;
  const worker = async (name: number): Promise<void> => {
    let client = await database.connect();
    for (let round = 0; !over.signal.aborted; round += 1) {
      const runId = `worker-${name}-${round}`;
      try {
        const token = await take(client, lease(runId), weakness);
        if (token === undefined) {
          await pause(20);
          continue;
        }
        const { rows } = await client.query<{ next: number }>(
          `SELECT coalesce(max(seq), 0) + 1 AS next FROM ${t.history} WHERE status = 'done'`,
        );
        const next = rows[0]?.next ?? 1;
        await pause(leaseMs * 2);
        const key = { stream: "orders", runId, token };
        const sleep = `SELECT pg_sleep(${((Math.random() * leaseMs * 2) / 1000).toFixed(3)})`;
        const body = `INSERT INTO effects VALUES (${next}, ${token}); ${sleep}`;
        await client.query(message(key, next, body, weakness));
        migrations += 1;
      } catch {
        await client.query("ROLLBACK").catch(async () => {
          client = await database.connect();
        });
      }
    }
  };
  const killer = async (): Promise<void> => {
    while (!over.signal.aborted) {
      await pause(400);
      const cut = await database.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '/*lockkeeper%' ORDER BY random() LIMIT 1",
      );
      terminated += cut.length;
      if (isEnough(await look())) over.abort();
    }
  };
  const look = async () => ({ migrations, terminated, ...(await damage(database)) });
  await Promise.all([...Array.from({ length: 6 }, (_, name) => worker(name)), killer()]);
  return look();
}

/** What the database says of an attack: effects that were done twice or left out, and a history that tells otherwise. */
async function damage(database: TestDatabase): Promise<Omit<Findings, "migrations" | "terminated">> {
  const effects = (await database.query<{ n: number }>("SELECT n FROM effects ORDER BY n")).map(({ n }) => n);
  const history = (
    await database.query<{ seq: number }>(`SELECT seq FROM ${t.history} WHERE status = 'done' ORDER BY id`)
  ).map(({ seq }) => seq);
  const [row] = await database.query<{ token: string }>(`SELECT token FROM ${t.streams}`);
  return {
    tokens: Number(row?.token),
    duplicates: effects.length - new Set(effects).size,
    gaps: (effects.at(-1) ?? 0) - new Set(effects).size,
    differences:
      history.filter((seq, index) => seq !== effects[index]).length +
      Math.abs(history.length - effects.length),
  };
}

function pause(mostMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.random() * mostMs));
}

describe("an attack on the lease", () => {
  test("by stalled and terminated workers finds no duplicate, no gap, and a history that is what was done", async () => {
    const found = await attack(
      await start(),
      {},
      ({ tokens, migrations, terminated }) => tokens > 60 && migrations > 12 && terminated > 4,
    );
    expect(found).toMatchObject({ duplicates: 0, gaps: 0, differences: 0 });
  });

  // These go on until they have found what they must find: the test's time-out is the bound.
  test.for([
    ["the fence does not raise", { silentFence: true }],
    ["the token may change beside a fenced transaction", { plainTakeOver: true }],
  ] as const)("finds duplicates where %s (negative control)", async ([, weakness]) => {
    const found = await attack(await start(), weakness, ({ duplicates }) => duplicates > 0);
    expect(found.duplicates).toBeGreaterThan(0);
  });
});
