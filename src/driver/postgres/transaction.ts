import { randomUUID } from "node:crypto";

import type { ForeignPlace } from "../../history/foreign.ts";
import type { TransactionStep } from "../session.ts";
import { writeBackStep } from "./foreign/write-back.ts";
import { frameOf, guarded, type Frame, type FrameInput } from "./frame.ts";
import { insertCovered } from "./history.ts";
import { begin, streamMark, type LeaseKey } from "./lease.ts";
import { whole } from "./prepared.ts";
import { literal } from "./tables.ts";

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

/** What a transaction depends on besides the step. */
export interface Surroundings extends FrameInput {
  /** the backend is shared with a pooler's other clients */
  readonly isPooled: boolean;
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
  frame: Frame = frameOf(around, whole),
): TransactionMessage {
  const mark = runMark(around.key);
  const parts: string[] = [mark];
  let bodyOffset = 0;
  for (const [index, step] of steps.entries()) {
    const nonce = newNonce();
    parts.push(`${begin};${frame.fence};${frame.settings(step, nonce)};\n`);
    if (index === 0) bodyOffset = codePoints(parts.join(""));
    parts.push(step.sql, "\n;", after(step, around, frame, nonce, index + 1 === steps.length));
  }
  return { text: parts.join(""), bodyOffset };
}

/** What opens the transaction of one body that is not sent with it, and what closes it again with the body's entry. */
export function openTransaction(
  step: TransactionStep,
  around: Surroundings,
): { readonly opening: string; readonly closing: string } {
  const nonce = newNonce();
  const mark = runMark(around.key);
  const frame = frameOf(around, whole);
  return {
    opening: `${mark}${begin};${frame.fence};${frame.settings(step, nonce)}`,
    closing: `${mark}${after(step, around, frame, nonce, true)}`,
  };
}

/** As SQL. */
function newNonce(): string {
  return literal(randomUUID());
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

/** Session settings are undone last, because that clears the nonce as well. */
function after(
  step: TransactionStep,
  around: Surroundings,
  frame: Frame,
  nonce: string,
  isLast: boolean,
): string {
  const { t, key, settings } = around;
  const covered = insertCovered(t, step, key, settings.appliedBy, guarded(nonce));
  const also = writeBackStep(around, step, {
    bytes: Buffer.from(step.text),
    statements: 1,
    durationMs: `extract(epoch FROM pg_catalog.clock_timestamp()) * 1000 - pg_catalog.current_setting('lockkeeper.began')::float8 * 1000`,
  });
  const written = [...covered, frame.entry(step, nonce), ...also].join(";");
  return `RESET SESSION AUTHORIZATION; RESET ROLE; SET LOCAL search_path = pg_catalog;${written};RESET ALL;SET LOCAL synchronous_commit = ${isLast ? "on" : "off"};COMMIT;${step.alone ? "" : tidy(around.isPooled)}`;
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
