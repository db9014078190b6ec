import { hostname } from "node:os";

import type { LeaseOptions } from "../driver/driver.ts";
import type { NewRun } from "../driver/runs.ts";
import type { StreamState } from "../driver/stream-state.ts";
import { RunnerError } from "../error.ts";
import type { Release } from "../release/release.ts";
import type { RunLog } from "./log.ts";
import type { RunRequest } from "./request.ts";
import type { Target } from "./target.ts";

/**
 * How a run asks for its target's lease. The wait for it ends with {@link DoneMeanwhile} or {@link HadByAnother} where
 * nothing is left to wait for.
 */
export function leaseOptions(
  request: RunRequest,
  target: Target,
  { release, state }: { readonly release: Release; readonly state: StreamState },
  log: RunLog,
): LeaseOptions {
  return {
    stream: target.stream,
    environment: target.environment,
    targetId: target.name,
    run: newRun(request, target, release),
    holder: `${hostname()}/${process.pid}`,
    waitMs: request.limits.waitMs,
    signal: log.signal,
    orphans: target.orphans ?? "wait",
    looked: state,
    onWaiting: (holder) => log.waiting(holder),
    onOrphan: (orphan) => log.orphan(orphan),
    // N pods start at once: one applies, the others find the work done without ever taking the lease.
    assertStillWanted(state) {
      if (state.lease?.runId === request.id && state.lease.expiresAt >= state.now) throw new HadByAnother();
      if (request.goal.kind === "latest" && request.plan === null && state.completed === release.digest)
        throw new DoneMeanwhile(state);
    },
  };
}

/** Ends the wait for the lease: another run has brought the database to the very release. */
export class DoneMeanwhile extends RunnerError {
  readonly state: StreamState;

  constructor(state: StreamState) {
    super("LEASE_HELD", "another run has done the work meanwhile");
    this.state = state;
  }
}

/** Ends the wait for the lease: another executor of this very run has it. */
export class HadByAnother extends RunnerError {
  constructor() {
    super("LEASE_HELD", "another executor goes on with this run");
  }
}

function newRun(request: RunRequest, target: Target, release: Release): NewRun {
  return {
    id: request.id,
    target: target.name,
    stream: target.stream,
    action: request.action,
    trigger: request.trigger,
    caller: request.caller,
    releaseDigest: release.digest,
    labels: request.labels,
    idempotencyKey: null,
    bodyDigest: null,
    singleUse: null,
  };
}
