import type { SessionSettings, TransactionStep } from "../session.ts";
import { deathSettings } from "./death.ts";
import { doneInOne, entryOfStep, entryStatement, valuesOfStep, type EntryExpressions } from "./history.ts";
import { fence, type LeaseKey } from "./lease.ts";
import { prepare, type PreparedStatement, type Write } from "./prepared.ts";
import type { ServerFacts } from "./state.ts";
import { literal, type TableNames } from "./tables.ts";

/** What the statements around a body depend on besides its step. */
export interface FrameInput {
  readonly t: TableNames;
  readonly key: LeaseKey;
  readonly settings: SessionSettings;
  /** milliseconds; how long the server lets a frozen runner keep a transaction open */
  readonly leaseMs: number;
  readonly facts: Pick<ServerFacts, "isLinux">;
}

/** The statements of ours around a body: before it the fence and the settings, behind it the history entry. */
export interface Frame {
  readonly fence: string;
  /** `nonce` is an SQL expression, as in {@link guarded} */
  settings(step: TransactionStep, nonce: string): string;
  /** returns `lockkeeper_entry` and `lockkeeper_ms` */
  entry(step: TransactionStep, nonce: string): string;
}

/** A frame, written out for any step, or by the names that {@link prepareFrame} gives its statements. */
export function frameOf(input: FrameInput, write: Write): Frame {
  return {
    fence: write(fenceStatement(input), {}),
    settings: (step, nonce) => write(settingsStatement(step, input), { nonce }),
    entry(step, nonce) {
      const entry = entryOf(step, input);
      return write(entryStatement(input.t, entry, guarded), { nonce, ...valuesOfStep(entry) });
    },
  };
}

/**
 * The message that has the server parse and plan a frame, of steps that have no limits of their own. For the session: a
 * transaction pooler would send the next message to another one. What an earlier lease has left there goes first.
 *
 * A message of its own: the server keeps the text that a statement was prepared in, and copies it whenever it is executed.
 */
export function prepareFrame(step: TransactionStep, input: FrameInput): string {
  const statements = [
    fenceStatement(input),
    settingsStatement(step, input),
    entryStatement(input.t, entryOf(step, input), guarded),
  ];
  return ["DEALLOCATE ALL", ...statements.map(prepare)].join(";");
}

function fenceStatement({ t, key }: FrameInput): PreparedStatement<never> {
  return { name: "lockkeeper_fence", types: {}, text: () => fence(t, key) };
}

function settingsStatement(step: TransactionStep, input: FrameInput): PreparedStatement<"nonce"> {
  return {
    name: "lockkeeper_settings",
    types: { nonce: "text" },
    text: ({ nonce }) => settingsOf(step, input, nonce),
  };
}

/**
 * What holds an entry to its own transaction. The nonce is gone when the body ended its transaction: then the guard asks
 * for a bucket between 0 and 0, which raises `sqlstate.bodyEndedTransaction`, a code that no body has a reason to raise,
 * and no wrong entry is written.
 */
export function guarded(nonce: string): EntryExpressions {
  const holds = `(coalesce(pg_catalog.current_setting('lockkeeper.tx', true), '') = ${nonce})::int`;
  return {
    guard: `pg_catalog.width_bucket(0.5, 0, ${holds}, 1)`,
    startedAt: "pg_catalog.to_timestamp(pg_catalog.current_setting('lockkeeper.began')::float8)",
  };
}

function settingsOf(step: TransactionStep, { settings, leaseMs, facts }: FrameInput, nonce: string): string {
  const values: (readonly [name: string, value: string])[] = [
    ["lockkeeper.tx", nonce],
    ["idle_in_transaction_session_timeout", literal(String(leaseMs))],
    ["lock_timeout", literal(String(step.lockTimeoutMs ?? settings.lockTimeoutMs))],
    ["statement_timeout", literal(String(step.statementTimeoutMs ?? settings.statementTimeoutMs))],
    ...deathSettings(facts).map(([name, value]) => [name, literal(value)] as const),
  ];
  // All transactions of one message have the same transaction_timestamp(), so each notes its own beginning.
  // As seconds, because a body may change how dates are written.
  const began =
    "pg_catalog.set_config('lockkeeper.began', extract(epoch FROM pg_catalog.clock_timestamp())::text, true)";
  const set = values.map(([name, value]) => `pg_catalog.set_config('${name}', ${value}, true)`);
  // One column: the server describes each to us, for each transaction, and nobody reads them.
  return `SELECT pg_catalog.concat(${[began, ...set].join(", ")})`;
}

function entryOf(step: TransactionStep, { key, settings }: FrameInput): ReturnType<typeof entryOfStep> {
  return entryOfStep(step, key, settings.appliedBy, doneInOne);
}
