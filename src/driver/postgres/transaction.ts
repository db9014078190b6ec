import { randomUUID } from "node:crypto";

import type { TransactionStep } from "../driver.ts";
import { begin, type LeaseKey } from "./lease.ts";
import { plainStatements, preparedStatements, type Surroundings } from "./own-statements.ts";
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

/**
 * Writes the message. All transactions but the last commit without waiting for the disk: the log is in order, so
 * the last, synchronous commit covers them, and nothing is reported before it.
 */
export function transactionMessage(
  steps: readonly TransactionStep[],
  around: Surroundings,
): TransactionMessage {
  const own = steps.length > 1 && !around.isPooled ? preparedStatements(around) : plainStatements(around);
  const parts: string[] = [runMark(around.key), own.prologue];
  let bodyOffset = 0;
  for (const [index, step] of steps.entries()) {
    const nonce = randomUUID();
    parts.push(`${begin};${own.fence};${own.settings(step, nonce)};\n`);
    if (index === 0) bodyOffset = codePoints(parts.join(""));
    parts.push(step.sql, "\n;", "RESET SESSION AUTHORIZATION;RESET ROLE;SET LOCAL search_path = pg_catalog;");
    // Session settings are undone last, because that clears the nonce as well.
    parts.push(own.entry(step, nonce), ";RESET ALL;");
    parts.push(`SET LOCAL synchronous_commit = ${index + 1 === steps.length ? "on" : "off"};COMMIT;`);
    if (!step.alone) parts.push(tidy(around.isPooled));
  }
  parts.push(own.epilogue);
  return { text: parts.join(""), bodyOffset };
}

/** Starts every message of a run, so that its backend can be found, also through a pooler. No name can end the comment. */
export function runMark(key: LeaseKey): string {
  return `/*lockkeeper:${key.stream.replaceAll(/[^\w.-]/g, "_")}:${key.token}*/`;
}

/** Ends the statement of the run that is under way, wherever it runs. */
export function cancelRun(key: LeaseKey): string {
  return `SELECT pg_catalog.pg_cancel_backend(pid) FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
 AND state = 'active' AND pg_catalog.starts_with(query, ${literal(runMark(key))})`;
}

/** Undoes whatever a body set for its session, so that nothing leaks into the next one, or to a pooler's next client. */
export const resetSession = "RESET ALL; RESET SESSION AUTHORIZATION; RESET ROLE";

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
