import type { Random } from "./random.ts";

/**
 * Migrations that leave evidence. Each statement that can adds a row to `crash.evidence`, which has no unique key, so
 * that what is done twice shows; what cannot is noted there by event triggers, in the transaction that ends it.
 */

/** The kinds of migrations that a release is mixed from. */
export type MigrationKind = keyof typeof writers;

/** One migration with all that must be true of it afterwards. */
export interface CrashMigration {
  /** its version, and its place in the sequence */
  readonly n: number;
  readonly kind: MigrationKind;
  readonly up: Movement;
  readonly down: Movement;
  /** SQL of a boolean: true while it is applied, false while it is not; undefined where nothing but the evidence shows it */
  readonly isThere: string | undefined;
  /** what it needs to be there before */
  readonly setup: string;
}

/** One direction of a migration. */
export interface Movement {
  readonly sql: string;
  /** what it adds to the evidence, in order */
  readonly marks: readonly string[];
  /** one transaction holds the body and its history entry */
  readonly isWhole: boolean;
}

/** Tables and functions that the migrations need, without what is special to one of them. */
const commonSetup = `
CREATE SCHEMA crash;
CREATE TABLE crash.evidence (id bigint GENERATED ALWAYS AS IDENTITY, mark text NOT NULL);
-- What backfills leave, a row for each row that they were to reach.
CREATE TABLE crash.reached (n int NOT NULL, a int NOT NULL);
-- Where the harness holds the exclusive lock, whoever comes here stays until it lets go: the server is in the middle of it.
CREATE FUNCTION crash.gate(stage int, n int) RETURNS void LANGUAGE plpgsql AS $$
 BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared(stage, n); END $$;
CREATE FUNCTION crash.note(n int, mark text) RETURNS text LANGUAGE plpgsql AS $$
 BEGIN PERFORM crash.gate(1, n); RETURN mark; END $$;
CREATE FUNCTION crash.keyed(a int, n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
 BEGIN PERFORM crash.gate(1, n); RETURN a; END $$;
CREATE FUNCTION crash.at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
 BEGIN PERFORM crash.gate(2, pg_catalog.substring(NEW.mark, '^[0-9]+')::int); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON crash.evidence DEFERRABLE INITIALLY DEFERRED
 FOR EACH ROW WHEN (NEW.mark ~ '^[0-9]') EXECUTE FUNCTION crash.at_commit();
`;

/** Made last, so that the setup itself leaves no evidence. */
const triggers = `
CREATE FUNCTION crash.note_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
 INSERT INTO crash.evidence (mark) SELECT pg_catalog.lower(command_tag) || ' ' || object_identity
  FROM pg_catalog.pg_event_trigger_ddl_commands() WHERE schema_name = 'crash'; END $$;
CREATE FUNCTION crash.note_drop() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
 INSERT INTO crash.evidence (mark) SELECT 'drop index ' || object_identity
  FROM pg_catalog.pg_event_trigger_dropped_objects() WHERE schema_name = 'crash' AND original; END $$;
CREATE EVENT TRIGGER crash_ddl ON ddl_command_end WHEN TAG IN ('CREATE INDEX', 'REINDEX', 'ALTER TABLE') EXECUTE FUNCTION crash.note_ddl();
CREATE EVENT TRIGGER crash_drop ON sql_drop WHEN TAG IN ('DROP INDEX') EXECUTE FUNCTION crash.note_drop();
`;

/** SQL that prepares an empty database for these migrations. */
export function setupOf(migrations: readonly CrashMigration[]): string {
  return [commonSetup, ...migrations.map(({ setup }) => setup), triggers].join("\n");
}

/** The files of a release with these migrations. */
export function filesOf(migrations: readonly CrashMigration[]): Readonly<Record<string, string>> {
  return Object.fromEntries(
    migrations.flatMap(({ n, kind, up, down }) => [
      [`${n}_${kind}.up.sql`, up.sql],
      [`${n}_${kind}.down.sql`, down.sql],
    ]),
  );
}

/** Rows that each backfill reaches. */
export const backfillRows = 100;

/** How often each kind is drawn. */
export const kindWeights: Readonly<Record<MigrationKind, number>> = {
  small: 10,
  several: 4,
  limited: 3,
  wrapped: 2,
  large: 1,
  outside: 4,
  index: 5,
  "drop-index": 2,
  reindex: 2,
  vacuum: 2,
  detach: 2,
  setting: 2,
  backfill: 3,
  database: 0.3,
};

/** Draws `count` migrations after `first`. */
export function drawMigrations(
  random: Random,
  count: number,
  seed: number,
  weights: Readonly<Partial<Record<MigrationKind, number>>> = kindWeights,
): readonly CrashMigration[] {
  return Array.from({ length: count }, (_, index) =>
    makeMigration(index + 1, random.weighted(weights), random, seed),
  );
}

/** One migration of a kind. */
export function makeMigration(n: number, kind: MigrationKind, random: Random, seed: number): CrashMigration {
  return { n, kind, setup: "", isThere: undefined, ...writers[kind]({ n, random, name: `${seed}_${n}` }) };
}

interface Context {
  readonly n: number;
  readonly random: Random;
  /** unique on the server */
  readonly name: string;
}

type Written = Pick<CrashMigration, "up" | "down"> & Partial<Pick<CrashMigration, "setup" | "isThere">>;

/** One statement with what it adds to the evidence. */
interface Part {
  readonly sql: string;
  readonly marks: readonly string[];
}

const writers = {
  /** shares its message with others */
  small: ({ n }: Context): Written => ({
    up: whole(statement(`CREATE TABLE crash.t_${n} (id int)`), note(n, "1 up")),
    down: whole(statement(`DROP TABLE crash.t_${n}`), note(n, "1 down")),
    isThere: `to_regclass('crash.t_${n}') IS NOT NULL`,
  }),
  several: ({ n, random }: Context): Written => ({
    up: whole(...notes(n, random.integer(2, 5), "up"), statement(`CREATE TABLE crash.t_${n} (id int)`)),
    down: whole(...notes(n, 2, "down"), statement(`DROP TABLE crash.t_${n}`)),
    isThere: `to_regclass('crash.t_${n}') IS NOT NULL`,
  }),
  /** limits of its own give it a message of its own */
  limited: ({ n }: Context): Written => ({
    up: headed("lock_timeout=60s", whole(note(n, "1 up"), statement("SELECT pg_sleep(0.02)"))),
    down: headed("lock_timeout=60s", whole(note(n, "1 down"))),
  }),
  wrapped: ({ n }: Context): Written => ({
    up: framed(whole(note(n, "1 up"), note(n, "2 up"))),
    down: framed(whole(note(n, "1 down"))),
  }),
  large: ({ n }: Context): Written => ({
    up: headed(undefined, whole(note(n, "1 up")), `\n-- ${"x".repeat(300_000)}\n`),
    down: whole(note(n, "1 down")),
  }),
  /** several statements, each in a transaction with its checkpoint */
  outside: ({ n, random }: Context): Written => ({
    up: headed("tx=none", inParts(...notes(n, random.integer(2, 5), "up"))),
    down: headed("tx=none", inParts(...notes(n, 2, "down"))),
  }),
  index: ({ n, random }: Context): Written => ({
    setup: items(n),
    up: inParts(
      ...notes(n, random.integer(0, 2), "up"),
      marked(
        `CREATE INDEX CONCURRENTLY i_${n} ON crash.items_${n} (crash.keyed(a, ${n}))`,
        `create index crash.i_${n}`,
      ),
      ...(random.chance(0.5) ? [note(n, "9 up")] : []),
    ),
    down: inParts(
      marked(`DROP INDEX CONCURRENTLY crash.i_${n}`, `drop index crash.i_${n}`),
      note(n, "1 down"),
    ),
    isThere: `coalesce((SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('crash.i_${n}')), false)`,
  }),
  "drop-index": ({ n }: Context): Written => ({
    setup: `${items(n)} CREATE INDEX gone_${n} ON crash.items_${n} (a);`,
    up: inParts(
      marked(`DROP INDEX CONCURRENTLY crash.gone_${n}`, `drop index crash.gone_${n}`),
      note(n, "1 up"),
    ),
    down: inParts(
      marked(`CREATE INDEX CONCURRENTLY gone_${n} ON crash.items_${n} (a)`, `create index crash.gone_${n}`),
    ),
    isThere: `to_regclass('crash.gone_${n}') IS NULL`,
  }),
  reindex: ({ n }: Context): Written => ({
    setup: `${items(n)} CREATE INDEX r_${n} ON crash.items_${n} (crash.keyed(a, ${n}));`,
    up: inParts(marked(`REINDEX INDEX CONCURRENTLY crash.r_${n}`, `reindex crash.r_${n}`), note(n, "1 up")),
    down: whole(note(n, "1 down")),
  }),
  vacuum: ({ n }: Context): Written => ({
    setup: items(n),
    up: inParts(note(n, "1 up"), statement(`VACUUM crash.items_${n}`), note(n, "2 up")),
    down: whole(note(n, "1 down")),
  }),
  detach: ({ n }: Context): Written => ({
    setup: `CREATE TABLE crash.parted_${n} (a int) PARTITION BY RANGE (a);
CREATE TABLE crash.part_${n} PARTITION OF crash.parted_${n} FOR VALUES FROM (0) TO (10);`,
    up: inParts(
      marked(
        `ALTER TABLE crash.parted_${n} DETACH PARTITION crash.part_${n} CONCURRENTLY`,
        `alter table crash.parted_${n}`,
      ),
      note(n, "1 up"),
    ),
    down: whole(
      note(n, "1 down"),
      marked(
        `ALTER TABLE crash.parted_${n} ATTACH PARTITION crash.part_${n} FOR VALUES FROM (0) TO (10)`,
        `alter table crash.parted_${n}`,
      ),
    ),
    isThere: `NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = 'crash.part_${n}'::regclass)`,
  }),
  /** one statement for each range of keys; see {@link backfillRows} */
  backfill: ({ n, random }: Context): Written => ({
    setup: `CREATE TABLE crash.items_${n} (a int PRIMARY KEY); INSERT INTO crash.items_${n} SELECT generate_series(1, ${backfillRows});`,
    up: headed(
      `backfill table=crash.items_${n} key=a batch=${random.integer(7, 40)}`,
      inParts(statement(`INSERT INTO crash.reached (n, a) SELECT ${n}, crash.keyed(a, ${n}) FROM batch`)),
    ),
    down: whole(note(n, "1 down")),
  }),
  setting: ({ n, name }: Context): Written => ({
    up: inParts(statement(`ALTER SYSTEM SET "crash.s_${name}" = 'on'`), note(n, "1 up")),
    down: inParts(statement(`ALTER SYSTEM RESET "crash.s_${name}"`), note(n, "1 down")),
    isThere: `EXISTS (SELECT FROM pg_file_settings WHERE name = 'crash.s_${name}')`,
  }),
  database: ({ n, name }: Context): Written => ({
    up: inParts(statement(`CREATE DATABASE crash_${name}`), note(n, "1 up")),
    down: inParts(statement(`DROP DATABASE crash_${name}`), note(n, "1 down")),
    isThere: `EXISTS (SELECT FROM pg_database WHERE datname = 'crash_${name}')`,
  }),
} as const;

function items(n: number): string {
  return `CREATE TABLE crash.items_${n} AS SELECT generate_series(1, 20) AS a;`;
}

function statement(sql: string): Part {
  return { sql, marks: [] };
}

function marked(sql: string, mark: string): Part {
  return { sql, marks: [mark] };
}

function note(n: number, what: string): Part {
  const mark = `${n}.${what}`;
  return marked(`INSERT INTO crash.evidence (mark) SELECT crash.note(${n}, '${mark}')`, mark);
}

function notes(n: number, count: number, direction: string): readonly Part[] {
  return Array.from({ length: count }, (_, index) => note(n, `${index + 1} ${direction}`));
}

function whole(...parts: readonly Part[]): Movement {
  return { ...inParts(...parts), isWhole: true };
}

function inParts(...parts: readonly Part[]): Movement {
  return {
    sql: parts.map(({ sql }) => `${sql};\n`).join(""),
    marks: parts.flatMap(({ marks }) => marks),
    isWhole: false,
  };
}

function headed(settings: string | undefined, movement: Movement, after = ""): Movement {
  const header = settings === undefined ? "" : `-- lockkeeper: ${settings}\n`;
  return { ...movement, sql: header + movement.sql + after };
}

function framed(movement: Movement): Movement {
  return { ...movement, sql: `BEGIN;\n${movement.sql}COMMIT;\n` };
}
