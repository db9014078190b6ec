import type { RunResult } from "../executor/result.ts";
import { formatDuration } from "../report/duration.ts";
import { withoutAddress } from "../report/without-address.ts";
import { entryError } from "../run/outcome.ts";
import type { ObservedRun } from "../run/observer.ts";

/** What somebody may want to be told of. A run that finds nothing to do is no news. */
export const notificationKinds = ["started", "succeeded", "failed", "refused", "attention"] as const;

/** One of {@link notificationKinds}. */
export type NotificationKind = (typeof notificationKinds)[number];

/** One piece of news about a run. */
export interface Notification {
  /** `<run>:<kind>`, the same each time it is sent */
  readonly id: string;
  readonly kind: NotificationKind;
  readonly at: Date;
  readonly run: ObservedRun;
  /** null as long as the run goes on */
  readonly result: RunResult | null;
}

/** What a run that has ended is to people; undefined for one that did nothing, or that others go on with. */
export function kindOf({ status, outcome }: RunResult, hasBegun: boolean): NotificationKind | undefined {
  switch (status) {
    case "handing_over":
      return undefined;
    case "canceled":
      return hasBegun ? "failed" : undefined;
    case "succeeded":
      return outcome === "noop" ? undefined : "succeeded";
    case "failed":
      if (outcome === "needs_attention") return "attention";
      return outcome === "refused" ? "refused" : "failed";
  }
}

/** `orders-prod: migration failed`: what happened, in a few words. */
export function headline({ kind, run, result }: Notification): string {
  const words = {
    started: run.action === "rollback" ? "rollback begins" : "migration begins",
    succeeded: result?.outcome === "rolled_back" ? "rolled back" : "migrated",
    failed: result?.status === "canceled" ? "migration stopped" : "migration failed",
    refused: "release refused",
    attention: "migration needs a person",
  } as const satisfies Record<NotificationKind, string>;
  return `${run.target}: ${words[kind]}`;
}

/** `38 → 42, 4 steps in 12.3 s`, or why not; one line. */
export function summary({ run, result }: Notification): string {
  if (result === null) return `run ${run.id}, asked for by ${run.caller.subject}`;
  const { done, left, durationMs } = result;
  const took = formatDuration(durationMs);
  const error = errorOf(result);
  if (error !== null) return oneLine(`${error.code}: ${error.message}${left === 0 ? "" : `; ${left} left`}`);
  const steps = `${done.length} ${done.length === 1 ? "step" : "steps"}`;
  return `${result.from?.version ?? "0"} → ${result.to?.version ?? "0"}, ${steps} in ${took}`;
}

/** Why a run did not succeed, as callers are told it: where databases, buckets and secrets are is for the log. */
export function errorOf({ error }: RunResult): ReturnType<typeof entryError> | null {
  if (error === null) return null;
  const { message, hint, ...rest } = entryError(error);
  return { ...rest, message: withoutAddress(message), hint: hint === null ? null : withoutAddress(hint) };
}

/** Where the pipeline that asked for the run can be looked at, if it said so in a label. */
export function pipelineUrl({ run }: Notification): string | undefined {
  const url = URL.parse(run.labels["pipelineUrl"] ?? "");
  return url?.protocol === "https:" && url.username === "" && url.password === "" ? url.href : undefined;
}

/** Cut to so many characters, never in the middle of one. */
export function cut(text: string, characters: number): string {
  const all = [...text];
  return all.length <= characters ? text : `${all.slice(0, characters - 1).join("")}…`;
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, " ");
}
