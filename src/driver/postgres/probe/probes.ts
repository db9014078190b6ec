import type { StatementKind } from "../../../migration/migration.ts";
import { builtIndex } from "./built-index.ts";
import { changedDatabase, created, dropped } from "./catalogue.ts";
import { detachedPartition } from "./detached-partition.ts";
import { droppedIndex } from "./dropped-index.ts";
import type { Probe } from "./probe.ts";
import { reindexed } from "./reindexed.ts";

/** Nothing is lost by running it once more. */
const repeated: Probe = {
  leavesRests: false,
  look: () => Promise.resolve({}),
  settle: () => Promise.resolve("not-done"),
};

/** Nothing in the database tells: it is the person's own procedure. */
const unknown: Probe = {
  leavesRests: false,
  look: () => Promise.resolve({}),
  settle: () => Promise.resolve(undefined),
};

/** The probe of each kind that runs outside transactions. */
export const probes: Readonly<Record<Exclude<StatementKind, "transactional" | "backfill">, Probe>> = {
  "create-index-concurrently": builtIndex,
  "drop-index-concurrently": droppedIndex,
  "reindex-concurrently": reindexed,
  "reindex-many": repeated,
  "detach-partition-concurrently": detachedPartition,
  vacuum: repeated,
  "cluster-all": repeated,
  "alter-system": repeated,
  "create-database": created("database"),
  "drop-database": dropped("database"),
  "alter-database-tablespace": changedDatabase,
  "create-tablespace": created("tablespace"),
  "drop-tablespace": dropped("tablespace"),
  "create-subscription": created("subscription"),
  "drop-subscription": dropped("subscription"),
  "discard-all": repeated,
  call: unknown,
  // MongoDB's
  repeatable: repeated,
  once: unknown,
};
