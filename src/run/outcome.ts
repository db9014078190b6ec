import type { RunnerError } from "../error.ts";
import type { RunEvent } from "../executor/event.ts";
import type { EntryError } from "../history/entry.ts";
import type { RunOutcome } from "../history/run.ts";

/** A stop that was asked for, and no fault. */
export function isStop({ code }: RunnerError): boolean {
  return code === "CANCELED" || code === "DEADLINE" || code === "HANDED_OVER";
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
