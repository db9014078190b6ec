import type { MiddlewareHandler } from "hono";
import { RunnerError } from "../../error.ts";
import type { HttpEnv, HttpParts } from "../context.ts";
import { rulesFor } from "./decision.ts";

/**
 * Lets only callers with a valid bearer token pass, and finds the policy's rules that know them.
 *
 * The token is read from `Authorization` alone: one in a query or a cookie would end in logs, or be sent by a browser unasked.
 */
export function authenticate(parts: HttpParts): MiddlewareHandler<HttpEnv> {
  return async (c, next) => {
    const token = /^Bearer +([^ ]+)$/i.exec(c.req.header("authorization") ?? "")?.[1] ?? "";
    try {
      const principal = await parts.verifier.verify(token);
      c.set("principal", principal);
      c.set("rules", rulesFor(parts.policy, principal.issuerName, principal.claims));
      Object.assign(c.get("note"), { issuer: principal.issuer, subject: principal.subject });
    } catch (error) {
      // The reason is for the log; its text is ours or the library's, which quotes claims' names but not the token.
      if (error instanceof RunnerError && error.cause instanceof Error)
        c.get("note")["reason"] = error.cause.message.slice(0, 300);
      throw error;
    }
    await next();
  };
}
