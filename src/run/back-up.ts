import type { LeasedSession } from "../driver/driver.ts";
import { RunnerError } from "../error.ts";
import type { Emit } from "../executor/event.ts";
import type { Backup, BackupFacts } from "../hook/backup.ts";
import type { BackupRecord } from "../history/run.ts";

/** milliseconds; a timer that is set for longer fires at once */
const longestTimerMs = 2 ** 31 - 1;

/** What a backup needs of the run that it is for. */
export interface BackUpOptions {
  readonly facts: BackupFacts;
  readonly emit: Emit;
  /** kept before the run goes on, or ends */
  record(backup: BackupRecord): Promise<void>;
}

/**
 * Makes the backup under the held lease, before anything is changed; the lease is kept meanwhile.
 *
 * @throws RunnerError `BACKUP_FAILED`, also when it takes too long; why the session aborted, when it did
 */
export async function backUp(
  backup: Backup,
  session: Pick<LeasedSession, "signal">,
  { facts, emit, record }: BackUpOptions,
): Promise<void> {
  const began = performance.now();
  const late = new AbortController();
  const timer =
    backup.timeoutMs > 0
      ? setTimeout(() => late.abort(tooLate(backup)), Math.min(backup.timeoutMs, longestTimerMs))
      : undefined;
  const end = async (result: BackupRecord["result"]): Promise<void> => {
    const made = { by: backup.by, durationMs: Math.round(performance.now() - began), result };
    emit({ kind: "backup.done", ...made });
    await record(made);
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
