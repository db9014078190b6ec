import { createHash } from "node:crypto";
import { isEnded, type RunRecord } from "../history/run.ts";
import type { HttpContext, HttpParts } from "./context.ts";
import { problemOf, problemResponse } from "./problem.ts";
import { viewRun } from "./view.ts";

/** Seconds until a caller should look again at a run that is open. */
const retryAfterSeconds = "3";

/** Tells when to look again. */
export function openRunHeaders(c: HttpContext): void {
  c.header("retry-after", retryAfterSeconds);
}

/** A run as it is now: 200 whatever became of it, or 304 when the caller has seen just that. */
export function answerRun(c: HttpContext, run: RunRecord, parts: HttpParts): Response {
  const body = JSON.stringify(viewRun(run, parts.links));
  const etag = `"${createHash("sha256").update(body).digest("hex").slice(0, 32)}"`;
  c.header("etag", etag);
  if (!isEnded(run.status)) openRunHeaders(c);
  if (c.req.header("if-none-match") === etag) return c.body(null, 304);
  return c.body(body, 200, { "content-type": "application/json" });
}

/**
 * What the run that was asked for came to: 200 once it has ended, 202 while it goes on, both with its address.
 * A release that was refused is the caller's to mend and so a problem, with a link to the recorded run.
 */
export function answerBegun(c: HttpContext, run: RunRecord, parts: HttpParts): Response {
  if (!isEnded(run.status)) return answerOpen(c, run, parts);
  if (run.outcome === "refused" && run.error !== null) return problemOfRun(c, run, parts);
  return answerEnded(c, run, parts);
}

/** A run for callers that read only the status code: 200 succeeded, 202 open, 409 failed, refused or canceled. */
export function answerGate(c: HttpContext, run: RunRecord, parts: HttpParts): Response {
  if (!isEnded(run.status)) return answerOpen(c, run, parts);
  if (run.status === "succeeded") return answerEnded(c, run, parts);
  return problemOfRun(c, run, parts, 409);
}

/** With its address, too: some callers (Spinnaker) only ever look there. */
function answerEnded(c: HttpContext, run: RunRecord, parts: HttpParts): Response {
  c.header("location", parts.links.run(run.id));
  return c.json(viewRun(run, parts.links), 200);
}

function answerOpen(c: HttpContext, run: RunRecord, parts: HttpParts): Response {
  openRunHeaders(c);
  c.header("location", parts.links.run(run.id));
  return c.json(viewRun(run, parts.links), 202);
}

function problemOfRun(c: HttpContext, run: RunRecord, parts: HttpParts, status?: number): Response {
  const code = run.error?.code ?? "CANCELED";
  c.get("note")["code"] = code;
  const error = {
    code,
    message: run.error?.message ?? "the run was canceled",
    hint: run.error?.hint ?? undefined,
    fields: run.error?.fields ?? {},
  };
  const links = { run: parts.links.run(run.id), target: parts.links.target(run.target) };
  return problemResponse(
    problemOf(error, {
      target: run.target,
      run: run.id,
      links,
      requestId: c.get("requestId"),
      ...(status === undefined ? {} : { status }),
    }),
  );
}
