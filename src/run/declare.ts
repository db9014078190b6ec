import { hostname } from "node:os";

import type { LeasedSession } from "../driver/session.ts";
import { toRunnerError } from "../error.ts";
import { newRunId, type RunOptions, type RunRequest } from "./request.ts";
import type { Target } from "./target.ts";

/** Who declares something about a database, and why; both are kept in the history. */
export interface Declaration {
  readonly reason: string;
  readonly caller: RunRequest["caller"];
  readonly trigger: RunRequest["trigger"];
}

/** Lets `work` declare something in a run of its own, under the lease; the run ends as `work` does. */
export function declareUnderLease<T>(
  declaration: Declaration,
  target: Target,
  options: RunOptions,
  work: (session: LeasedSession) => Promise<T>,
): Promise<T> {
  const id = newRunId(target.name);
  return target.driver.withLease(
    {
      stream: target.stream,
      environment: target.environment,
      targetId: target.name,
      run: {
        id,
        target: target.name,
        stream: target.stream,
        action: "apply",
        trigger: declaration.trigger,
        caller: declaration.caller,
        releaseDigest: null,
        labels: {},
        idempotencyKey: null,
        bodyDigest: null,
        singleUse: null,
      },
      holder: `${hostname()}/${process.pid}`,
      waitMs: target.limits.waitMs,
      signal: options.signal,
      orphans: target.orphans ?? "wait",
      onOrphan: (orphan) => options.emit({ kind: "orphan.waiting", ...orphan }),
      onWaiting: (holder) =>
        options.emit({
          kind: "lease.waiting",
          holder: holder.holder,
          runId: holder.runId,
          since: holder.acquiredAt,
        }),
    },
    async (session) => {
      try {
        const result = await work(session);
        // A person has looked: what starts by itself may try again.
        await session.finish({ status: "succeeded", outcome: "applied", failed: null });
        return result;
      } catch (cause) {
        const { code, message, hint = null, fields } = toRunnerError(cause);
        await session
          .finish({ status: "failed", outcome: "refused", error: { code, message, hint, fields } })
          .catch(() => undefined);
        throw cause;
      }
    },
  );
}
