import type { Hono } from "hono";
import * as v from "valibot";
import type { RunQuery } from "../../driver/runs.ts";
import { isEnded, type RunRecord, type RunStatus } from "../../history/run.ts";
import { authorize, targetOfRun } from "../auth/access.ts";
import { readQuery, wholeNumber } from "../body.ts";
import type { HttpContext, HttpEnv, HttpParts } from "../context.ts";
import { answerRun, openRunHeaders } from "../answer.ts";
import { within } from "../../dispatch/patience.ts";
import { runId } from "../run-request.ts";
import { viewRun } from "../view.ts";
import { runAfter } from "../watching.ts";

const statuses = [
  "queued",
  "waiting_lock",
  "running",
  "handing_over",
  "canceling",
  "succeeded",
  "failed",
  "canceled",
] as const satisfies readonly RunStatus[];
const maxPage = 100;

/** `GET /v1/runs/{id}` and `GET /v1/runs`. */
export function addRunRoutes(app: Hono<HttpEnv>, parts: HttpParts): void {
  app.get("/v1/runs", (c) => listRuns(c, parts));
  app.get("/v1/runs/:id", async (c) => {
    const run = await watchedRun(c, parts);
    return answerRun(c, run, parts);
  });
}

/**
 * The run that the path names, if the caller may see it; waited for as long as `?wait=` says.
 *
 * @throws RunnerError `UNKNOWN_RUN`, `NOT_ALLOWED`, `INVALID_REQUEST`
 */
export async function watchedRun(c: HttpContext, parts: HttpParts): Promise<RunRecord> {
  const id = c.req.param("id") ?? "";
  const { target } = authorize(c, parts, { action: "status", target: targetOfRun(id) }, { run: id });
  c.get("note")["run"] = id;
  const { wait } = readQuery(c, v.strictObject({ wait: v.optional(wholeNumber(0, 3600), "0") }));
  const waitMs = Math.min(wait * 1000, parts.limits.maxWaitMs);
  return runAfter(waitMs, id, target, c, parts);
}

const listSchema = v.strictObject({
  target: v.string(),
  status: v.optional(v.picklist(statuses, `has to be one of ${statuses.join(", ")}`)),
  since: v.optional(
    v.pipe(
      v.string(),
      v.isoTimestamp("has to be a time like 2026-11-21T05:00:00Z"),
      v.transform((text) => new Date(text)),
    ),
  ),
  pageSize: v.optional(wholeNumber(1, maxPage), "20"),
  pageToken: v.optional(runId),
});

async function listRuns(c: HttpContext, parts: HttpParts): Promise<Response> {
  const { target: name, status, since, pageSize, pageToken } = readQuery(c, listSchema);
  const { target } = authorize(c, parts, { action: "status", target: name });
  const query: RunQuery = {
    target: name,
    limit: pageSize + 1,
    ...(status === undefined ? {} : { status }),
    ...(since === undefined ? {} : { since }),
    ...(pageToken === undefined ? {} : { beforeId: pageToken }),
  };
  const found = await within(
    parts.limits.readMs,
    (signal) => target.driver.runs(query, signal),
    c.req.raw.signal,
  );
  const page = found.slice(0, pageSize);
  const nextPageToken = found.length > pageSize ? (page.at(-1)?.id ?? null) : null;
  if (nextPageToken !== null) {
    const next = parts.links.runs({ ...c.req.query(), pageToken: nextPageToken });
    c.header("link", `<${next}>; rel="next"`);
  }
  const open = page.find((run) => !isEnded(run.status));
  if (open !== undefined) openRunHeaders(c);
  return c.json({ runs: page.map((run) => viewRun(run, parts.links)), nextPageToken });
}
