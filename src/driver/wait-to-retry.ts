import { setTimeout as sleep } from "node:timers/promises";

import type { KeptLease, LeaseTimes } from "./lease-keeper.ts";
import type { SessionSettings } from "./session.ts";

/** milliseconds before the second try: doubles with each, with jitter, up to 32 times of it */
const retryMs = 250;

/** A try of a body that failed, and what it met. */
export interface FailedTry {
  readonly path: string;
  /** from 1 */
  readonly attempt: number;
  /** the server's code, for people and programs */
  readonly code: string;
  /** who was seen to hold the lock */
  readonly blocker: string | null;
}

/**
 * Says that a body is tried again, and waits before that.
 *
 * @throws the run's own reason when it is to stop meanwhile
 */
export async function waitToRetry(
  { kept, times }: { readonly kept: KeptLease; readonly times: LeaseTimes },
  settings: Pick<SessionSettings, "onRetry">,
  { path, attempt, code, blocker }: FailedTry,
): Promise<void> {
  const factor = Math.min(2 ** (attempt - 1), 32) * (0.5 + Math.random());
  const waitMs = Math.round((times.retryMs ?? retryMs) * factor);
  settings.onRetry(path, attempt, code, waitMs, blocker);
  await sleep(waitMs, undefined, { signal: kept.signal }).catch(() => kept.assertTrusted());
}
