import { RunnerError } from "../../error.ts";
import type { Source } from "../../source/source.ts";
import { readEarlier } from "./earlier.ts";
import type { EarlierExpectations, EarlierRelease } from "./earlier.ts";
import type { EnvironmentTrusts } from "../trust/environment-trust.ts";
import { isRefusal } from "../refusal.ts";

/** What a new release comes after. */
export interface Predecessor {
  /** whose files are continued */
  readonly continued: EarlierRelease;
  /**
   * whose place is taken over: the newest release. Another than the continued one only where that was named; undefined
   * where nobody known signed the newest, so that only a new epoch can follow it
   */
  readonly newest: EarlierRelease | undefined;
}

/**
 * The newest release of a prefix, and the one that was named with `follow` to be continued in its place: to leave out a
 * migration that no database can take, or what a thief has published.
 *
 * @throws RunnerError as `readEarlier`; `RELEASE_REVOKED`, `WRONG_EPOCH` — the trust has done with the newest, and nothing is named
 */
export async function readPredecessor(
  source: Source,
  expectations: EarlierExpectations,
  trusts: EnvironmentTrusts,
  signal: AbortSignal,
): Promise<Predecessor | undefined> {
  const { follow } = expectations;
  const continued = await readEarlier(source, expectations, signal);
  if (continued === undefined) return undefined;
  if (follow === undefined) assertMayContinue(continued, trusts);
  if (continued.head.digest === continued.statement.digest) return { continued, newest: continued };
  const newest = await readEarlier(source, { ...expectations, follow: undefined }, signal).catch(ifRefused);
  return { continued, newest };
}

/** After a key was stolen the newest release may be the thief's: a person says which one is continued. */
function assertMayContinue({ statement }: EarlierRelease, trusts: EnvironmentTrusts): void {
  const { digest, epoch, version } = statement;
  for (const trust of trusts.values()) {
    const isRevoked = trust.revoked.has(digest);
    if (!isRevoked && (trust.epoch === null || trust.epoch <= epoch)) continue;
    const why = isRevoked ? "was revoked" : `is of epoch ${epoch}, and the trust takes epoch ${trust.epoch}`;
    throw new RunnerError(isRevoked ? "RELEASE_REVOKED" : "WRONG_EPOCH", `the newest release ${why}`, {
      hint: "name the last good release with --follow; see what it holds with lockkeeper release show --release",
      fields: { digest, epoch, version },
    });
  }
}

function ifRefused(error: unknown): undefined {
  if (!isRefusal(error)) throw error;
}
