import { setTimeout as sleep } from "node:timers/promises";

import { UndeliveredError, type Channel } from "./channel.ts";
import type { Notification } from "./notification.ts";

/** milliseconds before each further try of one message */
const delaysMs = [500, 2_000, 8_000, 30_000, 120_000] as const;
/** messages of one channel that wait; more are let go of, so that a receiver that is away for days costs no memory */
const mostWaiting = 200;

/** What became of a message that was not delivered. */
export interface Lost {
  readonly channel: string;
  readonly notification: Notification;
  readonly reason: string;
}

/** The messages of one channel, sent one after the other, so that a run's end never comes before its beginning. */
export class Mailbox {
  readonly #channel: Channel;
  readonly #onLost: (lost: Lost) => void;
  /** milliseconds between tries, as a test may have it */
  readonly #delays: readonly number[];
  /** of the messages that are sent until the next flush gives up */
  #stop = new AbortController();
  #waiting = 0;
  #last: Promise<void> = Promise.resolve();

  constructor(channel: Channel, onLost: (lost: Lost) => void, delays: readonly number[] = delaysMs) {
    this.#channel = channel;
    this.#onLost = onLost;
    this.#delays = delays;
  }

  put(notification: Notification): void {
    if (this.#waiting >= mostWaiting) {
      this.#lose(notification, `${mostWaiting} messages wait already`);
      return;
    }
    this.#waiting += 1;
    this.#last = this.#last.then(() => this.#deliver(notification)).finally(() => (this.#waiting -= 1));
  }

  /** Resolves when nothing waits, or after `ms`, and then what waits is let go of. A process that is frozen goes on after it. */
  async flush(ms: number): Promise<void> {
    const patience = new AbortController();
    const late = sleep(ms, "late", { signal: patience.signal }).catch(() => undefined);
    const end = await Promise.race([this.#last, late]);
    patience.abort();
    if (end !== "late") return;
    this.#stop.abort();
    await this.#last;
    this.#stop = new AbortController();
  }

  async #deliver(notification: Notification): Promise<void> {
    const { signal } = this.#stop;
    for (let attempt = 0; ; attempt += 1) {
      try {
        signal.throwIfAborted();
        return await this.#channel.send(notification, signal);
      } catch (thrown) {
        const error = thrown instanceof UndeliveredError ? thrown : undefined;
        const delayMs = this.#delays[attempt];
        // What is none of its own errors is a fault of ours or of the settings: another try would meet it again.
        const isLast = error === undefined || error.isFinal || delayMs === undefined || signal.aborted;
        if (isLast) return this.#lose(notification, signal.aborted ? "the process ended" : reasonOf(thrown));
        const jitter = 0.75 + Math.random() / 2;
        await sleep(Math.max(delayMs * jitter, error.retryAfterMs), undefined, { signal }).catch(
          () => undefined,
        );
      }
    }
  }

  #lose(notification: Notification, reason: string): void {
    this.#onLost({ channel: this.#channel.name, notification, reason });
  }
}

function reasonOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : "unknown reason";
}
