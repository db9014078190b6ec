import { RunnerError, toRunnerError } from "../error.ts";
import type { RunEvent } from "../executor/event.ts";
import type { EntryError } from "../history/entry.ts";
import type { RunOutcome } from "../history/run.ts";

/** A stop that was asked for, and no fault. */
export function isStop({ code }: RunnerError): boolean {
  return code === "CANCELED" || code === "DEADLINE" || code === "HANDED_OVER";
}

/**
 * Why a run stopped. An abort surfaces as whatever the interrupted call throws; the signal's reason is what happened.
 */
export function whatStopped(cause: unknown, signal: AbortSignal): RunnerError {
  const isWord = cause instanceof RunnerError;
  if (isWord && cause.code !== "DATABASE_UNAVAILABLE" && cause.code !== "SOURCE_UNAVAILABLE") return cause;
  if (!signal.aborted) return toRunnerError(cause);
  if (signal.reason instanceof RunnerError) return signal.reason;
  return new RunnerError("CANCELED", "the run was interrupted", {
    hint: "run again to go on where it stopped",
    cause,
  });
}

/** What a run that failed came to. */
export function outcomeOf(error: RunnerError, hasBegun: boolean): RunOutcome {
  if (error.code === "NEEDS_ATTENTION") return "needs_attention";
  return !hasBegun && (error.exit === 20 || error.exit === 2) ? "refused" : "failed";
}

/** An error as the history and a run keep it. */
export function entryError(error: RunnerError): EntryError {
  return { code: error.code, message: error.message, hint: error.hint ?? null, fields: error.fields };
}

/** What of an error a program counts and a monitor asks for; no message. */
export function shortError({
  code,
  retryable,
  fields: { sqlstate },
}: RunnerError): Extract<RunEvent, { readonly kind: "run.done" }>["error"] {
  return { code, retryable, sqlstate: typeof sqlstate === "string" ? sqlstate : null };
}
