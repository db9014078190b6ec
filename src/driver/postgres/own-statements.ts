import { randomBytes } from "node:crypto";

import type { SessionSettings, TransactionStep } from "../driver.ts";
import { entryOfStep, executeEntry, insertEntry, prepareEntry, type NewEntry } from "./history.ts";
import { begin, fence, type LeaseKey } from "./lease.ts";
import { literal, type TableNames } from "./tables.ts";

/** What our own statements depend on besides the body. */
export interface Surroundings {
  readonly t: TableNames;
  readonly key: LeaseKey;
  readonly settings: SessionSettings;
  /** milliseconds; how long the server lets a frozen runner keep a transaction open */
  readonly leaseMs: number;
  /** the backend is shared with a pooler's other clients */
  readonly isPooled: boolean;
  /** `client_connection_check_interval` in milliseconds; undefined where the server has none */
  readonly checkIntervalMs: number | undefined;
}

/** Our own statements in the transaction of a body; each without its semicolon. */
export interface OwnStatements {
  /** once, before the first transaction of a message; with its semicolon */
  readonly prologue: string;
  readonly fence: string;
  settings(step: TransactionStep, nonce: string): string;
  entry(step: TransactionStep, nonce: string): string;
  /** once, after the last transaction */
  readonly epilogue: string;
}

/** Each statement written out: for a message with one body, and behind a pooler. */
export function plainStatements(around: Surroundings): OwnStatements {
  return {
    prologue: "",
    fence: fence(around.t, around.key),
    settings: (step, nonce) => setLocals(around, literal(nonce), step),
    entry: (step, nonce) =>
      insertEntry(around.t, newEntry(step, around), { guard: guardOf(literal(nonce)), startedAt }),
    epilogue: "",
  };
}

/**
 * The same, prepared once for a message of many bodies: parsing and planning them for each took half of the server's
 * time. The names are the message's own. A pooler's backend would keep them when a message fails; ours forgets them
 * with what else a failed message leaves.
 */
export function preparedStatements(around: Surroundings): OwnStatements {
  const name = `lockkeeper_${randomBytes(6).toString("hex")}`;
  const prologue = [
    begin,
    `PREPARE ${name}_fence AS ${fence(around.t, around.key)}`,
    `PREPARE ${name}_settings (text) AS ${setLocals(around, "$1")}`,
    // A statement is planned anew where the search path is not the one that it was prepared under.
    "SET LOCAL search_path = pg_catalog",
    prepareEntry(around.t, `${name}_entry`, { guard: guardOf, startedAt }),
    "COMMIT",
  ];
  return {
    prologue: `${prologue.join(";")};`,
    fence: `EXECUTE ${name}_fence`,
    settings: (_step, nonce) => `EXECUTE ${name}_settings (${literal(nonce)})`,
    entry: (step, nonce) => executeEntry(`${name}_entry`, newEntry(step, around), nonce),
    epilogue: `DEALLOCATE ${name}_fence;DEALLOCATE ${name}_settings;DEALLOCATE ${name}_entry`,
  };
}

/** `nonce` is an expression. Steps that share a message have no limits of their own. */
function setLocals(
  around: Surroundings,
  nonce: string,
  limits: Partial<Pick<TransactionStep, "lockTimeoutMs" | "statementTimeoutMs">> = {},
): string {
  const { settings, leaseMs, checkIntervalMs } = around;
  const values: [name: string, value: string][] = [
    // All transactions of one message have the same transaction_timestamp(), so each notes its own beginning;
    // as seconds, because a body may change how dates are written.
    ["lockkeeper.began", "extract(epoch FROM pg_catalog.clock_timestamp())::text"],
    ["lockkeeper.tx", nonce],
    ["idle_in_transaction_session_timeout", literal(String(leaseMs))],
    ["lock_timeout", literal(String(limits.lockTimeoutMs ?? settings.lockTimeoutMs))],
    ["statement_timeout", literal(String(limits.statementTimeoutMs ?? settings.statementTimeoutMs))],
  ];
  if (checkIntervalMs !== undefined)
    values.push(["client_connection_check_interval", literal(String(checkIntervalMs))]);
  return `SELECT ${values.map(([name, value]) => `pg_catalog.set_config('${name}', ${value}, true)`).join(", ")}`;
}

const startedAt = "pg_catalog.to_timestamp(pg_catalog.current_setting('lockkeeper.began')::float8)";

/**
 * The nonce, an expression, is gone when the body ended its transaction: then this asks for a bucket between 0 and 0,
 * which raises `sqlstate.bodyEndedTransaction`, a code that no body has a reason to raise, and no wrong entry is written.
 */
function guardOf(nonce: string): string {
  const holds = `(coalesce(pg_catalog.current_setting('lockkeeper.tx', true), '') = ${nonce})::int`;
  return `pg_catalog.width_bucket(0.5, 0, ${holds}, 1)`;
}

/** A body in one transaction counts as one statement. */
function newEntry(step: TransactionStep, around: Surroundings): NewEntry {
  return entryOfStep(step, around.key, around.settings.appliedBy, {
    status: "done",
    statementsDone: 1,
    statements: 1,
    statementChecksums: [],
    error: null,
  });
}
