import type { SessionSettings } from "../session.ts";
import { waitToRetry } from "../wait-to-retry.ts";
import { isConnectionLoss, serverError } from "./failure.ts";
import { retryableBody, sqlstate } from "./sqlstate.ts";
import type { Workbench } from "./workbench.ts";

/**
 * Tries of a body, the first included. Few where the connection was lost under it: it may be the body that ends its
 * session, or brings the server down.
 */
const tries = { lock: 10, connection: 3 };

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
  const blocker = (code === sqlstate.lockNotAvailable ? bench.blocker?.description : undefined) ?? null;
  await waitToRetry(bench, settings, { path: step.path, attempt, code: code ?? "08006", blocker });
  return true;
}
