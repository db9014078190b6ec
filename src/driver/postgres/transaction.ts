import { randomUUID } from "node:crypto";

import type { ForeignPlace } from "../../history/foreign.ts";
import type { SessionSettings, TransactionStep } from "../session.ts";
import { deathSettings } from "./death.ts";
import { writeBackStep } from "./foreign/write-back.ts";
import { entryOfStep, insertCovered, insertEntry } from "./history.ts";
import { begin, fence, streamMark, type LeaseKey } from "./lease.ts";
import type { ServerFacts } from "./state.ts";
import { literal, type TableNames } from "./tables.ts";

/**
 * The message that applies bodies, each in a transaction of its own with its history entry (`protocol.md` 3 to 6):
 * fence, settings, the body, its entry, commit.
 */

/** A message ready to send, and where its first body lies in it. */
export interface TransactionMessage {
  readonly text: string;
  /** code points before the first body; for mapping an error's position back when the message holds one body */
  readonly bodyOffset: number;
}

/** Statements of a transaction before its body: BEGIN, the fence, the settings. */
export const statementsBeforeBody = 3;

/** What settings depend on besides the step. */
export interface Surroundings {
  readonly t: TableNames;
  readonly key: LeaseKey;
  readonly settings: SessionSettings;
  /** milliseconds; how long the server lets a frozen runner keep a transaction open */
  readonly leaseMs: number;
  /** the backend is shared with a pooler's other clients */
  readonly isPooled: boolean;
  readonly facts: Pick<ServerFacts, "isLinux">;
  /** another tool's record, to be kept true */
  readonly inStep: ForeignPlace | null;
}

/**
 * Writes the message. All transactions but the last commit without waiting for the disk: the log is in order, so
 * the last, synchronous commit covers them, and nothing is reported before it.
 */
export function transactionMessage(
  steps: readonly TransactionStep[],
  around: Surroundings,
): TransactionMessage {
  const mark = runMark(around.key);
  const parts: string[] = [mark];
  let bodyOffset = 0;
  for (const [index, step] of steps.entries()) {
    const nonce = randomUUID();
    parts.push(`${begin};${fence(around.t, around.key)};${settingsOf(step, around, nonce)};\n`);
    if (index === 0) bodyOffset = codePoints(parts.join(""));
    parts.push(step.sql, "\n;", after(step, around, nonce, index + 1 === steps.length));
  }
  return { text: parts.join(""), bodyOffset };
}

/** What opens the transaction of one body that is not sent with it, and what closes it again with the body's entry. */
export function openTransaction(
  step: TransactionStep,
  around: Surroundings,
): { readonly opening: string; readonly closing: string } {
  const nonce = randomUUID();
  const mark = runMark(around.key);
  return {
    opening: `${mark}${begin};${fence(around.t, around.key)};${settingsOf(step, around, nonce)}`,
    closing: `${mark}${after(step, around, nonce, true)}`,
  };
}

/** Starts every message of a run, so that its backend can be found, also through a pooler. No name can end the comment. */
export function runMark(key: LeaseKey): string {
  return `${streamMark(key.stream)}${key.token}*/`;
}

/** Ends the statement of the run that is under way, wherever it runs. */
export function cancelRun(key: LeaseKey): string {
  return `SELECT pg_catalog.pg_cancel_backend(pid) FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
 AND state = 'active' AND pg_catalog.starts_with(query, ${literal(runMark(key))})`;
}

/** Undoes whatever a body set for its session, so that nothing leaks into the next one, or to a pooler's next client. */
export const resetSession = "RESET ALL; RESET SESSION AUTHORIZATION; RESET ROLE";

function settingsOf(step: TransactionStep, around: Surroundings, nonce: string): string {
  const values: (readonly [name: string, value: string])[] = [
    ["lockkeeper.tx", nonce],
    ["idle_in_transaction_session_timeout", String(around.leaseMs)],
    ["lock_timeout", String(step.lockTimeoutMs ?? around.settings.lockTimeoutMs)],
    ["statement_timeout", String(step.statementTimeoutMs ?? around.settings.statementTimeoutMs)],
    ...deathSettings(around.facts),
  ];
  // All transactions of one message have the same transaction_timestamp(), so each notes its own beginning.
  // As seconds, because a body may change how dates are written.
  const began =
    "pg_catalog.set_config('lockkeeper.began', extract(epoch FROM pg_catalog.clock_timestamp())::text, true)";
  const set = values.map(([name, value]) => `pg_catalog.set_config('${name}', ${literal(value)}, true)`);
  // One column: the server describes each to us, for each transaction, and nobody reads them.
  return `SELECT pg_catalog.concat(${[began, ...set].join(", ")})`;
}

/** A body in one transaction counts as one statement. */
const doneInOne = {
  status: "done",
  statementsDone: 1,
  statements: 1,
  statementChecksums: [],
  error: null,
} as const;

/**
 * The nonce is gone when the body ended its transaction: then the guard asks for a bucket between 0 and 0, which
 * raises `sqlstate.bodyEndedTransaction`, a code that no body has a reason to raise, and no wrong entry is written.
 * Session settings are undone last, because that clears the nonce as well.
 */
function after(step: TransactionStep, around: Surroundings, nonce: string, isLast: boolean): string {
  const holds = `(coalesce(pg_catalog.current_setting('lockkeeper.tx', true), '') = ${literal(nonce)})::int`;
  const guard = `pg_catalog.width_bucket(0.5, 0, ${holds}, 1)`;
  const { appliedBy } = around.settings;
  const expressions = {
    guard,
    startedAt: "pg_catalog.to_timestamp(pg_catalog.current_setting('lockkeeper.began')::float8)",
  };
  const covered = insertCovered(around.t, step, around.key, appliedBy, expressions);
  const entry = insertEntry(around.t, entryOfStep(step, around.key, appliedBy, doneInOne), expressions);
  const also = writeBackStep(around, step, {
    bytes: Buffer.from(step.text),
    statements: 1,
    durationMs: `extract(epoch FROM pg_catalog.clock_timestamp()) * 1000 - pg_catalog.current_setting('lockkeeper.began')::float8 * 1000`,
  });
  return `RESET SESSION AUTHORIZATION; RESET ROLE; SET LOCAL search_path = pg_catalog;${[...covered, entry, ...also].join(";")};RESET ALL;SET LOCAL synchronous_commit = ${isLast ? "on" : "off"};COMMIT;${step.alone ? "" : tidy(around.isPooled)}`;
}

/** After a body that may have left more in the session than settings: temporary tables, locks, cursors, prepared statements. */
function tidy(isPooled: boolean): string {
  // A newer pooler keeps book of what its clients prepared, and would not know.
  const prepared = isPooled ? "" : "DEALLOCATE ALL;";
  return `DISCARD TEMP;UNLISTEN *;CLOSE ALL;${prepared}SELECT pg_catalog.pg_advisory_unlock_all();`;
}

function codePoints(text: string): number {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}
