import type { MiddlewareHandler } from "hono";
import { RunnerError } from "../../error.ts";
import type { HttpContext, HttpEnv, HttpParts } from "../context.ts";
import { rulesFor } from "./decision.ts";
import { iamPrincipal } from "./iam.ts";
import type { TokenPrincipal } from "./principal.ts";

/** Below it callers prove who they are by a signature over their bytes, which the route checks. */
export const hookPaths = "/v1/hooks/";

/** Lets only callers pass who prove who they are, and finds the policy's rules that know them. */
export function authenticate(parts: HttpParts): MiddlewareHandler<HttpEnv> {
  return async (c, next) => {
    if (!c.req.path.startsWith(hookPaths)) await identify(c, parts);
    await next();
  };
}

/**
 * Finds who asks, and the policy's rules that know them.
 *
 * @throws RunnerError `UNAUTHENTICATED`
 */
export async function identify(c: HttpContext, parts: HttpParts): Promise<void> {
  try {
    const principal = await principalOf(c, parts);
    c.set("principal", principal);
    c.set("rules", rulesFor(parts.policy, principal.issuerName, principal.claims));
    Object.assign(c.get("note"), { issuer: principal.issuer, subject: principal.subject });
  } catch (error) {
    noteReason(c, error);
    throw error;
  }
}

/** The reason is for the log; its text is ours or the library's, which quotes claims' names but not the token. */
export function noteReason(c: HttpContext, error: unknown): void {
  if (error instanceof RunnerError && error.cause instanceof Error)
    c.get("note")["reason"] = error.cause.message.slice(0, 300);
}

/**
 * Who a gateway of AWS says it is, where one is configured; else by a bearer token.
 *
 * The token is read from `Authorization` alone: one in a query or a cookie would end in logs, or be sent by a browser unasked.
 */
async function principalOf(c: HttpContext, { policy, verifier, now }: HttpParts): Promise<TokenPrincipal> {
  // `c.env` is what the entry of the program was called with; a server on a socket has none
  const caller = policy.fronts.length === 0 ? undefined : iamPrincipal(policy.fronts, c.env?.event, now());
  if (caller !== undefined) return caller;
  const token = /^Bearer +([^ ]+)$/i.exec(c.req.header("authorization") ?? "")?.[1] ?? "";
  return verifier.verify(token);
}
