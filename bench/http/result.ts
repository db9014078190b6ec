import * as v from "valibot";

const HttpSite = v.object({
  kind: v.literal("http-site"),
  servers: v.string(),
  targets: v.number(),
  migrations: v.number(),
});

const HttpLoad = v.object({
  kind: v.literal("http-load"),
  /** `get-and-query` and `get-query-commit` are by hand, without lockkeeper */
  what: v.picklist(["get-and-query", "get-query-commit", "noop", "status"]),
  clients: v.number(),
  requests: v.number(),
  p50Ms: v.number(),
  p99Ms: v.number(),
  perSecond: v.number(),
  /** of the process that does the work, a request: the server, or the one that does it by hand */
  cpuMs: v.number(),
});

/** Round trips, and bytes both ways. */
const OnWire = v.object({ exchanges: v.number(), bytes: v.number() });

const HttpWire = v.object({
  kind: v.literal("http-wire"),
  what: v.picklist(["noop", "status"]),
  /** of one request to a warm server: counted by proxies */
  bucket: OnWire,
  database: OnWire,
});

/** What the HTTP scene writes into the results. */
export const HttpLine = v.variant("kind", [HttpSite, HttpLoad, HttpWire]);

/** The servers of the scene. */
export type HttpSite = v.InferOutput<typeof HttpSite>;

/** One load of one kind of request. */
export type HttpLoad = v.InferOutput<typeof HttpLoad>;

/** What one request costs on the wire. */
export type HttpWire = v.InferOutput<typeof HttpWire>;
