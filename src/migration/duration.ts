const MS_PER_UNIT = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const;

/** PostgreSQL keeps its timeouts in a 32-bit integer of milliseconds; Node's timers have the same limit. */
const MAX_MS = 2 ** 31 - 1;

/**
 * Milliseconds of a duration as flags, headers and the configuration write it: `500ms`, `2s`, `10m`, `1h`, or `0`.
 *
 * A whole number and one unit; anything else, and all above {@link MAX_MS} (24 days), is undefined.
 */
export function parseDuration(text: string): number | undefined {
  if (text === "0") return 0;
  const match = /^([0-9]{1,12})(ms|s|m|h)$/.exec(text);
  if (match === null) return undefined;
  const ms = Number(match[1]) * MS_PER_UNIT[match[2] as keyof typeof MS_PER_UNIT];
  return ms <= MAX_MS ? ms : undefined;
}
