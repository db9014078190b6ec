import { setTimeout as sleep } from "node:timers/promises";

import type { SessionSettings } from "../session.ts";
import { isConnectionLoss, serverError } from "./failure.ts";
import { retryableBody, sqlstate } from "./sqlstate.ts";
import type { Workbench } from "./workbench.ts";

/**
 * Tries of a body, the first included. Few where the connection was lost under it: it may be the body that ends its
 * session, or brings the server down.
 */
const tries = { lock: 10, connection: 3 };
/** milliseconds before the second try: doubles with each, with jitter, up to 32 times of it */
const retryMs = 250;

/**
 * Whether what failed with `cause` for the `attempt`th time may succeed when it is tried again: a lock time-out, a
 * deadlock, a serialization failure, a lost connection. Waits before it says so.
 *
 * Throws the run's own reason when it is to stop meanwhile.
 */
export async function mayTryAgain(
  bench: Workbench,
  step: { readonly path: string },
  settings: SessionSettings,
  cause: unknown,
  attempt: number,
): Promise<boolean> {
  const code = serverError(cause)?.sqlstate;
  const most = isConnectionLoss(cause)
    ? tries.connection
    : code !== undefined && retryableBody.has(code)
      ? tries.lock
      : 1;
  if (attempt >= most) return false;
  const waitMs = Math.round(
    (bench.times.retryMs ?? retryMs) * Math.min(2 ** (attempt - 1), 32) * (0.5 + Math.random()),
  );
  const blocker = code === sqlstate.lockNotAvailable ? bench.blocker?.description : undefined;
  settings.onRetry(step.path, attempt, code ?? "08006", waitMs, blocker ?? null);
  await sleep(waitMs, undefined, { signal: bench.kept.signal }).catch(() => bench.kept.assertTrusted());
  return true;
}
