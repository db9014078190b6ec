import { RunnerError } from "../error.ts";

/**
 * Lets so many pieces of work go on at once, and so many more wait for their turn, so that a caller who asks a thousand
 * times at once costs the memory of a few.
 */
export class Turns {
  readonly #waiting: (() => void)[] = [];
  readonly #most: number;
  #free: number;

  constructor(limits: { readonly atOnce: number; readonly waiting: number }) {
    this.#free = limits.atOnce;
    this.#most = limits.waiting;
  }

  /**
   * Does `work` when its turn comes; first come, first served.
   *
   * @throws RunnerError `RATE_LIMITED` — too many are waiting already; the signal's reason when it aborts before the turn
   */
  async take<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await this.#turn(signal);
    try {
      return await work();
    } finally {
      // Whoever waits longest takes over the place; it never is free in between.
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }

  async #turn(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#waiting.length >= this.#most) {
      throw new RunnerError("RATE_LIMITED", "too many callers ask this server at once", {
        hint: "try again soon, or ask another replica",
        fields: { retryAfterSeconds: 5 },
      });
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const leave = (): void => {
      const place = this.#waiting.indexOf(resolve);
      // not in line any more: its turn came at the same moment
      if (place === -1) return;
      this.#waiting.splice(place, 1);
      reject(signal.reason);
    };
    this.#waiting.push(resolve);
    signal.addEventListener("abort", leave, { once: true });
    try {
      await promise;
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }
}
