import type { StreamState } from "../driver/stream-state.ts";
import type { RunnerErrorCode } from "../error.ts";
import { isLeftBehind } from "../run/at-rest.ts";
import { planRun, type Target } from "../runner.ts";
import { within } from "./patience.ts";

/** milliseconds to ask bucket and database: a push of Pub/Sub is answered within 10 s, or comes again */
const lookMs = 8_000;

/** What a target's bucket and database say, asked cheaply, and believed only as far as doing nothing. */
export type Look =
  | { readonly kind: "up-to-date" }
  /** nothing begins by itself; known without a run that would say so */
  | { readonly kind: "left-alone"; readonly code: RunnerErrorCode }
  /** `offered` names what is pending; `at` is the time of the look by the database's clock */
  | { readonly kind: "pending"; readonly offered: string; readonly at: Date };

/**
 * Asks a target's bucket and its database at once: no lease, no row.
 *
 * @throws RunnerError what bucket and database throw; `DEADLINE`
 */
export function look(target: Target, signal: AbortSignal): Promise<Look> {
  return within(
    lookMs,
    async (patience) => {
      const [state, head] = await Promise.all([
        target.driver.state(target.stream, patience),
        target.releases.head(patience),
      ]);
      if (target.releases.kind === "plain") return lookAtFolder(target, state, patience);
      if (head === undefined || (state.completed === head && !isLeftBehind(state)))
        return { kind: "up-to-date" };
      const code = whyLeftAlone(head, state);
      return code === undefined ? pending(head, state) : { kind: "left-alone", code };
    },
    signal,
  );
}

/** A folder has nothing that names its newest state for less than reading it. */
async function lookAtFolder(target: Target, state: StreamState, signal: AbortSignal): Promise<Look> {
  if (state.held !== null) return { kind: "left-alone", code: "HELD" };
  const options = { signal, emit: () => undefined, now: () => new Date() };
  const plan = await planRun({ goal: { kind: "latest" }, release: null }, target, options);
  if (plan.steps.length === 0 && !isLeftBehind(state)) return { kind: "up-to-date" };
  const code = whyLeftAlone(plan.releaseDigest, state);
  return code === undefined ? pending(plan.releaseDigest, state) : { kind: "left-alone", code };
}

/** What a run would be refused for, as far as the database alone can tell; see `assertMayStart`. */
function whyLeftAlone(digest: string, { paused, held, failed }: StreamState): RunnerErrorCode | undefined {
  if (paused) return "PAUSED";
  if (failed?.digest === digest) return "FAILED_BEFORE";
  if (held?.highWaterMark?.digest === digest) return "HELD";
  return undefined;
}

function pending(offered: string, { now }: StreamState): Look {
  return { kind: "pending", offered, at: now };
}
