import * as v from "valibot";
import { toolNames } from "./tool.ts";

const Situation = {
  /**
   * `fresh`: an empty database; `noop`: all is applied; `pending`: all but one is, and `migrations` counts those that are
   */
  case: v.picklist(["fresh", "noop", "pending"]),
  tool: v.picklist(toolNames),
  migrations: v.number(),
  /** added to each round trip; both 0 without a proxy between */
  bucketMs: v.number(),
  databaseMs: v.number(),
};

const Count = v.object({
  connections: v.number(),
  /** requests to a bucket, round trips to a database */
  exchanges: v.number(),
  bytesUp: v.number(),
  bytesDown: v.number(),
});

const Site = v.object({
  kind: v.literal("postgres-site"),
  versions: v.record(v.string(), v.string()),
  settings: v.string(),
  /** tools that are not on the machine */
  absent: v.array(v.string()),
});

const Run = v.object({
  kind: v.literal("postgres-run"),
  ...Situation,
  ms: v.number(),
  cpuMs: v.number(),
  peakMb: v.number(),
  load: v.number(),
});

const Counted = v.object({
  kind: v.literal("postgres-traffic"),
  ...Situation,
  /** absent for a folder */
  bucket: v.optional(Count),
  database: Count,
});

const Limited = v.object({
  kind: v.literal("postgres-limited"),
  tool: v.picklist(toolNames),
  migrations: v.number(),
  bytesEach: v.number(),
  limitMb: v.number(),
  /** what the run cost; null: the kernel ended it */
  cost: v.nullable(v.object({ ms: v.number(), peakMb: v.number() })),
});

/** What the PostgreSQL scene writes into the results. */
export const PostgresLine = v.variant("kind", [Site, Run, Counted, Limited]);

/** One run of one tool, checked to have applied what it should. */
export type PostgresRun = v.InferOutput<typeof Run>;

/** What one run sent and received, counted on the wire. */
export type PostgresTraffic = v.InferOutput<typeof Counted>;

/** One fresh run within a limit of memory. */
export type PostgresLimited = v.InferOutput<typeof Limited>;
