import type { Notification } from "./notification.ts";

/** One way to tell people or programs what became of runs. */
export interface Channel {
  /** `slack`, `webhook https://hooks.example`, for the log: without path and query, which may hold a secret */
  readonly name: string;
  /**
   * One try.
   *
   * @throws UndeliveredError
   */
  send(notification: Notification, signal: AbortSignal): Promise<void>;
}

/** A try that did not arrive, with nothing in its message but what the log may hold. */
export class UndeliveredError extends Error {
  /** another try would meet the same */
  readonly isFinal: boolean;
  /** how long the receiver wants to be left alone; 0 where it does not say */
  readonly retryAfterMs: number;

  constructor(
    reason: string,
    options: { readonly isFinal?: boolean; readonly retryAfterMs?: number; readonly cause?: unknown } = {},
  ) {
    super(reason, { cause: options.cause });
    this.name = "UndeliveredError";
    this.isFinal = options.isFinal ?? false;
    this.retryAfterMs = options.retryAfterMs ?? 0;
  }
}
