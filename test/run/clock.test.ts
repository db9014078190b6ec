import { spawn } from "node:child_process";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { openDriver } from "../../src/driver/open.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { makeKey, publishTo, tempFolder } from "../support/release.ts";
import { leaseOptions, never } from "../support/steps.ts";

/** Real processes of the command line whose machine has the wrong time; the database's is right. */

const program = join(import.meta.dirname, "../../src/bin/cli.ts");
const wrongClock = join(import.meta.dirname, "../support/wrong-clock.ts");
const dayMs = 86_400_000;

interface Ended {
  readonly exit: number | null;
  readonly code: string | undefined;
  readonly outcome: string | undefined;
}

/** Brings the database to the folder's newest release, on a machine whose clock is wrong by so much. */
function up(by: number | "wild", database: TestDatabase, ...flags: readonly string[]): Promise<Ended> {
  const at = ["up", "--stream", "orders", "--database", database.url, "--output", "json", ...flags];
  const child = spawn(process.execPath, ["--import", `${wrongClock}?by=${by}`, program, ...at], {
    env: { PATH: process.env["PATH"] },
    stdio: ["ignore", "pipe", "ignore"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let said = "";
  child.stdout.on("data", (text: Buffer) => (said += text.toString()));
  return new Promise((resolve) => {
    child.once("close", (exit) => {
      const result = JSON.parse(said) as { outcome?: string; error?: { code: string } | null; code?: string };
      resolve({ exit, code: result.error?.code ?? result.code, outcome: result.outcome });
    });
  });
}

const bodies = Object.fromEntries(
  Array.from({ length: 12 }, (_, index) => [
    `${index + 1}_n.up.sql`,
    index === 0
      ? "CREATE TABLE done (n int PRIMARY KEY); INSERT INTO done VALUES (1); SELECT pg_sleep(2);"
      : `INSERT INTO done VALUES (${index + 1});`,
  ]),
);

describe("a runner whose clock is wrong by a day", () => {
  test("applies a folder among others, each migration once, and every time in the database is the database's", async () => {
    const database = await createDatabase();
    await using folder = await tempFolder(bodies);
    const clock = async () =>
      (await database.query<{ now: Date }>("SELECT clock_timestamp() AS now"))[0]?.now ?? new Date(0);
    const began = await clock();
    const flags = ["--source", folder.path, "--unsigned"];
    const clocks = [dayMs, -dayMs, "wild", 0, dayMs, -dayMs] as const;
    const ended = await Promise.all(clocks.map((by) => up(by, database, ...flags)));
    const over = await clock();
    expect(ended.map(({ exit }) => exit)).toEqual(clocks.map(() => 0));
    expect(ended.filter(({ outcome }) => outcome === "applied")).toHaveLength(1);
    const oneToTwelve = Array.from({ length: 12 }, (_, index) => index + 1);
    expect(await database.query("SELECT n FROM done ORDER BY n")).toEqual(oneToTwelve.map((n) => ({ n })));
    expect(await database.query("SELECT seq, status FROM lockkeeper.history ORDER BY id")).toEqual(
      oneToTwelve.map((seq) => ({ seq, status: "done" })),
    );
    const times = await database.query<{ at: Date }>(
      // A run that found under the lease that all was done meanwhile never started.
      `SELECT at FROM (
         SELECT unnest(ARRAY[started_at, started_at + duration_ms * interval '1 ms']) AS at FROM lockkeeper.history
         UNION ALL SELECT unnest(ARRAY[created_at, started_at, ended_at]) FROM lockkeeper.runs
         UNION ALL SELECT acquired_at FROM lockkeeper.streams) AS times WHERE at IS NOT NULL`,
    );
    expect(times.length).toBeGreaterThan(24);
    for (const { at } of times) {
      expect(at.getTime()).toBeGreaterThanOrEqual(began.getTime());
      expect(at.getTime()).toBeLessThanOrEqual(over.getTime());
    }
  }, 180_000);

  test("takes no lease that is alive, and one that has expired at once", async () => {
    const database = await createDatabase();
    await using folder = await tempFolder(bodies);
    const flags = ["--source", folder.path, "--unsigned", "--wait", "0"];
    const driver = await openDriver(database.url, {
      times: { leaseMs: 600_000, heartbeatMs: 3_600_000, marginMs: 0, cancelPollMs: 3_600_000 },
    });
    onTestFinished(() => driver.close());
    await driver.withLease(leaseOptions(), async () => {
      const early = await Promise.all([dayMs, -dayMs].map((by) => up(by, database, ...flags)));
      for (const ended of early) expect(ended).toMatchObject({ exit: 30, code: "LEASE_HELD" });
      expect((await driver.state("orders", never)).lease).toMatchObject({ holder: "host/1", token: 1 });
      await database.query("UPDATE lockkeeper.streams SET expires_at = clock_timestamp() - interval '1 s'");
      expect(await up(-dayMs, database, ...flags)).toMatchObject({ exit: 0, outcome: "applied" });
    });
    expect(await database.query("SELECT token FROM lockkeeper.streams")).toEqual([{ token: "2" }]);
  }, 180_000);

  test("is refused a signed release before anything is changed, and finds one that is applied already", async () => {
    const database = await createDatabase();
    await using folder = await tempFolder();
    const key = makeKey();
    await publishTo(folder.source, bodies, { keys: [key] });
    await using trust = await tempFolder({ "orders.pub": key.publicPem });
    const flags = ["--source", folder.path, "--trust", join(trust.path, "orders.pub")];
    const refused = await Promise.all([dayMs, -dayMs].map((by) => up(by, database, ...flags)));
    expect(refused.map(({ exit, code }) => [exit, code])).toEqual([
      [31, "CLOCK_SKEW"],
      [20, "ISSUED_IN_FUTURE"],
    ]);
    expect(await database.query("SELECT nspname FROM pg_namespace WHERE nspname = 'lockkeeper'")).toEqual([]);
    expect(await up(0, database, ...flags)).toMatchObject({ exit: 0, outcome: "applied" });
    expect(await up(dayMs, database, ...flags)).toMatchObject({ exit: 0, outcome: "noop" });
  }, 180_000);
});
