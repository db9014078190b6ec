import type { MiddlewareHandler } from "hono";
import type { PendingDecision } from "../dispatch/begun.ts";
import { toRunnerError, type RunnerErrorCode } from "../error.ts";
import type { AllowedFacts, Asked, Asker } from "./audit.ts";
import type { Access } from "./auth/access.ts";
import { hookPaths } from "./auth/authentication.ts";
import type { Action } from "./auth/rule.ts";
import type { HttpContext, HttpEnv, HttpParts } from "./context.ts";

/** Records what was refused to a caller, once the answer is made. */
export function audited({ audit }: HttpParts): MiddlewareHandler<HttpEnv> {
  return async (c, next) => {
    await next();
    const asked = c.get("asked");
    if (asked !== undefined && c.error !== undefined)
      audit.refused(askerOf(c), asked, toRunnerError(c.error).code);
  };
}

/**
 * Records that the policy allows what the request is about to change.
 *
 * @param isNew - false: another request has begun it, and this one changes nothing
 * @throws RunnerError `AUDIT_UNAVAILABLE` - then it must not
 */
export function recordAllowed(
  c: HttpContext,
  { audit }: HttpParts,
  action: Action,
  access: Access,
  facts: AllowedFacts,
  isNew = true,
): Promise<void> {
  return audit.allowed(askerOf(c), action, access, facts, isNew);
}

/** The same record of what is new, for whoever adds it together with what it allows. */
export function pendingAllowed(
  c: HttpContext,
  { audit }: HttpParts,
  action: Action,
  access: Access,
  facts: AllowedFacts,
): PendingDecision {
  return audit.pending(askerOf(c), action, access, facts);
}

/** Records that the policy refuses a caller something, where the answer does not say so. */
export function recordRefused(
  c: HttpContext,
  { audit }: HttpParts,
  asked: Asked,
  code: RunnerErrorCode,
): void {
  audit.refused(askerOf(c), asked, code);
}

function askerOf(c: HttpContext): Asker {
  return {
    principal: c.get("principal"),
    rules: c.get("rules"),
    request: c.get("requestId"),
    trigger: c.req.path.startsWith("/v1/") && !c.req.path.startsWith(hookPaths) ? "http" : "event",
    sourceIp: c.env?.incoming?.socket.remoteAddress ?? null,
    requested: c.get("requested"),
  };
}
