import type { RunnerError } from "../error.ts";
import { placeName } from "../history/foreign.ts";
import type { Target } from "../runner.ts";
import { readStatus } from "../status/status.ts";
import type { HttpParts } from "./context.ts";
import type { Links } from "./link.ts";
import {
  viewEntry,
  viewError,
  viewPosition,
  viewRun,
  type EntryView,
  type ErrorView,
  type RunView,
} from "./view.ts";

/** A target in a list: what the configuration says of it. */
export interface TargetSummary {
  readonly name: string;
  readonly stream: string;
  readonly environment: string;
  readonly links: Readonly<Record<"self" | "history" | "runs", string>>;
}

/** Where a target stands; described as `Target` in the OpenAPI document. */
export interface TargetView extends TargetSummary {
  readonly position: {
    readonly version: string | null;
    readonly length: number;
    readonly chain: string | null;
  };
  /** digest of the release last applied whole */
  readonly completed: string | null;
  /** newest release of the bucket; null where there is none, or it was refused (`problem` says why) */
  readonly release: {
    readonly digest: string;
    readonly version: number | null;
    readonly expires: string | null;
  } | null;
  /** false: the release has expired, or nobody vouches that it is the newest; nothing of it would be applied */
  readonly fresh: boolean;
  /** why it is not fresh */
  readonly stale: ErrorView | null;
  readonly pending: {
    readonly total: number;
    readonly next: readonly { readonly version: string; readonly path: string }[];
  };
  /** the newest entry, where it is not done: what a next run or a person has to deal with first */
  readonly unfinished: EntryView | null;
  readonly needsAttention: boolean;
  readonly held: { readonly run: string; readonly version: string | null; readonly reason: string } | null;
  /** what automatic triggers do not try again */
  readonly failed: { readonly release: string; readonly run: string; readonly error: ErrorView } | null;
  readonly paused: boolean;
  /** another tool's table, kept true with every run */
  readonly inStep: { readonly tool: string; readonly table: string } | null;
  /** who changes the database now */
  readonly lease: {
    readonly run: string;
    readonly holder: string;
    readonly acquiredAt: string;
    readonly expiresAt: string;
  } | null;
  readonly lastRun: RunView | null;
  readonly problem: ErrorView | null;
}

/** Pending migrations named in one answer; `total` counts them all. */
const shownPending = 50;

/** What the configuration says of a target; nothing of where its database or bucket is. */
export function summarizeTarget(target: Target, links: Links): TargetSummary {
  const self = links.target(target.name);
  return {
    name: target.name,
    stream: target.stream,
    environment: target.environment,
    links: { self, history: links.history(target.name, {}), runs: links.runs({ target: target.name }) },
  };
}

/**
 * Asks database and bucket where a target stands; a bucket or release that cannot be used is shown, not thrown.
 *
 * @throws RunnerError `DATABASE_…`
 */
export async function readTarget(
  target: Target,
  parts: Pick<HttpParts, "links" | "now">,
  signal: AbortSignal,
): Promise<TargetView> {
  const { links, now } = parts;
  const [status, runs] = await Promise.all([
    readStatus(target, { signal, now, isBrief: true }),
    target.driver.runs({ target: target.name, limit: 1 }, signal),
  ]);
  const { release, unfinished, held, failed, inStep, lease, pending, problem } = status;
  const lastRun = runs[0];
  return {
    ...summarizeTarget(target, links),
    position: viewPosition(status.position),
    completed: status.completed,
    release:
      release === null
        ? null
        : {
            digest: release.digest,
            version: release.version,
            expires: release.expires?.toISOString() ?? null,
          },
    fresh: status.fresh,
    stale: status.stale === null ? null : viewFailure(status.stale),
    pending: {
      total: pending.length,
      next: pending.slice(0, shownPending).map(({ version, path }) => ({ version, path })),
    },
    unfinished: unfinished === null ? null : viewEntry(unfinished),
    needsAttention: unfinished?.status === "needs_attention",
    held: held === null ? null : { run: held.runId, version: held.version, reason: held.reason },
    failed:
      failed === null ? null : { release: failed.digest, run: failed.runId, error: viewError(failed.error) },
    paused: status.paused !== null,
    inStep: inStep === null ? null : { tool: inStep.tool, table: placeName(inStep) },
    lease:
      lease === null
        ? null
        : {
            run: lease.runId,
            holder: lease.holder,
            acquiredAt: lease.acquiredAt.toISOString(),
            expiresAt: lease.expiresAt.toISOString(),
          },
    lastRun: lastRun === undefined ? null : viewRun(lastRun, links),
    problem: problem === null ? null : viewFailure(problem),
  };
}

function viewFailure({ code, message, hint, fields }: RunnerError): ErrorView {
  return viewError({ code, message, hint: hint ?? null, fields });
}
