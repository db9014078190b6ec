import type { Driver } from "../driver/driver.ts";
import type { StreamState } from "../driver/stream-state.ts";
import { appliedEntries } from "../history/applied.ts";
import { compareVersions } from "../migration/version.ts";
import { emptyChain } from "../release/chain.ts";
import type { ChainEnd } from "../release/chain.ts";

/**
 * Whether a database has everything up to a place in its stream, by the chain: also where more has followed since, and
 * not any more once some of it was rolled back. No clock, no bucket and no signature is in the question.
 */
export async function hasChain(
  driver: Driver,
  stream: string,
  { exists, position }: Pick<StreamState, "exists" | "position">,
  end: ChainEnd,
  signal: AbortSignal,
): Promise<boolean> {
  if (!exists || position.length < end.length) return false;
  if (end.length === 0) return end.head === emptyChain(stream);
  if (position.length === end.length) return position.chain === end.head;
  const entries = await driver.history(stream, {}, signal);
  return appliedEntries(entries)[end.length - 1]?.chain === end.head;
}

/** Whether a database is at a version, or at a higher one. */
export function isAtLeast({ position }: Pick<StreamState, "position">, min: string): boolean {
  return position.version !== null && compareVersions(position.version, min) >= 0;
}
