import type { Hono } from "hono";
import * as v from "valibot";
import { RunnerError } from "../../error.ts";
import { authorize } from "../auth/access.ts";
import { decide } from "../auth/decision.ts";
import { readQuery } from "../body.ts";
import type { HttpEnv, HttpParts } from "../context.ts";
import { within } from "../../dispatch/patience.ts";
import { readTarget, summarizeTarget } from "../target-view.ts";

/** `GET /v1/targets`, those that the caller may look at, and `GET /v1/targets/{name}`. */
export function addTargetRoutes(app: Hono<HttpEnv>, parts: HttpParts): void {
  app.get("/v1/targets", (c) => {
    readQuery(c, v.strictObject({}));
    const rules = c.get("rules");
    if (rules.length === 0) {
      throw new RunnerError("NOT_ALLOWED", "no rule of the policy matches this caller", {
        hint: "compare the token's claims with the rules for its issuer",
      });
    }
    const visible = [...parts.targets.values()].filter(
      (target) =>
        decide(rules, { action: "status", target: target.name, environment: undefined, hasDigest: true })
          .kind === "allowed",
    );
    return c.json({ targets: visible.map((target) => summarizeTarget(target, parts.links)) });
  });
  app.get("/v1/targets/:name", async (c) => {
    const { target } = authorize(c, parts, { action: "status", target: c.req.param("name") });
    readQuery(c, v.strictObject({}));
    const look = (signal: AbortSignal): Promise<object> =>
      parts.turns.look.take(() => readTarget(target, parts, signal), signal);
    return c.json(await within(parts.limits.readMs, look, c.req.raw.signal));
  });
}
