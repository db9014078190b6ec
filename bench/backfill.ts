/**
 * A backfill of ten million rows with an application beside it, as a person runs it; prints what `bench/README.md` says.
 *
 *     node bench/backfill.ts [--rows 10000000 --batch 1000]
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import pg from "pg";
import { startPostgres } from "../test/support/postgres.ts";
import { finish, measure, type Command, type Cost } from "./measure.ts";
import { postgresSettings } from "./postgres/site.ts";

const { values: options } = parseArgs({
  options: { rows: { type: "string", default: "10000000" }, batch: { type: "string", default: "1000" } },
});
const rows = Number(options.rows);
const cli = path.join(import.meta.dirname, "..", "src", "bin", "cli.ts");
/** milliseconds between two looks at what the server has open */
const lookMs = 20;
/** milliseconds that the application works alone first, to compare with */
const aloneMs = 10_000;

await main();

async function main(): Promise<void> {
  await using server = await startPostgres({ settings: postgresSettings });
  const folder = mkdtempSync(path.join(tmpdir(), "lockkeeper-bench-backfill-"));
  try {
    const client = await connect(server.url);
    await client.query(
      "CREATE TABLE orders (id bigint PRIMARY KEY, total numeric NOT NULL, total_cents bigint)",
    );
    await client.query(
      `INSERT INTO orders (id, total) SELECT n, n / 100.0 FROM generate_series(1, ${rows}) n`,
    );
    await client.query("VACUUM ANALYZE orders");
    await client.query("CHECKPOINT");
    const file = (name: string): string => path.join(folder, name);
    mkdirSync(file("migrations"));
    writeFileSync(
      file("migrations/000001_cents.up.sql"),
      `-- lockkeeper: backfill table=orders key=id batch=${options.batch}
UPDATE orders o SET total_cents = round(total * 100) FROM batch WHERE o.id = batch.id AND o.total_cents IS NULL;
`,
    );
    await finish(lockkeeper(["keygen", "--out", file("key")]));
    const release = ["--stream", "bench", "--key", file("key")];
    await finish(lockkeeper(["publish", file("migrations"), file("bucket"), ...release]));
    const up = ["up", "--source", file("bucket"), "--stream", "bench", "--trust", file("key.pub")];
    const alone = await beside(server.url, () => sleep(aloneMs));
    const held = watchHeld(client);
    const busy = await beside(server.url, () =>
      measure({ ...lockkeeper(up), env: { LOCKKEEPER_DATABASE: server.url } }),
    );
    await report(client, busy.result, await held.stop(), alone.latencies, busy.latencies);
    await client.end();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function lockkeeper(args: readonly string[]): Command {
  return { program: process.execPath, args: [cli, ...args] };
}

async function report(
  client: pg.Client,
  cost: Cost,
  held: Held,
  alone: readonly number[],
  busy: readonly number[],
): Promise<void> {
  const { rows: left } = await client.query(
    "SELECT count(*)::int AS n FROM orders WHERE total_cents IS NULL",
  );
  if ((left[0] as { n: number } | undefined)?.n !== 0) throw new Error("some rows were left out");
  const lines = [
    `${rows.toLocaleString("en")} rows, batch ${options.batch}: ${(cost.ms / 1000).toFixed(1)} s, ${Math.round(rows / (cost.ms / 1000)).toLocaleString("en")} rows/s`,
    `peak memory ${Math.round(cost.peakMb)} MiB, processor ${(cost.cpuMs / 1000).toFixed(1)} s, load ${cost.load}`,
    `longest transaction seen ${Math.round(held.transactionMs)} ms, oldest snapshot or transaction id ${held.age} transactions behind, in ${held.looks} looks`,
    `application alone: ${describe(alone)}`,
    `application beside it: ${describe(busy)}`,
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}

/** An application that changes one row after the other, anywhere in the table, while `work` is done. */
async function beside<T>(
  url: string,
  work: () => Promise<T>,
): Promise<{ readonly result: T; readonly latencies: readonly number[] }> {
  const client = await connect(url);
  const latencies: number[] = [];
  const over = new AbortController();
  const application = (async () => {
    while (!over.signal.aborted) {
      const began = performance.now();
      await client.query("UPDATE orders SET total = total WHERE id = $1", [
        1 + Math.floor(Math.random() * rows),
      ]);
      latencies.push(performance.now() - began);
      await sleep(2);
    }
  })();
  try {
    return { result: await work(), latencies };
  } finally {
    over.abort();
    await application;
    await client.end();
  }
}

/** What the runner was seen to hold open. */
interface Held {
  readonly transactionMs: number;
  /** how far behind the newest transaction id: what vacuum could not clean up meanwhile */
  readonly age: number;
  readonly looks: number;
}

function watchHeld(client: pg.Client): { stop(): Promise<Held> } {
  const most = { transactionMs: 0, age: 0, looks: 0 };
  const over = new AbortController();
  const watching = (async () => {
    while (!over.signal.aborted) {
      const { rows: found } = await client.query<{ ms: number | null; age: number | null }>(
        `SELECT max(extract(epoch FROM clock_timestamp() - xact_start) * 1000)::float8 AS ms, max(greatest(age(backend_xmin), age(backend_xid)))::float8 AS age
         FROM pg_stat_activity WHERE application_name = 'lockkeeper' AND state <> 'idle'`,
      );
      most.transactionMs = Math.max(most.transactionMs, found[0]?.ms ?? 0);
      most.age = Math.max(most.age, found[0]?.age ?? 0);
      most.looks += 1;
      await sleep(lookMs);
    }
  })();
  return {
    async stop() {
      over.abort();
      await watching;
      return most;
    },
  };
}

function describe(latencies: readonly number[]): string {
  const sorted = latencies.toSorted((a, b) => a - b);
  const at = (share: number): string => (sorted[Math.floor((sorted.length - 1) * share)] ?? 0).toFixed(1);
  return `${sorted.length} changes of one row, median ${at(0.5)} ms, 99 % within ${at(0.99)} ms, slowest ${at(1)} ms`;
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return client;
}
