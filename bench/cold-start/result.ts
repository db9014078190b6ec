import * as v from "valibot";

const Start = v.object({
  kind: v.literal("cold-start-run"),
  what: v.picklist([
    "node",
    "--version",
    "status",
    "up, nothing to do",
    "init, 10 migrations",
    "init, nothing to do",
    "function, first event",
  ]),
  ms: v.number(),
  cpuMs: v.number(),
  peakMb: v.number(),
  /** of a function: until its handler is there, and of the first event */
  importMs: v.optional(v.number()),
  invokeMs: v.optional(v.number()),
});

const Loaded = v.object({
  kind: v.literal("cold-start-loaded"),
  what: v.string(),
  files: v.number(),
  bytes: v.number(),
});

const Size = v.object({
  kind: v.literal("cold-start-size"),
  files: v.number(),
  bytes: v.number(),
  zipBytes: v.number(),
  entryBytes: v.number(),
});

/** What the cold-start scene writes into the results. */
export const ColdStartLine = v.variant("kind", [Start, Loaded, Size]);

/** One process from its start to its end. */
export type ColdStart = v.InferOutput<typeof Start>;
