import { createHash } from "node:crypto";
import type { Hono } from "hono";
import * as v from "valibot";
import { RunnerError } from "../../error.ts";
import type { RunRecord } from "../../history/run.ts";
import type { Goal } from "../../plan/plan.ts";
import { orderOf } from "../../run/order.ts";
import { newRunId, type Target } from "../../runner.ts";
import type { RunOrder } from "../active-runs.ts";
import { answerBegun, answerGate } from "../answer.ts";
import { authorize, type Access } from "../auth/access.ts";
import { readBody, readQuery } from "../body.ts";
import type { HttpContext, HttpEnv, HttpParts } from "../context.ts";
import { inspect } from "../inspect.ts";
import { parseIdempotencyKey, parsePrefer } from "../prefer.ts";
import { parseIsoDuration, runRequestSchema, type RunBody } from "../run-request.ts";
import { waitForEnd } from "../watch.ts";
import { isWatchable, whileWatching } from "../watching.ts";

/** In environments of this name a release is only applied when the caller names its digest, so that a bucket cannot choose which. */
const digestRequiredIn = "production";

/** `POST /v1/runs`: the one request that changes a database. */
export function addPostRunRoute(app: Hono<HttpEnv>, parts: HttpParts): void {
  app.post("/v1/runs", async (c) => {
    const { gate } = readQuery(
      c,
      v.strictObject({ gate: v.optional(v.picklist(["0", "1"], "has to be 1"), "0") }),
    );
    const idempotencyKey = parseIdempotencyKey(c.req.header("idempotency-key"));
    const { waitMs, applied } = parsePrefer(c.req.header("prefer"), parts.limits);
    const body = await readBody(c, parts, runRequestSchema);
    const access = allow(c, parts, body.value);

    if (!isChange(body.value)) return inspect(c, parts, access.target, body.value);

    const order = runOrderOf(c, body.value, access, { bodyDigest: body.digest, idempotencyKey });
    const begun = await parts.active.begin(order, access.target);
    const runId = begun.kind === "here" ? begun.runId : begun.run.id;
    c.get("note")["run"] = runId;
    const run = await runAfter(isWatchable(parts) ? waitMs : 0, runId, access.target, c, parts);
    if (applied !== undefined) c.header("preference-applied", applied);
    return gate === "1" ? answerGate(c, run, parts) : answerBegun(c, run, parts);
  });
}

/** The run has begun, so also where nobody more can wait for it the answer is the run. */
function runAfter(
  waitMs: number,
  runId: string,
  target: Target,
  c: HttpContext,
  parts: HttpParts,
): Promise<RunRecord> {
  const wait = (signal: AbortSignal): Promise<RunRecord> =>
    waitForEnd(target, runId, waitMs, { active: parts.active, limits: parts.limits, signal });
  return waitMs === 0 ? wait(parts.signal) : whileWatching(c, parts, wait);
}

/** A request that changes something, unlike one that only looks. */
type ChangeBody = RunBody & { readonly action: "apply" | "rollback" };

function isChange(body: RunBody): body is ChangeBody {
  return body.action === "apply" || body.action === "rollback";
}

function allow(c: HttpContext, parts: HttpParts, body: RunBody): Access {
  const hasDigest = body.release !== null || !isChange(body);
  const access = authorize(c, parts, { action: body.action, target: body.target, hasDigest });
  if (!hasDigest && access.target.environment === digestRequiredIn) {
    throw new RunnerError(
      "DIGEST_REQUIRED",
      `"${body.target}" is a ${digestRequiredIn} database: name the release's digest`,
      {
        hint: 'send "release":{"digest":"sha256:…"} as `lockkeeper publish` printed it',
      },
    );
  }
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
      throw new RunnerError("RATE_LIMITED", `rule "${rule.id}" allows ${rule.perHour} requests an hour`, {
        hint: `try again in ${seconds} s`,
        fields: { retryAfterSeconds: seconds },
      });
    }
  }
  return access;
}

function runOrderOf(
  c: HttpContext,
  body: ChangeBody,
  { target, rule }: Access,
  given: { readonly bodyDigest: string; readonly idempotencyKey: string | null },
): RunOrder {
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
    trigger: "http",
    caller,
    labels: body.labels,
    limits: { ...target.limits, deadlineMs: shorter(target.limits.deadlineMs, deadlineMs ?? 0) },
    ...(body.onFailure === null ? {} : { onFailure: body.onFailure }),
    ...(body.allow === null ? {} : { allow: body.allow }),
    isAccepted: true,
  } as const;
  return {
    request,
    record: {
      id,
      target: target.name,
      stream: target.stream,
      action: body.action,
      trigger: "http",
      caller,
      releaseDigest: release,
      labels: body.labels,
      order: orderOf(request),
      idempotencyKey: given.idempotencyKey === null ? null : scopedKey(caller, given.idempotencyKey),
      bodyDigest: given.bodyDigest,
      singleUse: { issuer: principal.issuer, jti: principal.jti, expiresAt: principal.expiresAt },
    },
    // Without a digest, what is newest may have changed since the other run looked: such runs only wait for each other.
    sameAs:
      release === null
        ? null
        : JSON.stringify([target.name, body.action, release, body.to, body.plan, body.onFailure, body.allow]),
  };
}

function goalOf(body: ChangeBody): Goal {
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
