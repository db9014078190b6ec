import type { Hono } from "hono";
import { RunnerError } from "../../error.ts";
import { recordAllowed } from "../audited.ts";
import { authorize, targetOfRun, unknownRun } from "../auth/access.ts";
import { readBody } from "../body.ts";
import type { HttpEnv, HttpParts } from "../context.ts";
import { within } from "../../dispatch/patience.ts";
import { problemOf, problemResponse } from "../problem.ts";
import { cancelSchema } from "../run-request.ts";
import { spendToken } from "../spend-token.ts";
import { viewRun } from "../view.ts";

/**
 * `POST /v1/runs/{id}/cancel`: asks the run to stop at its next safe point. Through the database, so whichever process
 * executes it hears of it; this one at once, another at its next heartbeat.
 */
export function addCancelRoute(app: Hono<HttpEnv>, parts: HttpParts): void {
  app.post("/v1/runs/:id/cancel", async (c) => {
    const id = c.req.param("id");
    const access = authorize(c, parts, { action: "cancel", target: targetOfRun(id) }, { run: id });
    c.get("note")["run"] = id;
    const { value, digest: bodyDigest } = await readBody(c, parts, cancelSchema);
    const { target } = access;
    const before = await within(parts.limits.readMs, (signal) => target.driver.run(id, signal));
    if (before === undefined) throw unknownRun(id);
    await within(parts.limits.readMs, (signal) =>
      spendToken(c, parts, target, { act: "cancel", runId: id, bodyDigest }, signal),
    );
    await recordAllowed(c, parts, "cancel", access, { run: id, reason: value.reason });
    const isAsked = await within(parts.limits.readMs, (signal) =>
      target.driver.requestCancel(id, value.reason, signal),
    );
    if (isAsked) parts.active.cancel(id, value.reason);
    const run = await within(parts.limits.readMs, (signal) => target.driver.run(id, signal));
    if (run === undefined) throw unknownRun(id);
    if (!isAsked) {
      const ended = new RunnerError("RUN_ENDED", `the run has ended: ${run.status}`, {
        fields: { status: run.status, outcome: run.outcome },
      });
      return problemResponse(
        problemOf(ended, {
          run: id,
          target: target.name,
          links: { run: parts.links.run(id) },
          requestId: c.get("requestId"),
        }),
      );
    }
    return c.json(viewRun(run, parts.links), 202);
  });
}
