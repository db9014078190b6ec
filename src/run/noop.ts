import type { PendingRecord } from "../audit/write.ts";
import type { Emit } from "../executor/event.ts";
import type { RunResult } from "../executor/result.ts";
import type { AuditEntry } from "../history/audit.ts";
import { isIdle } from "./at-rest.ts";
import { AuditTrail } from "./audit-trail.ts";
import { observedRun } from "./observed-run.ts";
import { watchAll } from "./observer.ts";
import type { Look, RunOptions, RunRequest } from "./request.ts";
import type { Target } from "./target.ts";
import { assertUsable } from "./usable.ts";

/** A run for which there is nothing to do, before anybody was told of it. */
export interface Noop {
  /** how it ends, for the audit log */
  readonly record: PendingRecord;
  /**
   * Tells observers and `emit` of the whole run, once it is recorded.
   *
   * @throws RunnerError `AUDIT_BROKEN` - the record was changed on its way into the table; they were told
   */
  tell(stored: AuditEntry): RunResult;
}

/**
 * What comes of a run that nobody has recorded yet, where there is nothing to do for it; undefined where there is, or where
 * it is to be refused. Asks nobody, changes nothing.
 */
export function noopOf(
  request: RunRequest,
  target: Target,
  looked: Look,
  options: Pick<RunOptions, "emit" | "now">,
): Noop | undefined {
  if (!isIdle(request, looked.state, looked.head) || !mayBeUsed(looked, target)) return undefined;
  const startedAt = options.now();
  const began = performance.now();
  let emit: Emit = options.emit;
  const trail = new AuditTrail(request, target, { now: options.now, emit: (event) => emit(event) });
  trail.seen(looked.state, request.release === null ? looked.head : undefined);
  const { position, completed } = looked.state;
  const record = trail.pendingEnd(position);
  const tell = (stored: AuditEntry): RunResult => {
    const watch = watchAll(target.observers ?? [], observedRun(request, target, startedAt));
    emit = (event) => {
      options.emit(event);
      watch.event(event);
    };
    emit({ kind: "run.started", runId: request.id, target: target.name });
    const { seq, sha256 } = record.added(stored);
    const end = { status: "succeeded", outcome: "noop", error: null } as const;
    const durationMs = Math.round(performance.now() - began);
    emit({
      kind: "run.done",
      runId: request.id,
      ...end,
      trigger: request.trigger,
      attempt: 1,
      release: completed,
      from: position.version,
      to: position.version,
      applied: 0,
      durationMs,
    });
    const result: RunResult = {
      runId: request.id,
      target: target.name,
      release: completed === null ? null : { digest: completed, version: null },
      fresh: null,
      from: position,
      to: position,
      durationMs,
      backup: null,
      audit: { seq, sha256 },
      done: [],
      left: 0,
      ...end,
    };
    watch.ended(result);
    return result;
  };
  return { record, tell };
}

/** What is refused has a run and records of its own. */
function mayBeUsed({ state }: Look, target: Target): boolean {
  try {
    assertUsable(undefined, state, target);
    return true;
  } catch {
    return false;
  }
}
