import { fork } from "node:child_process";
import * as v from "valibot";
import { openWire, type Traffic } from "../../test/support/wire.ts";
import { type Ground, openGround } from "../ground.ts";
import type { Bench, Ours } from "../scene.ts";
import { load, type LoadLimits } from "./load.ts";
import type { HttpLoad } from "./result.ts";
import { serve, type Served } from "./served.ts";

/** A server takes 8 runs of one target at once, so 64 clients need 8 targets; each has a database of its own. */
const targetCount = 8;
const clientCounts = [1, 16, 64];
/** of one load */
const limits = { requests: 1_500, seconds: 2 };
const rounds = 5;
/** until the server's code is compiled */
const warmUp = { clients: 64, requests: 6_000, seconds: 6 };
/** requests counted on the wire, after those that are not: until the server's connections have prepared what it asks */
const counted = { before: 40, requests: 10 };

/** Asks a warm server for no-ops and for its status, beside the same by hand, in turns. */
export async function measureHttp(bench: Bench): Promise<void> {
  const { isQuick, ours, record } = bench;
  const migrations = isQuick ? 10 : 1_000;
  await using ground = await openGround(ours, migrations);
  const targets = await prepare(ours, ground);
  record({ kind: "http-site", servers: ground.description, targets: targets.size, migrations });
  await measureWire(bench, ground, targets);
  await using served = await serve(ours, { ground, targets, clients: Math.max(...clientCounts) });
  using byHand = startByHand(ground, targets);
  const names = [...targets.keys()];
  for (const what of ["noop", "status"] as const)
    if (!isQuick) await measureLoad(served, what, names, warmUp);
  // The first round is for those by hand, and for the connections.
  for (let round = isQuick ? 0 : -1; round < (isQuick ? 1 : rounds); round += 1) {
    for (const clients of clientCounts) {
      await bench.canary();
      const most = { clients, ...limits, ...(isQuick ? { seconds: 0.5 } : {}) };
      const lines = [
        summary("get-and-query", clients, await byHand.load(false, most)),
        await measureLoad(served, "noop", names, most),
        summary("get-query-commit", clients, await byHand.load(true, most)),
        await measureLoad(served, "status", names, most),
      ];
      if (round >= 0) for (const line of lines) record(line);
    }
  }
}

/** Databases with everything applied, by the name of their target. */
async function prepare(ours: Ours, ground: Ground): Promise<ReadonlyMap<string, string>> {
  const targets = new Map<string, string>();
  for (let number = 1; number <= targetCount; number += 1) {
    const name = `service${number}`;
    await ground.createDatabase(name, [
      "CREATE TABLE by_hand (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)",
    ]);
    targets.set(name, ground.databaseUrl(name));
  }
  await using served = await serve(ours, { ground, targets, clients: 1 });
  for (const name of targets.keys()) await served.apply(name);
  return targets;
}

async function measureLoad(
  served: Served,
  what: "noop" | "status",
  targets: readonly string[],
  most: LoadLimits,
): Promise<HttpLoad> {
  const tokens = await served.tokens(most.requests);
  const before = served.cpuMs();
  const { ms, seconds } = await load(most, (index, client) =>
    served[what](targets[client % targets.length] ?? "", tokens[index] ?? ""),
  );
  return summary(what, most.clients, { ms, seconds, cpuMs: served.cpuMs() - before });
}

/** Counts what one request after the other costs on the wire, once the server has its connections. */
async function measureWire(
  { ours, record }: Bench,
  ground: Ground,
  targets: ReadonlyMap<string, string>,
): Promise<void> {
  const [name = ""] = targets.keys();
  await using database = await openWire(ground.postgresPort, "postgres");
  await using bucket = await openWire(ground.bucketPort, "http");
  const url = ground.databaseUrl(name, database.port);
  const options = { ground, bucketPort: bucket.port, targets: new Map([[name, url]]), clients: 1 };
  await using served = await serve(ours, options);
  for (const what of ["noop", "status"] as const) {
    const tokens = await served.tokens(counted.before + counted.requests);
    for (const [index, token] of tokens.entries()) {
      if (index === counted.before) {
        database.reset();
        bucket.reset();
      }
      await served[what](name, token);
    }
    const each = ({ exchanges, bytesUp, bytesDown }: Traffic) => ({
      exchanges: exchanges / counted.requests,
      bytes: Math.round((bytesUp + bytesDown) / counted.requests),
    });
    record({ kind: "http-wire", what, bucket: each(bucket.traffic()), database: each(database.traffic()) });
  }
}

interface Worked {
  readonly ms: readonly number[];
  readonly seconds: number;
  readonly cpuMs: number;
}

function summary(what: HttpLoad["what"], clients: number, { ms, seconds, cpuMs }: Worked): HttpLoad {
  const sorted = ms.toSorted((a, b) => a - b);
  const at = (share: number): number => round(sorted[Math.floor((sorted.length - 1) * share)] ?? 0);
  return {
    kind: "http-load",
    what,
    clients,
    requests: ms.length,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    perSecond: Math.round(ms.length / seconds),
    cpuMs: round(cpuMs / ms.length),
  };
}

/** A process that does the bare work. */
interface ByHand extends Disposable {
  load(commits: boolean, most: LoadLimits): Promise<Worked>;
}

const workedSchema = v.object({ ms: v.array(v.number()), seconds: v.number(), cpuMs: v.number() });

function startByHand({ head }: Ground, targets: ReadonlyMap<string, string>): ByHand {
  const clients = Math.max(...clientCounts);
  const setup = { object: head, databaseUrls: [...targets.values()], clients };
  const child = fork(new URL("by-hand.ts", import.meta.url), [JSON.stringify(setup)]);
  return {
    load: (commits, most) =>
      new Promise((resolve, reject) => {
        const onExit = (): void => reject(new Error("the process that works by hand has ended"));
        child.once("exit", onExit);
        child.once("message", (message) => {
          child.off("exit", onExit);
          resolve(v.parse(workedSchema, message));
        });
        child.send({ commits, limits: most });
      }),
    [Symbol.dispose]() {
      child.kill();
    },
  };
}

function round(value: number): number {
  return Number(value.toFixed(2));
}
