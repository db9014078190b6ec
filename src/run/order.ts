import * as v from "valibot";

import type { PickedUpRun } from "../driver/runs.ts";
import { RunnerError } from "../error.ts";
import type { Goal } from "../plan/plan.ts";
import type { RunRequest } from "./request.ts";

const direction = v.picklist(["up", "down"]);
const duration = v.pipe(v.number(), v.minValue(0));
const orderSchema = v.object({
  goal: v.variant("kind", [
    v.object({ kind: v.literal("latest") }),
    v.object({ kind: v.literal("steps"), direction, count: v.number() }),
    v.object({
      kind: v.literal("version"),
      version: v.string(),
      allow: v.picklist(["up", "down", "both"]),
    }),
    v.object({ kind: v.literal("redo") }),
  ]),
  plan: v.nullable(v.string()),
  limits: v.object({
    waitMs: duration,
    lockTimeoutMs: duration,
    statementTimeoutMs: duration,
    deadlineMs: duration,
  }),
  onFailure: v.optional(v.picklist(["keep", "rollback"])),
  allow: v.optional(v.array(v.picklist(["breaking"]))),
  traceparent: v.optional(v.string()),
  isPinned: v.optional(v.boolean(), true),
});

/** What of a request another process needs, beside the run's row, to go on with the run. */
type RunOrder = v.InferInput<typeof orderSchema>;

/** The order of a request, for `NewRun.order`. */
export function orderOf(
  request: Pick<RunRequest, "goal" | "release" | "plan" | "limits" | "onFailure" | "allow" | "traceparent">,
): RunOrder {
  const { goal, release, plan, limits, onFailure, allow, traceparent } = request;
  return {
    goal,
    plan,
    limits,
    ...(onFailure === undefined ? {} : { onFailure }),
    ...(allow === undefined ? {} : { allow: [...allow] }),
    ...(traceparent === undefined ? {} : { traceparent }),
    // An approved plan is of the release that it was made from.
    isPinned: release !== null || plan !== null,
  };
}

/**
 * The request that goes on with a run where its last executor left it: the release that was asked for, or has begun, the
 * same goal and caller, what is left of its deadline and of its wait.
 *
 * @throws RunnerError `INTERNAL` - the order is not one of ours: another version of this program wrote it
 */
export function requestOf({ run, order, ageMs, hasBegun }: PickedUpRun): RunRequest {
  const read = v.safeParse(orderSchema, order);
  if (!read.success) {
    throw new RunnerError("INTERNAL", `run ${run.id} cannot be continued by this version of lockkeeper`, {
      hint: "run the version that took it, or cancel it and ask for a new run",
      fields: { run: run.id },
    });
  }
  const { goal, plan, limits, onFailure, allow, traceparent, isPinned } = read.output;
  const { deadlineMs, waitMs } = limits;
  return {
    id: run.id,
    action: run.action,
    goal: hasBegun ? remaining(goal, run) : goal,
    // One that was only looked at may have been followed by a newer one since.
    release: isPinned || hasBegun ? run.releaseDigest : null,
    plan,
    trigger: run.trigger,
    caller: run.caller,
    labels: run.labels,
    limits: {
      ...limits,
      // Executors who only wait must not pass a run on for ever; one that has begun is waited for by its own successor.
      waitMs: hasBegun ? waitMs : Math.max(0, waitMs - ageMs),
      deadlineMs: deadlineMs === 0 ? 0 : Math.max(1, deadlineMs - ageMs),
    },
    ...(onFailure === undefined ? {} : { onFailure }),
    ...(allow === undefined ? {} : { allow }),
    ...(traceparent === undefined ? {} : { traceparent }),
    isAccepted: true,
    resumed: {
      attempt: run.attempt,
      hasBegun,
      fromVersion: run.fromVersion,
      isCanceled: run.cancelRequested,
      isLate: deadlineMs > 0 && ageMs >= deadlineMs,
    },
  };
}

/** Once begun, a goal that counts from where the database stood is the version that it led to. */
function remaining(goal: Goal, { toVersion, progress }: PickedUpRun["run"]): Goal {
  switch (goal.kind) {
    case "latest":
    case "version":
      return goal;
    case "redo":
      // Before the migration was taken back, its version is where the database is.
      return progress.applied === 0 ? goal : { kind: "version", version: toVersion ?? "0", allow: "both" };
    case "steps":
      return { kind: "version", version: toVersion ?? "0", allow: "both" };
  }
}
