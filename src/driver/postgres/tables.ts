/**
 * Our own tables, all in one schema of the target database, owned by the migration role:
 * they are backed up and restored together with what they describe.
 */

/** Quotes a value for a message of the simple protocol; null and undefined are NULL. */
export function literal(value: string | number | boolean | Date | null | undefined): string {
  if (value === null || value === undefined) return "NULL";
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const text = value instanceof Date ? value.toISOString() : value;
  if (!/['\\\0]/.test(text)) return `'${text}'`;
  if (text.includes("\0")) throw new TypeError("a NUL cannot be stored in PostgreSQL");
  const quoted = `'${text.replaceAll("'", "''")}'`;
  return text.includes("\\") ? ` E${quoted.replaceAll("\\", "\\\\")}` : quoted;
}

/** A JSON document as a quoted `jsonb` value. */
export function jsonLiteral(value: unknown): string {
  return value === null || value === undefined
    ? "NULL"
    : `${literal(JSON.stringify(value).replaceAll(escapedNul, "$1"))}::jsonb`;
}

/** PostgreSQL has no NUL; the same five characters behind a backslash of their own are text. */
const escapedNul = /(?<!\\)((?:\\\\)*)\\u0000/g;

/** Quotes a name. */
export function identifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Names that statements need, quoted. */
export interface TableNames {
  readonly schema: string;
  /** as its catalogue entry has it */
  readonly plainSchema: string;
  /** dollar quote that no schema's name holds */
  readonly quote: string;
  readonly streams: string;
  readonly history: string;
  readonly runs: string;
  readonly requests: string;
  readonly roots: string;
  readonly audit: string;
  /** key of the advisory locks on this schema's set-up */
  readonly setupLock: string;
}

/** The names in a schema of this name. */
export function tableNames(schema: string): TableNames {
  const quoted = identifier(schema);
  return {
    schema: quoted,
    plainSchema: schema,
    quote: schema.includes("$lockkeeper$") ? "$lockkeeper_$" : "$lockkeeper$",
    streams: `${quoted}.streams`,
    history: `${quoted}.history`,
    runs: `${quoted}.runs`,
    requests: `${quoted}.requests`,
    roots: `${quoted}.roots`,
    audit: `${quoted}.audit`,
    setupLock: `pg_catalog.hashtextextended(${literal(`lockkeeper/setup/${schema}`)}, 0)`,
  };
}

/**
 * What the tables of the first build did not have; a later build adds its columns here and to {@link createTables}. The
 * streams last: there an open fence may be in the way, and what is read can be read without them.
 */
const laterColumns = {
  history: ["checkpoint jsonb"],
  runs: [
    "run_order jsonb",
    "attempt int NOT NULL DEFAULT 0",
    "mark text",
    "stalls int NOT NULL DEFAULT 0",
    "claimed_until timestamptz",
    "backup jsonb",
  ],
  streams: ["failed jsonb", "in_step jsonb", "root_version bigint"],
} as const;

/** milliseconds: whoever waits for a table keeps everybody after him waiting, and heartbeats are among them */
const setupLockMs = 200;

/** How a message that changes our tables begins: alone, and never long in the way. */
function beginSetup(t: TableNames): string {
  return `BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL client_min_messages = warning; SET LOCAL lock_timeout = ${setupLockMs};
SELECT 1 / pg_catalog.pg_try_advisory_xact_lock(${t.setupLock})::int;`;
}

/** Raises 42P01 or 42703 where our tables are absent, or of an earlier build; gives no row. */
export function assertTables(t: TableNames): string {
  const names = Object.entries(laterColumns).flatMap(([table, columns]) =>
    columns.map((column) => `${table}.${column.split(" ")[0]}`),
  );
  return `SELECT ${names.join(", ")} FROM ${t.streams} streams, ${t.history} history, ${t.runs} runs, ${t.requests}, ${t.roots}, ${t.audit} WHERE false`;
}

/**
 * One message that gives tables of an earlier build what they lack, each in a transaction of its own. A run of that build
 * may be at work meanwhile: an open fence on any stream is in the way, so this gives up soon (55P03) and is to be tried again.
 */
export function addColumns(t: TableNames): string {
  const { history, runs, streams } = laterColumns;
  const changes = [
    addTo(t.history, history),
    `${addTo(t.runs, runs)}\n${runIndexes(t)}`,
    addTo(t.streams, streams),
  ];
  return changes.map((change) => `${beginSetup(t)}\n${change}\nCOMMIT`).join(";\n");
}

function addTo(table: string, columns: readonly string[]): string {
  return `ALTER TABLE ${table} ${columns.map((column) => `ADD COLUMN IF NOT EXISTS ${column}`).join(", ")};`;
}

function runIndexes(t: TableNames): string {
  return `CREATE INDEX IF NOT EXISTS runs_target_created ON ${t.runs} (target, created_at, id);
CREATE INDEX IF NOT EXISTS runs_open ON ${t.runs} (target) WHERE ended_at IS NULL;`;
}

/**
 * One message that creates what is absent (a schema that a person made beforehand is enough for a role that may not
 * create one: `CREATE SCHEMA IF NOT EXISTS` would ask for the right all the same), in one transaction. Two runners at once: one of them gets a code of
 * `creationClash` and looks again. Trying for the advisory lock is safe beside an index build, waiting for it would not be.
 *
 * `streams_name_token` is the guarantee of the lease (`protocol.md` 2): it makes every change of the token,
 * even by a person's plain UPDATE, take the row lock that conflicts with the fence's KEY SHARE.
 */
export function createTables(t: TableNames): string {
  return `${beginSetup(t)}
DO ${t.quote}BEGIN
 IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = ${literal(t.plainSchema)}) THEN CREATE SCHEMA ${t.schema}; END IF;
END${t.quote};
CREATE TABLE IF NOT EXISTS ${t.streams} (
  name text PRIMARY KEY,
  environment text,
  target_id text,
  epoch bigint,
  version bigint,
  release text,
  completed text,
  held jsonb,
  failed jsonb,
  paused boolean NOT NULL DEFAULT false,
  in_step jsonb,
  root_version bigint,
  token bigint NOT NULL DEFAULT 0,
  holder text,
  run_id text,
  acquired_at timestamptz,
  expires_at timestamptz,
  backend_pid int,
  backend_start timestamptz
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX IF NOT EXISTS streams_name_token ON ${t.streams} (name, token);
CREATE TABLE IF NOT EXISTS ${t.history} (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  stream text NOT NULL,
  seq int NOT NULL,
  version text NOT NULL,
  path text NOT NULL,
  direction text NOT NULL,
  sha256 text NOT NULL,
  size bigint NOT NULL,
  chain text NOT NULL,
  origin text NOT NULL,
  status text NOT NULL,
  statements_done int NOT NULL,
  statements int NOT NULL,
  statement_checksums text[] NOT NULL DEFAULT '{}',
  signed boolean NOT NULL,
  run_id text NOT NULL,
  token bigint NOT NULL,
  started_at timestamptz NOT NULL,
  duration_ms double precision NOT NULL,
  applied_by text NOT NULL,
  checkpoint jsonb,
  note text,
  error jsonb
);
CREATE INDEX IF NOT EXISTS history_stream_id ON ${t.history} (stream, id);
CREATE INDEX IF NOT EXISTS history_stream_seq ON ${t.history} (stream, seq, id);
CREATE INDEX IF NOT EXISTS history_run_id ON ${t.history} (run_id, id);
CREATE TABLE IF NOT EXISTS ${t.runs} (
  id text PRIMARY KEY,
  target text NOT NULL,
  stream text NOT NULL,
  action text NOT NULL,
  status text NOT NULL,
  outcome text,
  trigger text NOT NULL,
  caller jsonb NOT NULL,
  release_digest text,
  release_version bigint,
  from_version text,
  to_version text,
  total int NOT NULL DEFAULT 0,
  labels jsonb NOT NULL,
  run_order jsonb,
  attempt int NOT NULL DEFAULT 0,
  mark text,
  stalls int NOT NULL DEFAULT 0,
  claimed_until timestamptz,
  idempotency_key text UNIQUE,
  body_digest text,
  cancel_requested boolean NOT NULL DEFAULT false,
  cancel_reason text,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  started_at timestamptz,
  ended_at timestamptz,
  backup jsonb,
  error jsonb
);
${runIndexes(t)}
CREATE TABLE IF NOT EXISTS ${t.requests} (
  issuer text NOT NULL,
  jti text NOT NULL,
  body_digest text NOT NULL,
  run_id text NOT NULL,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (issuer, jti)
);
CREATE TABLE IF NOT EXISTS ${t.roots} (
  stream text NOT NULL,
  version bigint NOT NULL,
  document bytea NOT NULL,
  bundles bytea NOT NULL,
  PRIMARY KEY (stream, version)
);
CREATE TABLE IF NOT EXISTS ${t.audit} (
  seq bigint PRIMARY KEY,
  previous text NOT NULL,
  sha256 text NOT NULL,
  text text NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMIT`;
}
