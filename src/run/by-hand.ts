import { type AuditFacts, nothingRequested } from "../audit/record.ts";
import { recorded } from "../audit/write.ts";
import type { Driver, TrustReset } from "../driver/driver.ts";
import type { AuditLink } from "../history/audit.ts";
import type { HighWaterMark } from "../release/release.ts";
import type { Declaration } from "./declare.ts";
import type { RunOptions } from "./request.ts";

/** A stream, and how whoever asks calls it. */
export interface Place {
  /** of the target, or of the stream where there is no target */
  readonly name: string;
  readonly stream: string;
  readonly driver: Driver;
}

/** What came of something that a person did to a stream outside of any run, with its link in the audit log. */
export interface DoneByHand<T> {
  readonly result: T;
  readonly audit: AuditLink;
}

/**
 * Takes the lease from a run whose process died.
 *
 * @throws RunnerError `LEASE_ALIVE`, `UNKNOWN_RUN` - as of `Driver.unlock`; `AUDIT_UNAVAILABLE`
 */
export function unlock(
  run: string,
  by: Declaration,
  place: Place,
  options: RunOptions,
): Promise<DoneByHand<{ readonly token: number }>> {
  return byHand(
    { event: "unlocked", action: "unlock", run },
    { by, place, options },
    () => place.driver.unlock(place.stream, run, by.reason, options.signal),
    (_, before) => ({ highWaterMark: { before, after: before } }),
  );
}

/**
 * Sets or ends the pause of a stream; the result is whether that changed anything.
 *
 * @throws RunnerError `AUDIT_UNAVAILABLE`, `DATABASE_…`
 */
export function setPaused(
  paused: boolean,
  by: Declaration,
  place: Place,
  options: RunOptions,
): Promise<DoneByHand<boolean>> {
  return byHand(
    paused ? { event: "paused", action: "pause" } : { event: "resumed", action: "resume" },
    { by, place, options },
    () => place.driver.setPaused(place.stream, paused, options.signal),
    (isChanged, before) => ({
      outcome: isChanged ? "done" : "noop",
      highWaterMark: { before, after: before },
    }),
  );
}

/**
 * Forgets what keeps a stream from taking other trust than it had: its roots, and with `releases` its high-water mark.
 *
 * @throws RunnerError `LEASE_HELD` - a run is on its way; `AUDIT_UNAVAILABLE`
 */
export function resetTrust(
  what: { readonly releases: boolean },
  by: Declaration,
  place: Place,
  options: RunOptions,
): Promise<DoneByHand<TrustReset>> {
  return byHand(
    {
      event: "trust.reset",
      action: "trust reset",
      requested: { ...nothingRequested, goal: what.releases ? "roots and releases" : "roots" },
    },
    { by, place, options },
    () => place.driver.resetTrust(place.stream, what, options.signal),
    (_, before) => ({ highWaterMark: { before, after: what.releases ? null : before } }),
  );
}

async function byHand<T>(
  what: Pick<AuditFacts, "event" | "action" | "run" | "requested">,
  { by, place, options }: { readonly by: Declaration; readonly place: Place; readonly options: RunOptions },
  act: () => Promise<T>,
  learned: (result: T, before: HighWaterMark | null) => Partial<AuditFacts>,
): Promise<DoneByHand<T>> {
  const { name, stream, driver } = place;
  const { signal, now, emit } = options;
  const { environment, rootVersion, highWaterMark, position } = await driver.state(stream, signal);
  const facts: AuditFacts = {
    ...what,
    target: name,
    stream,
    environment,
    trigger: by.trigger,
    principal: { ...by.caller, claims: {} },
    reason: by.reason === "" ? null : by.reason,
    rootVersion,
    highWaterMark: { before: highWaterMark, after: null },
    from: position.version,
    to: position.version,
  };
  const { result, link } = await recorded(
    driver.audit,
    facts,
    { signal, now, onEntry: (entry) => emit({ kind: "audit", ...entry }) },
    act,
    (done) => learned(done, highWaterMark),
  );
  return { result, audit: link };
}
