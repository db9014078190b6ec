import type { SessionSettings } from "../session.ts";
import { waitToRetry } from "../wait-to-retry.ts";
import type { Bench } from "./bench.ts";
import { commandError, errorCode, isConflict, isOutcomeUnknown, isTransient } from "./command-error.ts";

/**
 * Tries of a body, the first included. What clashes may have to wait for a transaction that nobody ends any more, which
 * the server does after a minute; a server that is away is waited for by the driver as well, before each try.
 */
const tries = { conflict: 14, unavailable: 6 };

/** milliseconds; a server ends a transaction that is older than a minute */
const lifetimeMs = 50_000;

/** Whether the server ended a transaction for its age, as it would the next try's. */
export function isTooOld(cause: unknown, startedAt: number): boolean {
  return (
    commandError(cause)?.code === errorCode.noSuchTransaction && performance.now() - startedAt > lifetimeMs
  );
}

/**
 * Whether what failed with `cause` for the `attempt`th time may succeed when it is tried again: a write conflict, another's
 * lock or index build, an election, a lost connection. Waits before it says so.
 *
 * Throws the run's own reason when it is to stop meanwhile.
 */
export async function mayTryAgain(
  bench: Bench,
  step: { readonly path: string },
  settings: SessionSettings,
  cause: unknown,
  attempt: number,
): Promise<boolean> {
  const isAway = isOutcomeUnknown(cause);
  const most = isAway ? tries.unavailable : isConflict(cause) || isTransient(cause) ? tries.conflict : 1;
  if (attempt >= most) return false;
  const code = String(commandError(cause)?.code ?? "connection lost");
  await waitToRetry(bench, settings, { path: step.path, attempt, code, blocker: null });
  return true;
}
