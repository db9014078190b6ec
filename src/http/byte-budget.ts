import { RunnerError } from "../error.ts";

/** Bytes that may be in memory at once of senders whom nobody knows yet: many of them together cost no more than this. */
export class ByteBudget {
  #left: number;

  constructor(bytes: number) {
    this.#left = bytes;
  }

  /**
   * Gives `use` something to take bytes with, and has them back when it has ended.
   *
   * @throws RunnerError `RATE_LIMITED` — from `take`, when there are not so many left
   */
  async spend<T>(use: (take: (bytes: number) => void) => Promise<T>): Promise<T> {
    let taken = 0;
    const take = (bytes: number): void => {
      if (bytes > this.#left) {
        throw new RunnerError("RATE_LIMITED", "too much is sent to this server at once", {
          hint: "send it again soon, or to another replica",
          fields: { retryAfterSeconds: 5 },
        });
      }
      this.#left -= bytes;
      taken += bytes;
    };
    try {
      return await use(take);
    } finally {
      this.#left += taken;
    }
  }
}
