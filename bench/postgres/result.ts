import * as v from "valibot";

const PostgresSite = v.object({
  kind: v.literal("postgres-site"),
  versions: v.record(v.string(), v.string()),
  settings: v.string(),
  delays: v.object({ bucketMs: v.number(), databaseMs: v.number() }),
});

const PostgresRun = v.object({
  kind: v.literal("postgres-run"),
  /** `near`: all on loopback; `far`: with the delays */
  distance: v.picklist(["near", "far"]),
  case: v.picklist(["fresh", "noop"]),
  tool: v.string(),
  migrations: v.number(),
  ms: v.number(),
  cpuMs: v.number(),
  peakMb: v.number(),
  load: v.number(),
  /** only where the proxies stood between, in `far` */
  bucketRequests: v.optional(v.number()),
  databaseExchanges: v.optional(v.number()),
});

const PostgresLimited = v.object({
  kind: v.literal("postgres-limited"),
  tool: v.string(),
  migrations: v.number(),
  limitMb: v.number(),
  /** what the run cost; null: it was ended, or gave up */
  cost: v.nullable(v.object({ ms: v.number(), peakMb: v.number() })),
});

/** What the PostgreSQL scene writes into the results. */
export const PostgresLine = v.variant("kind", [PostgresSite, PostgresRun, PostgresLimited]);

/** The servers and tools of a scene. */
export type PostgresSite = v.InferOutput<typeof PostgresSite>;

/** One run of one tool, checked to have applied what it should. */
export type PostgresRun = v.InferOutput<typeof PostgresRun>;

/** One fresh run within a limit of memory. */
export type PostgresLimited = v.InferOutput<typeof PostgresLimited>;
