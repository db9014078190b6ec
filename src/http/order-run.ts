import { createHash } from "node:crypto";
import type { RunRecord } from "../history/run.ts";
import type { Goal } from "../plan/plan.ts";
import { orderOf } from "../run/order.ts";
import { goalText } from "../run/audit-trail.ts";
import { parseTraceParent } from "../run/trace-parent.ts";
import { assertNotPaused } from "../run/usable.ts";
import { newRunId } from "../runner.ts";
import { runOf, type RunOrder } from "../dispatch/begun.ts";
import { pendingAllowed, recordAllowed } from "./audited.ts";
import { authorize, rateLimited, type Access } from "./auth/access.ts";
import { needsDigest } from "./auth/decision.ts";
import type { HttpContext, HttpParts } from "./context.ts";
import { parseIsoDuration, type RunBody } from "./run-request.ts";
import { mayWatch, runAfter } from "./watching.ts";

/** What of a request for a run is not in its body. */
export interface OrderedBy {
  /** `http`: somebody asks; `event`: something happened, and what starts by itself is held back where it should be */
  readonly trigger: "http" | "event";
  /** `sha256:…`, of what makes two requests the same */
  readonly bodyDigest: string;
  readonly idempotencyKey: string | null;
}

/** What a caller wants changed, and may. */
interface Wanted {
  readonly body: ChangeBody;
  readonly access: Access;
  readonly by: OrderedBy;
}

/** A request that changes something, unlike one that only looks. */
export type ChangeBody = RunBody & { readonly action: "apply" | "rollback" };

/** Whether a request changes something. */
export function isChange(body: RunBody): body is ChangeBody {
  return needsDigest(body.action);
}

/**
 * Lets the caller through to what a request asks for, within the rule's limit, or refuses.
 *
 * @throws RunnerError what {@link authorize} throws, `RATE_LIMITED`
 */
export function allowRun(c: HttpContext, parts: HttpParts, body: RunBody): Access {
  const hasDigest = body.release !== null || !isChange(body);
  const digest = body.release?.digest ?? null;
  const { plan, onFailure, allow } = body;
  c.set("requested", { goal: goalText(goalOf(body)), digest, plan, onFailure, allow: allow ?? [] });
  const access = authorize(c, parts, { action: body.action, target: body.target, hasDigest });
  // Down files take away what a caller may only be allowed to add; where the operator wants that, it is not the caller's doing.
  if (body.onFailure === "rollback" && access.target.onFailure !== "rollback") {
    authorize(c, parts, { action: "rollback", target: body.target, hasDigest });
    c.get("note")["rule"] = access.rule.id;
  }
  const { rule } = access;
  if (rule.perHour !== null && body.action !== "status") {
    const { issuer, subject } = c.get("principal");
    const seconds = parts.rateLimit.take(
      JSON.stringify([rule.id, issuer, subject, body.target]),
      rule.perHour,
      parts.now(),
    );
    if (seconds > 0) {
      throw rateLimited(`rule "${rule.id}" allows ${rule.perHour} requests an hour`, seconds);
    }
  }
  return access;
}

/**
 * Records what was asked for and begins it, or finds the run that the same request began; waits for its end for a while.
 *
 * @throws RunnerError `PAUSED`, `REPLAY`, `IDEMPOTENCY_MISMATCH`, `RATE_LIMITED`, `STOPPING`, `AUDIT_UNAVAILABLE`, `DATABASE_…`
 */
export async function beginRun(
  c: HttpContext,
  parts: HttpParts,
  wanted: Wanted,
  waitMs: number,
): Promise<RunRecord> {
  const { target } = wanted.access;
  assertNotPaused(target);
  const order = runOrderOf(c, parts, wanted);
  const begun = await parts.active.begin(order, target);
  const runId = runOf(begun);
  c.get("note")["run"] = runId;
  if (begun.kind === "ended") return begun.run;
  // The run has begun, so also where nobody more can wait for it the answer is the run.
  return runAfter(mayWatch(c, parts) ? waitMs : 0, runId, target, c, parts);
}

function runOrderOf(c: HttpContext, parts: HttpParts, { body, access, by: given }: Wanted): RunOrder {
  const { target, rule } = access;
  const principal = c.get("principal");
  const id = newRunId(target.name);
  const caller = { issuer: principal.issuer, subject: principal.subject, rule: rule.id };
  const release = body.release?.digest ?? null;
  const deadlineMs = body.deadline === null ? undefined : parseIsoDuration(body.deadline);
  const request = {
    id,
    action: body.action,
    goal: goalOf(body),
    release,
    plan: body.plan,
    trigger: given.trigger,
    caller,
    labels: body.labels,
    limits: { ...target.limits, deadlineMs: shorter(target.limits.deadlineMs, deadlineMs ?? 0) },
    ...(body.onFailure === null ? {} : { onFailure: body.onFailure }),
    ...(body.allow === null ? {} : { allow: body.allow }),
    ...traceOf(c),
    isAccepted: true,
  } as const;
  return {
    request,
    record: {
      id,
      target: target.name,
      stream: target.stream,
      action: body.action,
      trigger: given.trigger,
      caller,
      releaseDigest: release,
      labels: body.labels,
      order: orderOf(request),
      idempotencyKey: given.idempotencyKey === null ? null : scopedKey(caller, given.idempotencyKey),
      bodyDigest: given.bodyDigest,
      singleUse: { issuer: principal.issuer, jti: principal.jti, expiresAt: principal.expiresAt },
    },
    pendingAllowed: () => pendingAllowed(c, parts, body.action, access, { run: id, trigger: given.trigger }),
    recordAllowed: (runId, isNew) =>
      recordAllowed(c, parts, body.action, access, { run: runId, trigger: given.trigger }, isNew),
    // Without a digest, what is newest may have changed since the other run looked: such runs only wait for each other.
    sameAs:
      release === null
        ? null
        : JSON.stringify([
            given.trigger,
            target.name,
            body.action,
            release,
            body.to,
            body.plan,
            body.onFailure,
            body.allow,
          ]),
  };
}

/** The caller's place in a trace; nothing for what is no `traceparent`, as if it had not been sent. */
export function traceOf(c: HttpContext): { readonly traceparent?: string } {
  const traceparent = c.req.header("traceparent");
  return traceparent === undefined || parseTraceParent(traceparent) === undefined ? {} : { traceparent };
}

function goalOf(body: RunBody): Goal {
  if (body.to === null) return { kind: "latest" };
  return { kind: "version", version: body.to, allow: body.action === "rollback" ? "down" : "up" };
}

/** The shorter of two deadlines, where 0 is none. */
function shorter(a: number, b: number): number {
  return a === 0 || b === 0 ? Math.max(a, b) : Math.min(a, b);
}

/** Keys are the callers' own words: two callers who choose the same one must not meet. */
function scopedKey(caller: { readonly issuer: string; readonly subject: string }, key: string): string {
  const scope = createHash("sha256")
    .update(JSON.stringify([caller.issuer, caller.subject]))
    .digest("hex")
    .slice(0, 16);
  return `${scope}:${key}`;
}
