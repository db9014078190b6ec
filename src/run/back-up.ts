import type { LeasedSession } from "../driver/session.ts";
import { RunnerError } from "../error.ts";
import type { Emit } from "../executor/event.ts";
import type { Backup, BackupFacts } from "../hook/backup.ts";
import type { BackupRecord } from "../history/run.ts";
import type { Plan } from "../plan/plan.ts";
import type { RunRequest } from "./request.ts";
import type { Target } from "./target.ts";

/** milliseconds; a timer that is set for longer fires at once */
const longestTimerMs = 2 ** 31 - 1;
/** milliseconds to record what came of a backup, also when the run is to stop */
const recordMs = 10_000;

/** The run that a backup is for. */
export interface BackedUpRun {
  readonly request: Pick<RunRequest, "id">;
  readonly target: Pick<Target, "name" | "stream" | "environment" | "driver">;
  readonly plan: Plan;
}

/**
 * Makes the backup under the held lease, before anything is changed, and records in the run's row what came of it.
 * The lease is kept meanwhile.
 *
 * @throws RunnerError `BACKUP_FAILED`, also when it takes too long; why the session aborted, when it did
 */
export async function backUp(
  backup: Backup,
  { request, target, plan }: BackedUpRun,
  session: Pick<LeasedSession, "signal" | "attempt">,
  emit: Emit,
): Promise<void> {
  const facts: BackupFacts = {
    run: request.id,
    target: target.name,
    stream: target.stream,
    environment: target.environment,
    release: plan.releaseDigest,
    from: plan.from.version,
    to: plan.to.version,
  };
  const began = performance.now();
  const late = new AbortController();
  const timer =
    backup.timeoutMs > 0
      ? setTimeout(() => late.abort(tooLate(backup)), Math.min(backup.timeoutMs, longestTimerMs))
      : undefined;
  const end = async (result: BackupRecord["result"]): Promise<void> => {
    const made = { by: backup.by, durationMs: Math.round(performance.now() - began), result };
    emit({ kind: "backup.done", ...made });
    await target.driver.updateRun(
      request.id,
      { status: "running", attempt: session.attempt.number, backup: made },
      AbortSignal.timeout(recordMs),
    );
  };
  emit({ kind: "backup.started", by: backup.by });
  try {
    await backup.make(facts, AbortSignal.any([session.signal, late.signal]), (line) =>
      emit({ kind: "backup.output", line }),
    );
  } catch (cause) {
    // The run's end tells the same, so it must not be hidden by a database that cannot be reached.
    await end(session.signal.aborted ? "stopped" : "failed").catch(() => undefined);
    throw cause;
  } finally {
    clearTimeout(timer);
  }
  await end("done");
  session.signal.throwIfAborted();
}

function tooLate({ by, timeoutMs }: Backup): RunnerError {
  return new RunnerError(
    "BACKUP_FAILED",
    `the backup (${by}) took longer than ${timeoutMs / 1000} s; nothing was changed`,
    { hint: "raise --backup-timeout (backup.timeout in the configuration), or look why it is so slow" },
  );
}
