import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../error.ts";
import type { StatementCheckpoint } from "../history/entry.ts";
import type { Backfill } from "../migration/backfill.ts";
import type { BackfillMeter } from "./backfill-progress.ts";
import type { KeptLease } from "./lease-keeper.ts";
import type { StatementStep } from "./session.ts";

/** The ranges of a backfill, as one driver makes them. */
export interface Ranges<Bound> {
  readonly meter: BackfillMeter;
  /** Whether the throttle says that the database has too much to do. */
  isBusy(): Promise<boolean>;
  /** Runs the range up to `bound`; gives the next, or undefined behind the last. */
  follow(bound: Bound): Promise<Bound | undefined>;
}

/** milliseconds between two questions to the throttle: at least, and at most while the database stays busy */
const throttleMs = { least: 1_000, most: 10_000 };
/** ranges that were not full, one after the other, after which the rest is left: rows are added as fast as they are reached */
const shortRanges = 10;

/**
 * Runs one range after the other, with the pauses that the header asks for, while the throttle lets it.
 *
 * @throws whatever a range throws; the run's own reason when it is to stop
 */
export async function followRanges<Bound extends { readonly isFull: boolean }>(
  ranges: Ranges<Bound>,
  first: Bound | undefined,
  { pauseMs, throttle }: Backfill,
  kept: KeptLease,
): Promise<void> {
  let bound = first;
  let short = 0;
  let askedAt = -Infinity;
  while (bound !== undefined && short < shortRanges) {
    if (throttle !== undefined && performance.now() - askedAt >= throttleMs.least) {
      await untilCalm(ranges, kept);
      askedAt = performance.now();
    }
    short = bound.isFull ? 0 : short + 1;
    bound = await ranges.follow(bound);
    if (bound !== undefined && pauseMs > 0) await pause(kept, pauseMs);
  }
  ranges.meter.finished();
}

/** What an earlier attempt at the same statement along the same key has done; another one begins at the beginning. */
export function doneEarlier(
  step: StatementStep,
  checksum: string,
): Pick<Extract<StatementCheckpoint, { kind: "backfill" }>, "cursor" | "rows"> {
  const earlier = step.unfinished?.checkpoint;
  return earlier?.kind === "backfill" && earlier.sha256 === checksum ? earlier : { cursor: null, rows: 0 };
}

/** A release that calls a body a backfill whose file does not. */
export function notABackfill({ path, migration }: StatementStep): RunnerError {
  return new RunnerError(
    "BACKFILL",
    `the release lists "${path}" as a backfill, and its file has no such header`,
    {
      hint: "publish it anew",
      fields: { migration: path, version: migration.version },
    },
  );
}

async function untilCalm(ranges: Ranges<unknown>, kept: KeptLease): Promise<void> {
  let delayMs = throttleMs.least;
  while (await ranges.isBusy()) {
    ranges.meter.throttled();
    await pause(kept, delayMs * (0.75 + Math.random() / 4));
    delayMs = Math.min(delayMs * 2, throttleMs.most);
  }
}

/** Throws the run's own reason when it is to stop meanwhile. */
async function pause(kept: KeptLease, ms: number): Promise<void> {
  await sleep(ms, undefined, { signal: kept.signal }).catch(() => undefined);
  kept.assertTrusted();
}
