import { RunnerError, toRunnerError } from "../error.ts";
import type { Emit } from "../executor/event.ts";
import type { StreamState } from "../driver/stream-state.ts";
import type { Look } from "../run/request.ts";
import { noopOf } from "../run/noop.ts";
import type { Target } from "../runner.ts";
import { Together } from "../together.ts";
import { existingOf, type Begun, type RunOrder } from "./begun.ts";
import { within } from "./patience.ts";

/**
 * Milliseconds to see whether there is anything to do before the request is recorded: a database and a bucket that are well
 * need a fraction, and who is told at once that his run was accepted shall not wait for one that is not.
 */
const lookMs = 2_000;
/** milliseconds to record a run */
const recordMs = 10_000;
/** Requests that share a look. */
const mostAtOnce = 1_000;

/** What {@link Noops} is given. */
export interface NoopOptions {
  emitOf(runId: string, target: Target): Emit;
  now(): Date;
}

/**
 * Runs that have nothing to do. A pipeline asks after every build, and most find the database where it should be: so it is
 * looked first, and such a run's whole life, with all that the audit log has of it, is one transaction.
 */
export class Noops {
  readonly #options: NoopOptions;
  readonly #looks = new WeakMap<Target, SharedLook>();

  constructor(options: NoopOptions) {
    this.#options = options;
  }

  /**
   * Looks whether a run has anything to do, and records it where it has not. What cannot be told soon, or not at all, is for
   * the run itself to find out.
   *
   * @returns `begun`: it ended, or another request has begun it; else it is to begin, with what was seen as `looked`
   * @throws RunnerError `REPLAY`, `IDEMPOTENCY_MISMATCH`, `AUDIT_BROKEN`, `DEADLINE`
   */
  async begin(
    { request, record, pendingAllowed }: RunOrder,
    target: Target,
  ): Promise<{ readonly looked?: Look; readonly begun?: Begun }> {
    if (pendingAllowed === undefined) return {};
    const looked = await this.#look(request.release, target);
    if (looked === undefined) return {};
    const { emitOf, now } = this.#options;
    const noop = noopOf(request, target, looked, { emit: emitOf(request.id, target), now });
    if (noop === undefined) return { looked };
    const decision = pendingAllowed();
    const { completed, position } = looked.state;
    const records = [decision.text, noop.record.text];
    const whole = { run: record, releaseDigest: completed, version: position.version, records };
    const accepted = await within(recordMs, (signal) => target.driver.acceptNoop(whole, signal)).catch(
      (thrown: unknown) => {
        decision.dropped();
        if (toRunnerError(thrown).code === "DEADLINE") throw thrown;
        // Whatever else it is, the run's own way tells better; and finds it, should it have been recorded.
        return undefined;
      },
    );
    if (accepted === undefined) return { looked };
    if (accepted.kind !== "accepted") {
      decision.dropped();
      return { begun: existingOf(accepted) };
    }
    const [allowed, ended] = accepted.entries;
    if (allowed === undefined || ended === undefined)
      throw new RunnerError("INTERNAL", "a run was recorded without its records of the audit log");
    try {
      decision.added(allowed);
    } finally {
      noop.tell(ended);
    }
    return { begun: { kind: "ended", run: accepted.run } };
  }

  async #look(release: string | null, target: Target): Promise<Look | undefined> {
    const shared = this.#looks.get(target) ?? shareLooks(target);
    this.#looks.set(target, shared);
    try {
      const [state, head] = await within(lookMs, (signal) =>
        Promise.all([shared.state.add(null, signal), release ?? shared.head.add(null, signal)]),
      );
      return { state, head };
    } catch {
      return undefined;
    }
  }
}

/** Looks at one target that many share, none of which was begun before they asked. */
interface SharedLook {
  readonly state: Together<null, StreamState>;
  readonly head: Together<null, string | undefined>;
}

function shareLooks({ driver, stream, releases }: Target): SharedLook {
  return {
    state: new Together(
      shared((signal) => driver.state(stream, signal)),
      mostAtOnce,
    ),
    head: new Together(
      shared((signal) => releases.head(signal)),
      mostAtOnce,
    ),
  };
}

/** One look is the answer for everybody. */
function shared<T>(
  ask: (signal: AbortSignal) => Promise<T>,
): (askers: readonly null[]) => Promise<readonly T[]> {
  return async (askers) => {
    const answer = await within(lookMs, ask);
    return askers.map(() => answer);
  };
}
