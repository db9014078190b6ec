import type {
  EntryError,
  EntryOrigin,
  EntryStatus,
  HistoryEntry,
  StatementCheckpoint,
} from "../../history/entry.ts";
import type { Direction } from "../../migration/migration.ts";
import type { HistoryQuery } from "../driver.ts";
import type { TransactionStep } from "../session.ts";
import type { Row } from "./connection.ts";
import { instantColumn, readInstant } from "./instant.ts";
import type { LeaseKey } from "./lease.ts";
import type { PreparedStatement } from "./prepared.ts";
import { jsonLiteral, literal, type TableNames } from "./tables.ts";

/** Values of a new entry; its id, its time and its duration come from the database. */
export interface NewEntry extends Omit<HistoryEntry, "id" | "startedAt" | "durationMs" | "checkpoint"> {
  readonly stream: string;
  readonly checkpoint?: StatementCheckpoint | null;
}

/** How far a body came, for {@link entryOfStep}. */
export type EntryProgress = Pick<
  NewEntry,
  "status" | "statementsDone" | "statements" | "statementChecksums" | "checkpoint" | "error"
>;

/** A body in one transaction counts as one statement. */
export const doneInOne = {
  status: "done",
  statementsDone: 1,
  statements: 1,
  statementChecksums: [],
  error: null,
} as const;

/** The entry of a body that a run carries out. */
export function entryOfStep(
  step: Pick<TransactionStep, "migration" | "path" | "direction" | "sha256" | "signed">,
  { stream, runId, token }: LeaseKey,
  appliedBy: string,
  progress: EntryProgress,
): NewEntry {
  const { seq, version, size, chain, checkpoint } = step.migration;
  const { path, direction, sha256, signed } = step;
  // One that stands for the first migration covers no other.
  const isCheckpoint = path === checkpoint?.path && sha256 === checkpoint.sha256;
  const origin = isCheckpoint ? "checkpoint" : "run";
  const run = { stream, runId, token, appliedBy, origin, note: null } as const;
  return { ...run, seq, version, path, direction, sha256, size, chain, signed, ...progress };
}

/** Columns that somebody gives: their types, and an entry's values as SQL. */
const given = {
  stream: { type: "text", of: ({ stream }) => literal(stream) },
  seq: { type: "int", of: ({ seq }) => String(seq) },
  version: { type: "text", of: ({ version }) => literal(version) },
  path: { type: "text", of: ({ path }) => literal(path) },
  direction: { type: "text", of: ({ direction }) => literal(direction) },
  sha256: { type: "text", of: ({ sha256 }) => literal(sha256) },
  size: { type: "bigint", of: ({ size }) => String(size) },
  chain: { type: "text", of: ({ chain }) => literal(chain) },
  origin: { type: "text", of: ({ origin }) => literal(origin) },
  status: { type: "text", of: ({ status }) => literal(status) },
  statements_done: { type: "int", of: ({ statementsDone }) => String(statementsDone) },
  statements: { type: "int", of: ({ statements }) => String(statements) },
  statement_checksums: {
    type: "text[]",
    of: ({ statementChecksums }) => `ARRAY[${statementChecksums.map(literal).join(",")}]::text[]`,
  },
  signed: { type: "boolean", of: ({ signed }) => String(signed) },
  run_id: { type: "text", of: ({ runId }) => literal(runId) },
  token: { type: "bigint", of: ({ token }) => String(token) },
  applied_by: { type: "text", of: ({ appliedBy }) => literal(appliedBy) },
  checkpoint: { type: "jsonb", of: ({ checkpoint }) => jsonLiteral(checkpoint) },
  note: { type: "text", of: ({ note }) => literal(note) },
  error: { type: "jsonb", of: ({ error }) => jsonLiteral(error) },
} as const satisfies Record<string, { readonly type: string; of(entry: NewEntry): string }>;

type Given = keyof typeof given;

const givenColumns = Object.keys(given) as readonly Given[];
const columns: readonly string[] = [...givenColumns, "started_at", "duration_ms"];

/** What differs between the entries of bodies that a run has done, each in one transaction. */
const ofStep = [
  "seq",
  "version",
  "path",
  "direction",
  "sha256",
  "size",
  "chain",
  "origin",
  "signed",
] as const satisfies readonly Given[];

type OfStep = (typeof ofStep)[number];

/** Expressions of an entry that only the database can give. */
export interface EntryExpressions {
  /** an integer expression, 1, that raises when the entry must not be written */
  readonly guard: string;
  /** when it began, `timestamptz` */
  readonly startedAt: string;
}

const now = "pg_catalog.clock_timestamp()";

/** Adds one entry and returns `lockkeeper_entry` (its id) and `lockkeeper_ms`. */
function insertEntry(t: TableNames, entry: NewEntry, expressions?: EntryExpressions): string {
  return `${insertValues(t, valuesOf(entry), expressions)}${returning}`;
}

/**
 * An entry, as {@link insertEntry} adds it, of one of many bodies, which differ by {@link valuesOfStep} alone.
 *
 * @param expressions - from the nonce of the body's transaction, as SQL
 */
export function entryStatement(
  t: TableNames,
  entry: NewEntry,
  expressions: (nonce: string) => EntryExpressions,
): PreparedStatement<"nonce" | OfStep> {
  return {
    name: "lockkeeper_entry",
    types: { nonce: "text", ...valuesAs(ofStep, (column) => given[column].type) },
    text: ({ nonce, ...own }) =>
      `${insertValues(t, { ...valuesOf(entry), ...own }, expressions(nonce))}${returning}`,
  };
}

/** What an entry has of its own among those of {@link entryStatement}, as SQL. */
export function valuesOfStep(entry: NewEntry): Readonly<Record<OfStep, string>> {
  return valuesAs(ofStep, (column) => given[column].of(entry));
}

const returning = " RETURNING id AS lockkeeper_entry, duration_ms AS lockkeeper_ms";

/** Adds the entries of what a checkpoint stands for, in the transaction of its own. */
export function insertCovered(
  t: TableNames,
  step: Pick<TransactionStep, "covers" | "signed">,
  { stream, runId, token }: LeaseKey,
  appliedBy: string,
  expressions?: EntryExpressions,
): readonly string[] {
  const common = { stream, runId, token, appliedBy, signed: step.signed, ...doneInOne } as const;
  return step.covers.map(({ seq, version, path, sha256, size, chain }) => {
    const entry = {
      seq,
      version,
      path,
      sha256,
      size,
      chain,
      direction: "up",
      origin: "covered",
      note: null,
    } as const;
    return insertValues(t, valuesOf({ ...common, ...entry }), expressions);
  });
}

function valuesOf(entry: NewEntry): Readonly<Record<string, string>> {
  return valuesAs(givenColumns, (column) => given[column].of(entry));
}

function valuesAs<Column extends string>(
  columns: readonly Column[],
  value: (column: Column) => string,
): Record<Column, string> {
  return Object.fromEntries(columns.map((column) => [column, value(column)])) as Record<Column, string>;
}

/** `values` are SQL, by column. */
function insertValues(
  t: TableNames,
  values: Readonly<Record<string, string>>,
  { guard, startedAt }: EntryExpressions = { guard: "1", startedAt: now },
): string {
  const all: Readonly<Record<string, string>> = {
    ...values,
    seq: `${values["seq"]} / (${guard})`,
    started_at: startedAt,
    duration_ms: `extract(epoch FROM ${now} - ${startedAt}) * 1000`,
  };
  return `INSERT INTO ${t.history} (${columns.join(", ")}) SELECT ${columns.map((column) => all[column]).join(", ")}`;
}

/** Up to where a run's entries are known to the session that holds its lease. */
export interface KnownEntries {
  readonly runId: string;
  /** the first token of that session: what has a smaller one is an earlier attempt's */
  readonly firstToken: number;
  /** of the last entry that was counted */
  readonly lastId: number;
}

/**
 * Adds entries of one run. The message may be sent twice, when nobody knows whether it arrived: what it added the first
 * time goes before.
 */
export function addEntries(t: TableNames, known: KnownEntries, entries: readonly NewEntry[]): string {
  const again = `DELETE FROM ${t.history} WHERE run_id = ${literal(known.runId)} AND token >= ${known.firstToken} AND id > ${known.lastId}`;
  return [again, ...entries.map((entry) => insertEntry(t, entry))].join("; ");
}

/** Entries of a stream, oldest first. */
export function selectHistory(t: TableNames, stream: string, query: HistoryQuery): string {
  const conditions = [`stream = ${literal(stream)}`];
  if (query.afterId !== undefined) conditions.push(`id > ${query.afterId}`);
  if (query.runId !== undefined) conditions.push(`run_id = ${literal(query.runId)}`);
  const where = conditions.join(" AND ");
  if (query.last === undefined)
    return `SELECT *, ${instantColumn("started_at", "started_at")} FROM ${t.history} h WHERE ${where} ORDER BY h.id`;
  return `SELECT *, ${instantColumn("started_at", "started_at")} FROM (SELECT * FROM ${t.history} WHERE ${where} ORDER BY id DESC LIMIT ${query.last}) newest ORDER BY id`;
}

/** One row of the table, which may be of an earlier build, as an entry; `prefix` where it was selected beside other columns. */
export function readEntry(row: Row, prefix = ""): HistoryEntry {
  const value = (name: string): unknown => row[prefix + name];
  return {
    id: Number(value("id")),
    seq: Number(value("seq")),
    version: String(value("version")),
    path: String(value("path")),
    direction: value("direction") as Direction,
    sha256: String(value("sha256")),
    size: Number(value("size")),
    chain: String(value("chain")),
    origin: value("origin") as EntryOrigin,
    status: value("status") as EntryStatus,
    statementsDone: Number(value("statements_done")),
    statements: Number(value("statements")),
    statementChecksums: value("statement_checksums") as readonly string[],
    signed: value("signed") === true,
    runId: String(value("run_id")),
    token: Number(value("token")),
    startedAt: readInstant(value("started_at")),
    durationMs: Number(value("duration_ms")),
    appliedBy: String(value("applied_by")),
    checkpoint: (value("checkpoint") ?? null) as StatementCheckpoint | null,
    note: value("note") as string | null,
    error: value("error") as EntryError | null,
  };
}

/** Columns of the table under `prefix`, for {@link readEntry}. */
export function entryColumns(alias: string, prefix: string): string {
  const plain = ["id", ...columns].map((name) => `${alias}.${name} AS ${prefix}${name}`);
  return [...plain, instantColumn(`${alias}.started_at`, `${prefix}started_at`)].join(", ");
}
