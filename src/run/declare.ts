import { hostname } from "node:os";

import { type AuditFacts, nothingRequested } from "../audit/record.ts";
import { recorded } from "../audit/write.ts";
import type { ForeignPlace } from "../history/foreign.ts";
import type { DeclaredEntry, LeasedSession } from "../driver/session.ts";
import { toRunnerError } from "../error.ts";
import { newRunId, type RunOptions, type RunRequest } from "./request.ts";
import type { Target } from "./target.ts";

/** Who declares something about a database, and why; both are kept in the history. */
export interface Declaration {
  readonly reason: string;
  readonly caller: RunRequest["caller"];
  readonly trigger: RunRequest["trigger"];
}

/** What is declared, as its record in the audit log names it. */
export interface DeclaredAs {
  readonly action: "baseline" | "repair" | "adopt";
  /** `version 42`, `applied` */
  readonly goal: string;
}

/** As `LeasedSession.declare`, between two records of the audit log. */
export type Declare = (entries: readonly DeclaredEntry[], inStep?: ForeignPlace | null) => Promise<void>;

/**
 * Lets `work` declare something in a run of its own, under the lease; the run ends as `work` does.
 *
 * @throws RunnerError `AUDIT_UNAVAILABLE` - nothing was declared; and what `work` throws
 */
export function declareUnderLease<T>(
  as: DeclaredAs,
  declaration: Declaration,
  target: Target,
  options: RunOptions,
  work: (session: Omit<LeasedSession, "declare">, declare: Declare) => Promise<T>,
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
      const declare: Declare = async (entries, inStep) => {
        const { rootVersion, highWaterMark, position } = await session.state();
        const facts = {
          ...declaredFacts(as, declaration, target, entries),
          run: id,
          attempt: session.attempt.number,
          rootVersion,
          highWaterMark: { before: highWaterMark, after: null },
          from: position.version,
        };
        await recorded(
          target.driver.audit,
          facts,
          {
            signal: session.signal,
            now: options.now,
            onEntry: (entry) => options.emit({ kind: "audit", ...entry }),
          },
          () => session.declare(entries, inStep),
          () => ({ highWaterMark: { before: highWaterMark, after: highWaterMark } }),
        );
      };
      try {
        const result = await work(session, declare);
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

function declaredFacts(
  { action, goal }: DeclaredAs,
  { reason, caller, trigger }: Declaration,
  { name, stream, environment }: Target,
  entries: readonly DeclaredEntry[],
): AuditFacts {
  return {
    event: "declared",
    action,
    target: name,
    stream,
    environment,
    trigger,
    principal: { ...caller, claims: {} },
    requested: { ...nothingRequested, goal },
    reason: reason === "" ? null : reason,
    migrations: entries.map(({ migration: { seq, path, sha256 }, direction }) => ({
      seq,
      path,
      direction,
      sha256,
      ms: null,
    })),
  };
}
