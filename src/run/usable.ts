import type { StreamState } from "../driver/driver.ts";
import { RunnerError } from "../error.ts";
import type { Release } from "../release/release.ts";

/** What of a target decides whether a release may be used on its database. */
export interface Usage {
  readonly name: string;
  readonly environment: string;
}

/** Environments that take signed releases only. */
export const protectedEnvironments: ReadonlySet<string> = new Set(["production"]);

/** milliseconds between the database's clock and ours, above which no expiry can be judged */
const maxClockSkewMs = 5 * 60_000;

/**
 * Judges a release against what the database remembers, beyond its own signatures.
 *
 * @throws RunnerError `PAUSED`, `WRONG_ENVIRONMENT`, `UNSIGNED_REFUSED`, `CLOCK_SKEW`
 */
export function assertUsable(
  release: Release | undefined,
  state: StreamState,
  usage: Usage,
  now = new Date(),
): void {
  if (state.paused) {
    throw new RunnerError("PAUSED", `stream of target "${usage.name}" is paused in the database`, {
      hint: "set paused = false in its row of lockkeeper.streams to go on",
    });
  }
  if (state.environment !== null && state.environment !== usage.environment) {
    throw new RunnerError(
      "WRONG_ENVIRONMENT",
      `the database belongs to environment "${state.environment}", the run is for "${usage.environment}"`,
      {
        hint: "check the database URL, or correct --environment",
        fields: { expected: state.environment, actual: usage.environment },
      },
    );
  }
  if (release?.kind === "plain") assertMayBeUnsigned(state, usage);
  const skewMs = Math.abs(state.now.getTime() - now.getTime());
  if (skewMs > maxClockSkewMs) {
    throw new RunnerError(
      "CLOCK_SKEW",
      `the database's clock and this machine's differ by ${Math.round(skewMs / 1000)} s`,
      {
        hint: "correct the clocks: whether a release has expired cannot be judged",
      },
    );
  }
}

function assertMayBeUnsigned(state: StreamState, usage: Usage): void {
  if (state.highWaterMark !== null) {
    throw new RunnerError(
      "UNSIGNED_REFUSED",
      "the database has had a signed release, so it takes no unsigned folder any more",
      {
        hint: "publish the folder as a signed release",
      },
    );
  }
  if (protectedEnvironments.has(usage.environment)) {
    throw new RunnerError(
      "UNSIGNED_REFUSED",
      `environment "${usage.environment}" takes signed releases only`,
      {
        hint: "publish the folder as a signed release",
      },
    );
  }
}
