import { RunnerError } from "../error.ts";
import type { Release } from "./release.ts";

/**
 * Step 10 of trust.md 2.5. Asked only where something is pending: expiry stops changes, never a database that is where it should be.
 *
 * @throws RunnerError `RELEASE_EXPIRED`
 */
export function assertNotExpired(release: Release, now: Date): void {
  if (!isExpired(release, now)) return;
  throw new RunnerError("RELEASE_EXPIRED", `the release expired at ${release.expires?.toISOString() ?? ""}`, {
    hint: "publish again: the same files make a new release with a new expiry",
    fields: { expires: release.expires?.toISOString() ?? null, digest: release.digest },
  });
}

/** Whether a release may no longer be applied. A plain folder never expires. */
function isExpired(release: Release, now: Date): boolean {
  return release.expires !== undefined && now >= release.expires;
}
