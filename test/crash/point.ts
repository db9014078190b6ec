/**
 * The fault points: where in a run a fault can strike. Each is known by what passes on the wire, so the program under
 * test has no hook for any of them.
 */

/** What a message to the database is for; first match wins. */
const messages = [
  ["create-tables", /CREATE TABLE IF NOT EXISTS \S+\.streams/],
  ["prepare", /PREPARE lockkeeper_fence /],
  ["body", /set_config\('lockkeeper\.tx'|EXECUTE lockkeeper_settings\(/],
  ["acquire", /acquired_at = pg_catalog\.clock_timestamp\(\)/],
  ["renew-token", /SET token = token \+ 1, expires_at =/],
  ["release", /SET holder = NULL, run_id = NULL/],
  ["heartbeat", /RETURNING 1 AS ours/],
  ["audit", /INSERT INTO \S+\.audit/],
  ["begin-run", /SET completed = NULL/],
  ["finish", /status = 'succeeded'/],
  ["statement", /^\/\*lockkeeper:[^*]*\*\/BEGIN[^;]*;[^]*statements_done =/],
  ["backfill-range", /^\/\*lockkeeper:[^*]*\*\/BEGIN[^;]*;[^]*\bbatch AS \(/],
  ["statement-outside", /^\/\*lockkeeper:[^*]*\*\/\s*(?!BEGIN)/],
  ["start-entry", /INSERT INTO \S+\.history [^]*'started'/],
  ["checkpoint", /UPDATE \S+\.history SET (statements_done|checkpoint) =/],
  ["end-entry", /UPDATE \S+\.history SET status = 'done'/],
  ["worker-lock", /pg_try_advisory_lock\(/],
  ["fence", /idle_in_transaction_session_timeout[^]*FOR KEY SHARE/],
  ["cancel-poll", /SELECT cancel_reason FROM/],
  ["state", /AS position_version/],
] as const;

/** What an object of the bucket is for. */
const objects = [
  ["download:head", /\/head\.json$/],
  ["download:release", /\/releases\//],
  ["download:manifest", /\/manifests\//],
  ["download:pack", /\/packs\//],
  ["download:blob", /\/blobs\//],
] as const;

/** What a message is for, as the wire shows it. */
export type MessageKind = (typeof messages)[number][0];
/** What an object is for. */
export type ObjectPoint = (typeof objects)[number][0];
/**
 * A place where a fault may be put. `take-over` is the acquiring of a dead holder's lease; `commit` is the commit in a
 * message with a body.
 */
export type Point = MessageKind | ObjectPoint | "take-over" | "commit";

/** What the message is for; undefined for what is no fault point. */
export function messageKind(text: string): MessageKind | undefined {
  return messages.find(([, pattern]) => pattern.test(text))?.[0];
}

/** What the object is for. */
export function objectPoint(path: string): ObjectPoint | undefined {
  return objects.find(([, pattern]) => pattern.test(path))?.[0];
}

/** The kind of message that a point is found by. */
export function messageOf(point: Point): MessageKind | ObjectPoint {
  if (point === "take-over") return "acquire";
  return point === "commit" ? "body" : point;
}

/**
 * When, at a point. `before`: the message has not left. `half`: a part of it has. `in`: the server is at work on it, or has an
 * object's first half sent. `after`: the server has done it, and the answer never arrives.
 */
export type Moment = "before" | "half" | "in" | "after";

/** The moments that each point has. */
export const momentsOf: Readonly<Record<Point, readonly Moment[]>> = {
  "create-tables": ["before", "after"],
  prepare: ["before", "after"],
  body: ["before", "half", "in", "after"],
  commit: ["in"],
  acquire: ["before", "after"],
  "take-over": ["before", "after"],
  "renew-token": ["before", "after"],
  release: ["before", "after"],
  heartbeat: ["before", "after"],
  audit: ["before", "after"],
  "begin-run": ["before", "after"],
  finish: ["before", "after"],
  statement: ["before", "half", "in", "after"],
  "statement-outside": ["before", "in", "after"],
  "backfill-range": ["before", "half", "in", "after"],
  "start-entry": ["before", "after"],
  checkpoint: ["before", "after"],
  "end-entry": ["before", "after"],
  "worker-lock": ["before", "after"],
  fence: ["before", "after"],
  "cancel-poll": ["before", "after"],
  state: ["before", "after"],
  "download:head": ["before", "in"],
  "download:release": ["before", "in"],
  "download:manifest": ["before", "in"],
  "download:pack": ["before", "in"],
  "download:blob": ["before", "in"],
};

/** Whether the point is met on the way to the bucket. */
export function isDownload(point: Point): point is ObjectPoint {
  return point.startsWith("download:");
}
