import type { ObservedRun } from "./observer.ts";
import type { RunRequest } from "./request.ts";
import type { Target } from "./target.ts";

/** What observers are told of a run as it begins. */
export function observedRun(
  { id, action, trigger, caller, labels, resumed, traceparent }: RunRequest,
  { name, stream, environment }: Target,
  startedAt: Date,
): ObservedRun {
  return {
    id,
    action,
    trigger,
    caller,
    labels,
    earlierAttempts: resumed?.attempt ?? 0,
    target: name,
    stream,
    environment,
    ...(traceparent === undefined ? {} : { traceparent }),
    startedAt,
  };
}
