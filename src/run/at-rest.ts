import type { StreamState } from "../driver/stream-state.ts";
import { automaticTriggers } from "../history/run.ts";
import type { Release } from "../release/release.ts";
import type { RunRequest } from "./request.ts";

/** Whether the stream's row already says what a run without steps would write. */
export function isRecorded(release: Release, state: StreamState): boolean {
  // a newer root is worth a lease: from then on nobody can withhold it from this database
  if (release.root !== undefined && release.root.version > (state.rootVersion ?? 0)) return false;
  return (
    state.completed === release.digest ||
    state.position.length < release.migrations.length ||
    release.kind === "plain"
  );
}

/** A person who asks for what is there already still ends what holds automatic runs back. */
export function isToClear({ held, failed }: StreamState, { action, trigger }: RunRequest): boolean {
  return action === "apply" && !automaticTriggers.has(trigger) && (held !== null || failed !== null);
}

/**
 * Whether the database has whole what the request is for, by what the bucket calls its newest release and the database's
 * own row: a hint that may only lead to doing nothing.
 *
 * @param head - digest; undefined where the bucket does not say
 */
export function isIdle(request: RunRequest, state: StreamState, head: string | undefined): boolean {
  return (
    request.goal.kind === "latest" &&
    request.plan === null &&
    head !== undefined &&
    state.completed === head &&
    !isToClear(state, request) &&
    !isLeftBehind(state)
  );
}

/** Whoever takes the lease of a dead holder also ends its run, which else would be told as under way for ever. */
export function isLeftBehind({ lease, now }: StreamState): boolean {
  return lease !== null && lease.expiresAt < now;
}
