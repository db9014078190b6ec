import { createRequire } from "node:module";
import pg from "pg";
import { openWire } from "../../test/support/wire.ts";
import { type Ground, openGround } from "../ground.ts";
import { measure } from "../measure.ts";
import type { Bench } from "../scene.ts";
import { median } from "../table.ts";
import { openSignedGet } from "./signed-get.ts";

const rounds = 15;
/** of what takes about a millisecond, in one round */
const repeats = 100;

/** What a program does that connects, asks one question, and ends; the URL is its argument. */
const connecting = `const { Client } = require(process.argv[1]);
const client = new Client({ connectionString: process.argv[2] });
client.connect().then(() => client.query("SELECT 1")).then(() => client.end());`;

/** The same, and beside it one signed GET; what of it is its third argument, as JSON. */
const asking = `${connecting}
const { host, path, credentials, aws4 } = JSON.parse(process.argv[3]);
const { headers } = require(aws4).sign({ host, path, service: "s3", region: "us-east-1" }, credentials);
require("http").get("http://" + host + path, { headers }, (answer) => {
  if (answer.statusCode !== 200) process.exitCode = 1;
  answer.resume();
});`;

/** milliseconds of a round trip, as in the runs with a network */
const [bucketMs, databaseMs] = [20, 5];

/** As a first run's migrations: a quarter of them in one message, whose last commit waits for the disk. */
async function makeTables(ground: Ground, round: number): Promise<number> {
  await ground.createDatabase(`tables_${round}`);
  const client = new pg.Client({ connectionString: ground.databaseUrl(`tables_${round}`) });
  await client.connect();
  await client.query("CHECKPOINT");
  const began = performance.now();
  for (let message = 0; message < 4; message += 1) {
    const bodies = Array.from({ length: 250 }, (_, index) => {
      const wait = index === 249 ? "on" : "off";
      return `BEGIN; CREATE TABLE t_${message}_${index}(id int); SET LOCAL synchronous_commit = ${wait}; COMMIT;`;
    });
    await client.query(bodies.join("\n"));
  }
  const ms = performance.now() - began;
  await client.end();
  return ms;
}

/** Measures, one by one and without lockkeeper, what nothing that asks a bucket and a database can do without. */
export async function measureFloor(bench: Bench): Promise<void> {
  await using ground = await openGround(bench.ours, 1);
  await ground.createDatabase("floor", ["CREATE TABLE note (id int)"]);
  const url = ground.databaseUrl("floor");
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const get = openSignedGet(ground.head, 1);
  const node = (...args: readonly string[]) => ({ program: process.execPath, args });
  const { resolve } = createRequire(import.meta.url);
  const program = resolve("pg");
  await using farBucket = await openWire(ground.bucketPort, "http", { roundTripMs: bucketMs });
  await using farDatabase = await openWire(ground.postgresPort, "postgres", { roundTripMs: databaseMs });
  const ask = async (bucketPort: number, databasePort: number): Promise<number> => {
    const { path, ...credentials } = ground.head;
    const get = { host: `127.0.0.1:${bucketPort}`, path, credentials, aws4: resolve("aws4") };
    const database = ground.databaseUrl("floor", databasePort);
    return (await measure(node("-e", asking, program, database, JSON.stringify(get)))).ms;
  };
  const bare = {
    node: async () => (await measure(node("-e", "0"))).ms,
    connect: async () => (await measure(node("-e", connecting, program, url))).ms,
    ask: () => ask(ground.bucketPort, ground.postgresPort),
    "ask far": () => ask(farBucket.port, farDatabase.port),
    tables: (round: number) => makeTables(ground, round),
    get: () => medianOf(get),
    query: () => medianOf(() => client.query("SELECT 1")),
    commit: () => medianOf(() => client.query("INSERT INTO note VALUES (1)")),
  };
  const names = ["node", "connect", "ask", "ask far", "tables", "get", "query", "commit"] as const;
  for (let round = 0; round < (bench.isQuick ? 1 : rounds); round += 1) {
    await bench.canary();
    for (const what of names) {
      const ms = await bare[what](round);
      bench.record({ kind: "floor-bare", what, ms: Number(ms.toFixed(3)) });
    }
  }
  await client.end();
}

async function medianOf(act: () => Promise<unknown>): Promise<number> {
  const all: number[] = [];
  for (let index = 0; index < repeats; index += 1) {
    const began = performance.now();
    await act();
    all.push(performance.now() - began);
  }
  return median(all);
}
