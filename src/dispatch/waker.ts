import type { RunnerErrorCode } from "../error.ts";
import type { BucketEvent, EventPath } from "../event/event.ts";
import type { RunRecord } from "../history/run.ts";
import type { Target } from "../runner.ts";

/** What woke the runner, for history and audit log. */
export interface WokenBy {
  readonly trigger: "event" | "converge";
  readonly via: EventPath | "schedule";
  /** who proved to be the sender; for what a host's own permissions let through, `urn:lockkeeper:event:<via>` */
  readonly issuer: string;
  readonly subject: string;
  /** id of the policy's rule that allowed it; null where the host's permissions did */
  readonly rule: string | null;
  /** of the sender, so that its trace and the run's are linked; absent: it has none */
  readonly traceparent?: string;
  /**
   * Records that the policy allowed it, and which run came of it; absent where no policy was asked.
   *
   * @throws RunnerError `AUDIT_UNAVAILABLE` - then nothing may come of it
   */
  recordAllowed?(target: Target, runId: string, isNew: boolean): Promise<void>;
}

/** What became of one target that was woken. */
export type Woken = { readonly target: string } &
  /** it has what its bucket offers */
  (
    | { readonly kind: "up-to-date" }
    /** a run goes on, here or elsewhere, or has ended */
    | { readonly kind: "run"; readonly run: RunRecord | { readonly id: string } }
    /** nothing begins by itself: what the bucket offers failed before, is held back or paused */
    | { readonly kind: "left-alone"; readonly code: RunnerErrorCode }
    /** database or bucket could not be asked: worth another delivery */
    | { readonly kind: "unreachable"; readonly code: RunnerErrorCode }
  );

/** Brings targets to what their buckets offer, when something says that this may have changed. */
export interface Waker {
  /** Targets that watch one of the events' objects; events that nobody watches wake nobody. */
  wake(events: readonly BucketEvent[], by: WokenBy, signal: AbortSignal): Promise<readonly Woken[]>;
  /** One target, by whoever may wake this one. */
  wakeTarget(target: Target, by: WokenBy, signal: AbortSignal): Promise<Woken>;
  /** Every target: for what was lost on the way. */
  sweep(by: WokenBy, signal: AbortSignal): Promise<readonly Woken[]>;
}
