import type { RunEvent } from "../executor/event.ts";
import type { RunResult } from "../executor/result.ts";
import type { ObservedRun, RunObserver, RunWatch } from "../run/observer.ts";
import type { Channel } from "./channel.ts";
import { Mailbox, type Lost } from "./mailbox.ts";
import { kindOf, type Notification, type NotificationKind } from "./notification.ts";

/** Who is told what. */
export interface Subscription {
  readonly channel: Channel;
  readonly kinds: ReadonlySet<NotificationKind>;
  /** names of targets; undefined: all */
  readonly targets: ReadonlySet<string> | undefined;
}

/** Refusals that say again what was told when it happened: a rollback, a failure, a pause, somebody else's lease. */
const repeated: ReadonlySet<string> = new Set(["HELD", "FAILED_BEFORE", "PAUSED", "LEASE_HELD"]);
/** milliseconds in which what kept a run from beginning is told once: what starts by itself may meet it every minute */
const quietMs = 24 * 3_600_000;
const mostRefusals = 1_000;

/** Tells subscribers what becomes of runs. Nothing of it can fail a run or hold it up. */
export class Notifier implements RunObserver {
  readonly #boxes: readonly { readonly subscription: Subscription; readonly box: Mailbox }[];
  readonly #now: () => Date;
  /** when it was told what kept runs from beginning, by where and why */
  readonly #refusals = new Map<string, number>();

  /** @param options.onLost - for the log: a message that could not be delivered */
  constructor(
    subscriptions: readonly Subscription[],
    options: { readonly delaysMs?: readonly number[]; onLost(lost: Lost): void; now(): Date },
  ) {
    this.#boxes = subscriptions.map((subscription) => ({
      subscription,
      box: new Mailbox(subscription.channel, options.onLost, options.delaysMs),
    }));
    this.#now = options.now;
  }

  begin(run: ObservedRun): RunWatch {
    let hasBegun = run.earlierAttempts > 0;
    return {
      event: (event) => {
        if (hasBegun || !isBeginning(event)) return;
        hasBegun = true;
        this.#tell("started", run, null);
      },
      ended: (result) => {
        const kind = kindOf(result, hasBegun);
        if (kind === undefined || (!hasBegun && !this.#isNews(run, result))) return;
        this.#tell(kind, run, result);
      },
    };
  }

  /** Resolves when everything is delivered, or after `ms`, and then the rest is let go of. */
  async flush(ms: number): Promise<void> {
    await Promise.all(this.#boxes.map(({ box }) => box.flush(ms)));
  }

  #tell(kind: NotificationKind, run: ObservedRun, result: RunResult | null): void {
    const notification: Notification = { id: `${run.id}:${kind}`, kind, at: this.#now(), run, result };
    for (const { subscription, box } of this.#boxes) {
      const { kinds, targets } = subscription;
      if (kinds.has(kind) && targets?.has(run.target) !== false) box.put(notification);
    }
  }

  #isNews({ target }: ObservedRun, { error, release }: RunResult): boolean {
    if (error === null) return true;
    if (repeated.has(error.code)) return false;
    const key = JSON.stringify([target, error.code, release?.digest ?? error.message]);
    const now = this.#now().getTime();
    const toldAt = this.#refusals.get(key);
    if (toldAt !== undefined && now - toldAt < quietMs) return false;
    const [oldest] = this.#refusals.keys();
    if (this.#refusals.size >= mostRefusals && oldest !== undefined) this.#refusals.delete(oldest);
    this.#refusals.set(key, now);
    return true;
  }
}

/** From here on a database is changed, or prepared for it. */
function isBeginning({ kind }: RunEvent): boolean {
  return kind === "step.started" || kind === "backup.started";
}
