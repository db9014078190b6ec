import type { FailedRelease, Hold, LeaseHolder, StreamState } from "../driver/stream-state.ts";
import { RunnerError } from "../error.ts";
import { appliedEntries } from "../history/applied.ts";
import type { ForeignPlace } from "../history/foreign.ts";
import type { HistoryEntry, Position } from "../history/entry.ts";
import { continues, rewritten } from "../plan/continuity.ts";
import { pendingRepeatables } from "../plan/repeatable.ts";
import { whyNotFresh } from "../release/freshness.ts";
import type { Release } from "../release/release.ts";
import { fetchRelease } from "../run/fetch-release.ts";
import type { Target } from "../run/target.ts";

/** What a person or a probe asks of one target: where it stands, and what would come next. */
export interface TargetStatus {
  readonly target: string;
  readonly stream: string;
  readonly environment: string;
  readonly position: Position;
  /** release last applied whole */
  readonly completed: string | null;
  /** newest release of the source; null where there is none or it was refused (`problem` says why) */
  readonly release: {
    readonly digest: string;
    readonly version: number | null;
    readonly expires: Date | null;
    readonly kind: Release["kind"];
  } | null;
  /** false: the release has expired, or nobody vouches that it is the newest, so nothing of it would be applied */
  readonly fresh: boolean;
  /** why it is not fresh; null where it is, or there is no release */
  readonly stale: RunnerError | null;
  /** repeatable ones come last, without a version */
  readonly pending: readonly PendingMigration[];
  /** empty where nobody wants to know */
  readonly applied: readonly HistoryEntry[];
  /** newest entry when it is not done */
  readonly unfinished: HistoryEntry | null;
  readonly held: Hold | null;
  readonly failed: FailedRelease | null;
  /** what keeps every run from beginning; null where nothing does */
  readonly paused: "configuration" | "database" | null;
  /** another tool's record, kept true with every run */
  readonly inStep: ForeignPlace | null;
  readonly lease: LeaseHolder | null;
  /** why the release cannot be used; what the database says is shown all the same */
  readonly problem: RunnerError | null;
}

/** What the newest release has and the database has not. */
export interface PendingMigration {
  readonly version: string;
  readonly path: string;
}

/** How much is asked. */
export interface StatusOptions {
  readonly signal: AbortSignal;
  /** without what was applied, which may be thousands of entries, wherever it is not needed to judge the release; default false */
  readonly isBrief?: boolean;
  now(): Date;
}

/** Asks database and source; only a database that cannot be asked is an error. */
export async function readStatus(target: Target, options: StatusOptions): Promise<TargetStatus> {
  const { driver, stream } = target;
  const history = async (): Promise<readonly HistoryEntry[]> =>
    appliedEntries(await driver.history(stream, {}, options.signal));
  const [state, applied] = await Promise.all([
    driver.state(stream, options.signal),
    options.isBrief === true ? undefined : history(),
  ]);
  const now = options.now();
  let release: Release | null = null;
  let problem: RunnerError | null = null;
  try {
    const wanted = { expected: undefined, now, applied: async () => applied ?? history() };
    release = await fetchRelease(target, state, wanted, options.signal);
    if (!continues(release, state.position)) problem = rewritten(release, applied ?? (await history()));
  } catch (cause) {
    if (!(cause instanceof RunnerError)) throw cause;
    problem = cause;
  }
  const stale = release === null ? null : whyNotFresh(release, now);
  return {
    target: target.name,
    stream,
    environment: state.environment ?? target.environment,
    position: state.position,
    completed: state.completed,
    release:
      release === null
        ? null
        : {
            digest: release.digest,
            version: release.rank?.version ?? null,
            expires: release.expires ?? null,
            kind: release.kind,
          },
    fresh: stale === null,
    stale,
    pending: problem === null ? pendingIn(release, state) : [],
    applied: applied ?? [],
    unfinished: state.unfinished,
    held: state.held,
    failed: state.failed,
    paused: target.isPaused === true ? "configuration" : state.paused ? "database" : null,
    inStep: state.inStep,
    lease: state.lease !== null && state.lease.expiresAt > state.now ? state.lease : null,
    problem,
  };
}

function pendingIn(
  release: Release | null,
  { position, repeatables }: StreamState,
): readonly PendingMigration[] {
  if (release === null) return [];
  return [
    ...release.migrations.slice(position.length).map(({ version, path }) => ({ version, path })),
    ...pendingRepeatables(release, repeatables).map(({ path }) => ({ version: "", path })),
  ];
}
