-- What lockkeeper at commit 349d07b sent to create its own tables.
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL client_min_messages = warning;
SELECT 1 / pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('lockkeeper/setup/lockkeeper', 0))::int;
CREATE SCHEMA IF NOT EXISTS "lockkeeper";
CREATE TABLE IF NOT EXISTS "lockkeeper".streams (
  name text PRIMARY KEY,
  environment text,
  target_id text,
  epoch bigint,
  version bigint,
  release text,
  completed text,
  held jsonb,
  paused boolean NOT NULL DEFAULT false,
  token bigint NOT NULL DEFAULT 0,
  holder text,
  run_id text,
  acquired_at timestamptz,
  expires_at timestamptz,
  backend_pid int,
  backend_start timestamptz
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX IF NOT EXISTS streams_name_token ON "lockkeeper".streams (name, token);
CREATE TABLE IF NOT EXISTS "lockkeeper".history (
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
  note text,
  error jsonb
);
CREATE INDEX IF NOT EXISTS history_stream_id ON "lockkeeper".history (stream, id);
CREATE INDEX IF NOT EXISTS history_stream_seq ON "lockkeeper".history (stream, seq, id);
CREATE INDEX IF NOT EXISTS history_run_id ON "lockkeeper".history (run_id, id);
CREATE TABLE IF NOT EXISTS "lockkeeper".runs (
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
  idempotency_key text UNIQUE,
  body_digest text,
  cancel_requested boolean NOT NULL DEFAULT false,
  cancel_reason text,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  started_at timestamptz,
  ended_at timestamptz,
  error jsonb
);
CREATE INDEX IF NOT EXISTS runs_target_id ON "lockkeeper".runs (target, id);
CREATE TABLE IF NOT EXISTS "lockkeeper".requests (
  issuer text NOT NULL,
  jti text NOT NULL,
  body_digest text NOT NULL,
  run_id text NOT NULL,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (issuer, jti)
);
COMMIT;
