/** Looks while an answer is waited for. */
export interface AnswerWatch {
  /** Ends the looking. */
  stop(): void;
}

/** milliseconds between two looks; also how long an answer may be on its way before it counts as lost */
const lookMs = 5_000;

/**
 * Finds out that an answer will never come: the server is done with the message, or never got it, and the network
 * swallowed what it said. A body may take hours, so no time-out can tell; and while the heartbeats go by a connection
 * that still works, the lease stays ours and nobody else would end the wait.
 *
 * @param look - whether the server is at work on the message; a look that fails says nothing
 * @param onLost - called once, after two looks in a row that found nothing
 */
export function watchAnswer(look: () => Promise<boolean>, onLost: () => void): AnswerWatch {
  let idleLooks = 0;
  let isLooking = false;
  const onTime = async (): Promise<void> => {
    if (isLooking) return;
    isLooking = true;
    const isAtWork = await look().catch(() => true);
    isLooking = false;
    idleLooks = isAtWork ? 0 : idleLooks + 1;
    if (idleLooks < 2) return;
    clearInterval(timer);
    onLost();
  };
  const timer = setInterval(() => void onTime(), lookMs);
  return { stop: () => clearInterval(timer) };
}

/**
 * A row with `lockkeeper_at_work`: whether the backend with this process id works on something. True also where it
 * cannot be told, because the session belongs to a role that ours may not look into.
 */
export function selectAtWork(processId: number): string {
  return `SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = ${processId}
 AND (state IS NULL OR state NOT LIKE 'idle%')) AS lockkeeper_at_work`;
}
