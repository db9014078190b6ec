import type { StreamState } from "../driver/stream-state.ts";
import { RunnerError } from "../error.ts";
import type { RunAttempt } from "../history/run.ts";

/** Attempts in succession that may leave the database as they found it; each is a whole turn of an executor. */
const maxStalls = 2;
/** Attempts at one run, however much each of them does: a run so long is cut into pieces by its author. */
const maxAttempts = 50;

/**
 * Compares where the database stands with where the attempts before this one began.
 *
 * @returns what the next attempt is to compare with
 * @throws RunnerError `NO_PROGRESS` - two attempts in succession changed nothing, or there were fifty
 */
export function assertProgress(state: StreamState, attempt: RunAttempt): { mark: string; stalls: number } {
  const mark = markOf(state);
  const stalls = attempt.mark === mark ? attempt.stalls + 1 : 0;
  const { number } = attempt;
  if (stalls < maxStalls && number <= maxAttempts) return { mark, stalls };
  const why =
    number > maxAttempts
      ? `the run has had ${maxAttempts} attempts and is not done`
      : `${maxStalls} attempts in succession did not get further than version "${state.position.version ?? "0"}"`;
  throw new RunnerError("NO_PROGRESS", why, {
    hint: "the next migration takes longer than an executor has: give it more time, run it with lockkeeper up, or cut it into statements or ranges",
    fields: { attempts: number - 1, version: state.position.version },
  });
}

/** Where a database stands, as finely as a run can stop and go on. An entry that has only begun is no progress. */
function markOf({ position, unfinished }: StreamState): string {
  if (unfinished === null) return JSON.stringify([position.length]);
  const { seq, direction, statementsDone, checkpoint } = unfinished;
  const cursor = checkpoint?.kind === "backfill" ? checkpoint.cursor : null;
  return statementsDone === 0 && cursor === null
    ? JSON.stringify([position.length])
    : JSON.stringify([position.length, seq, direction, statementsDone, cursor]);
}
