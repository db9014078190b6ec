const hourMs = 3600_000;

/** Only authenticated callers get here, so this many distinct ones is already unusual. */
const maxCallers = 10_000;

/**
 * Counts what one caller asks of one target, in this process's memory: with N processes behind a balancer a caller
 * has up to N times the limit.
 *
 * Each request takes its share of an hour; what is kept of a caller is only until when its shares reach
 * (the generic cell rate algorithm).
 */
export class RateLimit {
  readonly #reaches = new Map<string, number>();

  /**
   * Takes one of `perHour` requests, which come back evenly over the hour.
   *
   * @returns 0, or after how many seconds the next one is there
   */
  take(key: string, perHour: number, now: Date): number {
    const share = hourMs / perHour;
    const from = Math.max(now.getTime(), this.#reaches.get(key) ?? 0);
    const earlyMs = Math.round(from + share - now.getTime() - hourMs);
    if (earlyMs > 0) return Math.ceil(earlyMs / 1000);
    // to the end of the map: its first key is the one that has not asked for longest
    this.#reaches.delete(key);
    if (this.#reaches.size >= maxCallers) this.#forgetOldest();
    this.#reaches.set(key, from + share);
    return 0;
  }

  #forgetOldest(): void {
    const [oldest] = this.#reaches.keys();
    if (oldest !== undefined) this.#reaches.delete(oldest);
  }
}
