import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type Db, type Document, MongoClient } from "mongodb";

import type { LeaseTimes } from "../../src/driver/lease-keeper.ts";
import { type Passage, portOf, startMongoProxy, throughProxy } from "../support/mongo-proxy.ts";
import type { MongoJob } from "./mongodb-runner.ts";
import { makeWorkload, type MongoKind } from "./mongodb-workload.ts";
import { randomOf } from "./random.ts";

/**
 * What is done to a runner at one of its commands: it dies before the command has left, while the server works on it, or
 * when the server has done it; its connection is lost before or after; or it freezes, until another has finished.
 */
export const faults = ["kill-before", "kill-in", "kill-after", "cut", "swallow", "freeze"] as const;
export type MongoFault = (typeof faults)[number];

/** One round: a seed decides the migrations, the faults, and at which command each strikes. */
export interface MongoRound {
  readonly seed: number;
  readonly hasTransactions: boolean;
  /** the faults, one after the other; undefined: drawn */
  readonly strikes?: readonly MongoStrike[];
  /** kinds of migrations; all when absent */
  readonly kinds?: readonly MongoKind[];
  readonly times?: LeaseTimes;
  readonly rewrite?: (command: Document) => Document;
}

/** A fault, and at which command of whoever runs then. */
export interface MongoStrike {
  readonly fault: MongoFault;
  /** the first command from the `after`th on that is wanted */
  readonly after: number;
  readonly isWanted?: (command: Document) => boolean;
}

/** How a round ended. */
export interface MongoRoundResult {
  readonly seed: number;
  /** faults that struck, and the command that they struck at */
  readonly struck: readonly string[];
  readonly violations: readonly string[];
  readonly log: readonly string[];
  readonly durationMs: number;
}

/** Short, so that many rounds finish; a lease that is lost by slowness alone is no violation, and the run is run again. */
const shortLease: LeaseTimes = { leaseMs: 4_000, heartbeatMs: 700, marginMs: 500, cancelPollMs: 500 };
/** exit codes that running again cures: the lease, the database, an interruption */
const curable: ReadonlySet<number | null> = new Set([30, 31, 32]);
const mostRunners = 12;
/** milliseconds after which a runner hangs */
const patienceMs = 150_000;

/** Plays a round against a server and looks at what it leaves behind. */
export async function runMongoRound(serverUrl: string, round: MongoRound): Promise<MongoRoundResult> {
  const began = performance.now();
  const random = randomOf(round.seed);
  const folder = mkdtempSync(path.join(tmpdir(), "lockkeeper-crash-"));
  const workload = makeWorkload(folder, random, {
    size: random.integer(4, 8),
    hasTransactions: round.hasTransactions,
    ...(round.kinds === undefined ? {} : { kinds: round.kinds }),
  });
  const strikes =
    round.strikes ??
    Array.from({ length: random.integer(1, 3) }, () => ({
      fault: random.pick(faults),
      after: random.integer(1, 110),
    }));
  const url = serverUrl.replace(/\/(\?.*)?$/, `/crash_${randomBytes(6).toString("hex")}$1`);
  const client = new MongoClient(url);
  const db = client.db();
  const log: string[] = [`migrations: ${workload.names.join(", ")}`];
  const struck: string[] = [];
  const frozen: Runner[] = [];
  const violations: string[] = [];
  try {
    for (let left = [...strikes], number = 1; ; number += 1) {
      if (number > mostRunners) {
        violations.push(`${mostRunners} runners did not finish`);
        break;
      }
      const strike = left[0];
      const runner = await startRunner({ url, folder, round, strike });
      const ended = await runner.ended;
      log.push(
        `runner ${number}: ${strike === undefined ? "undisturbed" : strike.fault}${runner.struckAt() === undefined ? "" : ` at ${runner.struckAt()}`}, ended ${ended}`,
      );
      if (ended !== 0) log.push(...runner.output().split("\n").slice(-12));
      if (runner.struckAt() !== undefined) {
        struck.push(`${strike?.fault} at ${runner.struckAt()}`);
        left = left.slice(1);
        if (ended === "frozen") frozen.push(runner);
        else await runner.dispose();
        continue;
      }
      await runner.dispose();
      if (ended === 0) break;
      if (typeof ended !== "number" || !curable.has(ended)) {
        violations.push(`runner ${number} ended with ${ended}`);
        break;
      }
    }
    for (const runner of frozen) {
      runner.wake();
      const ended = await runner.ended;
      log.push(`the frozen one ended ${ended}`);
      if (ended !== 0) log.push(...runner.output().split("\n").slice(-4));
      await runner.dispose();
    }
    violations.push(...(await workload.check(db)), ...(await checkState(db, workload.names.length)));
  } finally {
    for (const runner of frozen) await runner.dispose();
    await db.dropDatabase().catch(() => undefined);
    await client.close();
    rmSync(folder, { recursive: true });
  }
  return { seed: round.seed, struck, violations, log, durationMs: performance.now() - began };
}

/** What our own collections must say when all is over. */
async function checkState(db: Db, migrations: number): Promise<readonly string[]> {
  const wrong: string[] = [];
  const entries = await db.collection("lockkeeper.history").find().sort({ id: 1 }).toArray();
  const done = entries.filter(({ status }) => status === "done").map(({ seq }) => Number(seq));
  if (done.join() !== Array.from({ length: migrations }, (_, index) => index + 1).join())
    wrong.push(`the history's done entries are ${done.join()}`);
  for (const entry of entries) {
    if (entry["status"] === "needs_attention") wrong.push(`migration ${entry["seq"]} needs attention`);
    if (entry["status"] === "done" && entry["statementsDone"] !== entry["statements"])
      wrong.push(`migration ${entry["seq"]} is done without all of its commands`);
  }
  const tokens = entries.map(({ token }) => Number(token));
  if (tokens.some((token, index) => token < (tokens[index - 1] ?? 0)))
    wrong.push(`tokens fall: ${tokens.join()}`);
  // A runner that froze while it asked for the lease may have got it and not know: nobody gives it back, and it runs out.
  const leases = db.collection("lockkeeper.leases");
  const giveUpAt = performance.now() + 3 * shortLease.leaseMs;
  for (let lease = await leases.findOne({}); lease?.["runId"] !== null; lease = await leases.findOne({})) {
    if (Date.now() > Number(lease?.["renewedAt"]) + Number(lease?.["leaseMs"])) break;
    if (performance.now() > giveUpAt) wrong.push(`the lease is still ${String(lease?.["runId"])}'s`);
    if (performance.now() > giveUpAt) break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const running = await db
    .collection("lockkeeper.runs")
    .countDocuments({ status: { $in: ["running", "waiting_lock"] } });
  if (running > 0) wrong.push(`${running} runs have not ended`);
  return wrong;
}

/** `frozen`, or how its process ended. */
type Ended = number | NodeJS.Signals | "frozen" | "hung";

interface Runner {
  readonly ended: Promise<Ended>;
  struckAt(): string | undefined;
  output(): string;
  wake(): void;
  dispose(): Promise<void>;
}

interface RunnerOptions {
  readonly url: string;
  readonly folder: string;
  readonly round: MongoRound;
  readonly strike: MongoStrike | undefined;
}

async function startRunner({ url, folder, round, strike }: RunnerOptions): Promise<Runner> {
  const started = Promise.withResolvers<ChildProcess>();
  let seen = 0;
  let struckAt: string | undefined;
  const thaw = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<Ended>();
  const watch = async (command: Document): Promise<Passage | Document> => {
    const rewritten = round.rewrite?.(command) ?? command;
    const through = rewritten === command ? "pass" : rewritten;
    const name = Object.keys(command)[0] ?? "";
    if (strike === undefined || struckAt !== undefined || name === "hello" || name === "ismaster")
      return through;
    seen += 1;
    if (seen < strike.after || strike.isWanted?.(command) === false) return through;
    const child = await started.promise;
    struckAt = `${seen}: ${name} ${String(command[name])}`;
    switch (strike.fault) {
      case "cut":
      case "swallow":
        return strike.fault;
      case "kill-before":
        child.kill("SIGKILL");
        return "cut";
      case "kill-in":
        setTimeout(() => child.kill("SIGKILL"), 1);
        return "swallow";
      case "kill-after":
        setTimeout(() => child.kill("SIGKILL"), 300);
        return "swallow";
      case "freeze":
        child.kill("SIGSTOP");
        ended.resolve("frozen");
        // Raw commands are at least once: one that leaves late is the overlap that the documents admit.
        if (isRaw(command)) return through;
        await thaw.promise;
        return through;
    }
  };
  const proxy = await startMongoProxy(portOf(url), watch);
  const job: MongoJob = { databaseUrl: throughProxy(url, proxy), folder, times: round.times ?? shortLease };
  const child = spawn(
    process.execPath,
    [path.join(import.meta.dirname, "mongodb-runner.ts"), JSON.stringify(job)],
    {
      env: { PATH: process.env["PATH"] },
      stdio: ["ignore", "ignore", "pipe"],
    },
  );
  started.resolve(child);
  let output = "";
  child.stderr?.on("data", (text: Buffer) => (output = (output + text.toString()).slice(-20_000)));
  const closed = new Promise<Ended>((resolve) =>
    child.once("close", (code, signal) => resolve(code ?? signal ?? "hung")),
  );
  void closed.then((how) => ended.resolve(how));
  const hang = setTimeout(() => ended.resolve("hung"), patienceMs);
  let afterFreeze: Promise<Ended> | undefined;
  return {
    get ended() {
      return afterFreeze ?? ended.promise;
    },
    struckAt: () => struckAt,
    output: () => output,
    wake() {
      child.kill("SIGCONT");
      thaw.resolve();
      afterFreeze = closed;
    },
    async dispose() {
      clearTimeout(hang);
      thaw.resolve();
      if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
      await closed;
      await proxy[Symbol.asyncDispose]();
    },
  };
}

/** A body's own command outside of any transaction. */
function isRaw(command: Document): boolean {
  const { comment, txnNumber } = command;
  return typeof comment === "string" && comment.startsWith("lockkeeper:") && txnNumber === undefined;
}
