import { RunnerError } from "../error.ts";
import type { HttpLimits } from "./limits.ts";

/** How long a caller wants to wait for the end of what it asked for. */
export interface Waiting {
  readonly waitMs: number;
  /** value of `Preference-Applied`; undefined when nothing was preferred */
  readonly applied: string | undefined;
}

/**
 * Reads `Prefer: wait=N, respond-async` (RFC 7240): wait at most N seconds; `respond-async` alone does not wait.
 * Other preferences, and those that make no sense, are ignored, as the standard wants it.
 */
export function parsePrefer(header: string | undefined, limits: HttpLimits): Waiting {
  const preferences = (header ?? "").split(",").map((part) => part.split(";")[0]?.trim().toLowerCase() ?? "");
  const isAsync = preferences.includes("respond-async");
  const seconds = preferences
    .map((preference) => /^wait\s*=\s*"?([0-9]{1,9})"?$/.exec(preference)?.[1])
    .find((value) => value !== undefined);
  if (seconds === undefined) {
    return isAsync
      ? { waitMs: 0, applied: "respond-async" }
      : { waitMs: limits.defaultWaitMs, applied: undefined };
  }
  const waitMs = Math.min(Number(seconds) * 1000, limits.maxWaitMs);
  const applied = `wait=${Math.floor(waitMs / 1000)}`;
  return { waitMs, applied: isAsync ? `${applied}, respond-async` : applied };
}

/**
 * Reads `Idempotency-Key`, with or without the quotes of a structured field.
 *
 * @throws RunnerError `INVALID_REQUEST` — empty, longer than 128 characters, or with blanks or control characters
 */
export function parseIdempotencyKey(header: string | undefined): string | null {
  if (header === undefined) return null;
  const key = header.replace(/^"(.*)"$/, "$1");
  if (/^[\x21-\x7e]{1,128}$/.test(key)) return key;
  throw new RunnerError("INVALID_REQUEST", "the Idempotency-Key is not one", {
    hint: "use 1 to 128 visible ASCII characters, such as a UUID",
  });
}
