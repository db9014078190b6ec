import { createHash } from "node:crypto";
import type { Target } from "../runner.ts";
import { replayed } from "../dispatch/begun.ts";
import { rateLimited } from "./auth/access.ts";
import type { HttpContext, HttpParts } from "./context.ts";

/** Cancels and unlocks of one caller on one target in an hour: one token may repeat its request, and each time is recorded. */
const perHour = 120;

/**
 * Uses up the caller's single-use id for something that is done to a run. The same request again is an honest retry, and
 * does what it did; for a run of its own, or for something else, the token is spent.
 *
 * @param act - what is done, `cancel` or `unlock`
 * @param bodyDigest - of the request's body
 * @throws RunnerError `REPLAY`, `RATE_LIMITED`, `DATABASE_…`
 */
export async function spendToken(
  c: HttpContext,
  { rateLimit, now }: HttpParts,
  { name, driver }: Target,
  wanted: { readonly act: string; readonly runId: string; readonly bodyDigest: string },
  signal: AbortSignal,
): Promise<void> {
  const { issuer, subject, jti, expiresAt } = c.get("principal");
  const seconds = rateLimit.take(JSON.stringify([issuer, subject, name]), perHour, now());
  if (seconds > 0) throw rateLimited(`cancels and unlocks of one caller are ${perHour} an hour`, seconds);
  const { act, runId } = wanted;
  const bodyDigest = `sha256:${createHash("sha256").update(`${act} ${runId} ${wanted.bodyDigest}`).digest("hex")}`;
  if (await driver.spendUse({ issuer, jti, expiresAt, bodyDigest, runId }, signal)) return;
  throw replayed();
}
