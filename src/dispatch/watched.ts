import type { BucketEvent } from "../event/event.ts";
import type { Target } from "../runner.ts";

/**
 * Targets that watch one of the events' objects, each once, in the order of the configuration. Compared exactly: what an
 * event says is never used as a place to look at.
 */
export function targetsOf(events: readonly BucketEvent[], targets: Iterable<Target>): readonly Target[] {
  return [...targets].filter(
    ({ watched }) => watched !== undefined && events.some((event) => isOf(event, watched)),
  );
}

function isOf(event: BucketEvent, watched: NonNullable<Target["watched"]>): boolean {
  return event.provider === watched.provider && event.bucket === watched.bucket && event.key === watched.key;
}
