import type { Hono } from "hono";
import { authorize } from "../auth/access.ts";
import { readBody } from "../body.ts";
import type { HttpEnv, HttpParts } from "../context.ts";
import { within } from "../patience.ts";
import { unlockSchema } from "../run-request.ts";

/**
 * `POST /v1/targets/{name}/unlock`: takes the lease from a run whose process died. Refused with `LEASE_ALIVE` while the
 * lease still runs; nobody needs it then, and after its end any new run takes over by itself.
 */
export function addUnlockRoute(app: Hono<HttpEnv>, parts: HttpParts): void {
  app.post("/v1/targets/:name/unlock", async (c) => {
    const { target } = authorize(c, parts, { action: "unlock", target: c.req.param("name") });
    const { value } = await readBody(c, parts, unlockSchema);
    c.get("note")["run"] = value.run;
    const { token } = await within(parts.limits.readMs, (signal) =>
      target.driver.unlock(target.stream, value.run, value.reason, signal),
    );
    return c.json({ target: target.name, run: value.run, token });
  });
}
