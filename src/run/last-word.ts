import type { RunChange } from "../driver/runs.ts";
import type { Position } from "../history/entry.ts";
import { doneIn, type DoneStep } from "./done-step.ts";
import type { Target } from "./target.ts";

/** milliseconds for each of these, once the run's own signal has fired */
const lastWordMs = 5_000;

/** Steps that a run has done, as the history has them; undefined where the database does not answer. */
export async function stepsInHistory(
  { driver, stream }: Target,
  runId: string,
): Promise<readonly DoneStep[] | undefined> {
  const entries = await driver
    .history(stream, { runId }, AbortSignal.timeout(lastWordMs))
    .catch(() => undefined);
  return entries === undefined ? undefined : doneIn(entries);
}

/** Where the database stands; null where it does not answer. */
export async function positionNow({ driver, stream }: Target): Promise<Position | null> {
  const state = await driver.state(stream, AbortSignal.timeout(lastWordMs)).catch(() => undefined);
  return state?.position ?? null;
}

/** Records in a run's row how it ended, or that another goes on with it; false where the database does not answer. */
export async function recordEnd({ driver }: Target, runId: string, change: RunChange): Promise<boolean> {
  try {
    await driver.updateRun(runId, change, AbortSignal.timeout(lastWordMs));
    return true;
  } catch {
    return false;
  }
}
