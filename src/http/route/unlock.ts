import type { Hono } from "hono";
import type { RunEvent } from "../../executor/event.ts";
import { unlock } from "../../run/by-hand.ts";
import { recordAllowed } from "../audited.ts";
import { authorize } from "../auth/access.ts";
import { readBody } from "../body.ts";
import type { HttpEnv, HttpParts } from "../context.ts";
import { recordOf } from "../../report/log.ts";
import { within } from "../../dispatch/patience.ts";
import { unlockSchema } from "../run-request.ts";
import { spendToken } from "../spend-token.ts";

/**
 * `POST /v1/targets/{name}/unlock`: takes the lease from a run whose process died. Refused with `LEASE_ALIVE` while the
 * lease still runs; nobody needs it then, and after its end any new run takes over by itself.
 */
export function addUnlockRoute(app: Hono<HttpEnv>, parts: HttpParts): void {
  app.post("/v1/targets/:name/unlock", async (c) => {
    const access = authorize(c, parts, { action: "unlock", target: c.req.param("name") });
    const { value, digest: bodyDigest } = await readBody(c, parts, unlockSchema);
    c.get("note")["run"] = value.run;
    const { target, rule } = access;
    const { run, reason } = value;
    await within(parts.limits.readMs, (signal) =>
      spendToken(c, parts, target, { act: "unlock", runId: run, bodyDigest }, signal),
    );
    await recordAllowed(c, parts, "unlock", access, { run, reason });
    const { issuer, subject } = c.get("principal");
    const by = { reason, caller: { issuer, subject, rule: rule.id }, trigger: "http" } as const;
    const emit = (event: RunEvent): void => parts.log(recordOf(event, run, target.name));
    const { result } = await within(parts.limits.readMs, (signal) =>
      unlock(run, by, target, { signal, emit, now: parts.now }),
    );
    const { token } = result;
    return c.json({ target: target.name, run, token });
  });
}
