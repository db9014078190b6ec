/**
 * The vocabulary: what a migration is, before and after it is released. Pure data.
 */

/** Up applies a migration, down takes it back. */
export type Direction = "up" | "down";

/** `one`: the whole body in one transaction with its history row; `none`: statement by statement, checkpointed. */
export type TxMode = "one" | "none";

/** Which database speaks the bodies' language. */
export type Engine = "postgres" | "mongodb";

/** One statement, or one command of a MongoDB body, of a body whose `tx` is `none`. */
export interface Statement {
  /** first byte in the body, UTF-8 */
  readonly offset: number;
  /** bytes, without the closing semicolon */
  readonly length: number;
  /** `transactional`, or which kind of statement must run outside a transaction: `create-index-concurrently`, `vacuum`… */
  readonly kind: StatementKind;
}

/**
 * `transactional` statements run in a transaction of their own together with their checkpoint, `backfill` in one for
 * each range of keys. MongoDB's commands that no transaction takes are `repeatable` (a second time changes nothing) or
 * `once`; all others are the kinds that PostgreSQL refuses inside one (SQLSTATE 25001).
 */
export type StatementKind =
  | "transactional"
  | "backfill"
  | "repeatable"
  | "once"
  | "create-index-concurrently"
  | "drop-index-concurrently"
  | "reindex-concurrently"
  | "reindex-many"
  | "detach-partition-concurrently"
  | "vacuum"
  | "cluster-all"
  | "alter-system"
  | "create-database"
  | "drop-database"
  | "alter-database-tablespace"
  | "create-tablespace"
  | "drop-tablespace"
  | "create-subscription"
  | "drop-subscription"
  | "discard-all"
  | "call";

/** One body (an up or a down file) as a release lists it. */
export interface Body {
  /** label as the source tool wrote it, `000001_users.up.sql`: `[A-Za-z0-9._+-]{1,200}`, first not a dot */
  readonly path: string;
  /** lower-case hex over the exact bytes as stored */
  readonly sha256: string;
  /** bytes */
  readonly size: number;
  readonly tx: TxMode;
  /** proven whole: no open quote or comment, no transaction control, no session setting, no COPY FROM STDIN; so it may share a message with others */
  readonly alone: boolean;
  /** strongest table locks its statements take, e.g. `ACCESS EXCLUSIVE`; for people */
  readonly locks: readonly string[];
  /** only where `tx` is `none` */
  readonly statements?: readonly Statement[];
  /** it is a program, an ES module with all that it needs, and is called instead of being sent */
  readonly code?: true;
  /** only in Flyway's folders: the checksum that Flyway notes of the file, unsigned */
  readonly crc32?: number;
}

/** One versioned change: its up body, perhaps its down body, and its place in the sequence. */
export interface Migration extends Body {
  /** 1 for the first */
  readonly seq: number;
  /** the ordering key as the file name wrote it; compared only by `compareVersions` */
  readonly version: string;
  /** lower-case hex: digest over everything up to and including this migration (see `release/chain.ts`) */
  readonly chain: string;
  readonly down?: Body;
  /** brings an empty database here in one step, in place of everything up to and including this migration */
  readonly checkpoint?: Body;
}
