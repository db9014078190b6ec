/**
 * What many ask for at once, done in few messages: while one is under way, everything that is asked for meanwhile waits
 * for the next, which has all of it. Nothing that was sent before somebody asked is an answer to him.
 */
export class Together<Item, Result> {
  readonly #act: (items: readonly Item[]) => Promise<readonly (Result | Promise<Result>)[]>;
  readonly #most: number;
  #waiting: Waiting<Item, Result>[] = [];
  #isBusy = false;

  /**
   * @param act - gives a result for each item, in their order, or what becomes one; where it throws, it threw for all of them
   * @param most - items that it is given at once
   */
  constructor(act: (items: readonly Item[]) => Promise<readonly (Result | Promise<Result>)[]>, most: number) {
    this.#act = act;
    this.#most = most;
  }

  /** Resolves when the message with this item was answered. When `signal` aborts nobody waits for that any more; it may be done all the same. */
  add(item: Item, signal: AbortSignal): Promise<Result> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason as Error);
      const leave = (): void => {
        this.#waiting = this.#waiting.filter((other) => other !== waiting);
        reject(signal.reason as Error);
      };
      signal.addEventListener("abort", leave, { once: true });
      const done = (): void => signal.removeEventListener("abort", leave);
      const waiting: Waiting<Item, Result> = {
        item,
        resolve(result) {
          done();
          resolve(result);
        },
        reject(cause) {
          done();
          reject(cause);
        },
      };
      this.#waiting.push(waiting);
      if (!this.#isBusy) void this.#work();
    });
  }

  async #work(): Promise<void> {
    this.#isBusy = true;
    for (;;) {
      const batch = this.#waiting.splice(0, this.#most);
      if (batch.length === 0) break;
      try {
        const results = await this.#act(batch.map(({ item }) => item));
        for (const [index, { resolve }] of batch.entries())
          resolve(results[index] as Result | Promise<Result>);
      } catch (cause) {
        for (const { reject } of batch) reject(cause as Error);
      }
    }
    this.#isBusy = false;
  }
}

interface Waiting<Item, Result> {
  readonly item: Item;
  resolve(result: Result | Promise<Result>): void;
  reject(cause: Error): void;
}
