import * as v from "valibot";

const MongodbSite = v.object({
  kind: v.literal("mongodb-site"),
  versions: v.record(v.string(), v.string()),
  /** milliseconds to the database and back, in the runs from `far` */
  databaseMs: v.number(),
});

const MongodbRun = v.object({
  kind: v.literal("mongodb-run"),
  /** `near`: all on loopback; `far`: with the delay to the database */
  distance: v.picklist(["near", "far"]),
  /** `one`: one migration pending on top of those that the size says */
  case: v.picklist(["fresh", "noop", "one"]),
  tool: v.string(),
  migrations: v.number(),
  ms: v.number(),
  cpuMs: v.number(),
  peakMb: v.number(),
  load: v.number(),
  /** commands to the database that were waited for; only where they were counted, in `far` */
  commands: v.optional(v.number()),
});

/** What the MongoDB scene writes into the results. */
export const MongodbLine = v.variant("kind", [MongodbSite, MongodbRun]);

/** One run of one tool, checked to have applied what it should. */
export type MongodbRun = v.InferOutput<typeof MongodbRun>;
