import type {
  AppliedSteps,
  DeclaredEntry,
  LeasedSession,
  SessionSettings,
  StatementStep,
  TransactionStep,
} from "../../src/driver/session.ts";
import type { LeaseOptions } from "../../src/driver/driver.ts";
import type { NewRun } from "../../src/driver/runs.ts";
import type { LeaseTimes } from "../../src/driver/lease-keeper.ts";
import { RunnerError } from "../../src/error.ts";
import { parseHeader } from "../../src/migration/header.ts";
import { sqlToSend } from "../../src/migration/unwrap-sql.ts";
import { newRunId } from "../../src/run/request.ts";
import { makeRelease, type MigrationText } from "./plain-release.ts";

/** Heartbeats often enough to see their effect in a test; the lease itself lives through a busy machine. */
export const shortTimes: LeaseTimes = {
  leaseMs: 15_000,
  heartbeatMs: 200,
  marginMs: 1_000,
  cancelPollMs: 50,
};

/** A signal that never fires: the test's own time-out is the bound. */
export const never: AbortSignal = new AbortController().signal;

/** Asks for no limits of its own. */
export const settings: SessionSettings = {
  lockTimeoutMs: 0,
  statementTimeoutMs: 0,
  appliedBy: "tester",
  onRetry: () => undefined,
};

/** A new run's row. */
export function newRun(change: Partial<NewRun> = {}): NewRun {
  return {
    id: newRunId("t"),
    target: "t",
    stream: "orders",
    action: "apply",
    trigger: "cli",
    caller: { issuer: "os", subject: "tester", rule: null },
    releaseDigest: null,
    labels: {},
    idempotencyKey: null,
    bodyDigest: null,
    singleUse: null,
    ...change,
  };
}

/** What a holder says when it asks for the lease. */
export function leaseOptions(change: Partial<LeaseOptions> = {}): LeaseOptions {
  return {
    stream: "orders",
    environment: "default",
    targetId: "t",
    run: newRun(change.stream === undefined ? {} : { stream: change.stream }),
    holder: "host/1",
    waitMs: 0,
    signal: never,
    orphans: "wait",
    onWaiting: () => undefined,
    onOrphan: () => undefined,
    ...change,
  };
}

/** Bodies as steps of one transaction each, in the order given; `alone` as the analysis says, or as `change` does. */
export async function transactionSteps(
  texts: readonly MigrationText[],
  change: Partial<TransactionStep> = {},
): Promise<readonly TransactionStep[]> {
  const { release, bodies } = await makeRelease(texts);
  return release.migrations.map((migration) => {
    const text = (bodies.get(migration.sha256) ?? Buffer.alloc(0)).toString("utf8");
    const { sql, offset } = migration.path.endsWith(".json") ? { sql: text, offset: 0 } : sqlToSend(text);
    return { ...stepOf(migration), text, sql, sqlOffset: offset, alone: migration.alone, ...change };
  });
}

/** The same, for a body whose analysis refuses it: sent as it is. */
export function rawStep(
  text: string,
  place: { readonly seq?: number; readonly path?: string } = {},
): TransactionStep {
  const { seq = 1, path = `${seq}_raw.up.sql` } = place;
  const migration = {
    seq,
    version: String(seq),
    path,
    sha256: "0".repeat(64),
    size: text.length,
    chain: "0".repeat(64),
    tx: "one",
    alone: false,
    locks: [],
  } as const;
  return { ...stepOf(migration), text, sql: text, sqlOffset: 0, alone: false };
}

/** Applies bodies in the order given, each as its analysis says that it runs, from the `from`th on; ends with the first that fails. */
export async function applyBodies(
  session: LeasedSession,
  texts: readonly MigrationText[],
  from = 1,
): Promise<AppliedSteps> {
  const { release, bodies } = await makeRelease(texts);
  const all = await transactionSteps(texts);
  if (release.migrations.every(({ tx }) => tx === "one"))
    return session.applyInTransactions(all.slice(from - 1), settings);
  const done: { readonly durationMs: number }[] = [];
  for (const { sha256, statements = [] } of release.migrations.slice(from - 1)) {
    const step = all[from - 1 + done.length];
    if (step === undefined) break;
    const bytes = bodies.get(sha256) ?? Buffer.alloc(0);
    const body = { ...step, bytes, statements, resumeAt: 0, unfinished: null, backfill: undefined };
    try {
      done.push(await session.applyStatements(body, settings, () => undefined));
    } catch (cause) {
      if (!(cause instanceof RunnerError) || cause.code !== "MIGRATION_FAILED") throw cause;
      return { done, failure: cause };
    }
  }
  return { done, failure: null };
}

/** One body that runs statement by statement. */
export async function statementStep(
  text: string | Buffer,
  change: Partial<StatementStep> = {},
): Promise<StatementStep> {
  const { release } = await makeRelease([{ path: "1_outside.up.sql", up: text }]);
  const [migration] = release.migrations;
  if (migration?.statements === undefined) throw new TypeError("this body runs in one transaction");
  const bytes = Buffer.from(text);
  return {
    ...stepOf(migration),
    text: bytes.toString("utf8"),
    bytes,
    statements: migration.statements,
    resumeAt: 0,
    unfinished: null,
    backfill: parseHeader(bytes.toString("utf8"), migration.path).backfill,
    ...change,
  };
}

/** A migration declared as applied. */
export async function declaration(
  text: MigrationText,
  change: Partial<DeclaredEntry> = {},
): Promise<DeclaredEntry> {
  const { release } = await makeRelease([text]);
  const [migration] = release.migrations;
  if (migration === undefined) throw new TypeError("a release of one migration has one");
  return {
    migration,
    direction: "up",
    origin: "baseline",
    status: "done",
    statementsDone: 1,
    statements: 1,
    statementChecksums: [],
    signed: false,
    note: "was there before",
    appliedBy: "tester",
    ...change,
  };
}

function stepOf(
  migration: TransactionStep["migration"],
): Pick<
  TransactionStep,
  "migration" | "direction" | "sha256" | "path" | "signed" | "covers" | "lockTimeoutMs" | "statementTimeoutMs"
> {
  return {
    migration,
    direction: "up",
    sha256: migration.sha256,
    path: migration.path,
    signed: false,
    covers: [],
    lockTimeoutMs: undefined,
    statementTimeoutMs: undefined,
  };
}
