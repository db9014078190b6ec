import { createHash } from "node:crypto";
import { hostname } from "node:os";

import { version } from "../build.ts";
import type { RunnerErrorCode } from "../error.ts";
import type { RunOutcome, RunTrigger } from "../history/run.ts";
import type { Direction } from "../migration/migration.ts";
import type { HighWaterMark } from "../release/release.ts";

/**
 * One record of the audit log (trust.md 4.3): a closed shape, in which every field is always there. No token, no SQL, no
 * row, no URL: of an error only its code is kept, because a server's message may quote rows.
 *
 * Written, each by whoever decides or acts, into the database that it is about:
 * - `decision`, by the HTTP server: whatever the policy decides about an action that changes something, and whatever it
 *   refuses, on a target that there is, for a caller whose token was verified. What it lets a caller read, and what it
 *   refuses to somebody unknown or about a target that there is not, is a line of the server's log only: else anybody
 *   could fill a database. For the same reason refusals are limited, as are repetitions of a request that
 *   was taken, and `leftOut` counts what was left out.
 * - `run.begun`, before the first change of every run, whoever asked for it: a run whose record cannot be written
 *   changes nothing. `run.ended` afterwards. A run that died in between has the one without the other; `from` of the run
 *   after it says how far it came. A run that finds nothing to do, and nobody's lease to end, has none, unless it was
 *   accepted over HTTP; one that was refused has its end alone, in a database that knows lockkeeper. What starts by itself and is refused for the same
 *   reason again and again is recorded once.
 * - The others, before and after what a person declares or does by hand: the first has no `outcome` yet.
 *
 * What this adds to the chain of migrations, which every run holds against the signed manifest: that chain proves what is
 * applied, and nothing else. Who asked and who let him, what was refused, taken back, declared instead of run, or failed,
 * stands here. Links prove that records are as they were written, as far as the newest of them is known from elsewhere:
 * whoever owns the table can write all of it anew. So every record is a line of the server's log, too, and its link is in
 * the command line's JSON; `lockkeeper audit verify --expect` compares.
 */
export interface AuditRecord {
  readonly schema: typeof auditSchema;
  /** by the writer's clock, ISO 8601 */
  readonly time: string;
  readonly event: AuditEvent;
  /** null: it has not happened yet, and has another record when it has */
  readonly outcome: AuditOutcome | null;
  readonly code: RunnerErrorCode | null;
  /** right of the policy that was asked for, or what was done by hand */
  readonly action: string;
  readonly target: string;
  readonly stream: string;
  /** null where nobody has said and the database does not know yet */
  readonly environment: string | null;
  /** id of the run it is about */
  readonly run: string | null;
  readonly attempt: number | null;
  /** id of the HTTP request, as the server's log has it */
  readonly request: string | null;
  readonly trigger: RunTrigger | null;
  readonly principal: AuditPrincipal;
  /** the token's single-use id */
  readonly jti: string | null;
  /** the other end of the socket, which may be a balancer's; decides nothing */
  readonly sourceIp: string | null;
  readonly requested: {
    /** `latest`, `up 2`, `down 1`, `version 42`, `redo` */
    readonly goal: string | null;
    /** of the release that was expected */
    readonly digest: string | null;
    /** of the plan that was approved */
    readonly plan: string | null;
    /** what is to be done when a migration fails, where that was said */
    readonly onFailure: "keep" | "rollback" | null;
    /** what was let through that is otherwise refused */
    readonly allow: readonly string[];
  };
  /** a person's own words */
  readonly reason: string | null;
  /** what the bucket called its newest release, before anything was verified: proves nothing */
  readonly offered: string | null;
  readonly rootVersion: number | null;
  /** the verified one; of an unsigned folder with its digest alone */
  readonly release: AuditedRelease | null;
  /** ids of the keys and identities whose signatures counted */
  readonly signers: readonly string[];
  readonly highWaterMark: { readonly before: HighWaterMark | null; readonly after: HighWaterMark | null };
  /** versions that the database was and is at; null before the first */
  readonly from: string | null;
  readonly to: string | null;
  /** what was done, in order; the first {@link maxMigrations} */
  readonly migrations: readonly AuditedMigration[];
  /** null where `migrations` are all; else how many they were, and sha256 over `seq direction path sha256\n` of each */
  readonly allMigrations: { readonly count: number; readonly sha256: string } | null;
  /** refusals and repetitions of this caller on this target since his last record, of which there is a log line only */
  readonly leftOut: number;
  readonly runner: { readonly version: string; readonly node: string; readonly host: string };
}

/** What a record is about. */
export type AuditEvent =
  | "decision"
  | "run.begun"
  | "run.ended"
  | "declared"
  | "unlocked"
  | "paused"
  | "resumed"
  | "trust.reset";

/** How it ended. */
export type AuditOutcome =
  | RunOutcome
  /** of a decision */
  | "allowed"
  /** of what was done by hand */
  | "done"
  /** of a run that was told to stop, or that another executor goes on with */
  | "canceled"
  | "handed_over";

/** Who asked. */
export interface AuditPrincipal {
  readonly issuer: string;
  readonly subject: string;
  /** of the policy, that let him */
  readonly rule: string | null;
  /** those that the rule compared, by name or JSON Pointer */
  readonly claims: Readonly<Record<string, string | number | boolean>>;
}

/** A release as a record names it. */
export interface AuditedRelease {
  readonly epoch: number | null;
  readonly version: number | null;
  readonly digest: string;
}

/** One migration as a record names it. */
export interface AuditedMigration {
  readonly seq: number;
  readonly path: string;
  readonly direction: Direction;
  readonly sha256: string;
  /** null where it was declared and not run */
  readonly ms: number | null;
}

/** What a writer knows; everything else is null, empty or zero. */
export type AuditFacts = Pick<AuditRecord, "event" | "action" | "target" | "stream" | "principal"> &
  Partial<Omit<AuditRecord, "schema" | "time" | "runner" | "allMigrations">>;

/** Name and version of a record's shape. */
export const auditSchema = "urn:lockkeeper:audit:v1";

/** Of a record of something that nobody chooses anything of. */
export const nothingRequested: AuditRecord["requested"] = {
  goal: null,
  digest: null,
  plan: null,
  onFailure: null,
  allow: [],
};

/** Migrations that a record lists, so that one of ten thousand is not megabytes. */
export const maxMigrations = 100;

/** Characters of one text; paths and ids have lower limits of their own. */
const maxText = 1_024;

/** The record with these facts, as of `now`. */
export function makeRecord(facts: AuditFacts, now: Date): AuditRecord {
  const all = facts.migrations ?? [];
  return {
    schema: auditSchema,
    time: now.toISOString(),
    event: facts.event,
    outcome: facts.outcome ?? null,
    code: facts.code ?? null,
    action: facts.action,
    target: facts.target,
    stream: facts.stream,
    environment: facts.environment ?? null,
    run: facts.run ?? null,
    attempt: facts.attempt ?? null,
    request: facts.request ?? null,
    trigger: facts.trigger ?? null,
    principal: clipPrincipal(facts.principal),
    jti: facts.jti ?? null,
    sourceIp: facts.sourceIp ?? null,
    requested: facts.requested ?? nothingRequested,
    reason: facts.reason === undefined || facts.reason === null ? null : clip(facts.reason),
    offered: facts.offered ?? null,
    rootVersion: facts.rootVersion ?? null,
    release: facts.release ?? null,
    signers: (facts.signers ?? []).map(clip),
    highWaterMark: facts.highWaterMark ?? { before: null, after: null },
    from: facts.from ?? null,
    to: facts.to ?? null,
    migrations: all.slice(0, maxMigrations),
    allMigrations:
      all.length <= maxMigrations ? null : { count: all.length, sha256: digestOfMigrations(all) },
    leftOut: facts.leftOut ?? 0,
    runner: { version: version(), node: process.versions.node, host: hostname() },
  };
}

/**
 * The record as it is hashed: JSON on one line, in ASCII, so that neither a database's encoding nor a shell's can change a
 * byte of it.
 */
export function writeRecord(record: AuditRecord): string {
  return JSON.stringify(record).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** Hex sha256 over `seq direction path sha256\n` of each. */
function digestOfMigrations(migrations: readonly AuditedMigration[]): string {
  const hash = createHash("sha256");
  for (const { seq, direction, path, sha256 } of migrations)
    hash.update(`${seq} ${direction} ${path} ${sha256}\n`);
  return hash.digest("hex");
}

function clipPrincipal({ issuer, subject, rule, claims }: AuditPrincipal): AuditPrincipal {
  const clipped = Object.entries(claims).map(([name, value]): [string, string | number | boolean] => [
    clip(name),
    typeof value === "string" ? clip(value) : value,
  ]);
  return { issuer: clip(issuer), subject: clip(subject), rule, claims: Object.fromEntries(clipped) };
}

function clip(text: string): string {
  return text.length <= maxText ? text : `${text.slice(0, maxText - 1)}…`;
}
