import { keepLease, type LeaseTimes } from "../../../src/driver/lease-keeper.ts";
import { parseAddress } from "../../../src/driver/mongodb/address.ts";
import { Bench } from "../../../src/driver/mongodb/bench.ts";
import { MongoDatabase } from "../../../src/driver/mongodb/database.ts";
import { insertStream, raiseFence, renew, takeSeen, takeFree } from "../../../src/driver/mongodb/lease.ts";
import { readHistory } from "../../../src/driver/mongodb/history.ts";
import type { StatementStep, TransactionStep } from "../../../src/driver/session.ts";
import type { HistoryEntry } from "../../../src/history/entry.ts";
import { sha256Hex } from "../../../src/migration/checksum.ts";
import { analyzeCommands } from "../../../src/migration/mongo/analyze-commands.ts";
import { readCommands } from "../../../src/migration/mongo/read-commands.ts";
import { shortTimes } from "../../support/steps.ts";

/** A lease that is held, and what works under it. */
export interface HeldBench extends AsyncDisposable {
  readonly bench: Bench;
  history(): Promise<readonly HistoryEntry[]>;
  /** stops the heartbeats, as a frozen process does */
  freeze(): void;
}

let runs = 0;

/** Takes the lease of the stream "orders", also from whoever had it before. */
export async function holdBench(
  url: string,
  {
    times = shortTimes,
    signal = new AbortController().signal,
  }: { times?: LeaseTimes; signal?: AbortSignal } = {},
): Promise<HeldBench> {
  const database = new MongoDatabase(parseAddress(url), "lockkeeper");
  const { now } = await database.facts(signal);
  await database.prepare(signal);
  await insertStream(database, "orders", "t");
  runs += 1;
  const asker = { stream: "orders", runId: `t.${runs}`, holder: "test", leaseMs: times.leaseMs };
  const local = performance.now();
  const before = await database.collections.leases.findOne({ _id: "orders" });
  const taken =
    (await takeFree(database, asker)) ??
    (before === null ? undefined : await takeSeen(database, asker, before));
  if (taken === undefined) throw new Error("the lease moved");
  const key = { stream: "orders", runId: asker.runId, token: taken.token };
  await raiseFence(database, key, 15_000);
  const bench = new Bench(
    {
      database,
      environment: "default",
      targetId: "t",
      times,
      orphans: { orphans: "wait", onOrphan: () => undefined },
      acquiredAt: { server: now, local },
    },
    key,
  );
  let isFrozen = false;
  const line = {
    renew: async () => isFrozen || renew(database, key),
    cancelReason: () => Promise.resolve(undefined),
  };
  const kept = keepLease(line, times, local, signal);
  bench.guardBy(kept);
  const close = async (): Promise<void> => {
    await kept.stop();
    await database.close();
  };
  return {
    bench,
    history: () => readHistory(database, "orders", {}),
    freeze: () => (isFrozen = true),
    [Symbol.asyncDispose]: close,
  };
}

/** A body that runs command by command, as its release lists it. */
export function statementStep(
  body: readonly object[] | string,
  { unfinished = null, tx, seq = 1 }: { unfinished?: HistoryEntry | null; tx?: "none"; seq?: number } = {},
): StatementStep {
  const bytes = Buffer.from(typeof body === "string" ? body : lines(body));
  const { statements = [] } = analyzeCommands(bytes, `${seq}_a.up.json`, tx);
  const { header } = readCommands(bytes, `${seq}_a.up.json`);
  return {
    ...common(bytes, seq),
    bytes,
    statements,
    resumeAt: unfinished?.statementsDone ?? 0,
    unfinished,
    backfill: header.backfill,
    statementTimeoutMs: header.statementTimeoutMs,
  };
}

/** A body in one transaction. */
export function transactionStep(body: readonly object[], seq = 1): TransactionStep {
  const text = lines(body);
  return { ...common(Buffer.from(text), seq), sql: text, sqlOffset: 0, alone: false };
}

/** Each command in a line of its own, the first in the second. */
function lines(body: readonly object[]): string {
  return `[\n${body.map((command) => JSON.stringify(command)).join(",\n")}\n]`;
}

function common(bytes: Buffer, seq: number): Omit<TransactionStep, "sql" | "sqlOffset" | "alone"> {
  const sha256 = sha256Hex(bytes);
  const path = `${seq}_a.up.json`;
  return {
    migration: {
      seq,
      version: String(seq),
      path,
      sha256,
      size: bytes.length,
      chain: "0".repeat(64),
      tx: "one",
      alone: false,
      locks: [],
    },
    direction: "up",
    path,
    sha256,
    text: bytes.toString("utf8"),
    signed: false,
    covers: [],
    lockTimeoutMs: undefined,
    statementTimeoutMs: undefined,
  };
}
