/** Counts what one caller asks of one target, in this process's memory: with N processes behind a balancer a caller has up to N times the limit. */
export class RateLimit {
  readonly #buckets = new Map<string, { tokens: number; at: number }>();

  /**
   * Takes one of `perHour` requests, which come back evenly over the hour.
   *
   * @returns 0, or after how many seconds the next one is there
   */
  take(key: string, perHour: number, now: Date): number {
    const at = now.getTime();
    const perMs = perHour / 3600_000;
    const known = this.#buckets.get(key);
    const tokens =
      known === undefined ? perHour : Math.min(perHour, known.tokens + Math.max(0, at - known.at) * perMs);
    this.#buckets.delete(key);
    if (this.#buckets.size >= maxBuckets) this.#forgetOldest();
    const isAllowed = tokens >= 1;
    this.#buckets.set(key, { tokens: isAllowed ? tokens - 1 : tokens, at });
    return isAllowed ? 0 : Math.ceil((1 - tokens) / perMs / 1000);
  }

  #forgetOldest(): void {
    const [oldest] = this.#buckets.keys();
    if (oldest !== undefined) this.#buckets.delete(oldest);
  }
}

/** Only authenticated callers get here, so this many distinct ones is already unusual. */
const maxBuckets = 10_000;
